"""Parent of the orphans: descendants that lose their parent come to us, and are reaped when they die.

As PID 1 of a container we have that duty anyway. Children that somebody waits for (:data:`.exits.watched`) are never
touched: every reaping here is of one PID that was found to be a stranger.

A process that another part of the daemon starts behind the loop's back (``subprocess.run`` in a thread) is such a
stranger too, and would lose its status: start everything by the loop.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from collections.abc import AsyncIterator, Container, Iterable
from contextlib import asynccontextmanager
from functools import cache

from supervisord_async.system import exits, procfs

#: Reaping for which there was no descriptor is tried again after this.
RETRY_SECONDS = 0.5

_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37


@cache
def _libc() -> ctypes.CDLL:
    """Opened once: it is asked at every spawn, and opening costs more than the question."""
    return ctypes.CDLL(None, use_errno=True)


def become_subreaper() -> None:
    """Descendants that lose their parent come to us from now on (``man 2 prctl``); it outlasts ``execv``.

    Raises OSError: the system refuses (a seccomp filter).
    """
    if _libc().prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def gets_orphans() -> bool:
    """True if what our descendants leave behind becomes our child."""
    flag = ctypes.c_int(0)
    _libc().prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(flag), 0, 0, 0)
    return flag.value == 1 or os.getpid() == 1


def strangers(children: Iterable[int], known: Container[int] = ()) -> list[int]:
    """Those of our ``children`` that nobody waits for: orphans that came to us; without those that are ``known`` already."""
    return [pid for pid in children if pid not in exits.watched and pid not in known]


def reap_orphans() -> int:
    """Reap all dead children that nobody watches; return how many. Never waits."""
    reaped = 0
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return reaped
        if found is None:
            return reaped
        if strangers([found.si_pid]):
            reaped += reap(found.si_pid)
        else:  # one that is somebody's stands before the others: look behind it
            return reaped + sum(map(reap, strangers(_own_children())))


def spare(pids: Iterable[int]) -> None:
    """Those of ``pids`` that are our children, alive or dead, are left to whoever will watch them: a former self had them."""
    exits.watched.update(_own_children().intersection(pids))


@asynccontextmanager
async def reaping() -> AsyncIterator[None]:
    """Reap orphans as they die, until the block ends. Main thread only; one block at a time.

    A handler of Python's own, since uvloop keeps SIGCHLD to itself in ``add_signal_handler``; a burst of deaths
    is one call.
    """
    loop = asyncio.get_running_loop()
    pending: list[asyncio.Handle] = []

    def reap_all() -> None:
        pending.clear()
        try:
            reap_orphans()
        except OSError:  # no descriptor for a look at /proc: the dead can wait
            pending.append(loop.call_later(RETRY_SECONDS, reap_all))

    def child_changed(_signum: int, _frame: object) -> None:
        if not pending:
            pending.append(loop.call_soon_threadsafe(reap_all))

    earlier = signal.signal(signal.SIGCHLD, child_changed)
    try:
        reap_orphans()
        yield
    finally:
        signal.signal(signal.SIGCHLD, earlier)
        for handle in pending:
            handle.cancel()


def _own_children() -> set[int]:
    if procfs.can_list_children():
        return procfs.children(os.getpid())
    return {process.pid for process in procfs.snapshot().values() if process.parent == os.getpid()}


def reap(pid: int) -> int:
    """Reap one stranger, if it is dead; return how many were reaped."""
    try:
        return int(os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is not None)
    except ChildProcessError:  # no child of ours any more
        return 0
