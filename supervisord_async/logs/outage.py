"""An outage of a stream's log: when the next attempt to write is due, and what was lost. Pure: the caller passes the time."""

from __future__ import annotations

import errno
from typing import Literal

from supervisord_async.logs.target import LossReport, Stream

#: A pipe's capacity during an outage; beyond that the oldest output is discarded.
KEPT_BYTES = 1024 * 1024
#: The first and the longest pause between two attempts to write; it doubles each time.
RETRY_FIRST_SECONDS, RETRY_LAST_SECONDS = 0.1, 5.0
#: The first and the longest pause between two checks of how full the pipe is; it doubles as well.
POLL_FIRST_SECONDS, POLL_LAST_SECONDS = 0.005, 0.25

#: What to do about an error.
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


class Outage:
    """One outage, from its first error on. All times are monotonic, in seconds."""

    __slots__ = ("_look_after", "_retry_after", "_retry_at", "bytes_lost", "error", "lines_lost", "makes_room")

    def __init__(self, error: OSError, now: float) -> None:
        """The first attempt failed ``now``, with ``error``."""
        self.error = error
        self.bytes_lost = 0
        self.lines_lost = 0
        self.makes_room = False  #: whether the next turn, or the current one, discards output instead of writing it
        self._retry_after = RETRY_FIRST_SECONDS
        self._retry_at = now + RETRY_FIRST_SECONDS
        self._look_after = POLL_FIRST_SECONDS

    def failed_again(self, now: float, *, progress: bool) -> None:
        """Another attempt failed. If something was written before (``progress``), the pauses start with the first one again."""
        self._retry_after = RETRY_FIRST_SECONDS if progress else min(self._retry_after * 2, RETRY_LAST_SECONDS)
        self._retry_at = now + self._retry_after
        self._look_after = POLL_FIRST_SECONDS

    def hasten(self) -> None:
        """The next attempt is due now, as what prevented writing may be gone."""
        self._retry_at = 0.0
        self._retry_after = RETRY_FIRST_SECONDS

    def is_retry_due(self, now: float) -> bool:
        """Whether it is time for another attempt."""
        return now >= self._retry_at

    def looked(self) -> None:
        """The pipe was not full: the next check can wait longer."""
        self._look_after = min(self._look_after * 2, POLL_LAST_SECONDS)

    def made_room(self, count_bytes: int, count_lines: int) -> None:
        """A turn has discarded so much. If that was nothing, the next check can wait the longest pause."""
        self.makes_room = False
        self.lost(count_bytes, count_lines)
        self._look_after = POLL_FIRST_SECONDS if count_bytes else POLL_LAST_SECONDS

    def lost(self, count_bytes: int, count_lines: int) -> None:
        """So much output will never get to the log."""
        self.bytes_lost += count_bytes
        self.lines_lost += count_lines

    def pause(self, now: float) -> float:
        """The seconds until the next check or attempt, whichever comes first."""
        return max(min(self._look_after, self._retry_at - now), 0.0)

    def report(self, kind: Literal["begin", "written again", "given up"], process_name: str, stream: Stream, path: str) -> LossReport:
        """The report of its beginning or end."""
        log = f"{path}, the log of {process_name} ({stream})"
        reason = self.error.strerror or str(self.error)
        if kind == "begin":
            advice = _ADVICE.get(self.error.errno or 0, "fix that")
            message = (
                f"cannot write {log}: {reason} ({advice}; up to {KEPT_BYTES // 1024} KiB of output is kept, "
                "beyond that the oldest is dropped; writing is tried again every few seconds)"
            )
        else:
            end = "is written again" if kind == "written again" else "is not written any more"
            lost = f"{self.bytes_lost} bytes in {self.lines_lost} lines were lost" if self.bytes_lost else "nothing was lost"
            message = f"{log}, {end}; {lost} ({reason})"
        return LossReport(
            kind="begin" if kind == "begin" else "end",
            process_name=process_name,
            stream=stream,
            path=path,
            errno=self.error.errno,
            bytes_lost=self.bytes_lost,
            lines_lost=self.lines_lost,
            message=message,
        )
