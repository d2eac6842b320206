"""Where output waits between its pipe and its log, in the formats that change it, so that a kill neither loses nor duplicates any.

Theory of operation
-------------------
Raw output needs none of this: ``splice`` from the pipe to the end of the log is one step (see
:mod:`supervisord_async.system.transfer`), and the log's size is the record of what was taken. ``timestamp`` and
``json`` change bytes on the way, so there are two steps, each of which a SIGKILL leaves either done or not done:

1. The pipe's bytes are spliced to the end of the spool, a small file in run_dir. What has left the pipe is in the spool.
2. Whole lines of the spool are rendered and appended to the log. Before that, a record is written to the spool's head: which
   of its bytes, with what time and run, and where they will go: the log's device and inode, its present size, and how much
   of the rendered text went elsewhere before (the log may rotate in the middle). After a kill, the next daemon renders the same
   bytes with the same time and run, which gives the same text; the log has as much of it as it has grown; the rest is
   appended. When all is appended, a record says that those bytes of the spool are done.

A record that was not followed by its append because the append *failed* is replaced by one without an inode, since
others may append to the log before this is tried again.

Records alternate between two slots, numbered and with a checksum, so that a torn one leaves the one before it. Now and then
the done bytes are cut off the spool's head: what is left is copied to the head, over done bytes; a record says so; and the
file is truncated. That record is enough to truncate it again after a kill. Another record ends the cut before anything more is
taken from the pipe: nothing may be appended as long as the file may have to be truncated. Fields in memory change after the
record is written, not before: the write may fail, and is then repeated.

All of this lives in the page cache: it survives the daemon, but no power failure. If the directory cannot be written, the
spool is an unnamed file in memory, which works the same but does not survive the daemon. A log that is a device or a FIFO has
no size to compare: after a kill a batch may be written twice there.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import struct
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from supervisord_async.logs.formats import render
from supervisord_async.logs.target import Format
from supervisord_async.system import transfer

if TYPE_CHECKING:
    from supervisord_async.logs.sink import Sink

_log = logging.getLogger(__name__)

#: The most bytes that wait in a spool; more wait in the pipe.
BOUND_BYTES = 1024 * 1024

_DATA = 4096  # the offset of the output
_META = 512
_SLOTS = (0, 128)
_RECORD = struct.Struct("<QBQQQQQQQQ")
_CHECK = struct.Struct("<I")
_IDLE, _APPENDING, _CUTTING = 0, 1, 2
_NO_BATCH = (0,) * 6
_CUT_BYTES = 64 * 1024

#: Returns the present size of the file with that device and inode; None if it is not there.
Finder: TypeAlias = Callable[[int, int], "int | None"]


class Source(msgspec.Struct, frozen=True):
    """The process's name and the stream."""

    name: str
    stream: str


class Meta(msgspec.Struct, frozen=True):
    """Where a spool's output goes, in which format, and whose it is."""

    path: str
    format: Format
    name: str
    stream: str


class _Batch(msgspec.Struct):
    """Rendered text that is on its way to the log."""

    text: bytes
    end: int  #: the offset in the spool up to which it was rendered
    at_ms: int
    run: int
    done: int = 0  #: how many bytes of the text are in the log


