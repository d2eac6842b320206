"""What is at the paths that a configuration names, told within a bounded time whatever their disks do.

A look can only warn, and a file must load beside a network's file system whose server is away: for a daemon that begins just then,
and for a reload that takes the program out of the file that hangs.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Iterable, Mapping
from enum import Enum

from supervisord_async.system.mounts import mounts

#: Disks that have not told in this time what is on them are silent.
PATIENCE_SECONDS = 2.0


class Kind(Enum):
    """What a path leads to."""

    FOLDER = "folder"
    EXECUTABLE = "executable"  #: a file that we may execute
    OTHER = "other"
    MISSING = "missing"
    SILENT = "silent"  #: its disk does not answer, or another one on the way

    @property
    def may_be_folder(self) -> bool:
        """Whether nothing speaks against it."""
        return self in (Kind.FOLDER, Kind.SILENT)


def look_at(paths: Iterable[str], patience_seconds: float = PATIENCE_SECONDS) -> Mapping[str, Kind]:
    """What is at each of ``paths``. Blocks for ``patience_seconds`` at the most, once for all disks that are silent."""
    looks = [_Look(each) for each in _by_mount(dict.fromkeys(paths)).values()]
    for look in looks:
        look.start()
    until = time.monotonic() + patience_seconds
    found: dict[str, Kind] = {}
    for look in looks:
        look.wait(until)
        found |= look.found()
    return found


class _Look(threading.Thread):
    """One look at the paths of one mount, by a thread that may hang."""

    def __init__(self, paths: list[str]) -> None:
        super().__init__(name="look", daemon=True)
        self._paths = paths
        self._found: dict[str, Kind] = {}

    def start(self) -> None:
        """The look goes on; where no thread can be had it is over already."""
        try:
            super().start()
        except RuntimeError:
            self.run()

    def wait(self, until: float) -> None:
        """The look is over, or it is ``until`` by the monotonic clock."""
        if self.is_alive():
            self.join(max(0.0, until - time.monotonic()))

    def run(self) -> None:
        """The look is over."""
        for path in self._paths:
            self._found[path] = _kind(path)

    def found(self) -> dict[str, Kind]:
        """What is known now."""
        found = self._found.copy()
        return {path: found.get(path, Kind.SILENT) for path in self._paths}


def _kind(path: str) -> Kind:
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # a NUL in it
        return Kind.MISSING
    if stat.S_ISDIR(mode):
        return Kind.FOLDER
    return Kind.EXECUTABLE if stat.S_ISREG(mode) and os.access(path, os.X_OK) else Kind.OTHER


def _by_mount(paths: Iterable[str]) -> dict[str, list[str]]:
    """The paths by where they are mounted, as far as their names tell: symbolic links may lead elsewhere."""
    points = sorted({mount.point for mount in mounts()}, key=len, reverse=True)
    grouped: dict[str, list[str]] = {}
    for path in paths:
        point = next((point for point in points if f"{path}/".startswith(point.rstrip("/") + "/")), "/")
        grouped.setdefault(point, []).append(path)
    return grouped
