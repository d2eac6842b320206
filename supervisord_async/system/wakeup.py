"""Callbacks of the loop for descriptors and times: the seam by which code above ``system`` needs no task per descriptor.

A task that waits costs some kilobytes; two thousand streams that say nothing must cost less. What is armed here calls
back on the loop, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from supervisord_async.system import readiness


class Wakeup:
    """Calls back once, on the loop, when a descriptor has something to read; then it must be armed again."""

    __slots__ = ("_armed", "_callback", "_fd", "_loop", "_timer")

    def __init__(self, fd: int, callback: Callable[[], None]) -> None:
        """Nothing is watched yet. Must be made on the running loop; ``fd`` stays the caller's."""
        self._fd = fd
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._armed = False
        self._timer: asyncio.TimerHandle | None = None

    def arm(self) -> None:
        """The next readiness calls back; at once, where there is something to read already."""
        self._cancel_timer()
        if not self._armed:
            readiness.watch(self._loop, self._fd, self)
            self._armed = True

    def arm_for(self, timeout_seconds: float, otherwise: Callable[[], None]) -> None:
        """As :meth:`arm`; but if nothing comes in ``timeout_seconds``, ``otherwise`` is called and it is no longer armed."""
        self.arm()
        self._timer = self._loop.call_later(timeout_seconds, self._give_up, otherwise)

    def call_after(self, delay_seconds: float, callback: Callable[[], None]) -> None:
        """``callback`` is called after ``delay_seconds`` unless this is armed or disarmed before; readiness is ignored."""
        self.disarm()
        self._timer = self._loop.call_later(delay_seconds, callback)

    def disarm(self) -> None:
        """Nothing calls back any more."""
        self._cancel_timer()
        if self._armed:
            readiness.forget(self._loop, self._fd)
            self._armed = False

    def now(self) -> float:
        """The loop's clock, in seconds."""
        return self._loop.time()

    def _give_up(self, otherwise: Callable[[], None]) -> None:
        self.disarm()
        otherwise()

    def on_readable(self) -> None:
        """The descriptor's news."""
        self.disarm()
        self._callback()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
