"""The daemon's own descriptors: none inherited by accident, room for many; and messages to the service manager."""

from __future__ import annotations

import errno
import os
import resource
import select
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from supervisord_async.errors import SpawnError

#: How many descriptors must stay free when one is opened for a program: for a pipe (after which a log is opened), a log, the process
#: of a run, an adoption. A start needs as much room as a log does: what is opened in the moments between is no reason to kill its child.
PIPE_ROOM, LOG_ROOM, RUN_ROOM, ADOPTION_ROOM = 32, 20, 16, 8
#: With a limit of open files below this, only a proportional share of these must stay free.
FEW = 64
_starts_under_way = 0  # each will soon have a process, and a descriptor by which to notice its end
#: The soft limit of open files that we were started with; empty until it was raised.
_original_soft: list[int] = []


def open_missing_stdio() -> None:
    """Open those of stdin, stdout and stderr that are closed on /dev/null: else the next opened file would get their number, and output."""
    while True:
        fd = os.open(os.devnull, os.O_RDWR)
        if fd > 2:
            os.close(fd)
            return
        os.set_inheritable(fd, True)


def close_inherited(keep: Collection[int]) -> int:
    """Close every descriptor but stdio and ``keep``; return how many were closed.

    To be called first thing in the daemon: whatever is open then was inherited from the process that started it.
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


def raise_limit(original_soft: int = 0) -> int:
    """Raise our soft limit of open files to the hard limit, and return that. Children get the original back.

    That is ``original_soft``, which a daemon passes on to the code that replaces it; 0: the soft limit that we have by now.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if (original_soft or soft) != hard and not _original_soft:
        _original_soft.append(original_soft or soft)
    return hard


def original_soft_limit() -> int:
    """The soft limit of open files that children get; 0: our own."""
    return _original_soft[0] if _original_soft else 0


@contextmanager
def original_limit() -> Iterator[bool]:
    """In this context children inherit the limit of open files that we were started with; yields whether they do.

    They do not while we have nearly as many files open as that allows: then nothing could be opened, by no thread. Do not await in it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    original = _original_soft[0] if _original_soft else soft
    lowers = original != soft and _room_below(original)
    if lowers:
        resource.setrlimit(resource.RLIMIT_NOFILE, (original, hard))
    try:
        yield lowers or original == soft
    finally:
        if lowers:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _room_below(limit: int) -> bool:
    """Whether what a spawn opens fits below ``limit``: its pipe, and two files for threads. A free number may be a gap among taken ones."""
    taken: list[int] = []
    try:
        taken += os.pipe2(os.O_CLOEXEC)
        taken += os.pipe2(os.O_CLOEXEC)
        return taken[-1] < limit
    except OSError:
        return False
    finally:
        for fd in taken:
            os.close(fd)


def give_back_limit(pid: int) -> None:
    """Give our child, which did not inherit it, the limit of open files that we were started with.

    The child gets it moments after it has started, and may have read the other one: hence :func:`original_limit` wherever that can be.
    """
    if not _original_soft:
        return
    try:
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (_original_soft[0], hard))
    except (ProcessLookupError, PermissionError):  # it has ended; or it is a set-uid program, which we may not limit
        return


def need_free(count: int) -> None:
    """Raise OSError, EMFILE or ENFILE, if fewer than ``count`` descriptors are free at this moment."""
    taken: list[int] = []
    try:
        for _ in range(count):
            taken.append(os.dup(0))  # noqa: PERF401  what was opened before one is refused has to be closed
    finally:
        for fd in taken:
            os.close(fd)


def keep_room(fd: int, room: int) -> int:
    """Return ``fd``, which was just opened for a program, if that leaves ``room`` descriptors for the daemon itself.

    Else it is closed and OSError, EMFILE, is raised: programs must not take the descriptors that the daemon needs to end them, to
    save the state and to answer clients. The kernel gives out the lowest free number, so ``fd`` shows how many are taken.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY or fd < limit - min(room, limit * room // FEW):
        return fd
    os.close(fd)
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def keep_room_for_pipe(fd: int) -> int:
    """As :func:`keep_room` for a descriptor of a pipe; those that the starts under way have still to open count as taken."""
    return keep_room(fd, PIPE_ROOM + _starts_under_way)


@contextmanager
def room_for_a_run() -> Iterator[None]:
    """In this context, which begins before the run's pipes are opened, a descriptor is set aside for its process.

    Else many starts at once would open all their pipes first, down to the room that these have to leave, and then fill that room.
    Raises SpawnError, stage ``fork``, if there is no such descriptor.
    """
    global _starts_under_way  # noqa: PLW0603  the limit is one of the whole process, too
    try:
        os.close(keep_room(os.dup(0), LOG_ROOM + _starts_under_way))
    except OSError as error:
        raise SpawnError("fork", error.errno, "no descriptor for its process") from error
    _starts_under_way += 1
    try:
        yield
    finally:
        _starts_under_way -= 1


def is_journal(fd: int) -> bool:
    """Whether ``fd`` is connected to systemd's journal, by the variable ``JOURNAL_STREAM`` (``man 5 systemd.exec``)."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    if not (device.isdecimal() and inode.isdecimal()):
        return False
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (int(device), int(inode))


def is_unread(fd: int) -> bool:
    """Whether ``fd`` is an unnamed pipe or a socket whose other end is closed, so that nothing written there will ever be read."""
    try:
        kind = os.readlink(f"/proc/self/fd/{fd}").partition(":")[0]
    except OSError:
        return False
    look = select.poll()
    look.register(fd, 0)
    return kind in ("pipe", "socket") and any(event & (select.POLLERR | select.POLLHUP) for _, event in look.poll(0))


def sd_notify(message: str) -> bool:
    """Send ``message``, e.g. ``READY=1``, to the service manager, if one started us; True if it was sent (``man 3 sd_notify``)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            sender.sendto(message.encode(), address)
    except OSError:  # it is gone, or does not read, or there is no descriptor to tell it with: not a reason to fail
        return False
    return True
