"""The watchdog of sd_notify: WATCHDOG=1 must come in time, and WATCHDOG=trigger is a failure at once.

The timeout is ``heartbeat.timeout``, or what the run asked for by WATCHDOG_USEC. As with heartbeat files, silence counts
only while the daemon was running.
"""

from __future__ import annotations

import anyio

from supervisord_async.core.inputs import Faulted
from supervisord_async.core.state import Cause, Health
from supervisord_async.supervise.monitors.context import HEARTBEAT_CHECK, POLLS_PER_TIMEOUT, RunContext


async def monitor_watchdog(context: RunContext) -> None:
    """Post the first beat and the miss; return after a miss, or at once without ``notify``."""
    state = context.notify_state
    if state is None:
        return
    heartbeat = context.program.heartbeat
    if heartbeat is not None:
        await anyio.sleep(heartbeat.initial_delay_seconds)
    beats, silent, healthy = 0, 0.0, False
    looked = anyio.current_time()
    timeout: float | None = None
    while not state.triggered:
        before, timeout = timeout, state.watchdog_seconds or (heartbeat.timeout_seconds if heartbeat is not None else None)
        if timeout != before:
            silent = 0.0  # a new timeout counts from now
        if timeout is not None and silent >= timeout:
            break
        interval = timeout / POLLS_PER_TIMEOUT if timeout is not None else 3600.0
        await state.heard.wait(looked + interval)
        now = anyio.current_time()
        silent += min(now - looked, 2 * interval)
        looked = now
        if state.beats != beats:
            beats, silent = state.beats, 0.0
            if not healthy:
                healthy = True
                context.report(HEARTBEAT_CHECK, Health.HEALTHY)
    words = (
        "it triggered its watchdog" if timeout is None or state.triggered else f"no WATCHDOG=1 for {silent:.1f} s (timeout {timeout:g} s)"
    )
    context.report(HEARTBEAT_CHECK, Health.UNHEALTHY)
    context.post(Faulted(context.run, Cause.HEARTBEAT_MISSED, words))
