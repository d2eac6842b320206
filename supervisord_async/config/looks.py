"""What is at the paths that a configuration names, found within a bounded time whatever their disks do.

A look can only warn, and a file must load beside a network's file system whose server is away: for a daemon that begins just then,
and for a reload that takes the program out of the file that hangs.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Container, Iterable, Mapping
from concurrent.futures import wait
from enum import Enum

from supervisord_async.system.mounts import mounts
from supervisord_async.system.threads import DaemonThreads

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
        """Whether it is a folder, as far as is known."""
        return self in (Kind.FOLDER, Kind.SILENT)


def look_at(paths: Iterable[str]) -> Mapping[str, Kind]:
    """What is at each of ``paths``. Blocks for :data:`PATIENCE_SECONDS` at the most, once for all disks that are silent."""
    found: dict[str, Kind] = {}
    groups = _by_mount(dict.fromkeys(paths)).values()
    threads = DaemonThreads(len(groups), "look")
    try:
        looks = [threads.submit(_look, group, found) for group in groups]
    except RuntimeError:  # no thread can be started
        looks = []
        for group in groups:
            _look(group, found)
    wait(looks, PATIENCE_SECONDS)
    told = found.copy()  # a look that hangs may still find something
    return {path: told.get(path, Kind.SILENT) for group in groups for path in group}


def _look(paths: list[str], found: dict[str, Kind]) -> None:
    for path in paths:
        found[path] = _kind(path)


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
    points = {mount.point for mount in mounts()}
    grouped: dict[str, list[str]] = {}
    for path in paths:
        grouped.setdefault(_mount_of(path, points), []).append(path)
    return grouped


def _mount_of(path: str, points: Container[str]) -> str:
    while path not in points and path != (parent := os.path.dirname(path)):
        path = parent
    return path
