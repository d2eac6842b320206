"""Descriptors that are ready to be read, many for one reader of the loop.

``loop.add_reader`` keeps 600 bytes a descriptor in uvloop: a handle, a poll of libuv's, a copy of the context, a bound method.
Two of them for each of a thousand programs that say nothing were a megabyte. Here they share an epoll of their own, which
the loop watches as one descriptor, and cost an entry in a dictionary.
"""

from __future__ import annotations

import asyncio
import select
from typing import Protocol

#: Looked at in one call; what more there is comes at the loop's next turn.
_AT_ONCE = 64

_of_loop: dict[asyncio.AbstractEventLoop, _Readiness] = {}


class Reader(Protocol):
    """Whoever has a descriptor watched."""

    def on_readable(self) -> None:
        """There is something to read, or the end of it; called at each turn of the loop as long as that is so."""


def watch(loop: asyncio.AbstractEventLoop, fd: int, reader: Reader) -> None:
    """``reader`` is called on ``loop`` while ``fd`` is readable; it must not be watched already, and :func:`forget` must come before its
    close. Raises OSError where there is no descriptor for that.
    """
    found = _of_loop.get(loop) or _Readiness(loop)
    found.add(fd, reader)
    _of_loop[loop] = found


def forget(loop: asyncio.AbstractEventLoop, fd: int) -> None:
    """``fd`` is watched no more, if it was."""
    found = _of_loop.get(loop)
    if found is not None and found.remove(fd):
        del _of_loop[loop]  # so that nothing is left of a loop that is over


class _Readiness:
    """The epoll of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._readers: dict[int, Reader] = {}
        self._epoll = select.epoll()
        loop.add_reader(self._epoll.fileno(), self._ready)

    def add(self, fd: int, reader: Reader) -> None:
        try:
            self._epoll.register(fd, select.EPOLLIN)
        except OSError:
            self._close_if_unused()
            raise
        self._readers[fd] = reader

    def remove(self, fd: int) -> bool:
        """Whether that was the last one, and this is closed."""
        if self._readers.pop(fd, None) is None:
            return False
        self._epoll.unregister(fd)
        return self._close_if_unused()

    def _close_if_unused(self) -> bool:
        if not self._readers:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
        return not self._readers

    def _ready(self) -> None:
        found = [(fd, self._readers.get(fd)) for fd, _ in self._epoll.poll(0, _AT_ONCE)]
        for fd, reader in found:
            if reader is None or self._readers.get(fd) is not reader:
                continue  # one before it had it forgotten
            try:
                reader.on_readable()
            except Exception as error:  # as a callback of the loop; the others have their turn
                self._loop.call_exception_handler({"message": f"{reader!r} failed", "exception": error})
