"""What is at the paths that a configuration names, found within a bounded time even if a disk hangs.

Looking only leads to warnings, and a file must load even while a network file system does not answer: for a daemon that starts
at that moment, and for the reload that removes the hanging program.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Container, Iterable, Mapping
from concurrent.futures import wait
from enum import Enum

from supervisord_async.system.mounts import mounts
from supervisord_async.system.threads import DaemonThreads

#: A disk that has not answered within this time is taken to be silent.
TIMEOUT_SECONDS = 2.0


class PathKind(Enum):
    """What is at a path."""

    FOLDER = "folder"
    EXECUTABLE = "executable"  #: a file that this process may execute
    OTHER = "other"
    MISSING = "missing"
    SILENT = "silent"  #: its disk, or one on the way to it, does not answer

    @property
    def may_be_folder(self) -> bool:
        """Whether it is a folder, or may be one: its disk does not answer."""
        return self in (PathKind.FOLDER, PathKind.SILENT)


def kinds_of(paths: Iterable[str]) -> Mapping[str, PathKind]:
    """What is at each of ``paths``. Blocks for at most :data:`TIMEOUT_SECONDS` in all, however many disks are silent."""
    found: dict[str, PathKind] = {}
    groups = _by_mount(dict.fromkeys(paths)).values()
    threads = DaemonThreads(len(groups), "look")
    try:
        looks = [threads.submit(_look, group, found) for group in groups]
    except OSError:  # no thread can be started
        looks = []
        for group in groups:
            _look(group, found)
    wait(looks, TIMEOUT_SECONDS)
    kinds = found.copy()  # threads that hang may yet add to it
    return {path: kinds.get(path, PathKind.SILENT) for group in groups for path in group}


def _look(paths: list[str], found: dict[str, PathKind]) -> None:
    for path in paths:
        found[path] = _kind(path)


def _kind(path: str) -> PathKind:
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # a NUL in it
        return PathKind.MISSING
    if stat.S_ISDIR(mode):
        return PathKind.FOLDER
    return PathKind.EXECUTABLE if stat.S_ISREG(mode) and os.access(path, os.X_OK) else PathKind.OTHER


def _by_mount(paths: Iterable[str]) -> dict[str, list[str]]:
    """The paths grouped by mount point, judged by name alone: symbolic links may lead elsewhere."""
    points = {mount.point for mount in mounts()}
    of_folders: dict[str, str] = {}  # most paths share a folder: that of the logs
    grouped: dict[str, list[str]] = {}
    for path in paths:
        folder = os.path.dirname(path)
        if folder not in of_folders:
            of_folders[folder] = _mount_of(folder, points)
        grouped.setdefault(path if path in points else of_folders[folder], []).append(path)
    return grouped


def _mount_of(path: str, points: Container[str]) -> str:
    while path not in points and path != (parent := os.path.dirname(path)):
        path = parent
    return path
