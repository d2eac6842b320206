"""The file monitor of one process: a change on disk becomes a restart, or a signal.

It runs as long as the process is supervised and posts inputs whatever the state; the machine knows that a stopped process
stays stopped. A program that restarts itself by writing watched files is found by :class:`LoopGuard`.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

import anyio

from supervisord_async.config.model import Watch
from supervisord_async.core.inputs import Input, RestartRequested, SignalRequested
from supervisord_async.core.state import Cause
from supervisord_async.supervise.records.bus import Bus
from supervisord_async.supervise.sources.filewatch.watching import FileWatching, Subscription

if TYPE_CHECKING:
    from supervisord_async.supervise.shared_context import SharedContext

#: A change this soon after a start (plus the debounce time) may be caused by the start itself.
SUSPECT_SECONDS = 2.0
#: This many such changes in a row, within ``WINDOW_FACTOR`` times that time, are a loop …
SUSPECTS = 5
#: … or this many, if the watch was suspended before and has not been calm since.
SUSPECTS_AGAIN = 2
WINDOW_FACTOR = 10.0
#: How long a watch is suspended at first, and at most; the time doubles with each suspension.
PAUSE_SECONDS, PAUSE_MAX_SECONDS = 30.0, 300.0


class LoopGuard:
    """Distinguishes a program that restarts itself, by writing watched files, from one whose files are edited.

    Times are seconds of any one monotonic clock.
    """

    def __init__(self, debounce_seconds: float) -> None:
        self.suspect_seconds = debounce_seconds + SUSPECT_SECONDS
        self._window_seconds = WINDOW_FACTOR * self.suspect_seconds
        self._suspects: deque[float] = deque()
        self._pauses = 0
        self._paused_until = 0.0

    def pause_after(self, seen_at: float, started_at: float | None) -> float | None:
        """How long to suspend the watch because of a change seen at ``seen_at``; None: act on the change.

        ``started_at`` is when the program was last started, or asked to restart, whichever is later.
        """
        while self._suspects and seen_at - self._suspects[0] > self._window_seconds:
            self._suspects.popleft()
        if self._pauses and not self._suspects and seen_at - self._paused_until > self._window_seconds:
            self._pauses = 0
        if started_at is None or seen_at - started_at > self.suspect_seconds:
            self._suspects.clear()
            return None
        self._suspects.append(seen_at)
        if len(self._suspects) < (SUSPECTS_AGAIN if self._pauses else SUSPECTS):
            return None
        pause: float = min(PAUSE_SECONDS * 2.0**self._pauses, PAUSE_MAX_SECONDS)
        self._pauses += 1
        self._suspects.clear()
        self._paused_until = seen_at + pause
        return pause


async def monitor_watches(
    shared: SharedContext, name: str, watches: Iterable[Watch], post: Callable[[Input], None], since_ns: int | None
) -> None:
    """Run :func:`monitor_files` for each of ``watches`` of the process ``name``; files that the daemon writes are ignored."""
    ignored = shared.written_paths()
    async with anyio.create_task_group() as monitors:
        for watch in watches:
            monitor = partial(monitor_files, shared.files, name=name, watch=watch, ignored_paths=ignored, post=post, bus=shared.bus)
            monitors.start_soon(partial(monitor, since_ns=since_ns))


async def monitor_files(
    watching: FileWatching,
    *,
    name: str,
    watch: Watch,
    ignored_paths: tuple[str, ...],
    post: Callable[[Input], None],
    bus: Bus,
    since_ns: int | None = None,
) -> None:
    """Post RestartRequested for each burst of changes, or SignalRequested if the watch has a ``signal``; until cancelled.

    What changed after ``since_ns`` (nanoseconds since 1970, as files have it; None: now) is the first burst.

    Publishes a ``watch`` record for each path that does not exist at first, and when the watch is suspended because of a
    loop, and when it resumes. Then what changed since the program's last start is acted on once, as somebody may have saved files
    quickly; what changes soon after that is taken for the program's own doing, so that a loop has come to its end.
    """
    with watching.follow(name), watching.subscribe(watch, ignored_paths=ignored_paths, since_ns=since_ns) as changes:
        async with anyio.create_task_group() as tasks:  # a task, as a path on a hanging disk is never armed, and must not hold up the rest
            tasks.start_soon(_publish_missing, changes, name, bus)
            guard = LoopGuard(watch.debounce_seconds)
            acted_at: float | None = None
            async for paths in changes:
                started_at = max((at for at in (acted_at, watching.started_at(name)) if at is not None), default=None)
                pause = guard.pause_after(changes.seen_at, started_at)
                if pause is None:
                    acted_at = anyio.current_time()
                    post(_input(watch, paths))
                    continue
                _publish_suspended(bus, name, watch, paths, pause)
                await anyio.sleep(pause)
                bus.publish("watch", name=name, message="following file changes again", data={"what": "resumed"})
                if changes.last_at > (watching.started_at(name) or 0.0):
                    acted_at = anyio.current_time()
                    post(_input(watch, paths | changes.take_nowait()))
                    await anyio.sleep(guard.suspect_seconds)
                changes.take_nowait()


async def _publish_missing(changes: Subscription, name: str, bus: Bus) -> None:
    await changes.wait_armed()
    for path in changes.missing:
        message = f"watched path {path} does not exist; it is watched for its creation"
        bus.publish("watch", name=name, message=message, data={"what": "missing", "path": path})


def _input(watch: Watch, paths: frozenset[str]) -> Input:
    if watch.signal is not None:
        return SignalRequested(watch.signal, Cause.FILE_CHANGED)
    return RestartRequested(Cause.FILE_CHANGED, describe_changes(watch, paths))


def describe_changes(watch: Watch, paths: frozenset[str]) -> str:
    """``src/app.py changed``, ``src/app.py and 3 more changed``: relative to the parent of the watched path."""
    first = min(paths)
    root = max((root for root in watch.paths if first == root or first.startswith(root.rstrip("/") + "/")), key=len, default="/")
    others = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"{os.path.relpath(first, os.path.dirname(root.rstrip('/')) or '/')}{others} changed"


def _publish_suspended(bus: Bus, name: str, watch: Watch, paths: frozenset[str], pause: float) -> None:
    what = "restarted" if watch.signal is None else f"sent {signal.Signals(watch.signal).name}"
    bus.publish(
        "watch",
        name=name,
        message=f"{describe_changes(watch, paths)} soon after each time the program was {what}; not followed for {pause:g} s "
        "(if the program writes it, add it to watch.ignore)",
        data={"what": "suspended", "paths": sorted(paths)[:10], "seconds": pause, "key": "watch.ignore"},
    )
