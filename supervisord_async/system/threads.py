"""Threads: those of the loop, for work that ends, and :class:`DaemonThreads` for work that a device may block for ever.

The latter are daemon threads: one that hangs in the kernel delays neither the loop nor the end of the process.
``concurrent.futures.ThreadPoolExecutor`` would: it joins its threads at exit.

That no thread can be started is the OSError EAGAIN here, as it is for a process, and not Python's RuntimeError: so those who can do
without a thread, or try again, need not know two errors for one shortage.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeAlias, TypeVar, TypeVarTuple

import anyio
import anyio.to_thread

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: Work that was begun; a wait for it by :func:`wait_over` can be cancelled without cancelling the work.
Call: TypeAlias = asyncio.Future[T]

#: A thread without work ends after this.
IDLE_SECONDS = 2.0


async def in_thread(function: Callable[[*Ts], T], *args: *Ts, limiter: anyio.CapacityLimiter | None = None) -> T:
    """What ``function`` returns or raises, called in a thread of the loop; a cancellation waits for its end.

    Raises OSError, EAGAIN, if no thread can be started.
    """
    try:
        return await anyio.to_thread.run_sync(function, *args, limiter=limiter)
    except RuntimeError as error:
        if "start new thread" not in str(error):  # an error of ``function``
            raise
        raise _no_thread(error) from error


def start(thread: threading.Thread) -> None:
    """``thread`` runs. Raises OSError, EAGAIN, if it cannot be started."""
    try:
        thread.start()
    except RuntimeError as error:
        raise _no_thread(error) from error


def _no_thread(error: RuntimeError) -> OSError:
    return OSError(errno.EAGAIN, str(error))


class DaemonThreads(Executor):
    """At most ``limit`` daemon threads, started when there is work and no thread is free."""

    def __init__(self, limit: int, name: str) -> None:
        """There is no thread yet; they will be named ``name-1`` …"""
        self._limit = limit
        self._name = name
        self._work: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._spare = 0  # the number of idle threads, minus that of waiting calls
        self._shut = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """``fn`` will be called in a thread; the future has its result.

        Raises RuntimeError after :meth:`shutdown`; OSError, EAGAIN, if there is no thread and none can be started.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._shut:
                raise RuntimeError(f"{self._name}: no work is taken any more")
            if self._spare <= 0 and self._threads < self._limit:
                self._start_thread()
            self._spare -= 1
        self._work.put((future, lambda: fn(*args, **kwargs)))
        return future

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What ``function`` returns or raises, called in a thread; the call goes on if this is cancelled. Raises as :meth:`submit`."""
        return await self.begin(function, *args, **kwargs)

    def begin(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Call[T]:
        """Call ``function`` in a thread; returns a future of the loop with its result. Raises as :meth:`submit`."""
        return asyncio.wrap_future(self.submit(function, *args, **kwargs))

    def _start_thread(self) -> None:
        """Start another thread; if that fails, the existing ones do the work. Raises OSError if there is none."""
        try:
            start(threading.Thread(target=self._serve, name=f"{self._name}-{self._threads + 1}", daemon=True))
        except OSError:
            if not self._threads:
                raise
        else:
            self._threads += 1
            self._spare += 1

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:  # noqa: ARG002  the base's signature
        """Threads end when the queued work is done; this does not wait for them."""
        with self._lock:
            if not self._shut:
                self._shut = True
                for _ in range(self._threads):
                    self._work.put(None)

    def _serve(self) -> None:
        while (item := self._next()) is not None:
            future, call = item
            if future.set_running_or_notify_cancel():
                try:
                    result = call()
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
                    del result
            del item, future, call
            with self._lock:
                self._spare += 1

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        """The next piece of work; None: this thread is to end."""
        while True:
            try:
                return self._work.get(timeout=IDLE_SECONDS)
            except Empty:
                with self._lock:
                    if self._spare > 0:  # else work is about to be queued, and this thread is needed for it
                        self._spare -= 1
                        self._threads -= 1
                        return None


def in_time(seconds: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What ``function`` returns or raises, called in a thread; blocks. Raises TimeoutError if that takes longer than ``seconds``.

    If no thread can be started, ``function`` is called here, without a bound.
    """
    try:
        answer = DaemonThreads(1, "bounded").submit(function, *args, **kwargs)
    except OSError:
        return function(*args, **kwargs)
    return answer.result(seconds)


async def wait_over(call: Call[Any]) -> None:
    """Return when the call has ended, by a result or an exception."""
    await asyncio.wait([call])


def held_up() -> set[int]:
    """The threads of this process that wait uninterruptibly, mostly for a disk: state D (``man 5 proc``)."""
    found = set()
    for name in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{name}/stat", "rb") as file:
                state = file.read().rpartition(b")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
        if state == b"D":
            found.add(int(name))
    return found
