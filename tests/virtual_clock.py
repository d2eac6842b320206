"""An event loop whose clock jumps to the next timer when nothing else is left to do: hours pass in milliseconds."""

from __future__ import annotations

import asyncio
import contextvars
import selectors
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio

from supervisord_async.system.loop import tell_sniffio

T = TypeVar("T")

#: So much virtual time at most: a test that waits for what never comes ends, instead of running through the ages.
HORIZON_SECONDS = 400 * 86400.0


class _Jumping(selectors.DefaultSelector):  # type: ignore[misc,valid-type]
    """Instead of waiting for a timer, makes it due. Real descriptors are still served first."""

    clock: VirtualClockLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:  # only a descriptor, that is another thread, can wake us
            return super().select(None)
        if self.clock.now + timeout > HORIZON_SECONDS:
            raise RuntimeError("virtual time ran out: what is awaited never comes")
        self.clock.now += timeout
        return ready


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """``now`` seconds have passed since the test began."""

    def __init__(self) -> None:
        self.now = 1000.0
        selector = _Jumping()
        selector.clock = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


def run_virtually(main: Callable[..., Awaitable[T]], *args: Any) -> T:
    """The result of ``await main(*args)`` under a virtual clock."""

    async def call() -> T:
        return await main(*args)

    context = contextvars.copy_context()
    context.run(tell_sniffio)
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(call(), context=context)


async def until(condition: Callable[[], bool], seconds: float = 3600.0) -> None:
    """Return when the condition holds; virtual time passes meanwhile. Raises TimeoutError after ``seconds`` of it."""
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(0.01)
