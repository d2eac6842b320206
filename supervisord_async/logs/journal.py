"""How output survives a SIGKILL of the daemon: raw output by itself, the other formats through spools.

Raw output is moved by ``splice``, which removes from the pipe exactly what it has written to the log, whenever the kill comes;
and a rotation is a series of renames that may stop anywhere. So the next daemon, which gets the pipe back from the children,
continues at the log's end, and nothing needs to be recorded. This is tested with hundreds of kills at random moments, and with
each pair of system calls at which two daemons in succession may die: ``tests/logs/test_killed.py``, ``test_dying.py``.

Output that is changed on the way passes through a spool, see :mod:`supervisord_async.logs.spool`. This module is the directory
of the spools. Opening it finishes what a killed daemon had begun, before anything else is appended to the same logs.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Collection
from functools import partial
from urllib.parse import quote, unquote

import anyio.to_thread

from supervisord_async.logs import rotation
from supervisord_async.logs.sink import Sink
from supervisord_async.logs.spool import Source, Spool
from supervisord_async.logs.target import Target

_log = logging.getLogger(__name__)
_NAME_BYTES = 200


class Journal:
    """The spools of one daemon."""

    def __init__(self, directory: str | None) -> None:
        """To be called by :meth:`open`; with ``directory`` None, spools are in memory, and do not survive the daemon."""
        self._directory = directory
        self._warned = False  # that a spool cannot be written
        self._left: set[str] = set(os.listdir(directory)) if directory is not None else set()

    @classmethod
    def open(cls, directory: str) -> Journal:
        """Make the directory (0700) if need be, and finish writing the batches that an earlier daemon had begun.

        Never fails: if the directory cannot be written, that is logged, and spools are in memory. To be called before any capture
        starts, and only while holding the run_dir's lock.
        """
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            probe = os.path.join(directory, ".probe")
            os.close(os.open(probe, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            os.unlink(probe)
            journal = cls(directory)
        except OSError as error:
            _log.warning(
                "cannot write %s: %s (timestamped and JSON logs lose some lines if the daemon is killed)", directory, error.strerror
            )
            return cls(None)
        for appending in (False, True):  # as logs may be shared: first find out how much of each batch is in its log, then append
            for file in sorted(journal._left):
                journal._finish(file, appending=appending)
        return journal

    @property
    def unfinished(self) -> bool:
        """Whether an earlier daemon left anything that is still to be written."""
        return bool(self._left)

    def has_left(self, name: str, stream: str) -> bool:
        """Whether an earlier daemon left something of this stream that is still to be written."""
        return _file_name(name, stream) in self._left

    def spool(self, name: str, stream: str) -> Spool:
        """The stream's spool, with what an earlier daemon left in it. Raises OSError only if not even one in memory can be made."""
        source = Source(name, stream)
        if self._directory is not None:
            file = _file_name(name, stream)
            path = os.path.join(self._directory, file)
            self._left.discard(file)
            try:
                os.makedirs(self._directory, mode=0o700, exist_ok=True)  # somebody may have removed the run_dir
                return Spool(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), path, source)
            except OSError as error:
                if not self._warned:
                    _log.warning("cannot write %s: %s (lines of %s may be lost if the daemon is killed)", path, error.strerror, name)
                self._warned = True
        return Spool(os.memfd_create(f"asup-{stream}", os.MFD_CLOEXEC), None, source)

    async def sweep(self, in_use: Collection[tuple[str, str]]) -> None:
        """Write what earlier daemons left of streams that are not ``in_use`` (name, stream) to their logs. In threads."""
        used = {_file_name(name, stream) for name, stream in in_use}
        for file in sorted(self._left - used):
            self._left.discard(file)
            await anyio.to_thread.run_sync(partial(self._finish, file, everything=True), abandon_on_cancel=True)

    def _finish(self, file: str, *, appending: bool = True, everything: bool = False) -> None:
        """Write the batch that was under way (or ``everything`` that waits) to its log; a failure is logged, and nothing is lost.

        Without ``appending``, only record how much of the batch is in the log.
        """
        if self._directory is None:
            return
        path = os.path.join(self._directory, file)
        try:
            name, _, stream = unquote(file).rpartition(".")
            spool = Spool(os.open(path, os.O_RDWR | os.O_CLOEXEC), path, Source(name, stream))
        except OSError as error:
            _log.warning("cannot read %s: %s", path, error.strerror)
            return
        meta = spool.meta()
        if meta is None:
            spool.close()
            return
        sink = Sink(meta.path, Target(meta.path, max_size_bytes=0))
        try:
            spool.resume(lambda dev, ino: _size_of(meta.path, dev, ino))
            if appending:
                spool.append(sink)
            if everything and spool.waiting_bytes:
                at_ms = os.stat(path).st_mtime_ns // 1_000_000
                spool.begin(spool.waiting_bytes, meta.format, at_ms, 0)
                spool.append(sink)
        except OSError as error:
            _log.warning("cannot finish %s of an earlier daemon: %s (it stays in %s)", meta.path, error.strerror, path)
        finally:
            sink.close()
            if not spool.waiting_bytes:
                self._left.discard(file)
            spool.close()


def _file_name(name: str, stream: str) -> str:
    """A file name for any process name."""
    quoted = quote(name, safe="")
    if len(quoted) > _NAME_BYTES:
        quoted = f"{quoted[:100]}-{hashlib.sha256(name.encode()).hexdigest()[:32]}"
    return f"{quoted}.{stream}"


def _size_of(path: str, dev: int, ino: int) -> int | None:
    """The size of the log with that inode, at its path or among its backups; None if it is not there."""
    for candidate in (path, *(found for _, found in rotation.backups_of(os.path.realpath(path)))):
        try:
            status = os.stat(candidate)
        except OSError:  # inaccessible: as if it were not there; at worst the batch is appended twice
            continue
        if (status.st_dev, status.st_ino) == (dev, ino):
            return status.st_size
    return None
