"""Listening sockets that outlive the servers using them: bound here, passed on, and taken back from processes that inherited them."""

from __future__ import annotations

import os
import re
import select
import socket
from collections.abc import Iterable
from typing import Literal

from supervisord_async import wire
from supervisord_async.system import procfs, sockets

#: The same number on every machine but alpha (``man 2 pidfd_getfd``, Linux 5.6).
_PIDFD_GETFD = 438
_SOCKET_LINK = re.compile(r"socket:\[(\d+)\]")
#: The number of the first descriptor that is passed on (``man 3 sd_listen_fds``).
_FIRST_PASSED = 3


def bind_unix(path: str, *, mode: int, backlog: int, uid: int) -> socket.socket:
    """A blocking, listening socket at ``path``, which appears there with its ``mode`` and owner ``uid`` (-1: ours) already set.

    Raises DaemonError if another process answers there, something else is there, or the system refuses.
    """
    listener = sockets.bind_unix(path, mode, backlog=backlog, uid=uid)
    listener.setblocking(True)
    return listener


def bind_inet(protocol: Literal["tcp", "udp"], family: int, host: str, port: int, *, backlog: int) -> socket.socket:
    """A socket at that numeric address, listening unless it is ``udp``; blocking, as servers expect of a socket passed to them.

    TCP_NODELAY is set, which accepted connections inherit. Most servers set it themselves if they know that a socket is TCP; some
    that are given a descriptor do not check (uvicorn --fd), and each answer took 40 ms.

    Raises OSError if the address is taken, is not permitted, or is not one of this machine's.
    """
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    listener = socket.socket(family, kind | socket.SOCK_CLOEXEC)
    try:
        if kind == socket.SOCK_STREAM:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((host, port))
        if kind == socket.SOCK_STREAM:
            listener.listen(backlog)
    except BaseException:
        listener.close()
        raise
    return listener


def watched(listeners: Iterable[socket.socket]) -> select.epoll:
    """An epoll that is readable while one of ``listeners`` is, to be waited for in their place.

    An event loop makes the sockets that it waits for non-blocking, and these are shared with programs whose ``accept`` must block.
    """
    poll = select.epoll()
    for listener in listeners:
        poll.register(listener, select.EPOLLIN)
    return poll


def inode(listener: socket.socket) -> int:
    """The socket's inode, which identifies it while it exists, by whatever descriptor."""
    return os.fstat(listener.fileno()).st_ino


def adopt(fd: int, wanted_inode: int) -> socket.socket | None:
    """The socket that was kept under this number over a re-exec; None if the number is something else."""
    try:
        if os.fstat(fd).st_ino != wanted_inode:
            return None
        listener = socket.socket(fileno=fd)
    except OSError:
        return None
    listener.set_inheritable(False)
    return listener


def take_back(pid: int, wanted_inode: int) -> socket.socket | None:
    """A duplicate of the socket with that inode that ``pid`` has open; None if it has none, or we may not duplicate it."""
    import ctypes

    try:
        names = os.listdir(f"/proc/{pid}/fd")
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        for name in names:
            if _inode_behind(f"/proc/{pid}/fd/{name}") == wanted_inode:
                fd = int(ctypes.CDLL(None).syscall(_PIDFD_GETFD, pidfd, int(name), 0))
                if fd >= 0:
                    return adopt(fd, wanted_inode)
    finally:
        os.close(pidfd)
    return None


def given(pid: int, name: str) -> socket.socket | None:
    """A duplicate of the socket that was passed to ``pid`` as ``name``; None if it has closed that, or we may not duplicate it."""
    names = (procfs.environment_value(pid, wire.ENV_LISTEN_FDNAMES) or "").split(":")
    inode = _inode_behind(f"/proc/{pid}/fd/{_FIRST_PASSED + names.index(name)}") if name in names else None
    return take_back(pid, inode) if inode is not None else None


def _inode_behind(link: str) -> int | None:
    try:
        found = _SOCKET_LINK.fullmatch(os.readlink(link))
    except OSError:
        return None
    return int(found[1]) if found is not None else None
