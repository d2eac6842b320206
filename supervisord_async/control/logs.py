"""A process's log as the API gives it: the last lines, then what comes, in bytes as they are."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import anyio
import msgspec

from supervisord_async.errors import FailedError
from supervisord_async.logs.tail import READERS, open_log, tail_sync
from supervisord_async.logs.tail import follow as follow_file
from supervisord_async.logs.target import Format

if TYPE_CHECKING:
    from supervisord_async.control.stream import SendChunk
    from supervisord_async.supervise.process import Process

#: A log that was not read in this time cannot be.
ANSWER_SECONDS = 10.0


class Source(msgspec.Struct, frozen=True):
    """One stream's file; ``stream`` says which stream's: stdout also where stderr goes there."""

    path: str
    format: Format
    stream: str = "stdout"

    @property
    def headers(self) -> dict[str, str]:
        """What an answer says of itself."""
        return {"asup-log-format": self.format, "asup-log-stream": self.stream}


def source_of(process: Process, stream: str) -> Source:
    """Where ``stream`` of ``process`` is written; raises FailedError where it is not kept in a file."""
    settings = process.program.logs
    where = settings.stderr if stream == "stderr" else settings.stdout
    if where == "stdout":
        where, stream = settings.stdout, "stdout"
    if where in ("none", "inherit"):
        raise FailedError(f"cannot read {stream} of {process.name}: logs.{stream} is {where!r}, it is not kept in a file")
    return Source(where.replace("{replica}", str(process.replica)), settings.format, stream)


async def last(source: Source, count: int, since: float | None) -> bytes:
    """The last ``count`` lines, not older than ``since`` (wall time) as far as the format tells; raises FailedError."""
    text, _ = await _recent(source, count, since)
    return text


async def follow(source: Source, count: int, since: float | None, send: SendChunk) -> None:
    """Send the last ``count`` lines, then what comes, until cancelled: nothing between is lost or sent twice."""
    text, offset = await _recent(source, count, since)
    await send(text)
    async for chunk in follow_file(source.path, from_start=offset is None, offset=offset):
        await send(chunk)


async def _recent(source: Source, count: int, since: float | None) -> tuple[bytes, int | None]:
    try:
        with anyio.fail_after(ANSWER_SECONDS):
            return await READERS.run(recent, source, count, since)
    except TimeoutError:
        words = f"cannot read {source.path}: its disk has not answered for {ANSWER_SECONDS:g} s"
        raise FailedError(words) from None
    except OSError as error:
        raise FailedError(f"cannot read {source.path}: {error.strerror}") from error


def recent(source: Source, count: int, since: float | None) -> tuple[bytes, int | None]:
    """The last lines, and the offset in the present file that they reach to (None: there is no file). Blocking."""
    size = size_of(source.path)
    lines = tail_sync(source.path, count, since, source.format)
    text = b"".join(line + b"\n" for line in lines)
    if size is None:
        return text, None
    with open_log(source.path) as file:
        file.seek(size)
        grown = file.read(1 << 20)  # what was written while the lines were read; they may reach into it
        reach = size + _overlap(text, grown)
        if reach and text:
            file.seek(reach - 1)
            if file.read(1) != b"\n":
                text = text[:-1]  # its last line has no end yet
    return text, reach


def _overlap(text: bytes, grown: bytes) -> int:
    """How many bytes of ``grown`` are at the end of ``text`` already."""
    end = len(grown)
    while end > 0:
        if text.endswith(grown[:end]):
            return end
        end = grown.rfind(b"\n", 0, end - 1) + 1
    return 0


def size_of(path: str) -> int | None:
    """How long the log is; None: there is no file. Raises OSError: it cannot be looked at, or it is no regular file."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):  # who reads a FIFO takes what is meant for another, or waits for ever
        raise OSError(errno.EINVAL, "not a regular file", path)
    return status.st_size
