"""Who has removed one of a few files, or the folder of one, told by the kernel (inotify) on a descriptor for the loop.

For what must stay in its place; programs' own files are followed by :mod:`supervisord_async.supervise.sources.filewatch`, which needs a
thread for that.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Container, Iterable
from contextlib import suppress

_libc = ctypes.CDLL(None, use_errno=True)

#: sys/inotify.h, and the head of each event: watch, mask, cookie, length of the name that follows.
_MOVED_FROM, _DELETE, _DELETE_SELF, _MOVE_SELF = 0x40, 0x200, 0x400, 0x800
_UNMOUNT, _OVERFLOW, _IGNORED = 0x2000, 0x4000, 0x8000
_EVENT = struct.Struct("iIII")
_READ_BYTES = 64 * 1024


class Removals:
    """Tells whether a watched file was removed, or its folder was removed, moved away or unmounted; nothing that happens above that."""

    def __init__(self) -> None:
        """Nothing is watched yet. Raises OSError if the kernel has no inotify instance, or no descriptor, for us."""
        self.fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))  #: readable when :meth:`read` has something to say
        self._masks: dict[int, dict[str, int]] = {}  #: by watch: what ends which of the folder's names

    def watch(self, paths: Iterable[str], *, renamed: Container[str] = ()) -> None:
        """The removal of each of ``paths`` is told from now on, and that of no others.

        Moving one away counts too, unless it is in ``renamed``: those are renamed by ourselves. Blocks on their disks. Raises OSError if
        a folder cannot be watched.
        """
        masks: dict[int, dict[str, int]] = {}
        for path in paths:
            folder, name = os.path.split(path)
            events = _MOVED_FROM | _DELETE | _DELETE_SELF | _MOVE_SELF
            watch = _checked(_libc.inotify_add_watch(self.fd, os.fsencode(folder), events))
            masks.setdefault(watch, {})[name] = _DELETE if path in renamed else _DELETE | _MOVED_FROM
        for watch in self._masks.keys() - masks.keys():
            with suppress(OSError):  # its folder has gone, and it with that
                _checked(_libc.inotify_rm_watch(self.fd, watch))
        self._masks = masks

    def read(self) -> bool:
        """Whether anything watched was removed since the last call; perhaps also if :meth:`watch` was called meanwhile."""
        removed = False
        with suppress(BlockingIOError):
            while events := os.read(self.fd, _READ_BYTES):
                removed |= self._are_removals(events)
        return removed

    def _are_removals(self, events: bytes) -> bool:
        at = 0
        while at < len(events):
            watch, mask, _, length = _EVENT.unpack_from(events, at)
            name = os.fsdecode(events[at + _EVENT.size : at + _EVENT.size + length].rstrip(b"\0"))
            at += _EVENT.size + length
            if mask & (_DELETE_SELF | _MOVE_SELF | _UNMOUNT | _OVERFLOW):
                return True
            names = self._masks.get(watch)
            if mask & _IGNORED == 0 and (names is None or mask & names.get(name, 0)):  # None: it is just being watched, in a thread
                return True
        return False

    def close(self) -> None:
        """Nothing is told any more."""
        os.close(self.fd)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
