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
from supervisord_async.supervise.sources.filewatch.view import Territory, View
from supervisord_async.supervise.sources.filewatch.watcher import Changes, Pace
from supervisord_async.supervise.sources.filewatch.watcher_thread import Outpost
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
OUTPOSTS = 8
#: The pause before a thread is restarted after a bug; it doubles up to a minute.
RETRY_SECONDS, RETRY_MAX_SECONDS = 1.0, 60.0

_log = logging.getLogger(__name__)


class Subscription:
    """An async iterator over sets of changed paths, each the changes of one burst."""

    def __init__(self, watch: Watch, territories: frozenset[Territory], generation: int) -> None:
        self.territories = territories
        self.missing: tuple[str, ...] = ()  #: watched paths that did not exist when the watch was armed
        self.seen_at = 0.0  #: when the first change of the last set was seen; monotonic
        self._quiet_seconds = watch.debounce_seconds
        self._bound_seconds = max(BOUND_FACTOR * watch.debounce_seconds, BOUND_SECONDS)
        self._generation = generation
        self._unarmed = set(territories)
        self._armed = anyio.Event()
        self._paths: set[str] = set()
        self._first_at = self._last_at = 0.0
        self._news = anyio.Event()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> frozenset[str]:
        """The paths of the next burst, once it is over or has lasted too long."""
        while not self._paths:
            self._news = anyio.Event()
            await self._news.wait()
        while (until := min(self._last_at + self._quiet_seconds, self._first_at + self._bound_seconds)) > anyio.current_time():  # noqa: ASYNC110  quiet is no event
            await anyio.sleep_until(until)
        self.seen_at = self._first_at
        paths, self._paths = self._paths, set()
        return frozenset(paths)

    async def wait_armed(self) -> None:
        """Return once no further change of a watched path can be missed."""
        await self._armed.wait()

    def discard(self) -> None:
        """Forget the changes that were seen and not yet taken."""
        self._paths = set()

    def _arm(self, generation: int, territories: frozenset[Territory], missing: frozenset[str]) -> None:
        if generation >= self._generation and not self._unarmed.isdisjoint(territories):
            roots = {each.root for each in self._unarmed & territories}
            self.missing = tuple(sorted({*self.missing, *roots & missing}))
            self._unarmed -= territories
            if not self._unarmed:
                self._armed.set()

    def _add(self, paths: set[str]) -> None:
        """Add changes to the burst; an empty set only prolongs it, if there is one."""
        self._last_at = anyio.current_time()
        if not paths:
            return
        if not self._paths:
            self._first_at = self._last_at
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
        self._outposts: dict[frozenset[int], Outpost] = {}  #: by their disks
        self._places: dict[Territory, Outpost] = {}  #: the outpost that watches each territory
        self._unmanned: list[Outpost] = []  #: those that are not served yet
        self._since_ns: int | None = None  #: when the first subscription began that is not yet distributed (since 1970, as files have it)
        self._news = anyio.Event()
        self._followed: dict[str, int] = {}
        self._started: dict[str, float] = {}
        bus.listen(self._note_start)

    async def run(self) -> None:
        """Serve until cancelled; the threads have ended then, except any that hang. After a bug a thread is restarted, with a report."""
        await self._news.wait()
        from anyio.from_thread import BlockingPortal

        async with BlockingPortal() as portal, anyio.create_task_group() as tasks:
            while True:
                await self._news.wait()
                await anyio.sleep(self._pace.gather)
                self._news = anyio.Event()
                self._distribute()
                unmanned, self._unmanned = self._unmanned, []
                for outpost in unmanned:
                    tasks.start_soon(self._keep, outpost, portal)

    async def _keep(self, outpost: Outpost, portal: BlockingPortal) -> None:
        """Serve ``outpost`` until it has nothing left to watch."""
        pause = RETRY_SECONDS
        while outpost.territories:
            try:
                await outpost.serve(portal)
            except Exception as error:  # the programs are not affected; only their files go unwatched for a moment
                short = is_shortage(error)
                if not short:
                    _log.exception("watching files failed; trying again in %g s", pause)
                self._bus.publish(
                    "watch",
                    message=f"watching files failed ({error if short else repr(error)}); trying again in {pause:g} s",
                    data={"what": "failed", "seconds": pause},
                )
                await anyio.sleep(pause)
                pause = min(pause * 2, RETRY_MAX_SECONDS)
                outpost.want(self._generation, outpost.territories, since_ns=time.time_ns())
        del self._outposts[outpost.devices]

    @contextmanager
    def subscribe(self, watch: Watch, *, ignored_paths: tuple[str, ...]) -> Iterator[Subscription]:
        """A subscription to changes of the watched paths from now on; complete once :meth:`Subscription.wait_armed` returns.

        ``ignored_paths`` are absolute; what lies below them, and files named ``PATH.…``, are ignored too.
        """
        roots = (path.rstrip("/") or "/" for path in watch.paths)
        territories = frozenset(Territory(root, watch.ignore, _beneath(root, ignored_paths), watch.poll_seconds) for root in roots)
        self._generation += 1
        subscription = Subscription(watch, territories, self._generation)
        self._subscriptions.add(subscription)
        self._since_ns = self._since_ns or time.time_ns()
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
        """Assign every territory to an outpost; ``handed`` are views that other outposts gave back, for the ones that take over."""
        since_ns, self._since_ns = self._since_ns or time.time_ns(), None
        wanted = {each for subscription in self._subscriptions for each in subscription.territories}
        self._places = {each: self._places.get(each) or self._outpost_for(self._mounts.devices_at(each.root)) for each in wanted}
        shares: dict[Outpost, list[Territory]] = {outpost: [] for outpost in self._outposts.values()}
        for territory, outpost in self._places.items():
            shares[outpost].append(territory)
        for outpost, territories in shares.items():
            own = [view for view in handed if self._places.get(view.territory) is outpost]
            outpost.want(self._generation, frozenset(territories), since_ns=since_ns, handed=own)

    def _outpost_for(self, devices: frozenset[int]) -> Outpost:
        """The outpost for these disks; if there are too many already, the one that all others share."""
        if devices not in self._outposts and len(self._outposts) >= OUTPOSTS:
            devices = frozenset()
        outpost = self._outposts.get(devices)
        if outpost is None:
            outpost = self._outposts[devices] = Outpost(self, self._pace, devices)
            self._unmanned.append(outpost)
            self._news.set()
        return outpost

    # The lookouts' reports, on the loop

    def changed(self, changes: Changes) -> None:
        """The subscriptions to these territories have the changes."""
        for subscription in self._subscriptions:
            if own := subscription.territories & changes.keys():
                subscription._add(set[str]().union(*(changes[territory] for territory in own)))  # noqa: SLF001  the two are one mechanism

    def armed(self, generation: int, territories: frozenset[Territory], missing: frozenset[str]) -> None:
        """The subscriptions to these territories that were made by ``generation`` are armed, as far as these are concerned."""
        for subscription in self._subscriptions:
            subscription._arm(generation, territories, missing)  # noqa: SLF001

    def strayed(self, views: list[View]) -> None:
        """The outposts for the disks that these views need have taken them over."""
        for view in views:
            devices = self._mounts.devices_at(view.territory.root) | view.devices
            self._places[view.territory] = self._outpost_for(frozenset(devices))
        self._generation += 1
        self._distribute(views)

    def broken(self, territory: Territory, error: str) -> None:
        """Publish that ``territory`` is polled from now on, because of a bug."""
        self._bus.publish(
            "watch",
            message=f"watching {territory.root} failed ({error}); it is polled from now on",
            data={"what": "broken", "path": territory.root},
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
    """Those of ``paths`` that lie below ``root``; others do not matter, and would keep programs from sharing a territory."""
    prefix = root.rstrip("/") + "/"
    return tuple(sorted({path for path in paths if path.startswith(prefix)}))
