"""The C library's heap, told what a daemon wants of it; where the library knows nothing of that (musl), it stays as it is."""

from __future__ import annotations

import ctypes
from contextlib import suppress

#: malloc.h: M_MMAP_THRESHOLD, and what it is when nobody has freed anything larger yet.
_MMAP_THRESHOLD = -3
_LARGE_BYTES = 128 * 1024


def return_large_blocks() -> None:
    """What is larger than 128 KiB is the kernel's again as soon as it is freed (``man 3 mallopt``).

    Otherwise glibc takes the first such block for a sign that more will come, and keeps the next ones between what stays:
    a state that was encoded, an answer of a thousand processes leave holes of megabytes.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
