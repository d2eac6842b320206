"""Watches many descriptors for readability, by one reader of the loop.

``loop.add_reader`` takes 600 bytes per descriptor in uvloop: a handle, a poll of libuv's, a copy of the context, a bound method.
With two for each of a thousand silent programs that was a megabyte. Here they share an epoll of their own, which the loop
watches as one descriptor, and each takes an entry in a dictionary.
"""

from __future__ import annotations

import asyncio
import select
from typing import Protocol

#: How many ready descriptors are handled in one turn of the loop.
_AT_ONCE = 64

_of_loop: dict[asyncio.AbstractEventLoop, _Poller] = {}


class Reader(Protocol):
    """Is called when its descriptor is readable."""

    def on_readable(self) -> None:
        """There is something to read, or the end of file. Called in each turn of the loop as long as that is so."""


def watch(loop: asyncio.AbstractEventLoop, fd: int, reader: Reader) -> None:
    """``reader`` is called on ``loop`` while ``fd`` is readable. Raises OSError if no descriptor is free for that.

    ``fd`` must not be watched already, and :func:`forget` must be called before it is closed.
    """
    found = _of_loop.get(loop) or _Poller(loop)
    found.add(fd, reader)
    _of_loop[loop] = found


def forget(loop: asyncio.AbstractEventLoop, fd: int) -> None:
    """``fd`` is no longer watched, if it was."""
    found = _of_loop.get(loop)
    if found is not None and found.remove(fd):
        del _of_loop[loop]  # so that nothing is kept of a loop that is closed


class _Poller:
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
        """Stop watching ``fd``; returns whether it was the last one, so that this is closed."""
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
                continue  # a reader called before has made us forget it
            try:
                reader.on_readable()
            except Exception as error:  # as for any callback of the loop; the other readers are still called
                self._loop.call_exception_handler({"message": f"{reader!r} failed", "exception": error})
