"""Orderly shutdown: components stop in reverse order of registration, each within its own timeout, all within an overall one.

A component that overruns or raises is reported and left behind; it cannot keep the others from being stopped. Ordinary
functions run in their own threads, since only then can their time be bounded; a function that touches an event loop's
objects has to be an ``async def``, which runs on that loop.
"""

from __future__ import annotations

import contextlib
import contextvars
import inspect
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import asyncio

log = logging.getLogger(__name__)

#: A function that stops a component or waits for it; may return an awaitable.
Step = Callable[[], Any]


class Outcome(StrEnum):
    """How a component's shutdown ended."""

    STOPPED = "stopped"
    FAILED = "failed"  #: one of its functions raised, or its join function returned False
    TIMED_OUT = "timed_out"  #: it overran its timeout and was left behind


@dataclass(frozen=True, slots=True)
class Component:
    """Something to stop at the shutdown."""

    name: str
    shutdown_func: Step
    join_func: Step | None
    timeout: float


@dataclass(frozen=True, slots=True)
class ComponentReport:
    """The result of one component's shutdown."""

    name: str
    outcome: Outcome
    seconds: float  #: how long it took
    detail: str = ""


class GracefulShutdownManager:
    """Stops registered components once; from a thread, from an event loop, by a signal, or at the end of a ``with``."""

    def __init__(self, shutdown_timeout: float = 10.0) -> None:
        """``shutdown_timeout`` bounds the whole shutdown, in seconds. Raises ValueError unless it is above 0."""
        if shutdown_timeout <= 0:
            raise ValueError(f"shutdown_timeout must be above 0, not {shutdown_timeout}")
        self.shutdown_timeout = shutdown_timeout
        self._components: list[Component] = []
        self._lock = threading.RLock()  # a signal handler may interrupt the thread that holds it
        self._stops: list[_Stop] | None = None
        self._began = False
        self._requested = False
        self._finished = threading.Event()
        self._reports: list[ComponentReport] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._on_loop: asyncio.Future[bool] | None = None  # a loop alone does not keep its tasks

    def register_component(
        self,
        component_name: str,
        shutdown_func: Step,
        join_func: Step | None = None,
        timeout: float = 5.0,
    ) -> None:
        """``shutdown_func`` will be called at the shutdown, then ``join_func``; both together within ``timeout`` seconds.

        Either may be async; it then runs on the event loop that is running where this is called, if there is one. A
        ``join_func`` returns False if the component has not stopped. A second component with the same name replaces the
        first, and counts as registered last. Raises RuntimeError once the shutdown has begun, ValueError for a timeout that
        is not positive, TypeError for what cannot be called.
        """
        for step in (shutdown_func, join_func) if join_func is not None else (shutdown_func,):
            if not callable(step):
                raise TypeError(f"{component_name} needs a function to call at the shutdown, not {step!r} (leave out its brackets?)")
        if timeout <= 0:
            raise ValueError(f"timeout of {component_name} must be above 0, not {timeout}")
        self._remember_loop()
        with self._lock:
            if self._began:
                raise RuntimeError(f"cannot register {component_name}: the shutdown has begun")
            if any(known.name == component_name for known in self._components):
                log.warning("component %s is registered a second time; the first one is forgotten", component_name)
                self._components = [known for known in self._components if known.name != component_name]
            self._components.append(Component(component_name, shutdown_func, join_func, timeout))

    @property
    def shutdown_requested(self) -> bool:
        """True once a signal or a call has asked for the shutdown; for a main loop to check."""
        return self._requested

    @property
    def reports(self) -> tuple[ComponentReport, ...]:
        """The results so far, in the order in which the components were stopped."""
        return tuple(self._reports)

    def initiate_shutdown(self) -> bool:
        """Every component has been told to stop; True if each did so in time and without an error.

        Returns within about ``shutdown_timeout`` seconds. A second call, from any thread, waits for the first and returns
        the same. In an event loop's own thread use ``initiate_shutdown_async``.
        """
        if not self._begin():
            if not self._stops_itself():
                self._finished.wait(self.shutdown_timeout + 1.0)
            return self.stopped_cleanly
        deadline = time.monotonic() + self.shutdown_timeout
        try:
            for stop in self._prepare():
                began = time.monotonic()
                self._report(stop.component, began, stop.run(_bound(stop.component, deadline)))
        finally:
            self._finish()
        return self.stopped_cleanly

    async def initiate_shutdown_async(self) -> bool:
        """The same from an asyncio event loop, which keeps running; async components run on it."""
        import asyncio

        from supervisord_async.app.shutdown_on_loop import stop_on_loop

        if not self._begin():
            if not self._stops_itself():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.wait_async(), self.shutdown_timeout + 1.0)
            return self.stopped_cleanly
        deadline = time.monotonic() + self.shutdown_timeout
        token = _stopping.set(self)
        try:
            for component in reversed(self._components):
                began = time.monotonic()
                self._report(component, began, await stop_on_loop(component, _bound(component, deadline)))
        finally:
            _stopping.reset(token)
            self._finish()
        return self.stopped_cleanly

    @property
    def stopped_cleanly(self) -> bool:
        """Whether the shutdown is over and no component failed or overran."""
        return self._finished.is_set() and all(report.outcome is Outcome.STOPPED for report in self._reports)

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for a shutdown that is initiated elsewhere: True once it is over, False after ``timeout`` seconds."""
        return self._finished.wait(timeout)

    def _begin(self) -> bool:
        with self._lock:
            first = not self._began
            self._began = self._requested = True
            return first

    def _prepare(self) -> list[_Stop]:
        """A thread for each component, last registered first; each waits for its turn."""
        with self._lock:
            if self._stops is None:
                loop = self._awaiting_loop()
                token = _stopping.set(self)  # the threads copy the context
                self._stops = [_Stop(component, loop) for component in reversed(self._components)]
                _stopping.reset(token)
            return self._stops

    def _finish(self) -> None:
        with self._lock:
            self._finished.set()
            waiters, self._waiters = self._waiters, []
        for loop, event in waiters:
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

    def _stops_itself(self) -> bool:
        """Whether a component initiates the shutdown that is stopping it: waiting for that would not end."""
        if _stopping.get() is not self:
            return False
        log.warning("a component initiates the shutdown that is stopping it; not waited for")
        return True

    def _remember_loop(self) -> None:
        loop = _running_loop()
        if loop is not None:
            self._loop = loop

    def _awaiting_loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop for async components; None if it is not running, or if it runs in this thread, which is about to block."""
        loop = self._loop
        if loop is None or not loop.is_running():
            return None
        if _running_loop() is loop:
            log.warning("initiate_shutdown() blocks the event loop: use initiate_shutdown_async()")
            return None
        return loop

    def _report(self, component: Component, began: float, result: tuple[Outcome, str]) -> None:
        outcome, detail = result
        report = ComponentReport(component.name, outcome, time.monotonic() - began, detail)
        self._reports.append(report)
        if outcome is Outcome.STOPPED:
            log.info("component %s stopped in %.2f s", report.name, report.seconds)
        else:
            log.error("component %s %s after %.2f s: %s", report.name, outcome.replace("_", " "), report.seconds, detail)

    # Signals and contexts

    def install_signal_handlers(
        self,
        signals: Iterable[int] = (signal.SIGTERM, signal.SIGINT),
        *,
        exit_process: bool = True,
    ) -> None:
        """The first of ``signals`` to arrive initiates the shutdown, a second one ends the process at once.

        With ``exit_process`` the main thread gets SystemExit(0), so that its ``with`` and ``finally`` blocks run, and
        the process ends when the shutdown is over; otherwise the main thread goes on, and has to check
        ``shutdown_requested``. Within a running event loop nothing is raised, and async components run on it: await
        ``wait_async``. To be called from the main thread; raises ValueError elsewhere.
        """
        loop = _running_loop()
        if loop is None:
            for number in signals:
                signal.signal(number, self._handler(exit_process))
            return
        self._loop = loop
        for number in signals:
            loop.add_signal_handler(number, self._on_loop_signal, number)

    def _handler(self, exit_process: bool) -> Callable[[int, FrameType | None], None]:
        def handle(signum: int, _frame: FrameType | None) -> None:
            if self._requested:
                _end_by(signum)
            self._requested = True
            self._prepare()
            # In a thread, since the handler may have interrupted code that holds a lock which a component needs.
            if not self._initiate_in_thread():
                self.initiate_shutdown()  # such a lock is seldom held
            if exit_process:
                raise SystemExit(0)

        return handle

    def _on_loop_signal(self, number: int) -> None:
        if self._requested:
            _end_by(number)
        self._requested = True
        if not self._initiate_in_thread():
            import asyncio

            self._on_loop = asyncio.ensure_future(self.initiate_shutdown_async())

    def _initiate_in_thread(self) -> bool:
        """The shutdown has begun, in a thread that the interpreter waits for; False if none can be started."""
        try:
            threading.Thread(target=self.initiate_shutdown, name="shutdown", daemon=False).start()
        except RuntimeError as error:
            log.warning("no thread to shut down in: %s", error)
            return False
        return True

    async def wait_async(self) -> bool:
        """Waits for a shutdown that is initiated elsewhere, and returns ``stopped_cleanly``."""
        import asyncio

        event = asyncio.Event()
        with self._lock:
            if self._finished.is_set():
                event.set()
            else:
                self._waiters.append((asyncio.get_running_loop(), event))
        await event.wait()
        return self.stopped_cleanly

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.initiate_shutdown()

    async def __aenter__(self) -> Self:
        self._remember_loop()
        return self

    async def __aexit__(self, *_: object) -> None:
        import asyncio

        # A separate task, since our own cancellation must not leave components running.
        task = asyncio.ensure_future(self.initiate_shutdown_async())
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task})
            raise


