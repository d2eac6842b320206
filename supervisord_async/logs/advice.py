"""What to do when a log cannot be written."""

from __future__ import annotations

import errno

_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, or raise the quota",
    errno.EACCES: "let the daemon write there",
    errno.EPERM: "let the daemon write there",
    errno.EROFS: "mount it writable",
    errno.ENXIO: "start the FIFO's reader",
    errno.EPIPE: "start the FIFO's reader",
    errno.EAGAIN: "the FIFO's reader does not read",
    errno.EFBIG: "raise the daemon's limit of file sizes, or set logs.max_size",
    errno.EISDIR: "name a file",
    errno.ELOOP: "name the place itself, or let root lay the link",
    errno.ENOTDIR: "name a directory that can be made",
    errno.EMFILE: "raise the limit of open files",
    errno.ENFILE: "raise the limit of open files",
}


def advice_on(number: int | None) -> str:
    """In a few words, what to do about a failure with this errno."""
    return _ADVICE.get(number or 0, "fix that")
