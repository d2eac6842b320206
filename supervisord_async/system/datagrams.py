"""Datagram sockets on which the kernel names the sender of each message, and messages may carry descriptors.

Whatever arrives is safe to handle: descriptors are close-on-exec and belong to the reader, and a truncated message is marked
as such. The content is not interpreted here.
"""

from __future__ import annotations

import array
import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from supervisord_async.system.credentials import Credentials
from supervisord_async.system.shortage import is_shortage
from supervisord_async.system.sockets import PATH_LIMIT_BYTES

#: A longer message is truncated, and marked so.
MESSAGE_BYTES = 4096
#: The most descriptors that the kernel allows in one message (SCM_MAX_FD).
MESSAGE_DESCRIPTORS = 253
_UCRED = struct.Struct("3i")
#: Somebody who owns no file and belongs to no group.
_ANYBODY = Credentials(2**32 - 1, 2**32 - 1, (), "", "/")
_ANCILLARY_BYTES = socket.CMSG_SPACE(_UCRED.size) + socket.CMSG_SPACE(4 * MESSAGE_DESCRIPTORS)


class Datagram(msgspec.Struct, frozen=True):
    """One message. The reader has to close its ``descriptors``, by :meth:`close` or otherwise."""

    data: bytes
    pid: int  #: of the sender, as the kernel says; 0 if it has none in our PID namespace
    uid: int
    descriptors: tuple[int, ...]
    cut_off: bool

    def close(self) -> None:
        """Its descriptors are closed."""
        for fd in self.descriptors:
            os.close(fd)


def bind_datagrams(path: str, abstract: str, credentials: Credentials | None, *, mode: int) -> tuple[socket.socket, str]:
    """A socket to which the user of ``credentials`` (None: ours) can send, and its address in the form of ``NOTIFY_SOCKET``.

    It is bound to ``path``, with ``mode`` and that owner, if the path is short enough, the user can reach it, and a socket can be made
    there; else to the name ``abstract``, which has no permissions. A socket that was at ``path`` is replaced, anything else is not.
    Where that user is root, everybody can send to it: a server that root starts becomes its own user, and may speak only then.

    Raises OSError if another process has the abstract name, no descriptor is free, or the socket cannot be given to the user.
    """
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        fits = len(os.fsencode(path)) <= PATH_LIMIT_BYTES and _may_enter(os.path.dirname(path), credentials)
        if not fits or not _is_bound_to(receiver, path):
            receiver.bind("\0" + abstract)
            return receiver, "@" + abstract
        if credentials is not None and credentials.uid != os.geteuid():
            os.chown(path, credentials.uid, credentials.gid)
        os.chmod(path, 0o666 if _is_root(credentials) else mode)
    except BaseException:
        receiver.close()
        raise
    return receiver, path


def _is_bound_to(receiver: socket.socket, path: str) -> bool:
    """Whether ``receiver`` could be bound to ``path``; not where something else is, or on a file system without sockets (FAT, exFAT)."""
    try:
        Path(path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                return False
            os.unlink(path)
        receiver.bind(path)
    except OSError as error:
        if is_shortage(error):
            raise
        return False
    return True


def adopt_datagrams(fd: int) -> socket.socket | None:
    """The socket that was kept under this number over a re-exec; None if it is no such socket."""
    try:
        receiver = socket.socket(fileno=fd)
    except OSError:
        return None
    if receiver.family != socket.AF_UNIX or receiver.type & 0xF != socket.SOCK_DGRAM:
        receiver.detach()
        return None
    receiver.set_inheritable(False)
    return receiver


def read_datagrams(receiver: socket.socket, count: int) -> Iterator[Datagram]:
    """The waiting messages, at most ``count``. Never blocks."""
    for _ in range(count):
        try:
            data, ancillary, flags, _ = receiver.recvmsg(MESSAGE_BYTES, _ANCILLARY_BYTES, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return
        pid = uid = 0
        descriptors = array.array("i")
        for level, kind, content in ancillary:
            if level != socket.SOL_SOCKET:
                continue
            if kind == socket.SCM_RIGHTS:
                descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
            elif kind == socket.SCM_CREDENTIALS and len(content) == _UCRED.size:
                pid, uid, _gid = _UCRED.unpack(content)
        yield Datagram(data, pid, uid, tuple(descriptors), bool(flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)))


def _is_root(credentials: Credentials | None) -> bool:
    """Whether a process with these credentials (None: ours) may become any other user."""
    return (os.geteuid() if credentials is None else credentials.uid) == 0


def _may_enter(directory: str, credentials: Credentials | None) -> bool:
    """Whether that user can search every folder on the way; folders that do not exist yet will be open to all."""
    if _is_root(credentials):
        credentials = _ANYBODY
    elif credentials is None or credentials.uid == os.geteuid():
        return True
    path = Path(os.path.realpath(directory))
    for folder in (path, *path.parents):
        with suppress(FileNotFoundError):
            if not credentials.may_execute(folder):
                return False
    return True