#: The manager whose shutdown the current code is part of.
_stopping: contextvars.ContextVar[object] = contextvars.ContextVar("supervisord_async_app_stopping", default=None)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread, or None. Does not import asyncio for a program that does not use it."""
    module = sys.modules.get("asyncio")
    if module is None:
        return None
    try:
        loop: asyncio.AbstractEventLoop = module.get_running_loop()
    except RuntimeError:
        return None
    return loop


def _bound(component: Component, deadline: float) -> float:
    return max(0.0, min(component.timeout, deadline - time.monotonic()))


def _end_by(signum: int) -> None:
    """The process is ended by the signal."""
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)


class PreparedCall:
    """A call that waits, in a thread of its own, until :meth:`run`.

    The thread is started now: from Python 3.12 on none can be started after the main thread has ended, which the end of a
    component may well cause.
    """

    def __init__(self, call: Callable[[], object], name: str) -> None:
        """The thread has the caller's context, and the ``name``."""
        self._call = call
        self._turn, self._over = threading.Event(), threading.Event()
        context = contextvars.copy_context()
        try:
            threading.Thread(target=context.run, args=(self._wait_and_call,), name=name, daemon=True).start()
            self._threaded = True
        except RuntimeError as error:  # no thread can be started: make the call in the caller's, without a bound
            log.warning("no thread for %s: %s", name, error)
            self._threaded = False

    def run(self, seconds: float) -> bool:
        """Whether the call was over within ``seconds``; if not, it is left behind."""
        self._turn.set()
        if not self._threaded:
            self._wait_and_call()
        return self._over.wait(seconds)

    def _wait_and_call(self) -> None:
        self._turn.wait()
        try:
            self._call()
        finally:
            self._over.set()


