"""Unix sockets: bound without being open to all for a moment, and the identity of the peer."""

from __future__ import annotations

import errno
import grp
import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from supervisord_async.errors import DaemonError
from supervisord_async.system.safe_open import held_folder

#: The longest path of a unix socket: sun_path has 108 bytes, including a NUL at the end (``man 7 unix``).
PATH_LIMIT_BYTES = 107
#: What file systems without sockets answer: vfat and shared folders the first, exfat (by FUSE) the second, network's the others.
_REFUSED = frozenset({errno.EPERM, errno.EIO, errno.EOPNOTSUPP, errno.ENOSYS})
_UCRED = struct.Struct("3i")


def bind_unix(
    path: str | os.PathLike[str], mode: int = 0o600, group: str | None = None, *, backlog: int = 128, uid: int = -1
) -> socket.socket:
    """A non-blocking, listening stream socket, which appears at ``path`` with ``mode``, ``group`` and owner ``uid`` (-1: ours) already set.

    A socket file on which nobody answers is replaced atomically; it is removed first on a full disk, to make room, and on a file system
    that does not keep owners and modes.

    Raises DaemonError if another process answers there, something that is not a socket is there, the path is too long, the
    group is unknown, or the system refuses.
    """
    name = os.fspath(path)
    if len(os.fsencode(name)) > PATH_LIMIT_BYTES:
        raise DaemonError(
            f"cannot bind {name}: a socket's path holds {PATH_LIMIT_BYTES} bytes, this one has {len(os.fsencode(name))} "
            "(set daemon.socket to a shorter one, e.g. in /run)"
        )
    gid = _gid(name, group)
    try:
        folder, base = os.path.split(os.path.abspath(name))
        with held_folder(folder) as there:
            return _bind(os.path.join(there, base), name, mode, uid, gid, backlog)
    except OSError as error:
        advice = " (if its file system has no sockets, choose a path elsewhere, e.g. in /run)" if error.errno in _REFUSED else ""
        raise DaemonError(f"cannot bind {name}: {error.strerror}{advice}") from error


def _bind(path: str, name: str, mode: int, uid: int, gid: int, backlog: int) -> socket.socket:
    """As :func:`bind_unix`; ``name`` is the path to show to people."""
    _refuse_occupied(path, name)
    try:
        return _bind_unseen(path, mode, uid, gid, backlog)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) and not isinstance(error, _NotOursError):
            raise
    return _bind_in_place(path, mode, uid, gid, backlog)


def peer(connection: socket.socket) -> tuple[int, int, int]:
    """PID, user and group of the peer: of the client at its ``connect``, or of the one that listens (SO_PEERCRED, ``man 7 unix``).

    The PID is the one in our PID namespace; 0 if it has none there.
    """
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid, gid


def is_answered(path: str, *, by: int | None = None) -> bool:
    """True if a process listens at ``path``: any, or the one whose PID is ``by``. Raises OSError if that cannot be found out.

    A socket whose queue is full counts as answered, also for ``by``: its owner cannot be asked.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:  # its queue is full, so a process listens
            return True
        return by is None or peer(probe)[0] == by


def _gid(path: str, group: str | None) -> int:
    if group is None:
        return -1
    try:
        return int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise DaemonError(f"cannot bind {path}: no group named {group!r}") from None


def _refuse_occupied(path: str, name: str) -> None:
    try:
        present = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(present.st_mode):
        raise DaemonError(f"cannot bind {name}: a file that is not a socket is there")
    try:
        answered = is_answered(path)
    except PermissionError:
        answered = True
    except OSError as error:
        if error.errno != errno.EPROTOTYPE:  # that would mean that a datagram socket is there
            raise
        answered = True
    if answered:
        raise DaemonError(f"cannot bind {name}: another process answers there")


def _bind_unseen(path: str, mode: int, uid: int, gid: int, backlog: int) -> socket.socket:
    """Bind in a directory that only we can enter, set mode and owner, then rename the socket to ``path``."""
    with _unseen_directory(path) as directory_fd:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            listener.setblocking(False)
            listener.bind(f"/proc/self/fd/{directory_fd}/s")  # a short path, however deep the directory is
            if (uid, gid) != (-1, -1):
                os.chown("s", uid, gid, dir_fd=directory_fd, follow_symlinks=False)
            os.chmod("s", mode, dir_fd=directory_fd)
            listener.listen(backlog)
            os.rename("s", path, src_dir_fd=directory_fd)
        except BaseException:
            listener.close()
            with suppress(OSError):
                os.unlink("s", dir_fd=directory_fd)
            raise
        return listener


class _NotOursError(OSError):
    """Others may enter the directory that was just made: somebody put another in its place, or the file system has its own rules."""


@contextmanager
def _unseen_directory(path: str) -> Iterator[int]:
    """A descriptor of a new directory beside ``path`` that only we can enter; it is closed and the directory removed afterwards.

    Its path is resolved only once: whoever may write beside it could put another directory in its place at any moment. Raises OSError.
    """
    private = os.path.join(os.path.dirname(path), f".bind-{os.urandom(8).hex()}")
    os.mkdir(private, 0o700)
    try:
        directory_fd = os.open(private, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(directory_fd)
            if found.st_uid != os.geteuid() or found.st_mode & 0o077:
                raise _NotOursError
            yield directory_fd
        finally:
            os.close(directory_fd)
    finally:
        with suppress(OSError):
            os.rmdir(private)


def _bind_in_place(path: str, mode: int, uid: int, gid: int, backlog: int) -> socket.socket:
    """Bind at ``path`` itself, closed to others until it is set up.

    For a full disk, where the old socket's file leaves its room to the new one; and for a file system that gives all files an owner or
    a mode of its own (a folder shared with a virtual machine, many a FUSE), where no directory is ours alone.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.setblocking(False)
        os.fchmod(listener.fileno(), 0o600)  # becomes the file's mode, less the umask
        with suppress(FileNotFoundError):
            os.unlink(path)
        try:
            listener.bind(path)
        except OSError:
            with suppress(OSError):  # exfat (by FUSE) makes a file that is no socket, and then fails
                os.unlink(path)
            raise
        _set_owner_and_mode(path, mode, uid, gid)
        listener.listen(backlog)
    except BaseException:
        listener.close()
        raise
    return listener


def _set_owner_and_mode(path: str, mode: int, uid: int, gid: int) -> None:
    """Set owner and mode of the socket file at ``path``; raises OSError if somebody put something else in its place."""
    file = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(file).st_mode):
            raise OSError(errno.EACCES, "somebody put something else in the place of the socket")
        held = f"/proc/self/fd/{file}"
        if (uid, gid) != (-1, -1):
            os.chown(held, uid, gid)
        os.chmod(held, mode)
    finally:
        os.close(file)
