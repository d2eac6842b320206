"""One thread that watches the paths on some disks: by notifications of changes, or by polling where those are of no use.

A disk that hangs blocks the thread, and with it every path on the thread's disks. A path that turns out to lead to another
disk, through a link or a new mount, is handed back together with what is known of it.

The notifier (watchfiles' RustNotify) is given single directories, never trees. So ignored directories cost nothing; a single
file is watched through its directory, without all that lies beside it; and a path that does not exist yet, through the
nearest directory that does. Directories cannot be added to a notifier later, so a new one is opened before the old one is
closed. Opening one blocks the whole daemon (it holds the interpreter's lock), so it is never given a directory of a network
file system, whose server may be away, and which does not report what other machines write anyway. Such paths are polled, and so
is everything where the system has no notifier left.

A notifier does not report an overflow of its queue, and may miss what happens while it is being opened. Therefore everything is
scanned again after it was opened, after every burst of notifications, and some seconds after any notification: many changes of
one file are reported as one, so few notifications do not prove that few things changed.

A bug in watching one path affects that path alone: it is reported, and the path is polled from then on.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import msgspec

from supervisord_async.supervise.sources.filewatch.notifier import Hint, Notifier, drain, open_notifier
from supervisord_async.supervise.sources.filewatch.view import Identity, LookResult, View, WatchedPath
from supervisord_async.system.mounts import MountTable, is_served, mounts

#: Directories may change between a scan and the opening of a notifier; this many times both are repeated at once.
OPEN_ATTEMPTS = 5
#: After this many notifications in a burst some may have been lost.
BURST_HINTS = 1024
#: This long after a notification everything is scanned, in case others were lost.
DOUBT_SECONDS = 10.0
#: After a second failure within this time notifiers count as unusable for a while.
FAILURE_SECONDS = 10.0
#: Scans take at most one part in this many of the thread's time.
SCAN_SHARE = 10
_MODIFIED = 2  #: the kind of a hint: the content changed; nothing appeared or vanished

_log = logging.getLogger(__name__)

Changes = dict[WatchedPath, set[str]]


def _call_here(report: Callable[..., None], *arguments: object) -> None:
    report(*arguments)


class Pace(msgspec.Struct, frozen=True):
    """How often the thread looks; all in seconds."""

    idle: float = 0.5  #: between two looks while nothing happens: two wakeups a second, 0.03 % of a processor
    warm: float = 0.05  #: between two looks while changes come
    warm_for: float = 2.0  #: how long that lasts after the last change
    gather: float = 0.05  #: waited after the first new subscription, as programs start together
    fallback_poll: float = 2.0  #: between two scans where there is no notifier, or it is of no use
    retry: float = 60.0  #: before a notifier is tried again; doubled each time
    retry_max: float = 300.0


class Reports(Protocol):
    """Receives the watcher's reports."""

    def changed(self, changes: Changes) -> None:
        """Files of these paths changed; an empty set: something changed there, and a scan has yet to find out what."""

    def armed(self, generation: int, watched_paths: frozenset[WatchedPath], missing: frozenset[str]) -> None:
        """From now on no change of these paths is missed. The roots in ``missing`` do not exist yet."""

    def strayed(self, views: list[View]) -> None:
        """These views lead to disks that are not this watcher's. It has dropped them; another one may take them over as they are."""

    def broken(self, watched_path: WatchedPath, error: str) -> None:
        """Looking at this path failed because of a bug; it is polled from now on, and further failures are not reported."""

    def degraded(self, reason: str) -> None:
        """The system has no notifier left; everything is polled."""

    def recovered(self) -> None:
        """There is a notifier again."""


class _WatchedDirectory(msgspec.Struct):
    """A directory given to the notifier, and the views that need it."""

    inside: list[tuple[View, str]] = msgspec.field(default_factory=list)  #: views that it lies in, each with its path there
    approach: list[tuple[View, set[str]]] = msgspec.field(default_factory=list)  #: views it leads to, each with the names that matter


