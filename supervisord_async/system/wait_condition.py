"""The lightest thing that one task can wait on: a future of the loop, and a timer, which exist only during the wait.

An event of anyio has an event of asyncio, which has a deque: most of a kilobyte for each of a thousand waiting tasks. A
cancel scope with a deadline has two sets and its links: as much again.
"""

from __future__ import annotations

import asyncio


class WaitCondition:
    """Wakes the one task that waits; may be notified by any code on the loop."""

    __slots__ = ("_waiter",)

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None

    def notify(self) -> None:
        """The waiting task goes on; without one, nothing happens."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self, until: float | None = None) -> None:
        """Return at the next :meth:`notify`, or when the loop's clock reaches ``until``. For one task at a time."""
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = None if until is None else loop.call_at(until, self.notify)
        try:
            await waiter
        finally:
            if self._waiter is waiter:
                self._waiter = None
            if timer is not None:
                timer.cancel()
