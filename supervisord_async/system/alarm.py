"""The lightest way to have something done later: a callback of the loop, without a task that waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Alarm:
    """Calls back on the loop: once at its next turn when rung, however often, and at the time that it is set to."""

    __slots__ = ("_callback", "_soon", "_timer")

    def __init__(self, callback: Callable[[], None]) -> None:
        """It is neither rung nor set yet."""
        self._callback = callback
        self._soon: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None

    def ring(self) -> None:
        """Call back at the loop's next turn, and no longer at the time that was set. To be called on the running loop."""
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_soon(self._fire)

    def set(self, at: float | None) -> None:
        """Call back when the loop's clock reaches ``at``, which replaces any time set before; None: only cancel that."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at is not None:
            self._timer = asyncio.get_running_loop().call_at(at, self._fire)

    def stop(self) -> None:
        """Do not call back, until it is rung or set again."""
        self.set(None)
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None

    def _fire(self) -> None:
        self.stop()
        self._callback()