class Watcher:
    """Watches the paths that :meth:`want` names until :meth:`stop`; both may be called from any thread."""

    def __init__(self, reports: Reports, pace: Pace, devices: frozenset[int] = frozenset(), call: Callable[..., None] = _call_here) -> None:
        """Watches only what is on ``devices``; if empty, whatever it is given, wherever that leads. ``call`` calls ``reports``."""
        self._reports, self._pace, self._call = reports, pace, call
        self._wake = threading.Event()
        self.stopping = threading.Event()  #: set by :meth:`stop`
        self._lock = threading.Lock()
        self._wanted: tuple[int, frozenset[WatchedPath]] = (0, frozenset())
        self._since: dict[WatchedPath, int] = {}  #: when each was first wanted: nanoseconds since 1970, as files are stamped
        self._handed: dict[WatchedPath, View] = {}  #: views of them that came from other watchers
        # From here on used by the thread only.
        self._devices = devices
        self._mounts = MountTable()
        self._kinds: dict[int, str] = {}  #: the kind of file system on each device met so far
        self._generation = 0
        self._views: dict[WatchedPath, View] = {}
        self._polls_due: dict[View, float] = {}
        self._stale: set[View] = set()
        self._strays: set[View] = set()
        self._broken: set[View] = set()  #: looking at these has failed because of a bug
        self._directories: dict[str, _WatchedDirectory] = {}
        self._notifier: Notifier | None = None
        self._given: dict[str, Identity] = {}
        self._retired: list[Notifier] = []
        self._reopen = False
        self._warm_until = 0.0
        self._burst = 0
        self._scan_again_at = 0.0
        self._doubt_until: float | None = None  #: when to scan everything; None: no notification has come since the last full scan
        self._retry_at: float | None = None  #: None: not degraded
        self._retry_seconds = pace.retry
        self._failed_at = -FAILURE_SECONDS

    def want(self, generation: int, watched_paths: Mapping[WatchedPath, int], *, handed: Iterable[View] = ()) -> None:
        """Watch these paths and no others; ``armed`` reports when that is the case.

        For new ones, changes since the time given with them (nanoseconds since 1970, as files have it) count; ``handed`` are other
        watchers' views.
        """
        with self._lock:
            self._wanted = (generation, frozenset(watched_paths))
            self._since = {each: self._since.get(each, since_ns) for each, since_ns in watched_paths.items()}
            self._handed |= {view.watched_path: view for view in handed}
        self._wake.set()

    def stop(self) -> None:
        """Let :meth:`serve` return soon."""
        self.stopping.set()
        self._wake.set()

    def serve(self) -> None:
        """Watch until stopped; no notifier is open afterwards."""
        try:
            while not self.stopping.is_set():
                self._wake.clear()
                changes: Changes = {}
                newcomers = self._take_over()
                self._look(changes, newcomers)
                for view in self._stale:
                    changes.setdefault(view.watched_path, set())
                self._report(changes, newcomers is not None)
                if not self.stopping.is_set():  # checked again: the ``clear`` above may have swallowed the wake of ``stop``
                    self._wake.wait(self._pause())
        finally:
            self._close(self._notifier)
            self._close_retired()

    def _report(self, changes: Changes, armed: bool) -> None:
        if changes and not self.stopping.is_set():
            self._call(self._reports.changed, changes)
        if self._strays and not self.stopping.is_set():
            strays, self._strays = self._strays, set()
            self._call(self._reports.strayed, [self._forget(view.watched_path) for view in strays])
        if armed and not self.stopping.is_set():
            missing = frozenset(each.root for each, view in self._views.items() if view.missing)
            self._call(self._reports.armed, self._generation, frozenset(self._views), missing)

    def _pause(self) -> float | None:
        now = time.monotonic()
        dues = list(self._polls_due.values())
        if self._retry_at is not None:
            dues.append(self._retry_at)
        if self._notifier is not None or self._retired:
            dues.append(now + (self._pace.warm if now < self._warm_until or self._retired else self._pace.idle))
        if self._stale or self._reopen:
            dues.append(max(self._scan_again_at, now + self._pace.warm))
        return max(0.0, min(dues) - now) if dues else None

    def _take_over(self) -> set[View] | None:
        """Adopt what :meth:`want` asked for; returns the new views, None if there was no new request."""
        with self._lock:
            (generation, watched_paths), since = self._wanted, self._since
            handed, self._handed = self._handed, {}
        if generation == self._generation:
            return None
        self._generation = generation
        for gone in self._views.keys() - watched_paths:
            self._forget(gone)
        newcomers = set()
        for watched_path in watched_paths - self._views.keys():
            self._views[watched_path] = view = handed.get(watched_path) or View(watched_path, since[watched_path])
            newcomers.add(view)
            if self._polled(view):
                self._polls_due[view] = 0.0
        self._stale |= newcomers
        return newcomers

    def _forget(self, watched_path: WatchedPath) -> View:
        view = self._views.pop(watched_path)
        self._polls_due.pop(view, None)
        self._stale.discard(view)
        self._broken.discard(view)
        self._reopen = True
        return view

    def _polled(self, view: View) -> bool:
        return view.watched_path.poll_seconds is not None or self._retry_at is not None or view in self._broken or self._is_served(view)

    def _is_served(self, view: View) -> bool:
        return any(is_served(self._kinds.get(device, "")) for device in view.devices)

    def _is_degraded(self) -> bool:
        return self._retry_at is not None

    def _notified(self) -> list[View]:
        return [view for view in self._views.values() if not self._polled(view) and view not in self._strays]

    def _look(self, changes: Changes, newcomers: set[View] | None) -> None:
        now = time.monotonic()
        if self._retry_at is not None and now >= self._retry_at:
            self._recover()
        self._listen(changes)
        self._poll(now, changes)
        if self._doubt_until is not None and now >= max(self._doubt_until, self._scan_again_at):
            self._doubt_until = None
            self._stale.update(self._notified())
        if newcomers or ((self._stale or self._reopen) and now >= self._scan_again_at):
            began = time.monotonic()
            stale, self._stale = self._stale, set()
            self._catch_up(stale, changes)
            self._scan_again_at = began + SCAN_SHARE * (time.monotonic() - began)

    def _catch_up(self, stale: set[View], changes: Changes) -> None:
        """Scan; open a notifier for the directories found; scan again for changes from before it was open; until the directories stay."""
        for _ in range(OPEN_ATTEMPTS):
            self._scan(stale, changes)
            if not self._renew():
                return
        self._stale |= stale

    # Notifications

    def _listen(self, changes: Changes) -> None:
        hints: set[Hint] = set()
        for notifier in (*self._retired, self._notifier):
            if notifier is None:
                continue
            try:
                hints |= drain(notifier)
            except (OSError, RuntimeError) as error:
                self._failed(notifier, error)
        self._close_retired()
        relevant = sum(self._take(kind, path, changes) for kind, path in hints)
        now = time.monotonic()
        if relevant:
            self._warm_until = now + self._pace.warm_for
        if hints and self._doubt_until is None:
            self._doubt_until = now + DOUBT_SECONDS
        self._burst += len(hints)
        if self._burst >= BURST_HINTS and now >= self._warm_until:
            self._stale.update(self._notified())
        if now >= self._warm_until:
            self._burst = 0

    def _take(self, kind: int, path: str, changes: Changes) -> bool:
        """Act on one hint; returns True if it was about something watched."""
        directory, _, name = path.rpartition("/")
        relevant = False
        if (watched := self._directories.get(directory or "/")) is not None:
            for view, own in watched.inside:
                relevant = True
                try:
                    seen = view.look(os.path.join(own, name))
                except Exception as error:
                    self._break(view, error)
                    continue
                if seen is LookResult.CHANGED:
                    changes.setdefault(view.watched_path, set()).add(os.path.join(own, name))
                elif seen is LookResult.STALE:
                    self._stale.add(view)
            for view, names in watched.approach:
                if name in names and (kind != _MODIFIED or not view.directories):
                    relevant = True
                    self._stale.add(view)
        if kind != _MODIFIED and (itself := self._directories.get(path)) is not None:
            # The directory's watch is gone with it; a new directory of that name, even with the same inode, needs a new one.
            relevant = self._reopen = True
            self._stale.update(view for view, _ in (*itself.inside, *itself.approach))
        return relevant

    def _failed(self, notifier: Notifier, error: Exception) -> None:
        """A notifier broke for good, for example on a name that is not UTF-8: it will be replaced."""
        now = time.monotonic()
        if notifier is self._notifier:
            self._close(notifier)
            self._notifier, self._given = None, {}
            self._reopen = True
            self._stale.update(self._notified())
            if now - self._failed_at < FAILURE_SECONDS:
                self._degrade(str(error))
            self._failed_at = now
        _log.info("the file notifier broke and is replaced: %s", error)

    # Scanning

    def _scan(self, views: Iterable[View], changes: Changes) -> None:
        for view in views:
            if self.stopping.is_set():
                return
            try:
                found = view.scan(self.stopping.is_set, self._strange)
            except Exception as error:
                self._break(view, error)
                continue
            if found:
                changes.setdefault(view.watched_path, set()).update(found)
            self._place(view)

    def _break(self, view: View, error: Exception) -> None:
        """A bug in looking at ``view`` is reported once; the view is polled from now on, and others are not affected."""
        if view in self._broken:
            return
        self._broken.add(view)
        self._polls_due.setdefault(view, time.monotonic() + self._pace.fallback_poll)
        self._reopen = True  # the notifier, without this view's directories
        _log.exception("looking at %s failed", view.watched_path.root)
        self._call(self._reports.broken, view.watched_path, repr(error))

    def _strange(self, place: str) -> frozenset[int]:
        return self._mounts.devices_on_way(place) - self._devices if self._devices else frozenset()

    def _place(self, view: View) -> None:
        """Now that the view's disks are known: hand it back if one is not ours, poll it if one is a network file system."""
        if new := view.devices - self._kinds.keys():
            kinds = {mount.device: mount.kind for mount in mounts()}
            self._kinds |= {device: kinds.get(device, "") for device in new}  # "": a subvolume, which has no mount of its own
        if self._devices and any(self._kinds[device] and device not in self._devices for device in view.devices):
            self._strays.add(view)
        elif self._is_served(view):
            self._polls_due.setdefault(view, time.monotonic() + self._pace.fallback_poll)

    def _poll(self, now: float, changes: Changes) -> None:
        for view, due in self._polls_due.items():
            if now < due or self.stopping.is_set():
                continue
            self._stale.discard(view)
            began = time.monotonic()
            self._scan((view,), changes)
            ended = time.monotonic()
            wait = view.watched_path.poll_seconds or self._pace.fallback_poll
            self._polls_due[view] = ended + max(wait, SCAN_SHARE * (ended - began))

    # The notifier's life

    def _directories_of(self, views: Iterable[View]) -> tuple[dict[str, _WatchedDirectory], dict[str, Identity]]:
        """The directories to give to the notifier, and their identities; one that has several names, or views, is given once."""
        directories: dict[str, _WatchedDirectory] = {}
        given: dict[str, Identity] = {}
        names: dict[Identity, str] = {}

        def watched(directory: str, identity: Identity) -> _WatchedDirectory:
            name = names.setdefault(identity, directory)
            given[name] = identity
            return directories.setdefault(name, _WatchedDirectory())

        for view in views:
            for directory, entries in view.approach.items():
                if (identity := _readable(directory)) is not None and (_near(view, directory) or not _shared_by_all(directory)):
                    watched(directory, identity).approach.append((view, entries))
            for directory, identity in view.directories.items():
                if _readable(real := view.real(directory)) is not None:  # by now a link on the way may lead to a disk that hangs
                    watched(real, identity).inside.append((view, directory))
        return directories, given

    def _renew(self) -> bool:
        """Open a notifier for the directories that the views have now; returns True if they are to be scanned again."""
        if self._retry_at is not None or self.stopping.is_set():
            return False
        self._directories, given = self._directories_of(self._notified())
        if given == self._given and not self._reopen:
            return False
        try:
            fresh = open_notifier(list(given)) if given else None
        except FileNotFoundError:  # a directory has just gone; the next scan will see that
            self._reopen = True
            return True
        except (OSError, RuntimeError, ImportError) as error:
            self._degrade(str(error))
            return False
        if self._notifier is not None:
            self._retired.append(self._notifier)  # closed after the next look, which reads the notifications left in it
        self._notifier, self._given, self._reopen = fresh, given, False
        return True

    def _degrade(self, reason: str) -> None:
        """Poll everything, for a while."""
        first = self._retry_at is None and self._retry_seconds == self._pace.retry
        self._retry_at = time.monotonic() + self._retry_seconds
        self._retry_seconds = min(self._retry_seconds * 2, self._pace.retry_max)
        self._close(self._notifier)
        self._notifier, self._given, self._directories, self._reopen = None, {}, {}, False
        for view in self._views.values():
            self._polls_due.setdefault(view, 0.0)
        if first:
            self._call(self._reports.degraded, reason)

    def _recover(self) -> None:
        """Try a notifier again; if there is still none, :meth:`_degrade` goes on polling, without another report."""
        self._retry_at = None
        told = self._notified()
        self._renew()
        if self._is_degraded():
            return
        for view in told:
            self._polls_due.pop(view, None)
        self._stale.update(told)
        self._retry_seconds = self._pace.retry
        self._call(self._reports.recovered)

    def _close_retired(self) -> None:
        retired, self._retired = self._retired, []
        for notifier in retired:
            self._close(notifier)

    @staticmethod
    def _close(notifier: Notifier | None) -> None:
        if notifier is not None:
            notifier.close()


def _readable(directory: str) -> Identity | None:
    """The directory's identity; None when it cannot be given to a notifier."""
    try:
        directory.encode()
        found = os.stat(directory)
        readable = stat.S_ISDIR(found.st_mode) and os.access(directory, os.R_OK)
    except (OSError, UnicodeEncodeError):
        return None
    return (found.st_dev, found.st_ino) if readable else None


def _near(view: View, directory: str) -> bool:
    """True for the parent of the root, and for every directory on the way while the root is missing: something may appear there."""
    return view.missing or os.path.dirname(view.watched_path.root) == directory


def _shared_by_all(directory: str) -> bool:
    """True for /tmp and the like (sticky bit): too busy to watch, and only an entry's owner can rename it."""
    try:
        return bool(os.stat(directory).st_mode & stat.S_ISVTX)
    except OSError:
        return False
