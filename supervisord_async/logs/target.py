"""Where a stream's output goes, and in what form."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Format = Literal["raw", "timestamp", "json"]
Stream = Literal["stdout", "stderr"]

#: Paths that lead to the daemon's own output. Where that is a file it is the shell's, or whoever's else: what is written there is
#: written through the daemon's descriptor, behind what others have written by it, and the path is never renamed: it is the system's.
STANDARD_STREAMS = {f"{path}{fd}": fd for path in ("/dev/fd/", "/proc/self/fd/") for fd in (1, 2)} | {"/dev/stdout": 1, "/dev/stderr": 2}


class Target(msgspec.Struct, frozen=True):
    """The settings of one log."""

    path: str | None  #: absolute; a file, a device or a FIFO; None: output is thrown away
    max_size_bytes: int = 50 * 1024 * 1024  #: a file that has grown to this is rotated at its next line end; 0: never
    backups: int = 5  #: how many older files are kept; 0: the file is emptied instead
    compress: bool = False  #: backups become ``.gz``
    format: Format = "raw"


class LossReport(msgspec.Struct, frozen=True):
    """A report that a stream's output cannot be written, or can be again."""

    kind: Literal["begin", "end"]
    process_name: str
    stream: Stream
    path: str
    errno: int | None  #: of the first failure
    bytes_lost: int  #: during the whole outage; 0 when it begins
    lines_lost: int
    message: str  #: for people: what, why, what to do

    def record(self) -> dict[str, Any]:
        """Its record: the keyword arguments of ``Bus.publish``."""
        return {
            "type_": "log_loss" if self.kind == "begin" else "log_recovered",
            "name": self.process_name,
            "message": self.message,
            "data": {
                "stream": self.stream,
                "path": self.path,
                "errno": self.errno,
                "bytes_lost": self.bytes_lost,
                "lines_lost": self.lines_lost,
            },
        }
