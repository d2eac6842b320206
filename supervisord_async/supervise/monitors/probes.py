"""The probe monitors: readiness and liveness, probed at intervals; readiness more often at first.

Readiness says when a run can serve, and whether it still does; it never restarts the run. Liveness is probed once the run is
RUNNING, and its failure replaces the run. Both end with the run: nothing is probed during backoff.

Where a probe cannot be run at all (its command cannot be spawned, its disk hangs, no descriptor is free, no name server answers), the
health of a run that has started is unhealthy, as it is not known. That is no answer and does not restart the run: the next one could
not be probed either.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Iterator

import anyio

from supervisord_async.config.model import Probe
from supervisord_async.core.inputs import BecameReady, Faulted
from supervisord_async.core.state import Cause, Health, State
from supervisord_async.errors import ProbeNotRunError, SpawnError
from supervisord_async.supervise.monitors.context import RunContext
from supervisord_async.supervise.records.masking import words_without_secrets
from supervisord_async.supervise.runs.command_output import command_output
from supervisord_async.supervise.runs.run_spec import spawn_spec
from supervisord_async.system.shortage import is_shortage

_log = logging.getLogger(__name__)

#: How often to look whether the run is RUNNING, so that liveness is probed soon after, and not an interval later.
START_POLL_SECONDS = 1.0
#: The first pause between probes of a run that is not ready yet; it doubles until the first interval is over.
FIRST_PAUSE_SECONDS = 0.1
#: How much of what a failed command said is quoted.
SAID_CHARACTERS = 200


async def monitor_readiness(context: RunContext) -> None:
    """Post BecameReady at the first success, and each change of health after it."""
    probe = context.program.readiness
    if probe is None:
        return
    ready = context.snapshot().state is State.RUNNING  # an adopted run may have been ready before
    async for words, verdict in _answers(context, probe, "readiness", eager=not ready and probe.log is None):
        if not ready and not verdict:
            context.report("readiness", Health.STARTING, words)  # before there is a verdict, for whoever waits for the run
        if verdict is None:
            continue
        if verdict and not ready:
            ready = True
            context.post(BecameReady(context.run))
        if not verdict:
            level, what = (logging.WARNING, "no longer ready") if ready else (logging.INFO, "not ready yet")
            _log.log(level, "%s: %s: %s", context.name, what, words_without_secrets(words, context.program))
        if ready:
            context.report("readiness", Health.HEALTHY if verdict else Health.UNHEALTHY, words)


async def monitor_liveness(context: RunContext) -> None:
    """Post the health once the run is RUNNING; at a failure post the fault and return."""
    probe = context.program.liveness
    if probe is None:
        return
    while context.snapshot().state is State.STARTING:  # noqa: ASYNC110  the machine's states have no event to wait for
        await anyio.sleep(min(probe.interval_seconds, START_POLL_SECONDS))
    async for words, verdict in _answers(context, probe, "liveness"):
        if verdict is None:
            continue
        if not verdict:
            context.report("liveness", Health.UNHEALTHY, words)
            times = f" {probe.failures} times" if probe.failures != 1 else ""
            context.post(Faulted(context.run, Cause.LIVENESS_FAILED, f"liveness failed{times}: {words}"))
            return
        context.report("liveness", Health.HEALTHY)


async def _answers(context: RunContext, probe: Probe, check: str, *, eager: bool = False) -> AsyncIterator[tuple[str, bool | None]]:
    """Yield for each answer what is wrong ("" if nothing), and the verdict if this answer changed it, else None.

    A verdict takes ``successes`` or ``failures`` equal answers in a row. Where the probe could not be run, that is reported as the
    health of ``check``, and the next verdict counts as the first.
    """
    verdict: bool | None = None
    row = 0
    last = None
    async for words in _asked(context, probe, eager=eager):
        if isinstance(words, ProbeNotRunError):
            verdict, row, last = None, 0, None
            starting = context.snapshot().state is State.STARTING
            context.report(check, Health.STARTING if starting else Health.UNHEALTHY, f"cannot tell: {words}")
            continue
        healthy = words is None
        row = row + 1 if healthy == last else 1
        last = healthy
        decided = healthy != verdict and row >= (probe.successes if healthy else probe.failures)
        if decided:
            verdict = healthy
        yield words or "", healthy if decided else None


async def _asked(context: RunContext, probe: Probe, *, eager: bool) -> AsyncIterator[str | ProbeNotRunError | None]:
    """Yield the answer at each interval: None when all is well, else what is wrong, or why the probe could not be run.

    ``eager``: while something is wrong in the first interval, probe several times during it; those failures are not yielded.
    """
    await anyio.sleep(probe.initial_delay_seconds)
    pauses: Iterable[float] = _first_pauses(probe.interval_seconds) if eager else (probe.interval_seconds,)
    words = await _ask(context, probe)
    while True:
        yield words
        for pause in (probe.interval_seconds,) if words is None else pauses:
            await _wait(context, probe, pause)
            words = await _ask(context, probe)
            if words is None:
                break
        pauses = (probe.interval_seconds,)


async def _ask(context: RunContext, probe: Probe) -> str | ProbeNotRunError | None:
    try:
        return await run_probe(context, probe)
    except ProbeNotRunError as error:
        return error


async def run_probe(context: RunContext, probe: Probe) -> str | None:
    """The answer: None when all is well, else what is wrong. Takes no longer than the probe's timeout and killing its command.

    Raises ProbeNotRunError where the probe could not be run.
    """
    match probe.kind:
        case "command":
            return await _run_command(context, probe)
        case "log":
            search = context.searches.get(probe.log or "")
            return None if search is not None and search.found.is_set() else f"no line matched {probe.log!r}"
        case _:
            return await context.host.ask(probe)


async def _run_command(context: RunContext, probe: Probe) -> str | None:
    assert probe.command is not None  # noqa: S101  by its kind
    program = context.program
    try:
        credentials = await context.host.credentials(program.user, program.group_name)
        environment = context.environment.for_side_command("probe")
        async with command_output(context.null_fd, credentials) as (writing, tail):
            spec = spawn_spec(program, environment, credentials, writing, writing, argv=probe.command)
            code = await context.host.run_command(spec, probe.timeout_seconds)
    except SpawnError as error:
        if error.errno is None or is_shortage(OSError(error.errno, "")):  # a disk or directory service hangs, or resources are short
            raise ProbeNotRunError(f"cannot run the probe: {error}") from error
        return f"cannot run the probe: {error}"
    if code == 0:
        return None
    how = f"exited with {code}" if code is not None else f"did not end within {probe.timeout_seconds:g} s"
    said = words_without_secrets(_last_line(tail), program)[:SAID_CHARACTERS]  # in this order: else half a secret would be shown
    return f"the probe {how}: {said}" if said else f"the probe {how}"


def _last_line(output: bytearray) -> str:
    """The last line with something in it, which says why where a command says anything."""
    for line in reversed(output.decode(errors="replace").splitlines()):
        if said := "".join(sign if sign.isprintable() else " " for sign in line).strip():
            return said
    return ""


async def _wait(context: RunContext, probe: Probe, seconds: float) -> None:
    """Wait for ``seconds``, or until the line comes that the probe looks for, so that readiness is known at once."""
    search = context.searches.get(probe.log) if probe.log is not None else None
    if search is None or search.found.is_set():
        await anyio.sleep(seconds)
        return
    with anyio.move_on_after(seconds):
        await search.found.wait()


def _first_pauses(interval_seconds: float) -> Iterator[float]:
    """Pauses that double, and add up to one interval."""
    pause = FIRST_PAUSE_SECONDS
    while pause < interval_seconds:
        yield pause
        interval_seconds -= pause
        pause *= 2
    yield interval_seconds
