"""Threads for work that a device may hold up for ever.

They are daemon threads: one that hangs in the kernel keeps neither the loop nor the end of the process waiting, which
``concurrent.futures.ThreadPoolExecutor`` (it joins its threads at exit) cannot promise.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeAlias, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

#: Work that was begun; whoever waits for it by :func:`wait_over` may give up without an effect on it.
Call: TypeAlias = asyncio.Future[T]

#: A thread without work ends after this.
IDLE_SECONDS = 2.0


class DaemonThreads(Executor):
    """At most ``limit`` daemon threads, made when there is work and nobody free for it."""

    def __init__(self, limit: int, name: str) -> None:
        """No thread exists yet; theirs are named ``name-1`` …"""
        self._limit = limit
        self._name = name
        self._work: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._spare = 0  # threads that do nothing, less the work that waits for one
        self._shut = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """``fn`` will be called in a thread; the future has its answer.

        Raises RuntimeError after :meth:`shutdown`, or if not one thread can be had.
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
        """What ``function`` returns or raises, called in a thread, which goes on if we are cancelled.

        Raises RuntimeError, as :meth:`submit`.
        """
        return await self.begin(function, *args, **kwargs)

    def begin(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Call[T]:
        """``function`` is called in a thread, whose answer the loop gets. Raises RuntimeError, as :meth:`submit`."""
        return asyncio.wrap_future(self.submit(function, *args, **kwargs))

    def _start_thread(self) -> None:
        """One thread more; where none can be had, those that there are do the work. Raises RuntimeError: there is none."""
        thread = threading.Thread(target=self._serve, name=f"{self._name}-{self._threads + 1}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if not self._threads:
                raise
        else:
            self._threads += 1
            self._spare += 1

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:  # noqa: ARG002  the base's signature
        """Threads end when the work that is queued is done; nobody waits for them."""
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
        """The next piece of work; None: there is none for this thread any more."""
        while True:
            try:
                return self._work.get(timeout=IDLE_SECONDS)
            except Empty:
                with self._lock:
                    if self._spare > 0:  # else some is on its way, and there is nobody else for it
                        self._spare -= 1
                        self._threads -= 1
                        return None


async def wait_over(call: Call[Any]) -> None:
    """The call has ended, however."""
    await asyncio.wait([call])


def held_up() -> set[int]:
    """The threads of this process that wait where no signal reaches them: state D (``man 5 proc``), a disk mostly."""
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
