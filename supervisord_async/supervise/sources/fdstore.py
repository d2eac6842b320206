"""Descriptors that a program stores with us for its next run: sd_notify's FDSTORE. Bounded, and owned here."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

import msgspec

#: How many descriptors one process may store.
STORE_LIMIT = 128
#: The name of descriptors stored without one (``man 3 sd_pid_notify_with_fds``).
UNNAMED = "stored"
NAME_CHARACTERS = 255


class StoredDescriptor(msgspec.Struct, frozen=True):
    """One stored descriptor."""

    name: str
    fd: int


class DescriptorStore:
    """The store of one process."""

    __slots__ = ("_stored",)

    def __init__(self) -> None:
        self._stored: list[StoredDescriptor] = []

    def saved(self) -> tuple[StoredDescriptor, ...]:
        """The stored descriptors, the oldest first."""
        return tuple(self._stored)

    def take(self, name: str, descriptors: Iterable[int]) -> tuple[int, ...]:
        """Store ``descriptors`` under ``name``; returns those that are not stored, which the caller still has to close."""
        left = []
        name = name or UNNAMED
        sound = len(name) <= NAME_CHARACTERS and name.isascii() and name.isprintable() and ":" not in name
        for fd in descriptors:
            if sound and len(self._stored) < STORE_LIMIT and not self._has(fd):
                self._stored.append(StoredDescriptor(name, fd))
            else:
                left.append(fd)
        return tuple(left)

    def _has(self, fd: int) -> bool:
        """Whether the same socket is stored already: programs send all their sockets again at each reload."""
        found = os.fstat(fd)
        if not stat.S_ISSOCK(found.st_mode):
            return False
        return any(os.path.sameopenfile(fd, each.fd) for each in self._stored)

    def remove(self, name: str) -> None:
        """Close and forget the descriptors of that name."""
        for each in [each for each in self._stored if each.name == (name or UNNAMED)]:
            self._stored.remove(each)
            os.close(each.fd)

    def inherit(self, stored: Iterable[StoredDescriptor]) -> None:
        """After a re-exec: take over the descriptors that were stored before."""
        for each in stored:
            try:
                os.set_inheritable(each.fd, False)
            except OSError:  # it was not inherited
                continue
            self._stored.append(each)

    def clear(self) -> None:
        """Close and forget all descriptors."""
        for each in self._stored:
            os.close(each.fd)
        self._stored.clear()
