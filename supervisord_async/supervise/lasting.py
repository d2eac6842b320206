"""A task of the daemon's own that breaks does not take the daemon along: it is told, with its traceback, and begun again.

For what goes on as long as the daemon and can be begun at any time. A process's own supervision has more to see to
(:mod:`.process`), and what moves output sees to itself.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import anyio

#: The first pause before it is begun again, and the longest; each is twice the one before, unless it went well for longer than the longest.
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 1.0, 60.0

_log = logging.getLogger("asupd")


async def lasting(what: str, run: Callable[[], Awaitable[None]]) -> None:
    """``run`` has returned; it was begun again whenever it failed."""
    pause = FIRST_PAUSE_SECONDS
    while True:
        began = anyio.current_time()
        try:
            await run()
        except Exception:
            if anyio.current_time() - began > LAST_PAUSE_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            _log.exception("%s failed by a bug; begun again in %g s", what, pause)
        else:
            return
        await anyio.sleep(pause)
        pause = min(2 * pause, LAST_PAUSE_SECONDS)
