"""Adopting orphans: descendants that lose their parent become our children, and are reaped when they die.

As PID 1 of a container we have that duty anyway. Children that are watched (:data:`.child.watched`) are never touched: only
a PID that was found to be a stranger's is reaped here.

A process that another part of the daemon starts without the loop (``subprocess.run`` in a thread) is such a stranger
too, and would lose its status: start everything by the loop.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from collections.abc import AsyncIterator, Callable, Container, Iterable
from contextlib import asynccontextmanager
from functools import cache

from supervisord_async.system import child, procfs

#: The pause before reaping is tried again for which no descriptor was free.
RETRY_SECONDS = 0.5

_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37


@cache
def _libc() -> ctypes.CDLL:
    """The C library, opened once: it is called at every spawn, and opening costs more than the call."""
    return ctypes.CDLL(None, use_errno=True)


def become_subreaper() -> None:
    """From now on descendants that lose their parent become our children (``man 2 prctl``), also after ``execve``.

    Raises OSError if the system refuses (a seccomp filter).
    """
    if _libc().prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def gets_orphans() -> bool:
    """True if orphaned descendants become our children."""
    flag = ctypes.c_int(0)
    _libc().prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(flag), 0, 0, 0)
    return flag.value == 1 or os.getpid() == 1


def strangers(children: Iterable[int], known: Container[int] = ()) -> list[int]:
    """Those of our ``children`` that are not watched, so orphans that came to us; without those ``known`` already."""
    return [pid for pid in children if pid not in child.watched and pid not in known]


def reap_orphans() -> int:
    """Reap all dead children that are not watched; return how many. Never blocks."""
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
        else:  # ``waitid`` keeps reporting a watched one, which hides the others: look for those in /proc
            return reaped + sum(map(reap, strangers(_own_children())))


def spare(pids: Iterable[int]) -> None:
    """Do not reap those of ``pids`` that are our children, alive or dead: after a re-exec, they are yet to be watched."""
    child.watched.update(_own_children().intersection(pids))


@asynccontextmanager
async def reaping(changed: Callable[[], None] = lambda: None) -> AsyncIterator[None]:
    """Reap orphans as they die, while in this context. Main thread only; one context at a time.

    ``changed`` is called on the loop when a child may have died, stopped or continued.

    This uses a handler of :mod:`signal`, since uvloop's ``add_signal_handler`` refuses SIGCHLD; a burst of deaths leads to one call.
    """
    loop = asyncio.get_running_loop()
    pending: list[asyncio.Handle] = []

    def reap_all() -> None:
        pending.clear()
        changed()
        try:
            reap_orphans()
        except OSError:  # no free descriptor to read /proc: the dead can wait
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
    except ChildProcessError:  # not our child, or reaped already
        return 0
