"""A process that is watched by its pidfd: wait for it, signal it, find out how it ended, adopt it after the daemon was replaced.

Theory of operation. A pidfd becomes readable when all threads of its process are dead. Then, in this order:
our own child is reaped by ``wait4`` on that very PID, which gives status and resource use; the status of another's
zombie is in /proc, for those who may trace it; that of a process which its parent has reaped comes from the pidfd itself
(PIDFD_GET_INFO, Linux 6.15); otherwise the status is unknown.

:data:`watched` has the PIDs of our own children that are watched here: new ones from the moment of the fork, and those from
before a re-exec from the first moment after it, so that :mod:`.orphans` never takes a status away from its owner.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import resource
import signal
import struct
from collections.abc import Callable

import msgspec

from supervisord_async.core.state import ExitStatus
from supervisord_async.system import poller, procfs
from supervisord_async.system.descriptors import ADOPTION_ROOM, keep_room
from supervisord_async.system.identity import Identity, of
from supervisord_async.system.shortage import is_shortage

#: The PIDs of our children that only their watcher may reap.
watched: set[int] = set()

#: The pause before a dead child is waited for again that is traced (strace, gdb): its tracer gets it first.
_TRACED_RETRY_SECONDS = 0.05
#: Processes that ended while no descriptor was free to find out how.
_unexamined: set[int] = set()

_log = logging.getLogger("asupd")

# struct pidfd_info of linux/pidfd.h, its first published size: mask, cgroup, eleven IDs, exit code.
_PIDFD_INFO = struct.Struct("=QQ11Ii")
_PIDFD_INFO_EXIT = 1 << 3
_PIDFD_GET_INFO = (3 << 30) | (_PIDFD_INFO.size << 16) | (0xFF << 8) | 11


class Rusage(msgspec.Struct, frozen=True):
    """What a run's main process used, including children that it waited for."""

    max_rss_bytes: int | None  #: the peak of the largest of them; None: below the daemon's own peak at the spawn, which hides it
    user_seconds: float
    system_seconds: float


class Ended(msgspec.Struct, frozen=True):
    """How a process ended."""

    status: ExitStatus
    rusage: Rusage | None  #: None unless it was our own child

    def figures(self) -> dict[str, int | float]:
        """What the run used, for a record; empty where it is not known."""
        if self.rusage is None:
            return {}
        figures: dict[str, int | float] = {"cpu_seconds": round(self.rusage.user_seconds + self.rusage.system_seconds, 6)}
        if self.rusage.max_rss_bytes is not None:
            figures["max_rss_bytes"] = self.rusage.max_rss_bytes
        return figures


def status_of(wait_status: int | None) -> ExitStatus:
    """The exit status that a wait status means; None means unknown."""
    if wait_status is None:
        return ExitStatus()
    if os.WIFSIGNALED(wait_status):
        return ExitStatus(signal=os.WTERMSIG(wait_status), core=os.WCOREDUMP(wait_status))
    return ExitStatus(code=os.WEXITSTATUS(wait_status))


