"""File changes for all programs of a daemon: the subscriptions, and when a burst of changes is over.

The looking is done by :mod:`~supervisord_async.supervise.sources.filewatch.watcher`, in one thread for each set of disks that a path may
need, so that a disk that hangs holds up nothing but the paths on it. With one disk there is one thread; without subscriptions there
is none. Everything else happens on the loop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio

from supervisord_async.config.model import Watch
from supervisord_async.core.record import Record
from supervisord_async.core.state import State
from supervisord_async.supervise.records.bus import Bus
from supervisord_async.supervise.sources.filewatch.view import View, WatchedPath
from supervisord_async.supervise.sources.filewatch.watcher import Changes, Pace
from supervisord_async.supervise.sources.filewatch.watcher_thread import WatcherThread
from supervisord_async.system.mounts import MountTable
from supervisord_async.system.shortage import is_shortage

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

#: Changes that never cease are reported after this many debounce times, or after this many seconds if that is later.
BOUND_FACTOR = 10.0
BOUND_SECONDS = 2.0
#: How many paths of one burst are remembered; more would make no difference.
PATHS_MAX = 1000
#: How many sets of disks have a thread of their own; all others share one.
THREADS = 8
#: The pause before a thread is restarted after a bug; it doubles up to a minute.
RETRY_SECONDS, RETRY_MAX_SECONDS = 1.0, 60.0

_log = logging.getLogger(__name__)


class Subscription:
    """An async iterator over sets of changed paths, each the changes of one burst."""

    def __init__(self, watch: Watch, watched_paths: frozenset[WatchedPath], generation: int, since_ns: int) -> None:
        self.watched_paths = watched_paths
        self.since_ns: int | None = since_ns  #: since when changes count (since 1970, as files have it); None: the watchers know it
        self.missing: tuple[str, ...] = ()  #: watched paths that did not exist when the watch was armed
        self.seen_at = 0.0  #: when the first change of the last set was seen; monotonic
        self._quiet_seconds = watch.debounce_seconds
        self._bound_seconds = max(BOUND_FACTOR * watch.debounce_seconds, BOUND_SECONDS)
        self._generation = generation
        self._unarmed = set(watched_paths)
        self._armed = anyio.Event()
        self._paths: set[str] = set()
        self.last_at = 0.0  #: when the last change was seen; monotonic
        self._first_at = 0.0
        self._news = anyio.Event()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> frozenset[str]:
        """The paths of the next burst, once it is over or has lasted too long."""
        while not self._paths:
            self._news = anyio.Event()
            await self._news.wait()
        while (until := min(self.last_at + self._quiet_seconds, self._first_at + self._bound_seconds)) > anyio.current_time():  # noqa: ASYNC110  quiet is no event
            await anyio.sleep_until(until)
        self.seen_at = self._first_at
        return self.take_nowait()

    async def wait_armed(self) -> None:
        """Return once no further change of a watched path can be missed."""
        await self._armed.wait()

    def take_nowait(self) -> frozenset[str]:
        """The changes that were seen and not yet taken."""
        paths, self._paths = self._paths, set()
        return frozenset(paths)

    def _arm(self, generation: int, watched_paths: frozenset[WatchedPath], missing: frozenset[str]) -> None:
        if generation >= self._generation and not self._unarmed.isdisjoint(watched_paths):
            roots = {each.root for each in self._unarmed & watched_paths}
            self.missing = tuple(sorted({*self.missing, *roots & missing}))
            self._unarmed -= watched_paths
            if not self._unarmed:
                self._armed.set()

    def _add(self, paths: set[str]) -> None:
        """Add changes to the burst; an empty set only prolongs it, if there is one."""
        self.last_at = anyio.current_time()
        if not paths:
            return
        if not self._paths:
            self._first_at = self.last_at
        self._paths.update(sorted(paths)[: max(1, PATHS_MAX - len(self._paths))] if len(paths) + len(self._paths) > PATHS_MAX else paths)
        self._news.set()


class FileWatching:
    """The file watching of a daemon. Without a subscription it has no thread and no inotify instance."""

    def __init__(self, bus: Bus, *, pace: Pace | None = None) -> None:
        self._bus = bus
        self._pace = pace or Pace()
        self._subscriptions: set[Subscription] = set()
        self._generation = 0
        self._mounts = MountTable()
        self._threads: dict[frozenset[int], WatcherThread] = {}  #: by their disks
        self._places: dict[WatchedPath, WatcherThread] = {}  #: the thread that watches each path
        self._unstarted: list[WatcherThread] = []  #: those that are not served yet
        self._news = anyio.Event()
        self._followed: dict[str, int] = {}
        self._started: dict[str, float] = {}
        bus.listen(self._note_start)

    async def run(self) -> None:
        """Serve until cancelled; the threads have ended then, except any that hang. After a bug a thread is restarted, with a report."""
        await self._news.wait()
        from anyio.from_thread import BlockingPortal

        self._unstarted = list(self._threads.values())  # none is served: this is the beginning, or another one after a bug
        async with BlockingPortal() as portal, anyio.create_task_group() as tasks:
            while True:
                await self._news.wait()
                await anyio.sleep(self._pace.gather)
                self._distribute()
                self._news = anyio.Event()  # only now, so that a bug there leaves the news for the next attempt
                unstarted, self._unstarted = self._unstarted, []
                for thread in unstarted:
                    tasks.start_soon(self._keep, thread, portal)

    async def _keep(self, thread: WatcherThread, portal: BlockingPortal) -> None:
        """Serve ``thread`` until it has nothing left to watch."""
        pause = RETRY_SECONDS
        while thread.watched_paths:
            try:
                await thread.serve(portal)
            except Exception as error:  # the programs are not affected; only their files go unwatched for a moment
                shortage = error.strerror if isinstance(error, OSError) and is_shortage(error) else None
                if shortage is None:
                    _log.exception("watching files failed; trying again in %g s", pause)
                self._bus.publish(
                    "watch",
                    message=f"watching files failed ({shortage or repr(error)}); trying again in {pause:g} s",
                    data={"what": "failed", "seconds": pause},
                )
                await anyio.sleep(pause)
                pause = min(pause * 2, RETRY_MAX_SECONDS)
                thread.want(self._generation, dict.fromkeys(thread.watched_paths, time.time_ns()))
        del self._threads[thread.devices]

    def caught_up_ns(self) -> int:
        """Until when every change has been handed to its subscriber (nanoseconds since 1970, as files have it)."""
        now = anyio.current_time()
        lags = [self._pace.fallback_poll]
        for subscription in self._subscriptions:
            burst = now - subscription._first_at if subscription._paths else 0.0  # noqa: SLF001  the two are one mechanism
            lags += [burst + (path.poll_seconds or self._pace.fallback_poll) for path in subscription.watched_paths]
        return time.time_ns() - round(max(lags) * 1e9)

    @contextmanager
    def subscribe(self, watch: Watch, *, ignored_paths: tuple[str, ...], since_ns: int | None = None) -> Iterator[Subscription]:
        """A subscription to changes of the watched paths from now on; complete once :meth:`Subscription.wait_armed` returns.

        ``ignored_paths`` are absolute; what lies below them, and files named ``PATH.…``, are ignored too. With ``since_ns`` (nanoseconds
        since 1970, as files have it) files that were modified after that have changed as well.
        """
        roots = (path.rstrip("/") or "/" for path in watch.paths)
        watched_paths = frozenset(WatchedPath(root, watch.ignore, _beneath(root, ignored_paths), watch.poll_seconds) for root in roots)
        self._generation += 1
        subscription = Subscription(watch, watched_paths, self._generation, since_ns or time.time_ns())
        self._subscriptions.add(subscription)
        self._news.set()
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
            self._generation += 1
            self._news.set()

    @contextmanager
    def follow(self, name: str) -> Iterator[None]:
        """While in this context, :meth:`started_at` knows the process ``name``."""
        self._followed[name] = self._followed.get(name, 0) + 1
        try:
            yield
        finally:
            self._followed[name] -= 1
            if not self._followed[name]:
                del self._followed[name]
                self._started.pop(name, None)

    def started_at(self, name: str) -> float | None:
        """When a followed process was last started (monotonic); None if not since it is followed."""
        return self._started.get(name)

    def _note_start(self, record: Record) -> None:
        if record.type == "state" and record.to == State.STARTING and record.name in self._followed:
            self._started[record.name] = anyio.current_time()

    def _distribute(self, handed: Iterable[View] = ()) -> None:
        """Assign every watched path to a thread; ``handed`` are views that other threads gave back, for the ones that take over."""
        now, since_ns = time.time_ns(), dict[WatchedPath, int]()
        for subscription in self._subscriptions:
            for each in subscription.watched_paths:
                since_ns[each] = min(since_ns.get(each, now), subscription.since_ns or now)
            subscription.since_ns = None
        self._places = {each: self._places.get(each) or self._thread_for(self._mounts.devices_at(each.root)) for each in since_ns}
        shares: dict[WatcherThread, dict[WatchedPath, int]] = {thread: {} for thread in self._threads.values()}
        for watched_path, thread in self._places.items():
            shares[thread][watched_path] = since_ns[watched_path]
        for thread, watched_paths in shares.items():
            own = [view for view in handed if self._places.get(view.watched_path) is thread]
            thread.want(self._generation, watched_paths, handed=own)

    def _thread_for(self, devices: frozenset[int]) -> WatcherThread:
        """The thread for these disks; if there are too many already, the one that all others share."""
        if devices not in self._threads and len(self._threads) >= THREADS:
            devices = frozenset()
        thread = self._threads.get(devices)
        if thread is None:
            thread = self._threads[devices] = WatcherThread(self, self._pace, devices)
            self._unstarted.append(thread)
            self._news.set()
        return thread

    # The watchers' reports, on the loop

    def changed(self, changes: Changes) -> None:
        """The subscriptions to these paths have the changes."""
        for subscription in self._subscriptions:
            if own := subscription.watched_paths & changes.keys():
                subscription._add(set[str]().union(*(changes[watched_path] for watched_path in own)))  # noqa: SLF001  the two are one mechanism

    def armed(self, generation: int, watched_paths: frozenset[WatchedPath], missing: frozenset[str]) -> None:
        """The subscriptions to these paths that were made by ``generation`` are armed, as far as these are concerned."""
        for subscription in self._subscriptions:
            subscription._arm(generation, watched_paths, missing)  # noqa: SLF001

    def strayed(self, views: list[View]) -> None:
        """The threads for the disks that these views need have taken them over."""
        for view in views:
            devices = self._mounts.devices_at(view.watched_path.root) | view.devices
            self._places[view.watched_path] = self._thread_for(frozenset(devices))
        self._generation += 1
        self._distribute(views)

    def broken(self, watched_path: WatchedPath, error: str) -> None:
        """Publish that ``watched_path`` is polled from now on, because of a bug."""
        self._bus.publish(
            "watch",
            message=f"watching {watched_path.root} failed ({error}); it is polled from now on",
            data={"what": "broken", "path": watched_path.root},
        )

    def degraded(self, reason: str) -> None:
        """Publish that files are polled, and why."""
        self._bus.publish(
            "watch",
            message=f"no notifications of file changes: {reason}; polling every {self._pace.fallback_poll:g} s or slower instead "
            "(raise sysctl fs.inotify.max_user_watches and fs.inotify.max_user_instances, or watch less)",
            data={"what": "degraded", "reason": reason},
        )

    def recovered(self) -> None:
        """Publish that files are no longer polled."""
        self._bus.publish("watch", message="notified of file changes again; no longer polling", data={"what": "recovered"})


def _beneath(root: str, paths: tuple[str, ...]) -> tuple[str, ...]:
    """Those of ``paths`` that lie below ``root``; others do not matter, and would keep programs from sharing a watched path."""
    prefix = root.rstrip("/") + "/"
    return tuple(sorted({path for path in paths if path.startswith(prefix)}))
