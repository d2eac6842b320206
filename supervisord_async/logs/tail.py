"""Reads a log's last lines, and what is appended to it, across rotations. Independent of the code that writes logs.

``since`` is compared with each line's own time in the ``timestamp`` and ``json`` formats. Raw lines have none: a file is
included or left out as a whole, by its modification time, so some of its lines may be older.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING

import anyio
import msgspec

from supervisord_async.logs import rotation
from supervisord_async.logs.target import Format
from supervisord_async.system import safe_open
from supervisord_async.system.threads import DaemonThreads

if TYPE_CHECKING:
    from gzip import GzipFile

#: The most that :func:`tail` returns, however many lines were requested.
BOUND_BYTES = 8 * 1024 * 1024
#: Precedes the end of a last line that is longer than that.
CUT = b"[the beginning of this line is left out] "
#: The pause between two looks of :func:`follow`.
POLL_SECONDS = 0.25

#: The threads that read logs. A disk that hangs can hold up these, and nothing else.
READERS = DaemonThreads(32, "read")

_BLOCK_BYTES = 64 * 1024
_CHUNK_BYTES = 256 * 1024


def tail(path: str, n: int, since: float | None = None, format_: Format = "raw") -> bytes:
    """The last ``n`` lines (only those not older than ``since``, seconds since 1970), the last one perhaps without its newline yet.

    Backups are read too if ``path`` has fewer lines. At most :data:`BOUND_BYTES` in all, of a longer last line its end; empty if there
    is no file. Blocks. Raises OSError.
    """
    place = _Place()
    try:
        return _tail(place, path, n, since, format_)
    finally:
        place.close()


def _tail(place: _Place, path: str, n: int, since: float | None, format_: Format) -> bytes:
    """As :func:`tail`; ``place`` is right behind the lines, in the file that they were read from."""
    _open_at(place, path, from_start=False)
    found: deque[bytes] = deque()
    room = BOUND_BYTES
    with closing(_lines_backwards(place, path, since, n)) as backwards:  # here, as closing a file may fail
        for line in backwards if n > 0 else ():
            if since is not None and _older(line, since, format_):
                break
            if len(line) >= room:
                if not found:
                    found.append(CUT + line[len(CUT) + 1 - room :])
                break
            room -= len(line) + 1
            found.appendleft(line)
            if len(found) == n:
                break
    text = b"".join(line + b"\n" for line in found)
    if place.file is None or not place.began:
        return text
    place.file.seek(place.began)
    return text if os.pread(place.file.fileno(), 1, place.began - 1) == b"\n" else text[:-1]


def _lines_backwards(place: _Place, path: str, since: float | None, n: int) -> Generator[bytes]:
    """All lines before ``place``, and of backups, the youngest first; stops at a file last written before ``since``."""
    for file in (path, *(found for _, found in rotation.backups_of(os.path.realpath(path)))):
        present = file == path
        try:
            source = place.again() if present else open_log(file)
        except FileNotFoundError:  # rotated away meanwhile, or never written
            continue
        with source:
            if not present and place.is_in(source):
                continue  # it was rotated meanwhile
            if since is not None and os.fstat(source.fileno()).st_mtime < since:
                return
            if file.endswith(".gz") and file != path:
                yield from _packed_backwards(_unpacked(source), n)
            else:
                yield from _plain_backwards(source, place.began if present else None)


def open_log(path: str, buffering: int = -1) -> IO[bytes]:
    """Open a log or a backup for reading. Raises OSError, also if it is no regular file: from a FIFO we would take its reader's data."""
    _need_regular(path, os.stat(path))  # before it is opened, too: the writers of a FIFO would take us for its reader
    descriptor = safe_open.open_file(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        _need_regular(path, os.fstat(descriptor))
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb", buffering)


def _need_regular(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)


def _plain_backwards(source: IO[bytes], end: int | None) -> Iterator[bytes]:
    """The lines before ``end`` (None: all), last one first, reading no more of the file than needed; one beyond the bound is the last."""
    position = source.seek(0, os.SEEK_END) if end is None else end
    rest: list[bytes] = []  # the parts of a line whose beginning was not read yet, the last part first
    first = True
    while position:
        start = max(0, position - _BLOCK_BYTES)
        source.seek(start)
        block = source.read(position - start)
        position = start
        if first:
            block, first = block.removesuffix(b"\n"), False
        head, *lines = block.split(b"\n")
        if lines:
            yield lines[-1] + b"".join(reversed(rest))
            yield from reversed(lines[:-1])
            rest = []
        rest.append(head)
        if sum(map(len, rest)) > BOUND_BYTES:
            break  # the end of this line is all that may be shown
    if not first:
        yield b"".join(reversed(rest))


def _unpacked(file: IO[bytes]) -> GzipFile:
    import gzip

    return gzip.GzipFile(fileobj=file, mode="rb")


def _packed_backwards(source: GzipFile, n: int) -> Iterator[bytes]:
    """The lines, last one first, of a file that can only be read from its start; the last ``n``, within :data:`BOUND_BYTES`."""
    kept: deque[bytes] = deque(maxlen=n)
    size = 0
    while line := source.readline(BOUND_BYTES):
        if len(kept) == n:
            size -= len(kept[0])
        kept.append(line)
        size += len(line)
        while size > BOUND_BYTES and len(kept) > 1:
            size -= len(kept.popleft())
    for line in reversed(kept):
        yield line.removesuffix(b"\n")


def _older(line: bytes, since: float, format_: Format) -> bool:
    at = time_of(line, format_)
    return at is not None and at < since


def time_of(line: bytes, format_: Format) -> float | None:
    """A line's own time, in seconds since 1970; None if it has none."""
    try:
        if format_ == "timestamp":
            text = line[:24].decode("ascii")
        elif format_ == "json":
            text = json.loads(line)["at"]
        else:
            return None
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC).timestamp()
    except (ValueError, KeyError, TypeError):  # not a line of this format: somebody else wrote it
        return None


