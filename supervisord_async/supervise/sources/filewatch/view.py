"""Remembers what lies below a watched path, so that changes are found by comparison.

A notification only says where to look. Whether something changed is decided here, by comparing inode, size and
modification time with what was seen last. A change of permissions does not count, a ``touch`` does; a file that came and
went between two looks is not noticed; and a lost notification loses no change. Everything here blocks, and is to be called in
the thread of :mod:`~supervisord_async.supervise.sources.filewatch.watcher`.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from enum import Enum, auto

import msgspec

from supervisord_async.supervise.sources.filewatch.ignore import IgnoreRules

#: Device and inode of a directory.
Identity = tuple[int, int]
#: Inode, size and modification time in nanoseconds; for a link, of the link and then of its target.
Stamp = tuple[int, ...]

#: Returns the disks on the way to a path that must not be accessed.
Strange = Callable[[str], frozenset[int]]

#: As many links as the kernel follows in one path.
LINKS_MAX = 40
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


class WatchedPath(msgspec.Struct, frozen=True):
    """A watched path, and how it is watched. Watches with equal ones share one."""

    root: str  #: absolute; a directory with all below it, a file, or nothing yet
    ignore: tuple[str, ...] = ()  #: gitignore patterns relative to the root
    ignored_paths: tuple[str, ...] = ()  #: absolute
    poll_seconds: float | None = None  #: None: use notifications where possible


class LookResult(Enum):
    """What a look at one path found."""

    NOTHING = auto()
    CHANGED = auto()
    STALE = auto()  #: directories came or went, so a scan is needed


class View:
    """One watched path, as last seen.

    ``directories`` are the directories in it, whose entries are to be watched; ``approach`` maps each directory on the way to
    the root, links followed, to the names in it on which the way depends. ``devices`` are the disks that both are on.
    """

    def __init__(self, watched_path: WatchedPath, since_ns: int | None = None) -> None:
        """The first scan reports files modified after ``since_ns`` (nanoseconds since 1970, as files have it); none if that is None."""
        self.watched_path = watched_path
        self._since_ns = since_ns
        self.directories: dict[str, Identity] = {}
        self.approach: dict[str, set[str]] = {}
        self.devices: set[int] = set()
        self.missing = True
        self._real = watched_path.root
        self._files: dict[str, Stamp] = {}
        self._rules: IgnoreRules | None = None
        self._seen_before = False

    def scan(self, stopped: Callable[[], bool], strange: Strange = lambda _: frozenset()) -> set[str]:
        """Look at everything; returns the files that changed since the last look, or, the first time, since the watch began.

        Leaves the view as it was if ``stopped()`` becomes true meanwhile. If the root's links lead to disks that are ``strange``,
        those are not accessed, and only ``devices`` is updated.
        """
        root = self.watched_path.root
        self._rules = IgnoreRules(root, self.watched_path.ignore, self.watched_path.ignored_paths)
        walk = _Walk(self._rules, stopped)
        approach, devices, real = approach_to(root, strange)
        if real is None:
            self.devices = devices
            return set()
        missing = not walk.begin(root)
        if stopped():
            return set()
        for unreadable in walk.unreadable:  # unreadable now does not mean gone
            walk.files |= {path: stamp for path, stamp in self._files.items() if path == unreadable or path.startswith(unreadable + "/")}
        before, self._files = self._files, walk.files
        self.directories, self.approach, self.missing, self._real = walk.directories, approach, missing, real
        self.devices = devices | walk.devices
        if not self._seen_before:
            self._seen_before = True
            return self._modified_meanwhile()
        return {path for path, stamp in walk.files.items() if before.get(path) != stamp} | (before.keys() - walk.files.keys())

    def _modified_meanwhile(self) -> set[str]:
        """The files modified since the watch began. By the wall clock, as files have it; if that was set meanwhile, some may be missed."""
        if self._since_ns is None:
            return set()
        since, now = self._since_ns, time.time_ns()
        return {path for path, stamp in self._files.items() if any(since < modified <= now for modified in stamp[2::3])}

    def real(self, directory: str) -> str:
        """One of ``directories``, with the links on the way to the root followed as they were at the last scan."""
        return self._real + directory[len(self.watched_path.root) :]

    def look(self, path: str) -> LookResult:
        """Look at one path in one of ``directories``."""
        known = path in self.directories
        try:
            found = os.lstat(path)
            stamp = stamp_of(path, found)
        except OSError:
            if known:
                return LookResult.STALE
            return LookResult.NOTHING if self._files.pop(path, None) is None else LookResult.CHANGED
        directory = stamp is None and os.path.isdir(path)
        if known:
            return LookResult.NOTHING if directory else LookResult.STALE
        if directory:
            return LookResult.NOTHING if self._ignores(path, directory=True) else LookResult.STALE
        if stamp is None or self._files.get(path) == stamp or self._ignores(path, directory=False):
            return LookResult.NOTHING
        self._files[path] = stamp
        return LookResult.CHANGED

    def _ignores(self, path: str, *, directory: bool) -> bool:
        return self._rules is not None and self._rules.ignores(path, directory=directory)


class _Walk:
    """One pass over a tree. Linked directories come last, and none is visited twice, so that a cycle of links ends."""

    def __init__(self, rules: IgnoreRules, stopped: Callable[[], bool]) -> None:
        self.files: dict[str, Stamp] = {}
        self.directories: dict[str, Identity] = {}
        self.unreadable: list[str] = []
        self.devices: set[int] = set()
        self._rules, self._stopped = rules, stopped
        self._visited: set[Identity] = set()
        self._pending: list[str] = []
        self._linked: list[str] = []

    def begin(self, root: str) -> bool:
        """Walk from ``root`` down; returns False if that does not exist."""
        try:
            found = os.stat(root)
        except OSError as error:
            if error.errno in _GONE:
                return False
            self.unreadable.append(root)
            return True
        self.devices.add(found.st_dev)
        if not stat.S_ISDIR(found.st_mode):
            self.files[root] = (found.st_ino, found.st_size, found.st_mtime_ns)
            return True
        self._pending.append(root)
        while (self._pending or self._linked) and not self._stopped():
            self._enter((self._pending or self._linked).pop())
        return True

    def _enter(self, directory: str) -> None:
        try:
            found = os.stat(directory)
            identity = (found.st_dev, found.st_ino)
            if identity in self._visited:
                return
            self._visited.add(identity)
            self.devices.add(found.st_dev)
            self.directories[directory] = identity
            with os.scandir(directory) as entries:
                for entry in entries:
                    self._note(entry)
        except OSError as error:
            if error.errno in _GONE:
                self.directories.pop(directory, None)
            else:
                self.unreadable.append(directory)

    def _note(self, entry: os.DirEntry[str]) -> None:
        try:
            link, directory = entry.is_symlink(), entry.is_dir()
            if self._rules.ignores(entry.path, directory=directory):
                return
            if directory:
                (self._linked if link else self._pending).append(entry.path)
            elif (stamp := stamp_of(entry.path, entry.stat(follow_symlinks=False))) is not None:
                self.files[entry.path] = stamp
        except OSError as error:
            if error.errno not in _GONE:
                self.unreadable.append(entry.path)


def stamp_of(path: str, found: os.stat_result) -> Stamp | None:
    """The stamp of a file, which differs when its content has changed; None for directories, sockets, pipes and devices.

    ``found`` is ``lstat`` of ``path``. Raises OSError where a link's target cannot be accessed.
    """
    stamp = (found.st_ino, found.st_size, found.st_mtime_ns)
    if stat.S_ISREG(found.st_mode):
        return stamp
    if not stat.S_ISLNK(found.st_mode):
        return None
    try:
        target = os.stat(path)
    except FileNotFoundError:
        return stamp  # dangling, for now
    return (*stamp, target.st_ino, target.st_size, target.st_mtime_ns) if stat.S_ISREG(target.st_mode) else None


def approach_to(path: str, strange: Strange) -> tuple[dict[str, set[str]], set[int], str | None]:
    """The directories on the way to ``path``, links followed, each with the names in it that the way takes; the disks; and where it ends.

    The way ends at the first name that does not exist, where ``path``, or a part of it, would appear. It also ends where a link
    leads to ``strange`` disks, which are not accessed: then the last item is None.
    """
    approach: dict[str, set[str]] = {}
    devices: set[int] = set()
    here, links = "/", 0
    ahead = path.split("/")[::-1]
    while ahead:
        name = ahead.pop()
        if name in {"", "."}:
            continue
        if name == "..":
            here = os.path.dirname(here)
            continue
        approach.setdefault(here, set()).add(name)
        there = os.path.join(here, name)
        if links and (disks := strange(there)):
            return approach, devices | disks, None
        try:
            found = os.lstat(there)
            devices.add(found.st_dev)
            if not stat.S_ISLNK(found.st_mode):
                here = there
                continue
            target = os.readlink(there)
        except OSError:
            break
        links += 1
        if links > LINKS_MAX:
            break
        here = "/" if target.startswith("/") else here
        ahead += target.split("/")[::-1]
    return approach, devices, here
