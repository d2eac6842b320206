"""The pipe for one stream of a process's output, kept over all its runs.

Its write end is opened for reading and writing, so the pipe is never without a reader: if the daemon is killed, the
child gets neither SIGPIPE nor an error, it only blocks once the pipe is full; and the next daemon opens ``/proc/PID/fd/1``
and reads on. It is a pipe, not a socket, so that ``echo > /dev/stdout`` works in the child.
"""

from __future__ import annotations

import fcntl
import os
import stat

from supervisord_async.system.descriptors import PIPE_ROOM, keep_room, keep_room_for_pipe

_F_SETPIPE_SZ, _F_GETPIPE_SZ = 1031, 1032
_LARGEST_BYTES = 1 << 24


class Pipe:
    """``read_fd`` is our non-blocking end; ``child_fd`` is what children get as stdout or stderr; ``inode`` identifies the pipe."""

    __slots__ = ("child_fd", "inode", "read_fd")

    def __init__(self, read_fd: int, child_fd: int) -> None:
        """Own two existing descriptors (after a re-exec); use :meth:`open` and :meth:`reopen` to make them."""
        self.read_fd, self.child_fd = read_fd, child_fd
        self.inode = os.fstat(read_fd).st_ino

    @classmethod
    def open(cls) -> Pipe:
        """A new pipe. Raises OSError if no descriptor is free besides those reserved for the daemon itself."""
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            own = os.open(f"/proc/self/fd/{write_fd}", os.O_RDWR | os.O_CLOEXEC)  # a new open file description, which blocks
            child_fd = keep_room_for_pipe(own)
        except BaseException:
            os.close(read_fd)
            raise
        finally:
            os.close(write_fd)
        return cls(read_fd, child_fd)

    @classmethod
    def reopen(cls, pid: int, fd: int) -> Pipe:
        """The pipe that a living process has as its descriptor ``fd``, with all that is in it.

        Raises OSError if the process is gone, we may not look at it, or that is no pipe; or as :meth:`open`.
        """
        path = f"/proc/{pid}/fd/{fd}"
        if not stat.S_ISFIFO(os.stat(path).st_mode):  # opening something else may have an effect
            raise OSError(f"{path} is not a pipe")
        child_fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            if not stat.S_ISFIFO(os.fstat(child_fd).st_mode):  # the process has exchanged it meanwhile
                raise OSError(f"{path} is not a pipe any more")
            read_fd = keep_room(os.open(f"/proc/self/fd/{child_fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), PIPE_ROOM)
        except BaseException:
            os.close(child_fd)
            raise
        return cls(read_fd, child_fd)

    def give_to(self, uid: int, gid: int) -> None:
        """Let children that run as that user open ``/dev/stdout``. Raises PermissionError if we may not."""
        os.fchown(self.child_fd, uid, gid)

    def reset_flags(self) -> None:
        """Make the child's end block again, without O_ASYNC and O_DIRECT: what one run sets there would hold for the next one as well."""
        fcntl.fcntl(self.child_fd, fcntl.F_SETFL, 0)

    def grow(self, size_bytes: int) -> int:
        """Set the pipe's capacity to that many bytes (at most 16 MiB), if the system lets us; return its capacity."""
        try:
            return fcntl.fcntl(self.read_fd, _F_SETPIPE_SZ, min(size_bytes, _LARGEST_BYTES))
        except OSError:  # the user's share of pipe memory is used up: it works as it is
            return fcntl.fcntl(self.read_fd, _F_GETPIPE_SZ)

    def set_inheritable(self, inheritable: bool) -> None:
        """Set whether both ends are kept over a re-exec of the daemon; children never inherit more than their stdio."""
        os.set_inheritable(self.read_fd, inheritable)
        os.set_inheritable(self.child_fd, inheritable)

    def close(self) -> None:
        """Both ends are closed. May be called repeatedly."""
        for fd in (self.read_fd, self.child_fd):
            if fd >= 0:
                os.close(fd)
        self.read_fd = self.child_fd = -1
