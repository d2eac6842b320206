"""Exchanges the names of two files atomically, so that neither name is ever missing."""

from __future__ import annotations

import ctypes
import errno
import os

_libc = ctypes.CDLL(None, use_errno=True)  # one for all: each makes classes, which only a collection of garbage frees

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def exchange(one: str, other: str) -> None:
    """Exchange the names of two files (``man 2 renameat2``, RENAME_EXCHANGE).

    Raises OSError if one is missing, or the C library, the kernel or the filesystem cannot do it; then nothing has changed.
    """
    if not hasattr(_libc, "renameat2"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if _libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), one, None, other)
