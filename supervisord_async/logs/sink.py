"""The open end of one log: a file that rotates, a device, or a FIFO. Used by one thread at a time; may block on its disk.

The open file is never assumed to be still the one at its path: if somebody else (``logrotate``, with or without
``copytruncate``) has removed, renamed or truncated it, that is noticed, and the path is created again, with its directory
(0755) if need be. Files are created with mode 0644 less the umask. Folders may belong to other users: see :mod:`.safe_open`.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import stat
import threading
import time
from typing import TYPE_CHECKING

import msgspec

from supervisord_async.logs import rotation
from supervisord_async.logs.target import STANDARD_STREAMS
from supervisord_async.system import safe_open, transfer
from supervisord_async.system.descriptors import LOG_ROOM, keep_room

if TYPE_CHECKING:
    from supervisord_async.logs.target import Target

#: The least time between two comparisons of the path with the open file; a file that was unlinked is noticed at once.
CHECK_SECONDS = 1.0
#: The pause before a rotation that failed is tried again; the file grows meanwhile.
ROTATION_RETRY_SECONDS = 5.0

_log = logging.getLogger(__name__)


class OutgrownError(OSError):
    """The file has the maximum size that this process (RLIMIT_FSIZE) or the file system allows."""


class Outcome(msgspec.Struct):
    """What one turn did for one stream."""

    moved: int = 0  #: bytes moved out of the pipe
    more: bool = False  #: the turn was over before the pipe was empty
    held: bool = False  #: the beginning of a line waits for its end
    discarded: int = 0  #: bytes thrown away
    discarded_lines: int = 0
    echoed: list[bytes] = msgspec.field(default_factory=list)  #: a copy of what was moved, if there is an echo
    rotated: bool = False
    error: OSError | None = None  #: why it stopped


class Sink:
    """The open file of one path. The loop sets ``target``, ``reopen`` and ``prune``; the rest is the thread's whose turn it is."""

    __slots__ = (
        "can_splice",
        "checked_at",
        "dev",
        "fd",
        "ino",
        "lock",
        "path",
        "prune",
        "real_path",
        "regular",
        "reopen",
        "rotate_after",
        "target",
    )

    def __init__(self, path: str, target: Target) -> None:
        """Nothing is open yet."""
        self.path = path
        self.real_path = path  #: of the file opened last: where a link leads; its backups are beside it
        self.target = target
        self.fd = -1
        self.dev = self.ino = 0
        self.regular = False
        self.can_splice = True
        self.checked_at = 0.0
        self.rotate_after = 0.0
        self.reopen = False  # another file may be at the path now
        self.prune = False  # there may be more backups than are wanted
        self.lock = threading.Lock()  # held while backups are renamed, by a rotation or the compression

    def ready(self) -> int:
        """Open what is now at the path, unless it is open; returns its size in bytes, 0 if it is not a regular file. Raises OSError."""
        now = time.monotonic()
        if self.reopen or (self.fd >= 0 and now - self.checked_at >= CHECK_SECONDS and not self._is_at_path()):
            self.reopen = False
            self.close()
        if self.fd < 0:
            self._open()
            self.checked_at = now
        if not self.regular:
            return 0
        status = os.fstat(self.fd)
        if status.st_nlink == 0:
            self.close()
            self._open()
            status = os.fstat(self.fd)
        return status.st_size

    def _is_at_path(self) -> bool:
        self.checked_at = time.monotonic()
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return not self.regular  # whoever makes a FIFO anew must not find our file in its place
        return (status.st_dev, status.st_ino) == (self.dev, self.ino)

    def _open(self) -> None:
        common = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
        try:
            regular = stat.S_ISREG(os.stat(self.path).st_mode)
        except FileNotFoundError:
            regular = True
        standard = STANDARD_STREAMS.get(self.path)
        if regular and standard is not None:
            self.fd = keep_room(os.dup(standard), LOG_ROOM)
        elif regular:
            self.fd = keep_room(safe_open.open_file(self.path, os.O_RDWR | os.O_CREAT | common, 0o644, make_folders=True), LOG_ROOM)
        else:
            self.fd = keep_room(self._open_device(os.O_WRONLY | common), LOG_ROOM)
        status = os.fstat(self.fd)
        self.regular = standard is None and stat.S_ISREG(status.st_mode)
        self.dev, self.ino = status.st_dev, status.st_ino
        if self.regular and (real_path := os.readlink(f"/proc/self/fd/{self.fd}")) != self.real_path:
            self.real_path = real_path
        self.can_splice = self.regular or not stat.S_ISREG(status.st_mode)  # a splice takes no part in the order of a shared offset
        if self.prune and self.regular:
            self.prune = False
            with self.lock:
                rotation.prune(self.real_path, self.target.backups)

    def _open_device(self, flags: int) -> int:
        try:
            return safe_open.open_file(self.path, flags)
        except OSError as error:
            standard = STANDARD_STREAMS.get(self.path)
            # A socket, as under systemd, or a pipe of another user, as after su in a container: it cannot be opened, and need not be.
            if error.errno in (errno.ENXIO, errno.EACCES) and standard is not None:
                return os.dup(standard)
            raise

    def take(self, pipe_fd: int, count: int, size: int, outcome: Outcome, *, echo: bool) -> int:
        """Move up to ``count`` bytes from the pipe to the end of the file, which is ``size`` bytes long; returns how many.

        0: the pipe is empty. Raises OSError if nothing was moved; with EAGAIN, the FIFO's reader does not keep up.
        """
        if not transfer.splices():
            return self._carry(pipe_fd, count, size, outcome, echo=echo)
        seen = transfer.peek(pipe_fd, count) if echo or not self.can_splice else None
        if seen == b"":
            return 0
        if seen is not None:
            count = len(seen)
        moved = self._splice(pipe_fd, count, size) if self.can_splice else self._copy(pipe_fd, seen or b"", size)
        if moved < 0:  # it turned out that this cannot be spliced to: copy instead
            return self.take(pipe_fd, count, size, outcome, echo=echo)
        if echo and seen is not None:
            outcome.echoed.append(seen[:moved])
        outcome.moved += moved
        return moved

    def _splice(self, pipe_fd: int, count: int, size: int) -> int:
        try:
            return transfer.move(pipe_fd, self.fd, count, size if self.regular else None)
        except BlockingIOError:
            if self.regular or not transfer.pending_bytes(pipe_fd):
                return 0
            raise
        except OSError as error:
            if error.errno != errno.EINVAL:
                self._forget_broken(error)
                raise (_as_outgrown(error, size) if self.regular else error) from error
            self.can_splice = False
            return -1

    def _copy(self, pipe_fd: int, data: bytes, size: int) -> int:
        """For what cannot be spliced to. If the daemon is killed between the write and the read, the next one writes ``data`` again."""
        written = self.write(data, size)
        left = written
        while left:
            left -= len(os.read(pipe_fd, left))
        return written

    def _carry(self, pipe_fd: int, count: int, size: int, outcome: Outcome, *, echo: bool) -> int:
        """As :meth:`take`, by reading and writing, where the system refuses ``splice`` or ``tee``."""
        carried = 0

        def write(data: bytes) -> int:
            nonlocal carried
            written = self.write(data, size + carried)
            carried += written
            outcome.moved += written
            return written

        while carried < count:
            if not self.regular and transfer.is_full(self.fd):  # if it is not full, it has room for PIPE_BUF bytes
                if carried:
                    break
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            piece = transfer.carry(pipe_fd, count - carried if self.regular else min(count - carried, select.PIPE_BUF), write)
            if not piece:
                break
            if echo:
                outcome.echoed.append(piece)
        return carried

    def write(self, data: bytes | memoryview, size: int) -> int:
        """Append ``data``, or as much of it as fits, to the file, which is ``size`` bytes long; returns how many bytes were written.

        Raises OSError if nothing could be written; OutgrownError if it could be in a new file.
        """
        written = 0
        view = memoryview(data)
        while written < len(view):
            try:
                written += os.pwrite(self.fd, view[written:], size + written) if self.regular else os.write(self.fd, view[written:])
            except OSError as error:
                self._forget_broken(error)
                if written:
                    return written
                raise _as_outgrown(error, size) from error
        return written

    def ends_line(self, size: int) -> bool:
        """Whether the file's last byte is a newline; True for an empty file."""
        return not self.regular or size == 0 or os.pread(self.fd, 1, size - 1) == b"\n"

    def may_rotate(self) -> bool:
        """Whether this is a regular file with a size limit, and no rotation has failed within :data:`ROTATION_RETRY_SECONDS`."""
        return self.regular and self.target.max_size_bytes > 0 and time.monotonic() >= self.rotate_after

    def rotate(self) -> bool:
        """Make the file backup 1, or empty it if none are kept. Returns False if that failed: it is logged, and the file keeps growing."""
        try:
            if self.target.backups <= 0:
                os.ftruncate(self.fd, 0)
            else:
                with self.lock:
                    rotation.shift(self.real_path, self.target.backups)
                self.close()
        except OSError as error:
            self.rotate_after = time.monotonic() + ROTATION_RETRY_SECONDS
            _log.warning("cannot rotate %s: %s (it keeps growing until that is fixed)", self.path, error.strerror)
            return False
        return True

    def _forget_broken(self, error: OSError) -> None:
        """Close the file after an error that means that it is broken, so that the next turn opens the path again.

        So does any error of a device or a FIFO but a full one: unlike a file, which has its bytes, it is nothing to hold on to.
        """
        broken = error.errno in (errno.EPIPE, errno.EIO, errno.ENXIO, errno.ESTALE, errno.EBADF)
        if broken or (not self.regular and error.errno != errno.EAGAIN):
            self.close()

    def close(self) -> None:
        """Close the file, if it is open."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _as_outgrown(error: OSError, size: int) -> OSError:
    """``error``; as an OutgrownError if the file, ``size`` bytes long, has reached its maximum size."""
    return OutgrownError(error.errno, error.strerror) if error.errno == errno.EFBIG and size > 0 else error
