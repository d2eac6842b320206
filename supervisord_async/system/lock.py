"""One daemon per run_dir, by ``flock`` on a file that is never removed.

The kernel drops the lock with the last descriptor of its holder, however that died, so a stale file never blocks
a start; what is written inside only tells people who holds it, and is believed only while the lock is held and
the process it names is that very process, and has the file open.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import suppress
from typing import Self

from supervisord_async.errors import DaemonError, LockHeldError
from supervisord_async.system import clock, procfs
from supervisord_async.system.identity import Identity, is_alive

#: Nobody who only looks at the lock (:meth:`InstanceLock.holder`, the guardian) holds it longer.
GLANCE_SECONDS = 0.2


def open_lock(path: str, *, make: bool = False) -> int:
    """A descriptor of the lock file, to lock it; one that only reads where its disk has become read-only. Raises OSError.

    With ``make`` the file is made where there is none. It is not always opened for reading alone, since network file systems lock
    exclusively only what can be written.
    """
    how = os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, os.O_RDWR | how | (os.O_CREAT if make else 0), 0o600)
    except OSError as error:
        if error.errno != errno.EROFS or not os.path.lexists(path):
            raise
        return os.open(path, os.O_RDONLY | how)


class InstanceLock:
    """The lock file of one run_dir; a context manager that holds it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.fd = -1  #: -1 while it is not held

    def acquire(self) -> None:
        """Hold the lock.

        Raises LockHeldError: another daemon does; it is named and nothing of it is touched. DaemonError: the file
        cannot be opened, or its file system has no locks.
        """
        try:
            fd = open_lock(self.path, make=True)
        except OSError as error:
            raise DaemonError(f"cannot open the lock {self.path}: {error.strerror}") from error
        try:
            self._take(fd)
        except BaseException:
            os.close(fd)
            raise
        self.fd = fd
        self.sign()

    def _take(self, fd: int) -> None:
        """Lock it. Waits out those who only look whether it is held, and the instant in which another daemon has not signed yet."""
        until = time.monotonic() + GLANCE_SECONDS
        while True:
            try:
                return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise DaemonError(f"cannot lock {self.path}: {error.strerror} (is it on a network file system?)") from error
                holder = _read_holder(fd)
                if holder is not None or time.monotonic() >= until:
                    raise LockHeldError(self.path, holder) from error
            time.sleep(GLANCE_SECONDS / 20)

    def renew(self) -> bool:
        """The file at the path is the one that is held; True if it was gone, and was made and locked again.

        Raises what :meth:`acquire` does; then the removed file is still held.
        """
        held = os.fstat(self.fd)
        try:
            found = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            found = None
        if found is not None and (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino):
            return False
        os.makedirs(os.path.dirname(self.path), mode=0o755, exist_ok=True)
        fresh = InstanceLock(self.path)
        fresh.acquire()
        os.close(self.fd)
        self.fd = fresh.fd
        return True

    def inherit(self, fd: int) -> None:
        """Hold the lock by a descriptor that an earlier life of this process kept over ``execv``."""
        self.fd = fd
        os.set_inheritable(fd, False)
        self.sign()

    def sign(self) -> None:
        """Write inside who holds it: this process.

        A full or read-only disk does not prevent a start: the lock holds all the same.
        """
        own = procfs.stat(os.getpid())
        text = f"{os.getpid()} {own.start_ticks if own else 0} {clock.boot_id()}\n".encode()
        try:
            os.pwrite(self.fd, text, 0)
            os.ftruncate(self.fd, len(text))
        except OSError:
            return

    def release(self) -> None:
        """Give the lock back; the file stays, since removing it would let two daemons hold two files."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def holder(self) -> int | None:
        """The PID of whoever holds the lock now; None if nobody does, or it cannot be told who."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)  # a disk that had errors may be read-only by now
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return _read_holder(fd)
        finally:
            os.close(fd)
        return None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _read_holder(fd: int) -> int | None:
    """The PID written inside, if that process is alive, the very one that is meant there, and may have the file open."""
    words = os.pread(fd, 256, 0).split()
    try:
        identity = Identity(int(words[0]), int(words[1]), words[2].decode("ascii"))
    except (IndexError, ValueError):  # taken this instant and not yet signed, or on a full disk
        return None
    return identity.pid if is_alive(identity) and _may_have_open(identity.pid, fd) else None


def _may_have_open(pid: int, fd: int) -> bool:
    """False where the process has not opened our file ``fd``: somebody else holds the lock, and wrote another's PID, to have it ended.

    True also where we may not look: there we may not end it either.
    """
    folder, name = f"/proc/{pid}/fd", _file_name(f"/proc/self/fd/{fd}")
    try:
        numbers = os.listdir(folder)
    except PermissionError:
        return True
    except OSError:  # it has just gone
        return False
    file = os.fstat(fd)
    for number in numbers:
        with suppress(OSError):  # closed meanwhile
            link = f"{folder}/{number}"
            if _file_name(link) == name and os.path.samestat(os.stat(link), file):  # by name first: another file's disk may hang
                return True
    return False


def _file_name(link: str) -> str:
    return os.path.basename(os.readlink(link).removesuffix(" (deleted)"))
