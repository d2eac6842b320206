"""The lightest thing that is done when it is time: a callback of the loop, and no task that waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Alarm:
    """Calls back on the loop: at its next turn when rung, however often, and at the time that it is set to."""

    __slots__ = ("_callback", "_soon", "_timer")

    def __init__(self, callback: Callable[[], None]) -> None:
        """Nothing calls back yet."""
        self._callback = callback
        self._soon: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None

    def ring(self) -> None:
        """The loop's next turn calls back, and the time that it is set to no more. To be called on the running loop."""
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_soon(self._fire)

    def set(self, at: float | None) -> None:
        """It calls back when the loop's clock says ``at``, and at no other time that it was set to; None: at none."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at is not None:
            self._timer = asyncio.get_running_loop().call_at(at, self._fire)

    def stop(self) -> None:
        """Nothing calls back any more, until it is rung or set again."""
        self.set(None)
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None

    def _fire(self) -> None:
        self.stop()
        self._callback()