class Child:
    """One process that is watched; not necessarily a child of ours. Owns a pidfd, and notices the end at the loop's next turn."""

    __slots__ = ("_callbacks", "_hidden_rss_kib", "_loop", "ended", "identity", "ours", "pidfd")

    def __init__(self, loop: asyncio.AbstractEventLoop, identity: Identity, *, ours: bool, room: int = 0) -> None:
        """Watch ``identity``, our own child if ``ours``, from now on.

        Raises OSError if there is no such process, or no free descriptor besides ``room`` that are reserved.
        """
        self.identity = identity
        self.ours = ours  #: whether what it leaves behind comes to us
        self.ended: Ended | None = None  #: how it ended; None while it runs
        self._loop = loop
        # Linux counts what a process used before its exec into its peak, and that was our own image.
        self._hidden_rss_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self._callbacks: tuple[Callable[[Ended], None], ...] = ()  # mostly one
        self.pidfd = keep_room(os.pidfd_open(identity.pid), room)  #: -1 once it has ended, or this was closed
        try:
            poller.watch(loop, self.pidfd, self)
        except OSError:
            os.close(self.pidfd)
            raise
        if ours:
            watched.add(identity.pid)

    @classmethod
    def adopt(cls, identity: Identity) -> Child:
        """Watch a process that an earlier daemon, or this one before a re-exec, has spawned. To be called on the running loop.

        Its exit status will be known if it is our child (after ``execve``), else as far as the kernel tells others.

        Raises ProcessLookupError if that very process is gone, OSError if no descriptor is free.
        """
        found = procfs.stat(identity.pid)
        if found is None or of(found) != identity:
            raise ProcessLookupError(f"process {identity.pid} is gone")
        child = cls(asyncio.get_running_loop(), identity, ours=found.parent == os.getpid(), room=ADOPTION_ROOM)
        again = procfs.stat(identity.pid)  # did pidfd_open find this very process?
        if again is not None and of(again) != identity:
            child.close()
            raise ProcessLookupError(f"process {identity.pid} is gone")
        return child

    @property
    def pid(self) -> int:
        """Its PID, which may be another process's once this one has ended."""
        return self.identity.pid

    def send_signal(self, signum: int) -> bool:
        """Send a signal to this very process, never to a stranger with its PID; returns False if it is gone already.

        Raises PermissionError if it runs as a user whom we may not signal.
        """
        if self.pidfd < 0:
            return False
        try:
            signal.pidfd_send_signal(self.pidfd, signum)
        except ProcessLookupError:
            return False
        return True

    def on_end(self, callback: Callable[[Ended], None]) -> None:
        """Call ``callback`` once, on the loop, when it is dead; at once if it is already. Like :meth:`wait`, without a task."""
        if self.ended is not None:
            callback(self.ended)
        else:
            self._callbacks += (callback,)

    def forget(self, callback: Callable[[Ended], None]) -> None:
        """``callback`` is not called any more."""
        self._callbacks = tuple(other for other in self._callbacks if other != callback)

    async def wait(self) -> Ended:
        """How it ended, as soon as it is dead, even if others still have its pipes open.

        Any number of tasks may wait, also after the end, and each may be cancelled. If this is closed while it lives, the result is an
        unknown status.
        """
        if self.ended is not None:
            return self.ended
        future: asyncio.Future[Ended] = self._loop.create_future()

        def wake(ended: Ended) -> None:
            if not future.done():
                future.set_result(ended)

        self.on_end(wake)
        try:
            return await future
        finally:
            self.forget(wake)

    def close(self) -> None:
        """Stop watching it and close the pidfd; if it still runs it is left alone. Waiting tasks get an unknown status."""
        if self.ended is None:
            self._finish(Ended(ExitStatus(), None))

    def on_readable(self) -> None:
        """The process has ended: find out how. Called by :mod:`.poller`."""
        if self.pidfd < 0:
            return
        poller.forget(self._loop, self.pidfd)
        try:
            ended = self._reap() if self.ours else Ended(status_of(self._foreign_wait_status()), None)
        except OSError as error:
            if not is_shortage(error):
                raise
            self._report_shortage(error)
            ended = None  # it has ended, but no descriptor is free to find out how
        if ended is None:
            self._loop.call_later(_TRACED_RETRY_SECONDS, self.on_readable)
        else:
            self._finish(ended)

    def _report_shortage(self, error: OSError) -> None:
        """Log the shortage when the first process waits, not for each."""
        if not _unexamined:
            _log.warning("transient: cannot find out how process %d ended: %s; trying again", self.identity.pid, error.strerror)
        _unexamined.add(self.identity.pid)

    def _finish(self, ended: Ended) -> None:
        _unexamined.discard(self.identity.pid)
        poller.forget(self._loop, self.pidfd)
        os.close(self.pidfd)
        self.pidfd = -1
        if self.ours:
            watched.discard(self.identity.pid)
        self.ended = ended
        callbacks, self._callbacks = self._callbacks, ()
        for callback in callbacks:
            callback(ended)

    def _reap(self) -> Ended | None:
        """Our child's end; None if it cannot be reaped yet."""
        try:
            pid, wait_status, used = os.wait4(self.identity.pid, os.WNOHANG)
        except ChildProcessError:  # somebody else in this process reaped it
            return Ended(status_of(self._info_wait_status()), None)
        if pid == 0:
            return None
        largest = used.ru_maxrss * 1024 if used.ru_maxrss > self._hidden_rss_kib else None
        rusage = Rusage(largest, used.ru_utime, used.ru_stime)
        return Ended(status_of(wait_status), rusage)

    def _foreign_wait_status(self) -> int | None:
        zombie = procfs.stat(self.identity.pid)
        known = zombie is not None and zombie.dead and of(zombie) == self.identity
        if zombie is not None and known and (zombie.wait_status or _may_trace(zombie.pid)):
            return zombie.wait_status
        return self._info_wait_status()

    def _info_wait_status(self) -> int | None:
        buffer = bytearray(_PIDFD_INFO.size)
        _PIDFD_INFO.pack_into(buffer, 0, _PIDFD_INFO_EXIT, *[0] * 13)
        try:
            fcntl.ioctl(self.pidfd, _PIDFD_GET_INFO, buffer)
        except OSError:  # ENOTTY, EINVAL: an older kernel. ESRCH: reaped before this kernel kept the status
            return None
        mask, *_, exit_code = _PIDFD_INFO.unpack(buffer)
        return int(exit_code) if mask & _PIDFD_INFO_EXIT else None


def _may_trace(pid: int) -> bool:
    """True if /proc shows us the true exit code of ``pid``; those who may not trace it see 0 (``man 2 ptrace``)."""
    if os.geteuid() == 0:
        return True
    users, groups = (procfs.status_field(pid, name)[:3] for name in (b"Uid", b"Gid"))
    return users == [b"%d" % os.geteuid()] * 3 and groups == [b"%d" % os.getegid()] * 3
