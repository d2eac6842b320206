"""Unix sockets: bound without a moment of being open to all, and who is at the other end."""

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
from supervisord_async.system.trusted import held_folder

#: A unix socket's path holds no more: sun_path has 108 bytes, with a NUL at the end (``man 7 unix``).
PATH_LIMIT_BYTES = 107
_UCRED = struct.Struct("3i")


def bind_unix(
    path: str | os.PathLike[str], mode: int = 0o600, group: str | None = None, *, backlog: int = 128, uid: int = -1
) -> socket.socket:
    """A listening stream socket at ``path``, non-blocking, with ``mode``, ``group`` and owner ``uid`` (-1: ours) before anybody can see it.

    A socket file on which nobody answers is replaced, at one stroke; on a disk that is full it makes room first.

    Raises DaemonError: somebody answers there; something that is not a socket is there; the path is too long; the
    group is unknown; or the system refuses.
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
        raise DaemonError(f"cannot bind {name}: {error.strerror}") from error


def _bind(path: str, name: str, mode: int, uid: int, gid: int, backlog: int) -> socket.socket:
    """``path`` is the one that people call ``name``."""
    _refuse_occupied(path, name)
    try:
        return _bind_unseen(path, mode, uid, gid, backlog)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
    return _bind_in_place(path, mode, uid, gid, backlog)


def peer(connection: socket.socket) -> tuple[int, int, int]:
    """PID, user and group of the process that connected, as of its ``connect``, or of the one that listens (SO_PEERCRED, ``man 7 unix``).

    The PID is the one that our PID namespace has for it; 0: none.
    """
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid, gid


def is_answered(path: str, *, by: int | None = None) -> bool:
    """True if a process listens at ``path``: any, or the one whose PID is ``by``. Raises OSError: it cannot be told.

    Where so many wait that nobody can be asked, the name speaks for itself.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:  # its queue is full: there is one
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
        if error.errno != errno.EPROTOTYPE:  # a datagram socket has this name
            raise
        answered = True
    if answered:
        raise DaemonError(f"cannot bind {name}: another process answers there")


def _bind_unseen(path: str, mode: int, uid: int, gid: int, backlog: int) -> socket.socket:
    """Bind in a directory that only we can enter, make it right, then move it to its name."""
    with _unseen_directory(path) as directory_fd:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            listener.setblocking(False)
            listener.bind(f"/proc/self/fd/{directory_fd}/s")  # short, however deep the directory is
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


@contextmanager
def _unseen_directory(path: str) -> Iterator[int]:
    """A descriptor of a new directory beside ``path`` that only we can enter; both are gone afterwards. Raises OSError.

    The directory is named once: whoever may write beside it could put another one in its place at any moment.
    """
    private = os.path.join(os.path.dirname(path), f".bind-{os.urandom(8).hex()}")
    os.mkdir(private, 0o700)
    try:
        directory_fd = os.open(private, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(directory_fd)
            if found.st_uid != os.geteuid() or found.st_mode & 0o077:
                raise OSError(errno.EACCES, "somebody put another directory in the place of ours")
            yield directory_fd
        finally:
            os.close(directory_fd)
    finally:
        with suppress(OSError):
            os.rmdir(private)


def _bind_in_place(path: str, mode: int, uid: int, gid: int, backlog: int) -> socket.socket:
    """Bind where there is no room for a directory, with the room of the socket file that is there; others can enter when it is right."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.setblocking(False)
        os.fchmod(listener.fileno(), 0o600)  # what the file gets from it, less the umask
        with suppress(FileNotFoundError):
            os.unlink(path)
        listener.bind(path)
        _make_right(path, mode, uid, gid)
        listener.listen(backlog)
    except BaseException:
        listener.close()
        raise
    return listener


def _make_right(path: str, mode: int, uid: int, gid: int) -> None:
    """The socket file at ``path`` has that owner and mode; nothing that somebody put in its place has."""
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
