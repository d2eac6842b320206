"""The daemon's own descriptors: none inherited by accident, room for many, and a word to whoever started us."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Collection

#: Descriptors that must stay free for the daemon when one is opened for a program: a pipe (a log is opened after it), a log, an adoption.
PIPE_ROOM, LOG_ROOM, ADOPTION_ROOM = 32, 16, 8
#: Whoever may have no more than this leaves half of them.
FEW = 64
#: The soft limit of open files that we were started with; empty until it was raised.
_original_soft: list[int] = []


def open_missing_stdio() -> None:
    """Stdin, stdout and stderr are open, those that were not on /dev/null: else the next file would get such a number, and all output."""
    while True:
        fd = os.open(os.devnull, os.O_RDWR)
        if fd > 2:
            os.close(fd)
            return
        os.set_inheritable(fd, True)


def close_inherited(keep: Collection[int]) -> int:
    """Close every descriptor but stdio and ``keep``; return how many were closed.

    To be called first thing in the daemon: whatever is open then was left by whoever started it.
    """
    closed = 0
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd <= 2 or fd in keep:
            continue
        try:
            os.close(fd)
        except OSError:  # the descriptor that listed the directory
            continue
        closed += 1
    return closed


def raise_limit() -> int:
    """Raise our limit of open files to what we may have; return it. Children get the original back."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        if not _original_soft:
            _original_soft.append(soft)
    return hard


def give_back_limit(pid: int) -> None:
    """Give our child the limit that we were started with.

    It has it moments after its first instruction, not before: there is no way in between that is safe with
    threads, and our own limit cannot be lowered for the time of a fork when more files than that are open.
    """
    if not _original_soft:
        return
    try:
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (_original_soft[0], hard))
    except (ProcessLookupError, PermissionError):  # over already; or set-uid, with limits of its own
        return


def keep_room(fd: int, room: int) -> int:
    """``fd``, which was just opened for a program, if that leaves ``room`` others for the daemon itself.

    The lowest free number is given out first, so it tells how many are taken. Raises OSError, EMFILE, and it is closed: else the
    programs would take those by which they are ended, the state is saved, and the daemon is asked. Of few each has its share.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY or fd < limit - min(room, limit * room // FEW):
        return fd
    os.close(fd)
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def is_journal(fd: int) -> bool:
    """Whether what is written there goes to systemd's journal, by ``JOURNAL_STREAM`` of whoever started us (``man 5 systemd.exec``)."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    if not (device.isdecimal() and inode.isdecimal()):
        return False
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (int(device), int(inode))


def sd_notify(message: str) -> bool:
    """Tell the service manager, if one started us, e.g. ``READY=1``; True if it was told (``man 3 sd_notify``)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.setblocking(False)
        try:
            sender.sendto(message.encode(), address)
        except OSError:  # it is gone, or does not read: no reason to stop
            return False
    return True
