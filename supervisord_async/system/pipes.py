"""The pipe that carries what one process says on one stream, for the slot's life, over all its runs.

Its write end is opened for reading and writing. So it is never without a reader: if the daemon is killed, the
child gets neither SIGPIPE nor an error, it waits once the pipe is full, and whoever opens ``/proc/PID/fd/1``
reads on. It is a pipe and not a socket, so ``echo > /dev/stdout`` works in the child.
"""

from __future__ import annotations

import fcntl
import os
import stat

from supervisord_async.system.descriptors import PIPE_ROOM, keep_room

_F_SETPIPE_SZ, _F_GETPIPE_SZ = 1031, 1032
_LARGEST_BYTES = 1 << 24


class Pipe:
    """``read_fd`` is ours and never blocks; ``child_fd`` is what children get as stdout or stderr; ``inode`` tells it from others."""

    __slots__ = ("child_fd", "inode", "read_fd")

    def __init__(self, read_fd: int, child_fd: int) -> None:
        """Own two ends that exist (after ``execv``); :meth:`open` and :meth:`reopen` make them."""
        self.read_fd, self.child_fd = read_fd, child_fd
        self.inode = os.fstat(read_fd).st_ino

    @classmethod
    def open(cls) -> Pipe:
        """A new pipe. Raises OSError: no free descriptor but those that are kept for the daemon itself."""
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            own = os.open(f"/proc/self/fd/{write_fd}", os.O_RDWR | os.O_CLOEXEC)  # a description of its own: it blocks
            child_fd = keep_room(own, PIPE_ROOM)
        except BaseException:
            os.close(read_fd)
            raise
        finally:
            os.close(write_fd)
        return cls(read_fd, child_fd)

    @classmethod
    def reopen(cls, pid: int, fd: int) -> Pipe:
        """The pipe that a living process has as its descriptor ``fd``, with all that is in it.

        Raises OSError: the process is gone or is not ours to look at; no pipe is there; or as :meth:`open`.
        """
        path = f"/proc/{pid}/fd/{fd}"
        if not stat.S_ISFIFO(os.stat(path).st_mode):
            raise OSError(f"{path} is not a pipe")
        child_fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            read_fd = keep_room(os.open(f"/proc/self/fd/{child_fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), PIPE_ROOM)
        except BaseException:
            os.close(child_fd)
            raise
        return cls(read_fd, child_fd)

    def give_to(self, uid: int, gid: int) -> None:
        """Let that user's children open ``/dev/stdout``. Raises PermissionError: we may not."""
        os.fchown(self.child_fd, uid, gid)

    def grow(self, size_bytes: int) -> int:
        """Make it hold that many bytes (16 MiB at most), if the system lets us; return how many it holds."""
        try:
            return fcntl.fcntl(self.read_fd, _F_SETPIPE_SZ, min(size_bytes, _LARGEST_BYTES))
        except OSError:  # over the user's share of pipe memory: it works as it is
            return fcntl.fcntl(self.read_fd, _F_GETPIPE_SZ)

    def set_inheritable(self, inheritable: bool) -> None:
        """Whether both ends survive ``execv`` of the daemon; children never inherit more than their stdio."""
        os.set_inheritable(self.read_fd, inheritable)
        os.set_inheritable(self.child_fd, inheritable)

    def close(self) -> None:
        """Both ends are closed; once is enough, twice is harmless."""
        for fd in (self.read_fd, self.child_fd):
            if fd >= 0:
                os.close(fd)
        self.read_fd = self.child_fd = -1
