"""Where a stream's output goes, and in what form."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import msgspec

Format = Literal["raw", "timestamp", "json"]
Stream = Literal["stdout", "stderr"]


class Target(msgspec.Struct, frozen=True):
    """The settings of one log."""

    path: str | None  #: absolute; a file, a device or a FIFO; None: output is thrown away
    max_size_bytes: int = 50 * 1024 * 1024  #: a file that has grown to this is rotated at its next line end; 0: never
    backups: int = 5  #: how many older files are kept; 0: the file is emptied instead
    compress: bool = False  #: backups become ``.gz``
    format: Format = "raw"


class LossReport(msgspec.Struct, frozen=True):
    """A stream's output cannot be written, or can be again."""

    kind: Literal["begin", "end"]
    process_name: str
    stream: Stream
    path: str
    errno: int | None  #: of the failure that began it
    bytes_lost: int  #: in this whole episode; 0 when it begins
    lines_lost: int
    message: str  #: for people: what, why, what to do

    def record(self, name: str) -> dict[str, Any]:
        """What to publish on the bus about it: the keywords of ``Bus.publish``."""
        return {
            "type_": "log_loss" if self.kind == "begin" else "log_recovered",
            "name": name,
            "message": self.message,
            "data": {
                "stream": self.stream,
                "path": self.path,
                "errno": self.errno,
                "bytes_lost": self.bytes_lost,
                "lines_lost": self.lines_lost,
            },
        }


class PipeLike(Protocol):
    """What a capture needs of :class:`supervisord_async.system.pipes.Pipe`, which stays its owner's."""

    read_fd: int  #: never blocks
    child_fd: int  #: what children write to

    def grow(self, size_bytes: int) -> int:
        """It holds up to that, where it may; returns what it holds (bytes)."""
        ...
