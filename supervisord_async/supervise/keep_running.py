"""A bug in one of the daemon's own tasks does not end the daemon: the traceback is logged, and the task restarted after a pause.

For tasks that run as long as the daemon and can be started at any time. The supervision of a process recovers by itself
(:mod:`.process`), and so do the tasks that move output.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import anyio

#: The first and the longest pause before a restart. Each is twice the one before, and the first again after a run longer than the longest.
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 1.0, 60.0

_log = logging.getLogger("asupd")


async def keep_running(what: str, run: Callable[[], Awaitable[None]]) -> None:
    """Call ``run`` until it returns, and again after each failure; ``what`` names it in the log."""
    pause = FIRST_PAUSE_SECONDS
    while True:
        began = anyio.current_time()
        try:
            await run()
        except Exception:
            if anyio.current_time() - began > LAST_PAUSE_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            _log.exception("%s failed because of a bug; restarting it in %g s", what, pause)
        else:
            return
        await anyio.sleep(pause)
        pause = min(2 * pause, LAST_PAUSE_SECONDS)
