"""A process's log for the API: the last lines, then new output as it is written, as raw bytes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

import anyio
import msgspec

from supervisord_async.errors import FailedError
from supervisord_async.logs.tail import READERS, tail
from supervisord_async.logs.tail import follow as follow_file
from supervisord_async.logs.target import Format
from supervisord_async.system.shortage import is_shortage

if TYPE_CHECKING:
    from supervisord_async.control.stream import SendChunk
    from supervisord_async.supervise.process import Process

#: A log that cannot be read within this time is an error.
ANSWER_SECONDS = 10.0


class Source(msgspec.Struct, frozen=True):
    """The file of one stream; ``stream`` is stdout also for a stderr that goes to the same place."""

    path: str
    format: Format
    stream: str = "stdout"

    @property
    def headers(self) -> dict[str, str]:
        """The headers that tell a client the log's format and stream."""
        return {"asup-log-format": self.format, "asup-log-stream": self.stream}


def source_of(process: Process, stream: str) -> Source:
    """Where ``stream`` of ``process`` is written. Raises FailedError if it is not kept in a file."""
    settings = process.program.logs
    where = settings.stderr if stream == "stderr" else settings.stdout
    if where == "stdout":
        where, stream = settings.stdout, "stdout"
    if where in ("none", "inherit"):
        raise FailedError(f"cannot read {stream} of {process.name}: logs.{stream} is {where!r}, it is not kept in a file")
    return Source(where.replace("{replica}", str(process.replica)), settings.format, stream)


async def last(source: Source, count: int, since: float | None) -> bytes:
    """The last ``count`` lines; if lines have timestamps, none older than ``since`` (wall time). Raises FailedError."""
    return await _in_time(source, READERS.run(tail, source.path, count, since, source.format))


async def follow(source: Source, count: int, since: float | None, send: SendChunk, moved: Callable[[], bool]) -> None:
    """Send the last ``count`` lines, then new output until cancelled; in between nothing is lost or sent twice.

    It ends if the file can no longer be read, or the stream is written elsewhere or gone (``moved``): a client that asks again gets
    the other log, or is told why.
    """
    async with aclosing(follow_file(source.path, count, since=since, format=source.format, ended=moved)) as chunks:
        await send(await _in_time(source, anext(chunks)))
        with suppress(OSError):
            async for chunk in chunks:
                await send(chunk)


async def _in_time(source: Source, reading: Awaitable[bytes]) -> bytes:
    try:
        with anyio.fail_after(ANSWER_SECONDS):
            return await reading
    except TimeoutError:
        words = f"cannot read {source.path}: its disk has not answered for {ANSWER_SECONDS:g} s"
        raise FailedError(words) from None
    except OSError as error:
        if is_shortage(error):
            raise
        raise FailedError(f"cannot read {source.path}: {error.strerror}") from error