class Spool:
    """One stream's spool. Used by one thread at a time."""

    __slots__ = ("_batch", "_cutting", "_described", "_end", "_fd", "_number", "_path", "_position", "_source")

    def __init__(self, fd: int, path: str | None, source: Source) -> None:
        """Owns ``fd``, with what an earlier daemon left in it. ``path`` None: the file has no name."""
        self._fd, self._path, self._source = fd, path, source
        self._number = 0
        self._described: tuple[str, str] | None = None
        self._batch: _Batch | None = None
        self._cutting = False  # the newest record is of a cut
        self._position = _DATA
        self._end = os.fstat(fd).st_size
        if self._end < _DATA:
            os.ftruncate(fd, _DATA)
            self._end = _DATA
        else:
            self._load()

    @property
    def waiting_bytes(self) -> int:
        """How many bytes are here that are not in the log yet."""
        return self._end - self._position

    @property
    def survives(self) -> bool:
        """Whether the next daemon can find it."""
        return self._path is not None

    def describe(self, path: str, format_: Format) -> None:
        """Record for the next daemon where this spool's output goes, and in which format; not to be called within a batch."""
        if self._described == (path, format_):
            return
        meta = json.dumps(msgspec.structs.asdict(Meta(path, format_, self._source.name, self._source.stream))).encode()  # any path's bytes
        room = _DATA - _META - 8
        if len(meta) <= room:
            os.pwrite(self._fd, struct.pack("<II", len(meta), zlib.crc32(meta)) + meta, _META)
        self._described = (path, format_)

    def take(self, pipe_fd: int, count: int) -> int:
        """Move up to ``count`` bytes from the pipe to the spool; returns how many, 0 if the pipe is empty or the spool full.

        To be called only after :meth:`append` has succeeded, which ends a cut. Raises OSError.
        """
        room = min(count, BOUND_BYTES - self.waiting_bytes)
        if room <= 0:
            return 0
        if not transfer.splices():
            return len(transfer.carry(pipe_fd, room, self._write))
        try:
            moved = transfer.move(pipe_fd, self._fd, room, self._end)
        except BlockingIOError:
            return 0
        self._end += moved
        return moved

    def _write(self, data: bytes) -> int:
        written = os.pwrite(self._fd, data, self._end)
        self._end += written
        return written

    def end_line(self) -> None:
        """End an incomplete line that waits here with a newline, because the rest of it was lost."""
        if self.waiting_bytes and os.pread(self._fd, 1, self._end - 1) != b"\n":
            self._end += os.pwrite(self._fd, b"\n", self._end)

    def read(self, limit: int) -> bytes:
        """At most the first ``limit`` bytes of what waits here; not to be called within a batch."""
        return os.pread(self._fd, min(limit, self.waiting_bytes), self._position)

    def newest(self, count: int) -> bytes:
        """The last ``count`` bytes that were taken."""
        return os.pread(self._fd, count, self._end - count)

    def begin(self, count: int, format_: Format, at_ms: int, run: int) -> None:
        """Make the first ``count`` waiting bytes the next batch; there must be none under way."""
        data = os.pread(self._fd, count, self._position)
        text = render(data, format_, at_ms=at_ms, name=self._source.name, stream=self._source.stream, run=run)
        self._batch = _Batch(text, self._position + count, at_ms, run)

    def append(self, sink: Sink) -> bool:
        """Finish an unfinished cut, and append the batch, if there is one, to the log. Returns whether the log was rotated.

        Raises OSError if part of the batch is not in the log yet, or it could not be recorded that all of it is.
        """
        self._end_cut()
        batch, rotated = self._batch, False
        while batch is not None and batch.done < len(batch.text):
            size = sink.ready()
            part = memoryview(batch.text)[batch.done :]
            if sink.may_rotate():
                room = sink.target.max_size_bytes - size
                fits = len(part) if len(part) <= room else batch.text.rfind(b"\n", batch.done, batch.done + max(room, 0)) + 1 - batch.done
                if fits <= 0 and size > 0:
                    rotated = sink.rotate() or rotated
                    continue  # with a new file, or, if that failed, with one that will not rotate for a while
                if fits <= 0:  # a single line longer than max_size
                    fits = (batch.text.find(b"\n", batch.done) + 1 or len(batch.text)) - batch.done
                part = part[:fits]
            self._append_part(sink, batch, part, size)
        if batch is not None:
            self._write_record(_IDLE, batch.end, self._end)
            self._position, self._batch = batch.end, None
            self._cut()
        return rotated

    def _append_part(self, sink: Sink, batch: _Batch, part: memoryview, size: int) -> None:
        where = (sink.dev, sink.ino) if sink.regular else (0, 0)
        self._write_batch_record(batch, where, size)
        try:
            batch.done += sink.write(part, size)
        except OSError:
            with contextlib.suppress(OSError):  # even on a full disk there is room, as it overwrites an earlier record
                self._write_batch_record(batch)
            raise
        if batch.done < len(batch.text):
            self._write_batch_record(batch)

    def resume(self, find: Finder) -> None:
        """Find out and record how much of a killed daemon's batch is in its log; from then on others may append to that log.

        ``find`` returns the log's present size. Raises OSError; then nothing has changed.
        """
        batch, record = self._batch, self._newest_record()
        if batch is None or record is None:
            return
        _, _, _, _, _, _, dev, ino, size, _ = record
        now = find(dev, ino) if ino else None
        if now is not None:
            batch.done += min(max(now - size, 0), len(batch.text) - batch.done)
        self._write_batch_record(batch)

    def _cut(self) -> None:
        """Cut off the done bytes, if there are many."""
        free = self._position - _DATA
        if free < _CUT_BYTES or self.waiting_bytes > free:
            return
        rest = os.pread(self._fd, self.waiting_bytes, self._position)
        if os.pwrite(self._fd, rest, _DATA) < len(rest):
            return
        self._write_record(_CUTTING, _DATA, _DATA + len(rest))
        self._position, self._end, self._cutting = _DATA, _DATA + len(rest), True
        self._end_cut()

    def _end_cut(self) -> None:
        """Finish a cut, so that the file may grow again. If it raises OSError, it must be tried again before anything else."""
        if self._cutting:
            os.ftruncate(self._fd, self._end)
            self._write_record(_IDLE, self._position, self._end)
            self._cutting = False

    def _write_batch_record(self, batch: _Batch, where: tuple[int, int] = (0, 0), size: int = 0) -> None:
        """Record that the rest of ``batch`` goes to the end of the file ``where`` (device, inode), ``size`` long; (0, 0): nowhere yet."""
        self._write_record(_APPENDING, self._position, batch.end, batch.at_ms, batch.run, *where, size, batch.done)

    def _write_record(self, kind: int, position: int, end: int, *of_batch: int) -> None:
        number = self._number + 1
        record = _RECORD.pack(number, kind, position, end, *(of_batch or _NO_BATCH))
        os.pwrite(self._fd, _CHECK.pack(zlib.crc32(record)) + record, _SLOTS[number % 2])
        self._number = number  # only now: after a failure the next record must go to this slot too, as the other one has the newest

    def _newest_record(self) -> tuple[int, ...] | None:
        records = []
        for slot in _SLOTS:
            data = os.pread(self._fd, _CHECK.size + _RECORD.size, slot)
            if len(data) == _CHECK.size + _RECORD.size and _CHECK.unpack_from(data)[0] == zlib.crc32(data[_CHECK.size :]):
                records.append(_RECORD.unpack_from(data, _CHECK.size))
        return max(records) if records else None

    def _load(self) -> None:
        record = self._newest_record()
        if record is None:
            return
        self._number, kind, position, end, at_ms, run, _, _, _, done = record
        if kind == _CUTTING:
            self._end, self._cutting = end, True
        self._position = min(max(position, _DATA), self._end)
        meta = self.meta()
        if meta is not None:  # a file's name may have a digest in place of a long process's name
            self._source = Source(meta.name, meta.stream)
        if kind == _APPENDING and meta is not None and self._position < end <= self._end:
            self.begin(end - self._position, meta.format, at_ms, run)
            if self._batch is not None:
                self._batch.done = min(done, len(self._batch.text))

    def meta(self) -> Meta | None:
        """What :meth:`describe` wrote; None if there is nothing, or it cannot be read."""
        size, check = struct.unpack("<II", os.pread(self._fd, 8, _META).ljust(8, b"\0"))
        data = os.pread(self._fd, min(size, _DATA), _META + 8)
        if not size or zlib.crc32(data) != check:
            return None
        try:
            return msgspec.convert(json.loads(data), Meta)
        except msgspec.ValidationError:  # by a later version, which has other formats
            return None

    def close(self) -> None:
        """Close the descriptor, and remove the file if nothing waits in it; if it cannot be removed, that is logged."""
        if self._fd >= 0:
            if self._path is not None and not self.waiting_bytes:
                try:
                    os.unlink(self._path)
                except FileNotFoundError:  # it was removed with the run_dir
                    pass
                except OSError as error:
                    _log.warning("cannot remove %s: %s", self._path, error.strerror)
            os.close(self._fd)
            self._fd = -1
