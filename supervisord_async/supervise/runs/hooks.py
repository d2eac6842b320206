"""Commands beside a run: ``before_start``, ``stop.command`` and ``after_exit``, as the program's user and in the run's environment.

Each is bounded in time, and its output is in the program's log.
"""

from __future__ import annotations

import logging

import anyio

from supervisord_async import wire
from supervisord_async.config.model import Program
from supervisord_async.core.state import Cause
from supervisord_async.errors import SpawnError
from supervisord_async.supervise.host import Host
from supervisord_async.supervise.monitors.context import RunContext
from supervisord_async.supervise.records.masking import words_without_secrets
from supervisord_async.supervise.runs.command_output import command_output
from supervisord_async.supervise.runs.run_spec import RunEnvironment, spawn_spec
from supervisord_async.system import signals
from supervisord_async.system.child import Ended
from supervisord_async.system.credentials import Credentials

_log = logging.getLogger(__name__)

#: A hook that takes longer is killed and has failed.
HOOK_SECONDS = 60.0


async def run_before_start(host: Host, environment: RunEnvironment, command: tuple[str, ...], log: int) -> None:
    """Run the hook; its output goes to the descriptor ``log``.

    Raises SpawnError, stage ``hook``, where it failed, could not be run, or took too long.
    """
    try:
        variables = environment.for_side_command("hook")
        failure = await _run_hook(host, environment.program, command, variables, environment.credentials, log)
    except SpawnError as error:
        raise SpawnError("hook", None, f"cannot run before_start: {error}") from error
    if failure is not None:
        raise SpawnError("hook", None, f"before_start {failure}")


async def run_after_exit(context: RunContext, ended: Ended, cause: Cause) -> None:
    """Run the hook, if there is one; a failure is logged, also if it cannot be run (unknown user, no pipe)."""
    program, status = context.program, ended.status
    command = program.hooks.after_exit
    if command is None:
        return
    variables = context.environment.for_side_command("hook")
    variables |= {wire.ENV_CAUSE: str(cause), wire.ENV_MAIN_PID: str(context.child.pid)}
    if status.code is not None:
        variables[wire.ENV_EXIT_CODE] = str(status.code)
    elif status.signal is not None:
        variables[wire.ENV_EXIT_SIGNAL] = signals.name(status.signal)
    try:
        credentials = await context.host.credentials(program.user, program.group_name)
        log, _ = context.output.open(program.logs, credentials)
        failure = await _run_hook(context.host, program, command, variables, credentials, log)
    except SpawnError as error:
        failure = f"cannot be run: {error}"
    if failure is not None:
        _log.warning("%s: after_exit %s", context.name, words_without_secrets(failure, program))


async def run_stop_command(context: RunContext, command: tuple[str, ...]) -> bool:
    """Run ``stop.command``, the program's own way to stop, for a grace period at most; returns whether it succeeded, else logs why not."""
    program = context.program
    variables = context.environment.for_side_command("stop") | {wire.ENV_MAIN_PID: str(context.child.pid)}
    try:
        credentials = await context.host.credentials(program.user, program.group_name)
        stdout, stderr = context.output.open(program.logs, credentials)
        spec = spawn_spec(program, variables, credentials, stdout, stderr, argv=command)
        code = await context.host.run_command(spec, program.stop.grace_seconds)
    except SpawnError as error:
        failure = f"cannot be run: {words_without_secrets(str(error), program)}"
    else:
        failure = "did not end within the grace period" if code is None else f"exited with {code}" if code else ""
    if failure:
        _log.warning("%s: stop.command %s; sending the stop signal", context.name, failure)
    return not failure


async def _run_hook(
    host: Host, program: Program, command: tuple[str, ...], variables: dict[str, str], credentials: Credentials | None, log: int
) -> str | None:
    """Run a hook. Returns why it failed, with the end of its output; None if it succeeded. Raises SpawnError."""
    began = anyio.current_time()
    async with command_output(log, credentials) as (writing, tail):
        code = await host.run_command(spawn_spec(program, variables, credentials, writing, writing, argv=command), HOOK_SECONDS)
    if code == 0:
        return None
    if code is not None:
        words = f"exited with {code}"
    elif anyio.current_time() - began < HOOK_SECONDS:
        words = "was ended by a signal"
    else:
        words = f"did not end within {HOOK_SECONDS:g} s"
    said = words_without_secrets(tail.decode(errors="replace").strip(), program)
    return f"{words}: {said}" if said else words
