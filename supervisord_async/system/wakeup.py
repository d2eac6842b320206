"""Callbacks of the loop for descriptors and times, so that code above ``system`` needs no task per descriptor.

A waiting task takes some kilobytes; two thousand silent streams must cost less. Each arming calls back once, on the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from supervisord_async.system import poller


class Wakeup:
    """Calls back once, on the loop, when a descriptor is readable; then it must be armed again."""

    __slots__ = ("_armed", "_callback", "_fd", "_loop", "_timer")

    def __init__(self, fd: int, callback: Callable[[], None]) -> None:
        """Not armed yet. To be made on the running loop; the caller still owns ``fd``."""
        self._fd = fd
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._armed = False
        self._timer: asyncio.TimerHandle | None = None

    def arm(self) -> None:
        """Call back when there is something to read; soon, if there is already."""
        self._cancel_timer()
        if not self._armed:
            poller.watch(self._loop, self._fd, self)
            self._armed = True

    def arm_for(self, timeout_seconds: float, otherwise: Callable[[], None]) -> None:
        """As :meth:`arm`; but if nothing comes within ``timeout_seconds``, ``otherwise`` is called and this is no longer armed."""
        self.arm()
        self._timer = self._loop.call_later(timeout_seconds, self._give_up, otherwise)

    def call_after(self, delay_seconds: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` after ``delay_seconds``, unless this is armed or disarmed before; until then it does not watch."""
        self.disarm()
        self._timer = self._loop.call_later(delay_seconds, callback)

    def disarm(self) -> None:
        """Call back no more."""
        self._cancel_timer()
        if self._armed:
            poller.forget(self._loop, self._fd)
            self._armed = False

    def now(self) -> float:
        """The loop's clock, in seconds."""
        return self._loop.time()

    def _give_up(self, otherwise: Callable[[], None]) -> None:
        self.disarm()
        otherwise()

    def on_readable(self) -> None:
        """Called by :mod:`.poller` when the descriptor is readable."""
        self.disarm()
        self._callback()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