class _Place(msgspec.Struct):
    """The file that a follower reads; how far it has read is the file's own position."""

    file: IO[bytes] | None = None
    ino: tuple[int, int] = (0, 0)
    began: int = 0  #: where in its first file it began to follow

    def again(self) -> IO[bytes]:
        """The file, opened once more. Raises FileNotFoundError if there is none."""
        if self.file is None:
            raise FileNotFoundError
        return open(f"/proc/self/fd/{self.file.fileno()}", "rb")

    def is_in(self, source: IO[bytes]) -> bool:
        """Whether ``source`` is the file that is followed."""
        status = os.fstat(source.fileno())
        return self.file is not None and (status.st_dev, status.st_ino) == self.ino

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None


async def follow(
    path: str,
    n: int = 0,
    *,
    since: float | None = None,
    format: Format = "raw",  # noqa: A002
    ended: Callable[[], bool] = lambda: False,
    poll_seconds: float = POLL_SECONDS,
) -> AsyncGenerator[bytes]:
    """Yield the lines of :func:`tail` as one chunk, even if it is empty, then what is appended, in chunks of any size.

    Once nothing more is written there (``ended``), it returns behind what was written before.

    What is appended is read on from where the lines were read, so nothing is lost or repeated however fast the log grows.

    It continues across rotation, truncation, removal and re-creation. A file that does not exist yet is waited for, and then
    read from its start. Raises OSError if the file cannot be read.
    """
    place = _Place()
    try:
        yield await READERS.run(_tail, place, path, n, since, format)
        while True:
            over = ended()  # asked before the read, which then finds all that was written
            chunk = await READERS.run(_next, place, path)
            if chunk:
                yield chunk
            elif over:
                return
            else:
                await anyio.sleep(poll_seconds)
    finally:
        READERS.submit(place.close)  # not here: closing may hang, and a thread may still be reading


def _open_at(place: _Place, path: str, *, from_start: bool) -> None:
    """Open the log at its start, or its end. Without a log, ``place`` has no file."""
    place.close()
    try:
        place.file = open_log(path, buffering=0)
    except FileNotFoundError:
        return
    status = os.fstat(place.file.fileno())
    place.ino = (status.st_dev, status.st_ino)
    place.began = 0 if from_start else place.file.seek(0, os.SEEK_END)


def _next(place: _Place, path: str) -> bytes:
    """The next chunk; empty if there is nothing new."""
    if place.file is None:
        _open_at(place, path, from_start=True)
        if place.file is None:
            return b""
    while True:
        # Checked before the read, so that all that was written to the old file before it was renamed is read first.
        moved_on = not _is_at(path, place.ino)
        chunk = place.file.read(_CHUNK_BYTES)
        if chunk:
            return chunk
        if os.fstat(place.file.fileno()).st_size < place.file.tell():
            place.file.seek(0)  # somebody emptied it
            continue
        if not moved_on:
            return b""
        successor = _successor(path, place.ino)
        if successor is None:
            return b""
        place.file.close()
        place.file = successor
        status = os.fstat(successor.fileno())
        place.ino = (status.st_dev, status.st_ino)


def _successor(path: str, ino: tuple[int, int]) -> IO[bytes] | None:
    """The file that followed the one with ``ino`` when that was rotated; None if there is none yet."""
    chain = [path, *(found for _, found in rotation.backups_of(os.path.realpath(path)) if not found.endswith(".gz"))]
    newer = path
    for candidate in chain:
        if _is_at(candidate, ino):
            break
        newer = candidate
    else:
        newer = path  # it is gone, or compressed: the present file is the best guess
    try:
        return open_log(newer, buffering=0)
    except FileNotFoundError:
        return None


def _is_at(path: str, ino: tuple[int, int]) -> bool:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return False
    return (status.st_dev, status.st_ino) == ino
