"""While a command waits: shows on standard error, if it is a terminal, what is awaited and how long it takes until KILL.

The request waits in its own thread with its own client; the status is requested on another connection. Without a terminal
there is no thread: the request is simply made.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from supervisord_async.cli.words import printable, seconds_until
from supervisord_async.errors import SupervisordError

if TYPE_CHECKING:
    from threading import Thread

    from supervisord_async.client import Client, ProcessStatus

T = TypeVar("T")

#: A request that takes less time than this shows nothing.
DELAY_SECONDS = 0.7
INTERVAL_SECONDS = 0.5
_SHOWN_NAMES = 4
#: For each goal, the states in which a process is no longer awaited.
_SETTLED_BY_GOAL: dict[str, tuple[str, ...]] = {
    "RUNNING": ("RUNNING", "EXITED"),
    "STOPPED": ("STOPPED", "EXITED", "FATAL"),
    "settled": ("RUNNING", "STOPPED", "EXITED", "FATAL", "BACKOFF"),
}


def waiting(request: Callable[[], T], watcher: Callable[[], Client], names: tuple[str, ...], goal: str) -> T:
    """What ``request`` returns or raises; meanwhile a line on standard error, if it is a terminal, says what is awaited.

    Args:
        request: makes the request, with its own client.
        watcher: makes the client that requests the status.
        names: the selectors of the awaited processes.
        goal: what they are to become: ``RUNNING``, ``STOPPED``, or ``settled``, which is neither starting nor stopping.
    """
    if not sys.stderr.isatty():
        return request()
    from concurrent.futures import Future
    from threading import Thread

    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(request())
        except BaseException as error:  # raised again by outcome.result()
            outcome.set_exception(error)

    thread = Thread(target=run, daemon=True)  # Ctrl-C leaves it behind: the daemon carries the command out all the same
    last = ""
    thread.start()
    try:
        _show_while(thread, watcher, names, goal)
    except KeyboardInterrupt:
        last = "no longer waiting; the daemon goes on with it\n"
        raise
    finally:
        sys.stderr.write(f"\r\x1b[K{last}")
        sys.stderr.flush()
    return outcome.result()


def _show_while(request: Thread, watcher: Callable[[], Client], names: tuple[str, ...], goal: str) -> None:
    """Show what is awaited as long as ``request`` takes, but nothing within its first :data:`DELAY_SECONDS`."""
    request.join(DELAY_SECONDS)
    with watcher() as client:
        while request.is_alive():
            with suppress(SupervisordError):  # the request itself will report what is wrong
                sys.stderr.write(f"\r\x1b[K{awaited_words(client.processes(*names, figures=False), goal)}")
                sys.stderr.flush()
            request.join(INTERVAL_SECONDS)


def awaited_words(processes: list[ProcessStatus], goal: str) -> str:
    """``waiting for web: STOPPING, KILL in 7 s; db: STARTING; and 3 more``; empty if none is awaited any more."""
    settled = _SETTLED_BY_GOAL.get(goal, ())
    open_ones = [process for process in processes if process.state not in settled]
    if not open_ones:
        return ""
    parts = []
    for process in open_ones[:_SHOWN_NAMES]:
        left = seconds_until(process.next_at)
        what = {"STOPPING": "KILL", "BACKOFF": "next attempt"}.get(process.state)
        parts.append(f"{printable(process.name)}: {process.state}" + (f", {what} in {left:.0f} s" if what and left is not None else ""))
    if len(open_ones) > _SHOWN_NAMES:
        parts.append(f"and {len(open_ones) - _SHOWN_NAMES} more")
    return "waiting for " + "; ".join(parts)
