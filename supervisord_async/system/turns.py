"""So many at a turn of the loop: what a thousand want to do at once is spread over turns, and others have theirs between.

A turn is not given back: whoever hangs in what it began holds nobody up.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """Lets ``limit`` tasks pass at each turn of the loop, in the order in which they came."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._left = limit
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Returns at once as long as there are some left of this turn, else at a later one."""
        loop = asyncio.get_running_loop()
        if self._left == self._limit:
            loop.call_soon(self._next)
        if self._left:
            self._left -= 1
            return
        future = loop.create_future()
        self._waiting.append(future)
        await future

    def _next(self) -> None:
        self._left = self._limit
        while self._waiting and self._left:
            future = self._waiting.popleft()
            if not future.done():  # cancelled: it gave up its place
                future.set_result(None)
                self._left -= 1
        if self._left < self._limit:
            asyncio.get_running_loop().call_soon(self._next)
