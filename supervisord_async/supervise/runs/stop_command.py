"""``stop.command``: the program's own way to stop, instead of a signal; the signal follows if the command fails."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from supervisord_async import wire
from supervisord_async.errors import SpawnError
from supervisord_async.supervise.host import Host
from supervisord_async.supervise.records.masking import words_without_secrets
from supervisord_async.supervise.runs import run_spec
from supervisord_async.supervise.runs.output import Output
from supervisord_async.supervise.runs.run import Run
from supervisord_async.system.credentials import Credentials

_log = logging.getLogger(__name__)


async def run_stop_command(
    run: Run, command: tuple[str, ...], *, host: Host, output: Output, credentials: Callable[[], Awaitable[Credentials | None]]
) -> None:
    """Run the command as the program's user and in its environment, then wait until the main process has ended.

    Many such commands only ask (``kill -USR1``, ``curl …/shutdown``): after one that exited with 0 there is no signal, so that it
    has time to take effect, the whole grace period if need be. A failure is logged; then this returns while the main process lives.
    """
    name, program = run.context.name, run.context.program
    try:
        who = await credentials()
        environment = run.context.environment.for_side_command("stop")
        environment[wire.ENV_MAIN_PID] = str(run.child.pid)
        stdout, stderr = output.open(program.logs, who)
        spec = run_spec.spawn_spec(program, environment, who, stdout, stderr, argv=command)
        code = await host.run_command(spec, program.stop.grace_seconds)
    except SpawnError as error:
        words = words_without_secrets(str(error), program)
        _log.warning("%s: cannot run stop.command: %s; sending the stop signal", name, words)
    else:
        if code != 0:
            words = "did not end within the grace period" if code is None else f"exited with {code}"
            _log.warning("%s: stop.command %s; sending the stop signal", name, words)
        else:
            await run.wait_ended()
