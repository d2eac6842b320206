"""File changes for all programs of a daemon: who wants to hear of what, and when a burst of changes is over.

The looking is done by :mod:`~supervisord_async.supervise.senses.filewatch.lookout` in one thread, which exists only while
somebody subscribes; all else happens on the loop.
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio

from supervisord_async.config.model import Watch
from supervisord_async.core.record import Record
from supervisord_async.core.state import State
from supervisord_async.supervise.records.bus import Bus
from supervisord_async.supervise.senses.filewatch.lookout import Changes, Lookout, Pace
from supervisord_async.supervise.senses.filewatch.view import Territory

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

#: Changes that never cease are reported at the latest after this many times the quiet time, or so many seconds.
BOUND_FACTOR = 10.0
BOUND_SECONDS = 2.0
#: So many paths of one burst are remembered; more of them would not change what follows.
PATHS_MAX = 1000
#: The thread stays this long after the last subscription, for the next one: a reload ends and begins many.
LINGER_SECONDS = 1.0
#: After a bug in the thread it is started again; the pause doubles up to a minute.
RETRY_SECONDS, RETRY_MAX_SECONDS = 1.0, 60.0
#: A thread that was told to stop is looked for this often. It ends between two system calls,
JOIN_SECONDS = 0.002
#: and where one hangs, with the disk, it is left to itself after this time.
JOIN_MAX_SECONDS = 1.0
#: How often a thread that waits for the loop looks whether it is to stop.
REPORT_SECONDS = 0.05

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
        self._armed = anyio.Event()
        self._paths: set[str] = set()
        self._first_at = self._last_at = 0.0
        self._news = anyio.Event()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> frozenset[str]:
        """The paths of the next burst, when it is over or has lasted for long."""
        while not self._paths:
            self._news = anyio.Event()
            await self._news.wait()
        while (until := min(self._last_at + self._quiet_seconds, self._first_at + self._bound_seconds)) > anyio.current_time():  # noqa: ASYNC110  quiet is no event
            await anyio.sleep_until(until)
        self.seen_at = self._first_at
        paths, self._paths = self._paths, set()
        return frozenset(paths)

    async def wait_armed(self) -> None:
        """Returns when no later change of a watched path is missed."""
        await self._armed.wait()

    def discard(self) -> None:
        """Forget the changes that were seen and not yet taken."""
        self._paths = set()

    def _arm(self, generation: int, missing: frozenset[str]) -> None:
        if generation >= self._generation and not self._armed.is_set():
            self.missing = tuple(sorted({each.root for each in self.territories} & missing))
            self._armed.set()

    def _add(self, paths: set[str]) -> None:
        """Take changes in; an empty set prolongs the burst, if there is one."""
        self._last_at = anyio.current_time()
        if not paths:
            return
        if not self._paths:
            self._first_at = self._last_at
        self._paths.update(sorted(paths)[: max(1, PATHS_MAX - len(self._paths))] if len(paths) + len(self._paths) > PATHS_MAX else paths)
        self._news.set()


class FileWatching:
    """The one watcher of a daemon. Without a subscription it has no thread and no inotify instance."""

    def __init__(self, bus: Bus, *, pace: Pace | None = None) -> None:
        self._bus = bus
        self._pace = pace or Pace()
        self._subscriptions: set[Subscription] = set()
        self._generation = 0
        self._lookout: Lookout | None = None
        self._news = anyio.Event()
        self._followed: dict[str, int] = {}
        self._started: dict[str, float] = {}
        bus.listen(self._note_start)

    async def run(self) -> None:
        """Serve until cancelled; the thread is gone afterwards. A bug in it is reported, and it is started again."""
        pause = RETRY_SECONDS
        while True:
            await self._wait_subscribed()
            try:
                await self._serve()
            except Exception as error:  # the programs run on; only their files go unwatched for a moment
                _log.exception("watching files failed; trying again in %g s", pause)
                self._bus.publish(
                    "watch",
                    message=f"watching files failed ({error!r}); trying again in {pause:g} s",
                    data={"what": "failed", "seconds": pause},
                )
                await anyio.sleep(pause)
                pause = min(pause * 2, RETRY_MAX_SECONDS)

    @contextmanager
    def subscribe(self, watch: Watch, *, ignored_paths: tuple[str, ...]) -> Iterator[Subscription]:
        """Changes of the watched paths from now on, as :meth:`Subscription.wait_armed` says exactly.

        ``ignored_paths`` are absolute; what lies below them, and files named ``PATH.…``, count as little.
        """
        roots = (path.rstrip("/") or "/" for path in watch.paths)
        territories = frozenset(Territory(root, watch.ignore, _beneath(root, ignored_paths), watch.poll_seconds) for root in roots)
        self._generation += 1
        subscription = Subscription(watch, territories, self._generation)
        self._subscriptions.add(subscription)
        self._tell()
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
            self._generation += 1
            self._tell()

    @contextmanager
    def follow(self, name: str) -> Iterator[None]:
        """Meanwhile :meth:`started_at` knows of the process ``name``."""
        self._followed[name] = self._followed.get(name, 0) + 1
        try:
            yield
        finally:
            self._followed[name] -= 1
            if not self._followed[name]:
                del self._followed[name]
                self._started.pop(name, None)

    def started_at(self, name: str) -> float | None:
        """When a followed process was last started (monotonic); None: not since it is followed."""
        return self._started.get(name)

    def _note_start(self, record: Record) -> None:
        if record.type == "state" and record.to == State.STARTING and record.name in self._followed:
            self._started[record.name] = anyio.current_time()

    def _tell(self) -> None:
        self._news.set()
        if self._lookout is not None:
            self._lookout.want(self._generation, self._territories())

    def _territories(self) -> frozenset[Territory]:
        return frozenset(each for subscription in self._subscriptions for each in subscription.territories)

    async def _wait_subscribed(self) -> None:
        while not self._subscriptions:
            self._news = anyio.Event()
            await self._news.wait()

    async def _wait_deserted(self) -> None:
        """Returns when nobody has subscribed for a while."""
        while self._subscriptions:
            self._news = anyio.Event()
            await self._news.wait()
            if not self._subscriptions:
                await anyio.sleep(LINGER_SECONDS)

    async def _serve(self) -> None:
        """Has the thread look until nobody wants it any more; raises what the thread raised."""
        from anyio.from_thread import BlockingPortal

        failures: list[Exception] = []
        async with BlockingPortal() as portal:
            reports = _OnLoop(self, portal)
            self._lookout = lookout = Lookout(reports, self._pace)
            self._tell()
            ended = anyio.Event()
            thread = threading.Thread(target=_look, args=(lookout, portal, ended, failures), name="asup-files", daemon=True)
            thread.start()
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._cancel_when_deserted, tasks.cancel_scope)
                    await ended.wait()
                    tasks.cancel_scope.cancel()
            finally:
                self._lookout = None
                lookout.stop()
                reports.stop()
                with anyio.move_on_after(JOIN_MAX_SECONDS, shield=True):
                    while thread.is_alive():  # noqa: ASYNC110  a thread's end is no event
                        await anyio.sleep(JOIN_SECONDS)
        if failures:
            raise failures[0]

    async def _cancel_when_deserted(self, scope: anyio.CancelScope) -> None:
        await self._wait_deserted()
        scope.cancel()

    # What the lookout reports, on the loop

    def _changed(self, changes: Changes) -> None:
        for subscription in self._subscriptions:
            if own := subscription.territories & changes.keys():
                subscription._add(set[str]().union(*(changes[territory] for territory in own)))  # noqa: SLF001  the two are one mechanism

    def _armed(self, generation: int, missing: frozenset[str]) -> None:
        for subscription in self._subscriptions:
            subscription._arm(generation, missing)  # noqa: SLF001

    def _degraded(self, reason: str) -> None:
        self._bus.publish(
            "watch",
            message=f"cannot be told of file changes: {reason}; polling every {self._pace.fallback_poll:g} s or slower instead "
            "(raise sysctl fs.inotify.max_user_watches and fs.inotify.max_user_instances, or watch less)",
            data={"what": "degraded", "reason": reason},
        )

    def _recovered(self) -> None:
        self._bus.publish("watch", message="told of file changes again; no longer polling", data={"what": "recovered"})


class _OnLoop:
    """Carries the lookout's reports from its thread to the loop; each waits until the loop has taken it.

    A loop that is cancelled may never take one: a lookout that is told to stop does not wait on.
    """

    def __init__(self, watching: FileWatching, portal: BlockingPortal) -> None:
        self._watching, self._portal = watching, portal
        self._stopping = threading.Event()

    def stop(self) -> None:
        """No report is waited for any more."""
        self._stopping.set()

    def changed(self, changes: Changes) -> None:
        self._call(self._watching._changed, changes)  # noqa: SLF001

    def armed(self, generation: int, missing: frozenset[str]) -> None:
        self._call(self._watching._armed, generation, missing)  # noqa: SLF001

    def degraded(self, reason: str) -> None:
        self._call(self._watching._degraded, reason)  # noqa: SLF001

    def recovered(self) -> None:
        self._call(self._watching._recovered)  # noqa: SLF001

    def _call(self, report: Callable[..., None], *arguments: object) -> None:
        if self._stopping.is_set():
            return
        future = self._portal.start_task_soon(report, *arguments)
        while not self._stopping.is_set():
            if concurrent.futures.wait((future,), REPORT_SECONDS).done:
                future.result()
                return


def _look(lookout: Lookout, portal: BlockingPortal, ended: anyio.Event, failures: list[Exception]) -> None:
    """The thread: looks until stopped, and says when it ends."""
    try:
        lookout.serve()
    except concurrent.futures.CancelledError:  # the loop is leaving and took no report any more
        return
    except Exception as error:  # raised again on the loop
        failures.append(error)
    if not lookout.stopping:
        portal.start_task_soon(_set, ended)


def _set(event: anyio.Event) -> None:
    event.set()


def _beneath(root: str, paths: tuple[str, ...]) -> tuple[str, ...]:
    """The paths that matter below ``root``, so that programs that watch the same share one territory."""
    prefix = root.rstrip("/") + "/"
    return tuple(sorted({path for path in paths if path.startswith(prefix)}))
