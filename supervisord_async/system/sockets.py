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
        _refuse_occupied(name)
        try:
            return _bind_unseen(name, mode, uid, gid, backlog)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
        return _bind_in_place(name, mode, uid, gid, backlog)
    except OSError as error:
        raise DaemonError(f"cannot bind {name}: {error.strerror}") from error


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


def _refuse_occupied(path: str) -> None:
    try:
        present = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(present.st_mode):
        raise DaemonError(f"cannot bind {path}: a file that is not a socket is there")
    try:
        answered = is_answered(path)
    except PermissionError:
        answered = True
    except OSError as error:
        if error.errno != errno.EPROTOTYPE:  # a datagram socket has this name
            raise
        answered = True
    if answered:
        raise DaemonError(f"cannot bind {path}: another process answers there")


def _bind_unseen(path: str, mode: int, uid: int, gid: int, backlog: int) -> socket.socket:
    """Bind in a directory that only we can enter, make it right, then move it to its name."""
    with _unseen_directory(path) as (private, directory_fd):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        unseen = os.path.join(private, "s")
        try:
            listener.setblocking(False)
            listener.bind(f"/proc/self/fd/{directory_fd}/s")  # short, however deep the directory is
            if (uid, gid) != (-1, -1):
                os.chown(unseen, uid, gid)
            os.chmod(unseen, mode)
            listener.listen(backlog)
            os.rename(unseen, path)
        except BaseException:
            listener.close()
            with suppress(OSError):
                os.unlink(unseen)
            raise
        return listener


@contextmanager
def _unseen_directory(path: str) -> Iterator[tuple[str, int]]:
    """A new directory beside ``path`` that only we can enter, and a descriptor of it; both are gone afterwards. Raises OSError."""
    private = os.path.join(os.path.dirname(path) or ".", f".bind-{os.urandom(8).hex()}")
    os.mkdir(private, 0o700)
    try:
        directory_fd = os.open(private, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield private, directory_fd
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
        if (uid, gid) != (-1, -1):
            os.chown(path, uid, gid)
        os.chmod(path, mode)
        listener.listen(backlog)
    except BaseException:
        listener.close()
        raise
    return listener
