"""Being told at once that something happened in one of many directories; not what (man 7 inotify).

Who needs to know what, and of trees, uses watchfiles; but that must be asked again and again whether there is anything.
"""

from __future__ import annotations

import ctypes
import os
import select
from collections.abc import Iterable
from contextlib import suppress
from functools import cache

_MODIFY, _ATTRIB, _CLOSE_WRITE = 0x2, 0x4, 0x8
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF = 0x400, 0x800
_CHANGES = _MODIFY | _ATTRIB | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF
_BLOCK_BYTES = 64 * 1024


class DirectoryBell:
    """One thread waits on it; it rings when something happens in its directories, or when any thread rings it."""

    def __init__(self, directories: Iterable[str]) -> None:
        """Whatever happens from now on rings. Raises OSError where a directory is gone, or the system has no more to give."""
        self._told = _checked(_libc().inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._rung = -1
        try:
            self._rung = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            for directory in directories:
                _checked(_libc().inotify_add_watch(self._told, os.fsencode(directory), _CHANGES))
        except BaseException:
            self.close()
            raise
        self._poll = select.poll()
        self._poll.register(self._told, select.POLLIN)
        self._poll.register(self._rung, select.POLLIN)

    def ring(self) -> None:
        """Who waits, now or next, goes on."""
        os.eventfd_write(self._rung, 1)

    def wait(self, timeout_seconds: float | None) -> None:
        """It was rung, something happened that :meth:`silence` has not heard, or the time is over."""
        self._poll.poll(None if timeout_seconds is None else max(0.0, timeout_seconds * 1000))
        with suppress(BlockingIOError):  # nobody rang it
            os.eventfd_read(self._rung)

    def silence(self) -> bool:
        """Whether something had happened; it does not ring for that any more."""
        happened = False
        with suppress(BlockingIOError):  # that was all
            while os.read(self._told, _BLOCK_BYTES):
                happened = True
        return happened

    def close(self) -> None:
        """Nothing is watched any more; nobody may wait."""
        os.close(self._told)
        if self._rung >= 0:
            os.close(self._rung)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
