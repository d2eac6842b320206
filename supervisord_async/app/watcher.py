"""Notices that files have changed.

A change is a difference between two scans of the files: in name, size, modification time or inode. The kernel's notifications
(by watchfiles) only say when to scan, so a lost, repeated or misleading one does no harm. Where they are not available (network
file systems, no inotify instances left, watchfiles not installed) the scan is repeated every ``poll_interval`` instead.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from fnmatch import fnmatch, translate
from typing import Any, NamedTuple, Self

log = logging.getLogger(__name__)

#: What editors, interpreters and version control leave behind; never counts as a change.
ALWAYS_IGNORED = (
    *("__pycache__", "*.pyc", "*.pyo", ".git", ".hg", ".svn", ".mypy_cache", ".ruff_cache", ".pytest_cache", "node_modules"),
    *("*.swp", "*.swo", "*.swx", "*~", ".#*", "#*#", "4913", ".goutputstream-*", "*.tmp"),
)

#: File systems on which changes made elsewhere cause no notification here.
_WITHOUT_NOTIFICATIONS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "vboxsf", "drvfs", "afs", "ceph", "glusterfs", "virtiofs")

#: How long the notifier waits for a further notification before it reports the gathered ones, and how long it gathers at most.
_STEP_MILLISECONDS = 100
_DEBOUNCE_MILLISECONDS = 1000
#: How often the watched paths themselves are checked: one that was replaced sends no more notifications.
_ROOTS_MILLISECONDS = 2000

ChangeCallback = Callable[[list[str]], Any]


class _Mark(NamedTuple):
    """What is compared to tell whether a file has changed."""

    modified_ns: int
    size: int
    inode: int


class FileChangeWatcher:
    """Watches files and directories (recursively) in a thread, and passes changes to a callback or an async iterator.

    A path need not exist yet. ``async for changed in watcher`` starts the watching and ends with ``stop``.
    """

    def __init__(
        self,
        watch_paths: Iterable[str | os.PathLike[str]],
        ignore_patterns: Iterable[str] = (),
        poll_interval: float = 0.5,
        *,
        include_patterns: Iterable[str] = (),
        force_polling: bool = False,
    ) -> None:
        """Watch ``watch_paths``, relative to the present directory.

        A pattern without a slash ignores every file or directory with such a name under a watched path; one with a
        slash (``data/raw/*``) matches consecutive names. ``ALWAYS_IGNORED`` is added. With ``include_patterns`` only
        files with such names count. ``poll_interval``, in seconds, above 0, is used where notifications are not available,
        or with ``force_polling``. Raises ValueError for an interval that is not positive, or if there is no path.
        """
        if isinstance(watch_paths, str | os.PathLike):
            watch_paths = [watch_paths]
        self.watch_paths = tuple(dict.fromkeys(os.path.abspath(path) for path in watch_paths))
        if not self.watch_paths:
            raise ValueError("watch_paths is empty")
        if poll_interval <= 0:
            raise ValueError(f"poll_interval must be above 0, not {poll_interval}")
        self.poll_interval = poll_interval
        self.ignore_patterns = (*ALWAYS_IGNORED, *ignore_patterns)
        self.include_patterns = tuple(include_patterns)
        self.force_polling = force_polling
        patterns = [_pattern(pattern) for pattern in self.ignore_patterns]
        self._ignored_name = re.compile("|".join(translate(names[0]) for names in patterns if len(names) == 1))
        self._ignored_sequences = [names for names in patterns if len(names) > 1]
        self._callback: ChangeCallback | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._feeds: set[_Feed] = set()
        self.polling: bool | None = None  #: whether the files are polled; None until watching

    def set_change_callback(self, callback: ChangeCallback | None) -> None:
        """``callback`` is called in the watcher's thread, with the sorted absolute paths that changed, appeared or vanished."""
        self._callback = callback

    def start(self) -> None:
        """Every change from now on is noticed. No effect if it is watching already."""
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            self._stop = threading.Event()
            marks = self._look()
            self._thread = threading.Thread(target=self._watch, args=(self._stop, marks), name="file-watcher", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """No callback is running or will be called, unless this is called from a callback; iterators end."""
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(5.0)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __aiter__(self) -> AsyncIterator[list[str]]:
        """Lists like the callback's; changes that happen while one is being processed are gathered in the next."""
        feed = _Feed()
        self._feeds.add(feed)
        self.start()
        return self._changes(feed)

    async def _changes(self, feed: _Feed) -> AsyncIterator[list[str]]:
        import anyio

        stop = self._stop
        try:
            while not stop.is_set():
                await anyio.wait_readable(feed.reader)
                changed = feed.take()
                if changed:
                    yield changed
        finally:
            self._feeds.discard(feed)
            feed.close()
            if not self._feeds and self._callback is None:
                stop.set()

    def covers(self, path: str | os.PathLike[str]) -> bool:
        """Whether a change of the file ``path`` would be reported."""
        path = os.path.abspath(path)
        for root in self.watch_paths:
            if path == root:
                return True
            if path.startswith(root.rstrip(os.sep) + os.sep):
                return self._is_included(os.path.basename(path)) and not self._is_ignored(root, path)
        return False

    # The thread

    def _watch(self, stop: threading.Event, marks: dict[str, _Mark]) -> None:
        try:
            while not stop.is_set():
                marks = self._watch_by_notifications(stop, marks) if self._can_notify() else self._watch_by_polling(stop, marks)
        finally:
            for feed in list(self._feeds):
                feed.wake()

    def _watch_by_polling(self, stop: threading.Event, marks: dict[str, _Mark]) -> dict[str, _Mark]:
        """Scan every ``poll_interval`` until told to stop."""
        self.polling = True
        while not stop.wait(self.poll_interval):
            marks = self._look_and_tell(stop, marks)
        return marks

    def _watch_by_notifications(self, stop: threading.Event, marks: dict[str, _Mark]) -> dict[str, _Mark]:
        """Scan when notified, until told to stop, or until a watched path was replaced, which needs a new notifier."""
        from watchfiles._rust_notify import RustNotify

        self.polling = False
        directories, recursive = self._roots()
        identities = _identities((*self.watch_paths, *directories))
        every = _ROOTS_MILLISECONDS if self._all_covered(directories, recursive) else max(1, int(self.poll_interval * 1000))
        try:
            with RustNotify(directories, False, False, 0, recursive, True) as notifier:
                raw: set[tuple[int, str]] | str = "first"  # a first scan covers the time since the last one
                while raw != "stop":
                    replaced = identities != _identities((*self.watch_paths, *directories))
                    if replaced or self._is_reason(raw, every):
                        marks = self._look_and_tell(stop, marks)
                    if replaced:
                        break
                    raw = notifier.watch(_DEBOUNCE_MILLISECONDS, _STEP_MILLISECONDS, every, stop)
        except FileNotFoundError:
            stop.wait(_STEP_MILLISECONDS / 1000)  # a path has just vanished: start over
        except (OSError, RuntimeError) as error:
            log.warning("cannot be notified of changes: %s; looking every %g s instead", error, self.poll_interval)
            self.force_polling = True
        return marks

    def _is_reason(self, raw: set[tuple[int, str]] | str, every: int) -> bool:
        """Whether to scan: at first, after a notification that may matter, and at each interval if some paths cause none."""
        if isinstance(raw, str):
            return raw == "first" or every != _ROOTS_MILLISECONDS
        return any(self._may_matter(path) for _, path in raw)

    def _look_and_tell(self, stop: threading.Event, before: dict[str, _Mark]) -> dict[str, _Mark]:
        after = self._look()
        changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
        if changed and not stop.is_set():
            for feed in list(self._feeds):
                feed.put(changed)
            if self._callback is not None:
                try:
                    self._callback(changed)
                except Exception:
                    log.exception("the callback for changed files failed; the watching goes on")
        return after

    def _can_notify(self) -> bool:
        if self.force_polling:
            return False
        try:
            import watchfiles  # noqa: F401
        except ImportError:
            log.warning("watchfiles is not installed; looking every %g s instead", self.poll_interval)
            self.force_polling = True
            return False
        if any(_lacks_notifications(path) for path in self.watch_paths):
            log.info("a watched path is on a network file system; looking every %g s", self.poll_interval)
            self.force_polling = True
        return not self.force_polling

    def _roots(self) -> tuple[list[str], bool]:
        """The directories to watch for notifications, and whether to do so recursively.

        A file is watched through its directory, since editors replace files. If there are both directories and files, files
        outside the directories are scanned at intervals instead: their own directories may be huge.
        """
        directories = [path for path in self.watch_paths if os.path.isdir(path)]
        if directories:
            return directories, True
        return sorted({_existing(os.path.dirname(path)) for path in self.watch_paths}), False

    def _all_covered(self, directories: list[str], recursive: bool) -> bool:
        """Whether every watched path causes notifications, so that no scan is needed without one."""
        if not recursive:
            return all(os.path.dirname(path) in directories for path in self.watch_paths)
        return all(any(path == root or path.startswith(root + os.sep) for root in directories) for path in self.watch_paths)

    # Scanning

    def _look(self) -> dict[str, _Mark]:
        """The marks of all files that count, without those that vanish during the scan."""
        marks: dict[str, _Mark] = {}
        for path in self.watch_paths:
            try:
                status = os.stat(path)
            except OSError:
                continue
            if os.path.isdir(path):
                self._look_below(path, marks)
            else:
                marks[path] = _Mark(status.st_mtime_ns, status.st_size, status.st_ino)
        return marks

    def _look_below(self, root: str, marks: dict[str, _Mark]) -> None:
        pending = [root]
        while pending:
            with contextlib.suppress(OSError), os.scandir(pending.pop()) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        if self._ignored_name.match(entry.name) or self._is_ignored_sequence(root, entry.path):
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(entry.path)
                        elif self._is_included(entry.name):
                            status = entry.stat()
                            marks[entry.path] = _Mark(status.st_mtime_ns, status.st_size, status.st_ino)

    def _may_matter(self, path: str) -> bool:
        """Whether a notification about ``path`` is a reason to scan; the scan itself decides whether anything changed."""
        for root in self.watch_paths:
            if path.startswith(root + os.sep):
                return not self._is_ignored(root, path)
        return True

    def _is_included(self, name: str) -> bool:
        return not self.include_patterns or any(fnmatch(name, pattern) for pattern in self.include_patterns)

    def _is_ignored(self, root: str, path: str) -> bool:
        names = path[len(root.rstrip(os.sep)) + 1 :].split(os.sep)
        return any(map(self._ignored_name.match, names)) or self._is_ignored_sequence(root, path)

    def _is_ignored_sequence(self, root: str, path: str) -> bool:
        if not self._ignored_sequences:
            return False
        # Such a pattern may begin with the watched directory's own name.
        names = path[len(os.path.dirname(root).rstrip(os.sep)) + 1 :].split(os.sep)
        return any(_matches(pattern, names) for pattern in self._ignored_sequences)


class _Feed:
    """Carries changes from the watcher's thread to one iterator; bounded by the number of files."""

    def __init__(self) -> None:
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)
        self._changed: set[str] = set()
        self._lock = threading.Lock()

    def put(self, changed: list[str]) -> None:
        """The paths in ``changed`` will be in the next list."""
        with self._lock:
            self._changed.update(changed)
        self.wake()

    def wake(self) -> None:
        """The reader becomes readable, unless it is closed."""
        with contextlib.suppress(OSError):
            self._writer.send(b"!")

    def take(self) -> list[str]:
        """The sorted changes since the last call."""
        with contextlib.suppress(BlockingIOError):
            self.reader.recv(4096)
        with self._lock:
            changed, self._changed = self._changed, set()
        return sorted(changed)

    def close(self) -> None:
        """Both ends are closed."""
        self.reader.close()
        self._writer.close()


def _pattern(text: str) -> tuple[str, ...]:
    """The consecutive names that a pattern matches: ``./data/*`` is ``data``, with everything below it."""
    names = [name for name in text.split("/") if name not in {"", "."}]
    while len(names) > 1 and names[-1] in {"*", "**"}:
        names.pop()
    while len(names) > 1 and names[0] == "**":
        names.pop(0)
    return tuple(names)


def _matches(pattern: tuple[str, ...], names: list[str]) -> bool:
    width = len(pattern)
    return any(
        all(fnmatch(name, part) for name, part in zip(names[start : start + width], pattern, strict=True))
        for start in range(len(names) - width + 1)
    )


def _existing(path: str) -> str:
    """``path``, or its nearest parent that exists."""
    while not os.path.isdir(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path


def _identities(paths: Iterable[str]) -> list[tuple[str, int, int] | None]:
    """The identity of each path: changes if a directory was replaced, or if a path appeared or vanished."""
    found: list[tuple[str, int, int] | None] = []
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            found.append(None)
        else:
            found.append((path, status.st_dev, status.st_ino) if os.path.isdir(path) else (path, 0, 0))
    return found


def _lacks_notifications(path: str) -> bool:
    """Whether ``path`` is on a file system on which others' changes cause no notification, judged by the mounts."""
    path = os.path.realpath(path)
    best, kind = "", ""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="replace") as mounts:
            for line in mounts:
                fields = line.split()
                if len(fields) < 3:
                    continue
                point = fields[1].replace("\\040", " ")
                if len(point) >= len(best) and (path == point or path.startswith(point.rstrip("/") + "/")):
                    best, kind = point, fields[2]
    except OSError:
        return False
    return kind in _WITHOUT_NOTIFICATIONS or kind.startswith("fuse.")
