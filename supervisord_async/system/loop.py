"""The event loop of the daemon: uvloop, or the stock one, with name look-ups that are fit for a supervisor."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import importlib
from collections.abc import Callable, Coroutine
from typing import Any, Literal, TypeVar

from supervisord_async.system.names import NameLookups

T = TypeVar("T")

LoopKind = Literal["uvloop", "asyncio"]


class StockLoop(NameLookups, asyncio.SelectorEventLoop):
    """asyncio's own loop."""


@functools.cache
def _uvloop_class() -> type[asyncio.AbstractEventLoop] | None:
    """A uvloop with our look-ups; None where uvloop is not installed."""
    try:
        import uvloop
    except ImportError:  # no wheel for this platform: slower, but all works
        return None

    class FastLoop(NameLookups, uvloop.Loop):  # type: ignore[misc]
        pass

    return FastLoop


def new_event_loop(kind: LoopKind = "uvloop") -> asyncio.AbstractEventLoop:
    """A new loop of that kind; ``uvloop`` means the stock loop where uvloop is not installed."""
    loop_class = _uvloop_class() if kind == "uvloop" else None
    return loop_class() if loop_class is not None else StockLoop()


def run(main: Callable[..., Coroutine[Any, Any, T]], *args: Any, kind: LoopKind = "uvloop") -> T:
    """Run ``main(*args)`` on a new loop of that kind; return what it returns."""
    context = contextvars.copy_context()
    context.run(tell_sniffio)
    with asyncio.Runner(loop_factory=functools.partial(new_event_loop, kind)) as runner:
        return runner.run(main(*args), context=context)


def tell_sniffio() -> None:
    """Let callbacks of the loop use anyio's clock and scopes, in this context and in copies of it.

    Where sniffio is installed, anyio asks it which loop runs. It finds out by itself in tasks only; elsewhere it must be told.
    """
    try:
        sniffio: Any = importlib.import_module("sniffio")
    except ImportError:
        return
    sniffio.current_async_library_cvar.set("asyncio")
