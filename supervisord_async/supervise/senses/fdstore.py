"""Descriptors that a program leaves with us for its next run: sd_notify's FDSTORE. Bounded, and owned here."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

import msgspec

#: Descriptors that one process slot may keep.
STORE_LIMIT = 128
#: The name of those that were given none (``man 3 sd_pid_notify_with_fds``).
UNNAMED = "stored"
NAME_CHARACTERS = 255


class StoredDescriptor(msgspec.Struct, frozen=True):
    """One of them."""

    name: str
    fd: int


class DescriptorStore:
    """The store of one process slot."""

    __slots__ = ("_stored", "refused")

    def __init__(self) -> None:
        self._stored: list[StoredDescriptor] = []
        self.refused = 0  #: descriptors that found no room, or had a name that cannot be

    def __len__(self) -> int:
        return len(self._stored)

    def saved(self) -> tuple[StoredDescriptor, ...]:
        """What is in it, the oldest first."""
        return tuple(self._stored)

    def take(self, name: str, descriptors: Iterable[int]) -> tuple[int, ...]:
        """Keep ``descriptors`` under ``name``; returns those that are not kept, which stay the caller's to close."""
        left = []
        name = name or UNNAMED
        sound = len(name) <= NAME_CHARACTERS and name.isascii() and name.isprintable() and ":" not in name
        for fd in descriptors:
            if not sound or len(self._stored) >= STORE_LIMIT:
                self.refused += 1
                left.append(fd)
            elif self._has(fd):
                left.append(fd)
            else:
                self._stored.append(StoredDescriptor(name, fd))
        return tuple(left)

    def _has(self, fd: int) -> bool:
        """Whether the same socket is kept already: programs send all they have at each reload."""
        found = os.fstat(fd)
        if not stat.S_ISSOCK(found.st_mode):
            return False
        return any(os.path.sameopenfile(fd, each.fd) for each in self._stored)

    def remove(self, name: str) -> None:
        """Those of that name are closed."""
        for each in [each for each in self._stored if each.name == (name or UNNAMED)]:
            self._stored.remove(each)
            os.close(each.fd)

    def inherit(self, stored: Iterable[StoredDescriptor]) -> None:
        """After a re-exec: what our former self kept."""
        for each in stored:
            try:
                os.set_inheritable(each.fd, False)
            except OSError:  # it did not come over
                continue
            self._stored.append(each)

    def clear(self) -> None:
        """All are closed."""
        for each in self._stored:
            os.close(each.fd)
        self._stored.clear()
