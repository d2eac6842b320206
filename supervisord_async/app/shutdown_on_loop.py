"""Stops one component from an asyncio event loop, which keeps running meanwhile."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
from typing import Any

from supervisord_async.app.shutdown import Component, Outcome, Step, joined_outcome

log = logging.getLogger(__name__)


async def stop_on_loop(component: Component, seconds: float) -> tuple[Outcome, str]:
    """The component was told to stop; returns the outcome within ``seconds``. Ordinary functions run in their own threads."""
    task = asyncio.ensure_future(_steps_on_loop(component))
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if not done:
        task.cancel()
        # A moment for it to be cancelled; a component that refuses is left behind.
        await asyncio.wait({task}, timeout=0.05)
        return Outcome.TIMED_OUT, f"not over within {seconds:.2f} s, left behind"
    if task.cancelled():
        return Outcome.FAILED, "it was cancelled"
    return task.result()


async def _steps_on_loop(component: Component) -> tuple[Outcome, str]:
    joined: Any = None
    try:
        for step in (component.shutdown_func, component.join_func):
            if step is not None:
                joined = await (step() if inspect.iscoroutinefunction(step) else _in_thread(step))
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # a component's SystemExit or KeyboardInterrupt does not end the shutdown
        log.exception("component %s failed to stop", component.name)
        return Outcome.FAILED, f"{type(error).__name__}: {error}"
    return joined_outcome(joined if component.join_func is not None else None)


async def _in_thread(step: Step) -> Any:
    """The result of an ordinary function, run in a daemon thread; if it is awaitable, its own result."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if not future.done():
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))

    def run() -> None:
        result, error = None, None
        try:
            result = step()
        except BaseException as raised:
            error = raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, error)

    try:
        threading.Thread(target=contextvars.copy_context().run, args=(run,), name="shutdown-step", daemon=True).start()
    except RuntimeError as error:  # no thread can be started: call it in the loop's, without a bound
        log.warning("no thread to stop a component in: %s", error)
        run()
    result = await future
    return await result if inspect.isawaitable(result) else result
