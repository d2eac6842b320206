"""The heartbeat monitor: a file that must change.

A beat is a *change* of the file's signature, seen while this run lives. Neither the wall clock nor the file's age
matters. Silence counts only while we could have seen a beat: if the daemon was stopped, the machine slept, or the disk does
not answer, that is not the program's fault. Such a disk makes the run unhealthy, but does not restart it: a new run would wait
for the same disk.
"""

from __future__ import annotations

import anyio

from supervisord_async.core.inputs import Faulted
from supervisord_async.core.state import Cause, Health
from supervisord_async.supervise.monitors.context import HEARTBEAT_CHECK, POLLS_PER_TIMEOUT, RunContext

#: Looks begin at multiples of this, so that a thousand files with one timeout take twenty trips to a thread, not a thousand.
GRID_SECONDS = 0.05


async def monitor_heartbeat(context: RunContext) -> None:
    """Post the first beat and the miss; return after a miss, or at once without ``heartbeat``."""
    settings, path = context.program.heartbeat, context.heartbeat_file
    if settings is None or path is None:
        return
    interval = settings.timeout_seconds / POLLS_PER_TIMEOUT
    last, silent, said = context.heartbeat_baseline, 0.0, Health.STARTING
    await anyio.sleep(settings.initial_delay_seconds)
    if interval > GRID_SECONDS:
        await anyio.sleep(-anyio.current_time() % GRID_SECONDS)
    due = looked = anyio.current_time()
    while silent < settings.timeout_seconds:
        due += interval * (1 + max(0.0, anyio.current_time() - due) // interval)  # stays on the grid, however late this look was
        await anyio.sleep_until(due)
        now = anyio.current_time()
        awake, looked = min(now - looked, 2 * interval), now
        try:
            signature = await context.host.signature(path)
        except TimeoutError as error:
            silent, said, looked = 0.0, Health.UNHEALTHY, anyio.current_time()
            context.report(HEARTBEAT_CHECK, said, f"cannot tell whether it beats: {error}")
            continue
        silent += awake
        health = said
        if signature != last and signature is not None:
            silent, health = 0.0, Health.HEALTHY
        elif said is Health.UNHEALTHY:
            health = Health.STARTING  # the disk answers again
        if health is not said:
            said = health
            context.report(HEARTBEAT_CHECK, said)
        last = signature
    context.report(HEARTBEAT_CHECK, Health.UNHEALTHY)
    words = f"no heartbeat for {silent:.1f} s (timeout {settings.timeout_seconds:g} s: {path} has not changed)"
    context.post(Faulted(context.run, Cause.HEARTBEAT_MISSED, words))
