"""Tunes the C library's heap for a daemon; a library without such settings (musl) is left as it is."""

from __future__ import annotations

import ctypes
from contextlib import suppress

#: malloc.h: M_MMAP_THRESHOLD, and its initial value in glibc.
_MMAP_THRESHOLD = -3
_LARGE_BYTES = 128 * 1024


def return_large_blocks() -> None:
    """Blocks above 128 KiB go back to the kernel as soon as they are freed (``man 3 mallopt``).

    By default glibc raises this threshold when the first such block is freed, and allocates the next ones between small
    blocks that stay: then an encoded state, or an answer about a thousand processes, leaves holes of megabytes.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
