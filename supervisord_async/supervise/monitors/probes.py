"""The health watchers: readiness and liveness, asked at intervals; whether it is ready more often at first.

Readiness says when a run serves, and whether it still does; it never restarts. Liveness is asked once the run is
RUNNING, and its failure replaces the run, once. Both end with the run: nothing is asked during backoff.

Where the machine cannot ask (no process is to be had for a command, its disk hangs) a program that was well is called unhealthy, for
nobody can tell; it is no answer, and nobody is restarted for it: the next run would wait for the same.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Iterator

import anyio

from supervisord_async.config.model import Probe
from supervisord_async.core.inputs import BecameReady, Faulted
from supervisord_async.core.state import Cause, Health, State
from supervisord_async.errors import UnaskedError
from supervisord_async.supervise.monitors.context import RunContext
from supervisord_async.supervise.records.masking import words_without_secrets

_log = logging.getLogger(__name__)

#: How often is looked whether a run has become RUNNING, so that its liveness is known soon after, and not an interval later.
START_LOOK_SECONDS = 1.0
#: Who is not ready yet is asked again so soon, then after twice the time, until the first interval is over.
FIRST_PAUSE_SECONDS = 0.1


async def monitor_readiness(context: RunContext) -> None:
    """Posts BecameReady at the first success, and each change of health after it."""
    probe = context.program.readiness
    if probe is None:
        return
    ready = context.snapshot().state is State.RUNNING  # an adopted run was ready before
    async for words, verdict in _answers(context, probe, "readiness", eager=not ready and probe.log is None):
        if not ready and not verdict:
            context.report("readiness", Health.STARTING, words)  # told before it is a verdict: somebody waits for it
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
    """Posts the health once the run is RUNNING, and at a failure the fault; then it has said all."""
    probe = context.program.liveness
    if probe is None:
        return
    while context.snapshot().state is State.STARTING:  # noqa: ASYNC110  the machine's states have no event to wait for
        await anyio.sleep(min(probe.interval_seconds, START_LOOK_SECONDS))
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
    """Each answer: what was wrong ("": nothing), and the verdict where this answer changed it: after so many equal ones in a row.

    That nobody could be asked is told as the health of ``check``, and a verdict follows as if it were the first.
    """
    verdict: bool | None = None
    row = 0
    last = None
    async for words in _asked(context, probe, eager=eager):
        if isinstance(words, UnaskedError):
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


async def _asked(context: RunContext, probe: Probe, *, eager: bool) -> AsyncIterator[str | UnaskedError | None]:
    """What is answered at each interval: None when all is well, else what is wrong, or why nobody could be asked.

    ``eager``: the first interval is divided as long as something is wrong; what is wrong in between is neither told nor counted.
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


async def _ask(context: RunContext, probe: Probe) -> str | UnaskedError | None:
    try:
        return await context.host.ask(probe, context)
    except UnaskedError as error:
        return error


async def _wait(context: RunContext, probe: Probe, seconds: float) -> None:
    """``seconds`` have passed, or the line that the probe looks for has come: whoever waits for the run loses no time."""
    search = context.searches.get(probe.log) if probe.log is not None else None
    if search is None or search.found.is_set():
        await anyio.sleep(seconds)
        return
    with anyio.move_on_after(seconds):
        await search.found.wait()


def _first_pauses(interval_seconds: float) -> Iterator[float]:
    """They double, and last one interval together."""
    pause = FIRST_PAUSE_SECONDS
    while pause < interval_seconds:
        yield pause
        interval_seconds -= pause
        pause *= 2
    yield interval_seconds
