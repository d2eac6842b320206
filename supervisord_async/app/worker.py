"""The protected main loop: no failing task stops the others, or the loop.

What no ``try`` can catch (a hang, the kernel's OOM killer, a segmentation fault) is left to the supervisor: the loop sends a
heartbeat before each task and each round, so that the supervisor notices when it is stuck. The loop has two forms with the
same rules: ``run``, for threads, and ``run_async``, for event loops.
"""

from __future__ import annotations

import logging
import queue
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from supervisord_async.app.failures import Failures, SetAside, WorkerStatistics, key_of
from supervisord_async.app.heartbeat import Heartbeat
from supervisord_async.app.shutdown import GracefulShutdownManager

if TYPE_CHECKING:
    from supervisord_async.app.worker_async import LoopJobs

__all__ = ["SetAside", "WorkerLoop", "WorkerStatistics"]

log = logging.getLogger(__name__)

TaskT = TypeVar("TaskT")
#: The shortest pause after an error in get_tasks, in seconds: errors must not cause a busy loop.
ERROR_PAUSE_SECONDS = 0.1


class WorkerLoop(Generic[TaskT]):
    """Asks for tasks every ``check_interval`` and processes them one after the other, whatever they raise."""

    def __init__(
        self,
        get_tasks: Callable[[], Any],
        process_task: Callable[[TaskT], Any],
        check_interval: float = 1.0,
        *,
        name: str = "worker",
        heartbeat: Heartbeat | None = None,
        task_key: Callable[[TaskT], Any] | None = None,
        retry_backoff: float | None = None,
        retry_backoff_max: float = 60.0,
        max_failures: int | None = None,
        on_set_aside: Callable[[TaskT, Exception], Any] | None = None,
        shutdown_timeout: float = 10.0,
        max_background: int = 32,
    ) -> None:
        """Process what ``get_tasks()`` returns (an iterable, or None) with ``process_task(task)``.

        Both may be async with ``run_async``. ``check_interval`` is the pause between two rounds in seconds, 0 or more.
        ``heartbeat`` defaults to what the environment asks for. A task that failed is kept and tried again after
        ``retry_backoff`` seconds, doubled each time up to ``retry_backoff_max``; without ``retry_backoff``, it is tried again
        when ``get_tasks`` returns it again. After ``max_failures`` in a row it is set aside: passed to ``on_set_aside`` and
        not tried until ``release``. Tasks are identified by ``task_key``: by default their ``id``, else themselves.
        ``shutdown_timeout`` bounds how long background jobs are waited for at the end, and then the closing of resources.
        """
        if check_interval < 0:
            raise ValueError(f"check_interval must not be negative, but is {check_interval}")
        self.name = name
        self.check_interval = check_interval
        self.heartbeat = Heartbeat.from_environment() if heartbeat is None else heartbeat
        self.shutdown_timeout = shutdown_timeout
        self.max_background = max_background
        self._get_tasks, self._process_task = get_tasks, process_task
        self._failures: Failures[TaskT] = Failures(task_key or key_of, retry_backoff, retry_backoff_max, max_failures, on_set_aside)
        self._counts: Counter[str] = Counter()  # by the names in WorkerStatistics
        self._resources = GracefulShutdownManager(shutdown_timeout)
        self._stopping = False
        # SimpleQueue.put is reentrant, so a signal handler may call it; Event.set is not.
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._lock = threading.RLock()
        self._background: dict[Any, threading.Thread | None] = {}
        self._thread: threading.Thread | None = None
        self._on_loop: LoopJobs | None = None

    # For callers

    @property
    def statistics(self) -> WorkerStatistics:
        """The counts so far."""
        with self._lock:
            return WorkerStatistics(**self._counts, set_aside=len(self._failures.set_aside), background=len(self._background))

    def _count(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1

    @property
    def set_aside(self) -> dict[Any, SetAside[TaskT]]:
        """The tasks that failed too often, by key."""
        return dict(self._failures.set_aside)

    def release(self, key: Any) -> bool:
        """The task set aside under ``key`` is processed again when it is due; False if there is none."""
        return self._failures.release(key)

    def stop(self) -> None:
        """The loop ends after the present task. May be called from any thread, from a task, or from a signal handler."""
        self._stopping = True
        self._wake.put(None)
        if self._on_loop is not None:
            self._on_loop.wake()

    @property
    def stopping(self) -> bool:
        """Whether the loop was told to end; for long tasks to check."""
        return self._stopping

    def resource(self, name: str, close: Callable[[], Any], timeout: float = 5.0) -> None:
        """``close`` will be called when the loop ends, in reverse order of registration, guarded and bounded by ``timeout``."""
        self._resources.register_component(name, close, timeout=timeout)

    def background(self, key: Any, func: Callable[..., Any], *args: Any) -> bool:
        """``func(*args)`` runs beside the loop, unless a job with that key is running; True if it was started.

        It runs in its own thread, or, if it is async, as a task of the running ``run_async``. Its errors are logged
        and counted, and the key is free again afterwards, whatever happened. Also returns False if the loop is ending,
        ``max_background`` jobs are running, or no thread can be started: never raises.
        """
        with self._lock:
            if self._stopping or key in self._background:
                return False
            if len(self._background) >= self.max_background:
                log.warning("%s: background job %r is not started: %d are running", self.name, key, len(self._background))
                return False
            self._background[key] = None
        try:
            started = self._start_background(key, func, args)
        except Exception as error:
            log.warning("%s: cannot start background job %r: %r", self.name, key, error)
            started = False
        if not started:
            self.job_over(key)
        return started

    def _start_background(self, key: Any, func: Callable[..., Any], args: tuple[Any, ...]) -> bool:
        if self._on_loop is not None and self._on_loop.start(key, func, args):
            return True
        thread = threading.Thread(target=self._run_background, args=(key, func, args), name=f"{self.name}-{key}", daemon=True)
        with self._lock:  # whoever ends the loop meanwhile joins what has begun
            thread.start()
            self._background[key] = thread
        return True

    def _run_background(self, key: Any, func: Callable[..., Any], args: tuple[Any, ...]) -> None:
        error: BaseException | None = None
        try:
            result = func(*args)
            if hasattr(result, "__await__"):
                import asyncio

                async def awaited() -> None:
                    await result

                asyncio.run(awaited())
        except BaseException as raised:  # even SystemExit would only end this thread
            error = raised
        finally:
            self.job_over(key, error)

    def job_over(self, key: Any, error: BaseException | None = None) -> None:
        """The job's key is free; its error, if any, is logged and counted. For the two forms of the loop."""
        if error is not None:
            log.error("%s: background job %r failed", self.name, key, exc_info=error)
            self._count("background_errors")
        with self._lock:
            self._background.pop(key, None)

    # The thread form

    def start(self) -> None:
        """The loop runs in its own thread, where it handles no signals. No effect if it does so already."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self.run, name=self.name, daemon=True)
            self._thread.start()

    def join(self, timeout: float | None = None) -> bool:
        """Waits up to ``timeout`` seconds for the thread of ``start``; returns whether it has ended."""
        if self._thread is not None:
            self._thread.join(timeout)
        return self._thread is None or not self._thread.is_alive()

    def run(self) -> None:
        """Run the loop, once, until ``stop``, TERM or Ctrl+C; then background jobs have ended (or overrun) and resources are closed.

        TERM is handled in the main thread only, and only if the program has no handler of its own. A task's SystemExit
        propagates, after the resources were closed. The loop survives every other exception of a task.
        """
        with _term_handled(self):
            try:
                while not self._stopping:
                    pause = self._round()
                    self._sleep(pause)
            except KeyboardInterrupt:
                log.info("%s: interrupted, ending", self.name)
            finally:
                self._stopping = True
                self._end()

    def _round(self) -> float:
        """Process one round of tasks; returns the seconds to wait before the next."""
        self.heartbeat.beat()
        try:
            tasks = list(self._get_tasks() or ())
        except BaseException as error:
            if is_ending(error):
                raise
            return self.tasks_failed(error)
        for task in self.due(tasks):
            if self._stopping:
                break
            self.heartbeat.beat()
            try:
                self._process_task(task)
            except BaseException as error:
                if is_ending(error):
                    raise
                self.failed(task, error)
            else:
                self.succeeded(task)
        return self.round_over()

    def _sleep(self, seconds: float) -> None:
        """Wait for the next round, or for ``stop``; heartbeats go on."""
        deadline = time.monotonic() + seconds
        while not self._stopping:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            try:
                self._wake.get(timeout=self.slice_of(left))
            except queue.Empty:
                self.heartbeat.beat()

    def _end(self) -> None:
        deadline = time.monotonic() + self.shutdown_timeout
        with self._lock:
            threads = [thread for thread in self._background.values() if thread is not None]
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self.log_left_behind()
        self._resources.initiate_shutdown()

    # The rules that both forms share

    @property
    def resources(self) -> GracefulShutdownManager:
        """Closes the resources at the end. For the two forms of the loop."""
        return self._resources

    def due(self, tasks: Iterable[TaskT]) -> list[TaskT]:
        """Those of ``tasks``, and of the tasks kept for another try, that are to be processed now."""
        return self._failures.due(tasks, time.monotonic())

    def failed(self, task: TaskT, error: BaseException) -> None:
        """The task's failure is logged with its traceback and counted; the task will be tried again, or is set aside."""
        log.error("%s: task %r failed", self.name, self._failures.name(task), exc_info=error)
        self._count("failed")
        self._failures.failed(task, error, time.monotonic())

    def succeeded(self, task: TaskT) -> None:
        """The task's success is counted, and its earlier failures are forgotten."""
        self._count("processed")
        self._failures.succeeded(task)

    def tasks_failed(self, error: BaseException) -> float:
        """An error in get_tasks is logged and counted; returns the seconds to pause."""
        log.error("%s: cannot get tasks", self.name, exc_info=error)
        self._count("get_tasks_errors")
        return max(self.check_interval, ERROR_PAUSE_SECONDS)

    def round_over(self) -> float:
        """The round is counted; returns the seconds to the next one, which comes earlier if a kept task is due."""
        self._count("rounds")
        due_at = self._failures.next_due()
        return self.check_interval if due_at is None else min(self.check_interval, max(0.0, due_at - time.monotonic()))

    def slice_of(self, seconds: float) -> float:
        """How much of a wait of ``seconds`` may pass before the next heartbeat."""
        return min(seconds, self.heartbeat.interval) if self.heartbeat.enabled else seconds

    def log_left_behind(self) -> None:
        """Background jobs that are still running are logged by name."""
        with self._lock:
            left = list(self._background)
        if left:
            log.error("%s: background jobs left behind: %s", self.name, ", ".join(map(repr, left)))

    # The event loop form

    async def run_async(self) -> None:
        """As ``run``, on asyncio: async functions run on the event loop, ordinary ones in worker threads; async jobs are its tasks."""
        from supervisord_async.app.worker_async import LoopJobs, run_async

        self._on_loop = LoopJobs(self)
        try:
            await run_async(self, self._on_loop, self._get_tasks, self._process_task)
        finally:
            self._on_loop = None


def is_ending(error: BaseException) -> bool:
    """Whether the exception is meant to end the program. A stray CancelledError is not: it is a task's failure."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(is_ending, error.exceptions))
    return isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit)


def may_handle_signals() -> bool:
    """Whether TERM is ours to handle: in the main thread only, and only in place of the default handler."""
    return threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@contextmanager
def _term_handled(loop: WorkerLoop[Any]) -> Iterator[None]:
    """TERM stops ``loop``, if it may be handled here."""

    def handle(_signum: int, _frame: FrameType | None) -> None:
        # No logging here: the handler may have interrupted a write to the same stream.
        loop.stop()
        # A second TERM ends the process at once.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    if not may_handle_signals():
        yield
        return
    signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        if not sys.is_finalizing():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
