"""The lightest thing that one task can wait on: a future of the loop, made only while somebody waits.

An event of anyio holds an event of asyncio, which holds a deque: most of a kilobyte for each of a thousand mailboxes.
"""

from __future__ import annotations

import asyncio


class Bell:
    """One task waits, anybody on the loop rings."""

    __slots__ = ("_waiter",)

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Who waits goes on; nobody waits: nothing happens."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> None:
        """Returns at the next ring. One task at a time."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
