"""One daemon per run_dir, by ``flock`` on a file that is never removed.

The kernel drops the lock with the last descriptor of its holder, however that died, so a stale file never blocks
a start. The file's content only tells people who holds the lock, and is believed only while the lock is held and
the process that it names is that very process, and has the file open.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import suppress
from typing import Self

from supervisord_async.errors import DaemonError, LockHeldError
from supervisord_async.system import identity, procfs
from supervisord_async.system.identity import Identity, is_alive

#: Those who take the lock only to look at it (:meth:`InstanceLock.holder`, the guardian) hold it no longer than this.
GLANCE_SECONDS = 0.2


def open_lock(path: str, *, make: bool = False) -> int:
    """A descriptor for locking the lock file; read-only if its disk has become read-only. Raises OSError.

    With ``make`` the file is created if there is none. It is opened for writing if possible, since network file systems grant
    exclusive locks only then.
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
        self.fd = -1  #: -1 while the lock is not held

    def acquire(self) -> None:
        """Take the lock.

        Raises LockHeldError, which names the holder, if another daemon has it; nothing of that is touched. Raises DaemonError if
        the file cannot be opened, or its file system has no locks.
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
        """Lock ``fd``. Waits a moment, as the holder may only be looking, or be another daemon that has not written its PID yet."""
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
        """Make sure that the file at the path is the locked one; returns True if it was gone, and was made and locked again.

        Raises what :meth:`acquire` raises; then the removed file is still locked.
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
        """Hold the lock by a descriptor that was kept over a re-exec."""
        self.fd = fd
        os.set_inheritable(fd, False)
        self.sign()

    def sign(self) -> None:
        """Write this process's identity into the file.

        A full or read-only disk does not prevent a start: the lock is held all the same.
        """
        own = procfs.stat(os.getpid())
        text = f"{os.getpid()} {own.start_ticks if own else 0} {identity.boot_id()}\n".encode()
        try:
            os.pwrite(self.fd, text, 0)
            os.ftruncate(self.fd, len(text))
        except OSError:
            return

    def release(self) -> None:
        """Release the lock; the file stays, since removing it would let two daemons lock two files."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def holder(self) -> int | None:
        """The PID of the process that holds the lock now; None if there is none, or it is not known."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)  # read-only, as the disk may be so after errors
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
    """The PID in the file, if that process is alive and the very one that wrote it, and has the file open or may have."""
    words = os.pread(fd, 256, 0).split()
    try:
        pid, start_ticks, boot_id = int(words[0]), int(words[1]), b"".join(words[2:]).decode("ascii")  # "" from a sandbox that hides it
    except (IndexError, ValueError):  # locked just now and not written yet, or on a full disk
        return None
    this_boot = identity.boot_id()
    wrote_it = identity.is_same_boot(boot_id, this_boot) and is_alive(Identity(pid, start_ticks, this_boot))
    return pid if wrote_it and _may_have_open(pid, fd) else None


def _may_have_open(pid: int, fd: int) -> bool:
    """False if the process has not opened our file ``fd``: then another process holds the lock, and wrote this PID to have it killed.

    True also if we may not look, as then we may not kill it either.
    """
    folder, name = f"/proc/{pid}/fd", _file_name(f"/proc/self/fd/{fd}")
    try:
        numbers = os.listdir(folder)
    except PermissionError:
        return True
    except OSError:  # it has just ended
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
