"""Configuration files on disk: regular ones, read within bounds, never waiting for anybody; and what a path in one of them means."""

from __future__ import annotations

import errno
import fnmatch
import glob
import os
import stat
from collections.abc import Iterator, Mapping

#: The most of a configuration file.
MAX_FILE_BYTES = 8 * 1024 * 1024
#: The most names in folders that are looked at for one pattern.
MAX_NAMES = 100_000


def absolute(path: str, directory: str, variables: Mapping[str, str]) -> str:
    """``path`` as seen from ``directory``, normalised; ``~/`` is the daemon's HOME."""
    if path.startswith("~/") and variables.get("HOME"):
        path = variables["HOME"] + path[1:]
    return os.path.normpath(os.path.join(directory, path))


def matching(pattern: str) -> list[str]:
    """The paths that ``pattern``, an absolute one, means, in order.

    Hidden names are meant only by a dot of its own, and ``**`` follows no symbolic link.

    Raises OSError, its ``filename`` the folder: one that is there cannot be listed, or there is more than :data:`MAX_NAMES` to look at.
    ``glob`` says of such a folder what it says of an empty one, and its programs would be stopped; and it does not end with ``/**``.
    """
    return sorted(set(_Names().below("/", pattern.strip("/").split("/"))))


class _Names:
    """What was looked at for one pattern."""

    def __init__(self) -> None:
        self._looked_at = 0

    def below(self, folder: str, parts: list[str]) -> Iterator[str]:
        """The paths in ``folder`` that ``parts`` of a pattern mean."""
        if not parts:
            yield folder
            return
        part, rest = parts[0], parts[1:]
        if not glob.has_magic(part):
            path = os.path.join(folder, part)
            if rest or os.path.lexists(path):
                yield from self.below(path, rest)
            return
        if part == "**":
            yield from self.below(folder, rest)
        for entry in self._entries(folder):
            if entry.name.startswith(".") and not part.startswith("."):
                continue
            if part == "**" and entry.is_dir(follow_symlinks=False):
                yield from self.below(entry.path, parts)
            elif part != "**" and fnmatch.fnmatchcase(entry.name, part):
                yield from self.below(entry.path, rest)

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                found = list(entries)
        except (FileNotFoundError, NotADirectoryError, ProcessLookupError):  # the last in /proc
            return []
        self._looked_at += len(found)
        if self._looked_at > MAX_NAMES:
            raise OSError(errno.E2BIG, f"more than {MAX_NAMES} names to look at", folder)
        return found


def read_regular_file(path: str, limit: int) -> bytes:
    """The content of ``path``; OSError where it cannot be read, is not a regular file, or holds more than ``limit`` bytes."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with open(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"more than {limit} bytes", path)
    return content