class _Stop:
    """Stops a component in its own thread, which is left behind if it overruns."""

    def __init__(self, component: Component, loop: asyncio.AbstractEventLoop | None) -> None:
        self.component, self._loop = component, loop
        self._result: tuple[Outcome, str] | None = None
        self._stopping = PreparedCall(self._stop, f"shutdown-{component.name}")

    def run(self, seconds: float) -> tuple[Outcome, str]:
        """The component was told to stop; returns the outcome within ``seconds``."""
        self._stopping.run(seconds)
        return self._result or (Outcome.TIMED_OUT, f"not over within {seconds:.2f} s, left behind")

    def _stop(self) -> None:
        joined: Any = None
        try:
            self._call(self.component.shutdown_func)
            if self.component.join_func is not None:
                joined = self._call(self.component.join_func)
        except BaseException as error:  # a component's SystemExit or KeyboardInterrupt does not end the shutdown
            log.exception("component %s failed to stop", self.component.name)
            self._result = Outcome.FAILED, f"{type(error).__name__}: {error}"
        else:
            self._result = joined_outcome(joined)

    def _call(self, step: Step) -> Any:
        result = step()
        if not inspect.isawaitable(result):
            return result
        import asyncio

        if self._loop is not None:
            return asyncio.run_coroutine_threadsafe(_awaited(result), self._loop).result()
        return asyncio.run(_awaited(result))


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def joined_outcome(value: Any) -> tuple[Outcome, str]:
    """The outcome by the join function's result: False means that the component has not stopped."""
    return (Outcome.FAILED, "its join function says that it has not stopped") if value is False else (Outcome.STOPPED, "")
