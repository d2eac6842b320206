"""The protected main loop for event loops, with the rules of WorkerLoop."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import signal
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread

from supervisord_async.app.worker import is_ending, may_handle_signals

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from supervisord_async.app.worker import WorkerLoop

log = logging.getLogger(__name__)


class LoopJobs:
    """Runs async background jobs as tasks of the event loop, and wakes the loop from any thread."""

    def __init__(self, worker: WorkerLoop[Any]) -> None:
        self._worker = worker
        self._thread: int | None = None
        self._group: TaskGroup | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.woken = anyio.Event()

    def opened(self, group: TaskGroup) -> None:
        """From now on jobs are started as tasks of ``group``."""
        self._thread, self._group, self._loop = threading.get_ident(), group, asyncio.get_running_loop()

    def start(self, key: Any, func: Callable[..., Any], args: tuple[Any, ...]) -> bool:
        """The job was started as a task; False for an ordinary function, which needs a thread, or if no loop runs."""
        group, loop = self._group, self._loop
        if group is None or loop is None or not inspect.iscoroutinefunction(func):
            return False
        if threading.get_ident() == self._thread:
            group.start_soon(self._run, key, func, args)
        else:
            # Does not wait for the loop, which may be waiting for this very thread.
            loop.call_soon_threadsafe(self._start_soon, group, key, func, args)
        return True

    def _start_soon(self, group: TaskGroup, key: Any, func: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            group.start_soon(self._run, key, func, args)
        except RuntimeError as error:  # the group has ended meanwhile
            self._worker.job_over(key, error)

    def wake(self) -> None:
        """The loop checks whether it is to end."""
        if self._loop is None or threading.get_ident() == self._thread:
            self.woken.set()
            return
        try:
            self._loop.call_soon_threadsafe(self.woken.set)
        except RuntimeError:
            log.debug("the loop has ended already")

    async def _run(self, key: Any, func: Callable[..., Any], args: tuple[Any, ...]) -> None:
        error: BaseException | None = None
        try:
            await func(*args)
        except BaseException as raised:
            if isinstance(raised, anyio.get_cancelled_exc_class()) and _is_cancelled():
                raise
            error = raised
        finally:
            self._worker.job_over(key, error)


async def run_async(worker: WorkerLoop[Any], jobs: LoopJobs, get_tasks: Callable[[], Any], process_task: Callable[[Any], Any]) -> None:
    """Run the loop until it is told to end; see WorkerLoop.run_async."""
    try:
        await _run_group(worker, jobs, get_tasks, process_task)
    except BaseExceptionGroup as group:
        # A task's SystemExit propagates as itself, not inside a group, which no caller expects.
        exits = group.subgroup(SystemExit)
        if exits is not None:
            raise _first(exits) from None
        raise


async def _run_group(
    worker: WorkerLoop[Any],
    jobs: LoopJobs,
    get_tasks: Callable[[], Any],
    process_task: Callable[[Any], Any],
) -> None:
    try:
        async with anyio.create_task_group() as group:
            jobs.opened(group)
            signals = anyio.CancelScope()
            if may_handle_signals():
                group.start_soon(_stop_on_signal, worker, signals)
            try:
                while not worker.stopping:
                    pause = await _round(worker, get_tasks, process_task)
                    await _sleep(worker, jobs, pause)
            finally:
                worker.stop()
                signals.cancel()
            await _let_jobs_end(worker)
            group.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await worker.resources.initiate_shutdown_async()


async def _round(worker: WorkerLoop[Any], get_tasks: Callable[[], Any], process_task: Callable[[Any], Any]) -> float:
    """Process one round of tasks; returns the seconds to wait before the next."""
    worker.heartbeat.beat()
    try:
        given = await _call(get_tasks)
        tasks = [task async for task in given] if hasattr(given, "__aiter__") else list(given or ())
    except BaseException as error:
        if _is_end(error):
            raise
        return worker.tasks_failed(error)
    for task in worker.due(tasks):
        if worker.stopping:
            break
        worker.heartbeat.beat()
        try:
            await _call(process_task, task)
        except BaseException as error:
            if _is_end(error):
                raise
            worker.failed(task, error)
        else:
            worker.succeeded(task)
    return worker.round_over()


async def _call(function: Callable[..., Any], *args: Any) -> Any:
    """The function's result; an ordinary function runs in a thread, so that it does not block the loop."""
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        result = function(*args)
    else:
        result = await anyio.to_thread.run_sync(function, *args, abandon_on_cancel=True)
    return await result if inspect.isawaitable(result) else result


async def _sleep(worker: WorkerLoop[Any], jobs: LoopJobs, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not worker.stopping:
        left = deadline - time.monotonic()
        if left <= 0:
            await anyio.lowlevel.checkpoint()
            return
        with anyio.move_on_after(worker.slice_of(left)):
            await jobs.woken.wait()
        worker.heartbeat.beat()


async def _let_jobs_end(worker: WorkerLoop[Any]) -> None:
    with anyio.move_on_after(worker.shutdown_timeout):
        while worker.statistics.background:  # noqa: ASYNC110 - threads too; once, at the end
            await anyio.sleep(0.02)
    worker.log_left_behind()


async def _stop_on_signal(worker: WorkerLoop[Any], scope: anyio.CancelScope) -> None:
    with scope, anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("%s: received %s, ending", worker.name, signal.Signals(number).name)
            worker.stop()
            return


def _is_end(error: BaseException) -> bool:
    """Whether the exception ends the loop. If a task awaited a future that was cancelled, that is only the task's failure."""
    if isinstance(error, anyio.get_cancelled_exc_class()):
        return _is_cancelled()
    return is_ending(error)


def _is_cancelled() -> bool:
    """Whether the current asyncio task itself was cancelled."""
    if anyio.current_effective_deadline() == -math.inf:
        return True
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _first(group: BaseExceptionGroup[SystemExit]) -> SystemExit:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
