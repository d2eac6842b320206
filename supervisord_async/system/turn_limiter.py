"""A rate limit by turns of the event loop: a thousand things to begin at once are spread over turns, and other callbacks run between.

Only beginnings are limited: there is no slot to give back, so one that hangs holds up no other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

#: Spawns that begin in one turn of the loop, or go on after they have waited for the kernel together; each blocks it for about
#: half a millisecond.
SPAWNS_A_TURN = 16


class TurnLimiter:
    """Calls at most ``limit`` callbacks in each turn of the loop, in the order in which they came."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._left = limit
        self._waiting: deque[Callable[[], None]] = deque()

    @property
    def crowded(self) -> bool:
        """Whether callbacks wait for a later turn."""
        return bool(self._waiting)

    def take(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` at once if fewer than the limit were called in this turn, else in a later one."""
        if self._left == self._limit:
            asyncio.get_running_loop().call_soon(self._next)
        if self._left:
            self._left -= 1
            callback()
        else:
            self._waiting.append(callback)

    async def turn(self) -> None:
        """Return when it is this caller's turn."""
        called = asyncio.get_running_loop().create_future()
        self.take(lambda: None if called.done() else called.set_result(None))
        await called

    def _next(self) -> None:
        loop = asyncio.get_running_loop()
        self._left = self._limit
        while self._waiting and self._left:
            self._left -= 1
            loop.call_soon(self._waiting.popleft())
        if self._left < self._limit:
            loop.call_soon(self._next)
