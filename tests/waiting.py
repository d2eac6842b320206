"""Ending on conditions: how tests wait without sleeping for a guess."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
import anyio.lowlevel

T = TypeVar("T")

#: Long enough for a loaded machine; no passing test ever waits so long.
PATIENCE_SECONDS = 60.0
#: The pause between two looks.
POLL_SECONDS = 0.01


async def wait_until(
    predicate: Callable[[], T | Awaitable[T]], timeout: float = PATIENCE_SECONDS, *, every: float = POLL_SECONDS, what: str = ""
) -> T:
    """Return the first truthy result of ``predicate`` (a function, or one that is awaited); a file it misses is not there yet.

    Raises AssertionError, with the last result, when ``timeout`` seconds passed without one.
    """
    until = time.monotonic() + timeout
    while True:
        result: T | FileNotFoundError
        try:
            answer = predicate()
            result = await answer if inspect.isawaitable(answer) else answer
        except FileNotFoundError as missing:
            result = missing
        else:
            if result:
                return result
        if time.monotonic() >= until:
            raise AssertionError(_gave_up(predicate, timeout, what, result))
        await anyio.sleep(every)


def wait_until_sync(predicate: Callable[[], T], timeout: float = PATIENCE_SECONDS, *, every: float = POLL_SECONDS, what: str = "") -> T:
    """As :func:`wait_until`, for tests without a loop."""
    until = time.monotonic() + timeout
    while True:
        result: T | FileNotFoundError
        try:
            result = predicate()
        except FileNotFoundError as missing:
            result = missing
        else:
            if result:
                return result
        if time.monotonic() >= until:
            raise AssertionError(_gave_up(predicate, timeout, what, result))
        time.sleep(every)


async def take_turns(times: int = 20) -> None:
    """Whatever was begun by now has had its turns of the loop."""
    for _ in range(times):
        await anyio.lowlevel.checkpoint()


def _gave_up(predicate: Callable[[], object], timeout: float, what: str, result: object) -> str:
    name = what or getattr(predicate, "__qualname__", repr(predicate))
    return f"not within {timeout:g} s: {name}; it was {result!r}"
