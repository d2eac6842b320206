"""Configuration files on disk: how paths and globs in them resolve, and bounded reads of regular files that never wait for a writer."""

from __future__ import annotations

import errno
import fnmatch
import glob
import os
import stat
from collections.abc import Iterator, Mapping

from supervisord_async.system import safe_open

#: The largest configuration file.
MAX_FILE_BYTES = 8 * 1024 * 1024
#: The most directory entries that are examined for one pattern.
MAX_NAMES = 100_000
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def absolute(path: str, directory: str, variables: Mapping[str, str]) -> str:
    """``path``, relative to ``directory``, made absolute and normalised; ``~/`` is the daemon's HOME."""
    if path.startswith("~/") and variables.get("HOME"):
        path = variables["HOME"] + path[1:]
    return os.path.normpath(os.path.join(directory, path))


def apart(path: str) -> str:
    """A log's path with a place for the replica's number before its suffix; unchanged if it has one, is a device, or a word (``none``)."""
    if not path.startswith("/") or path.startswith("/dev/") or "{replica}" in path:
        return path
    stem, suffix = os.path.splitext(path)
    return f"{stem}-{{replica}}{suffix}"


def matching(pattern: str) -> list[str]:
    """The paths that match ``pattern``, an absolute one, sorted.

    Hidden names match only a pattern that begins with a dot, and ``**`` follows no symbolic link.

    Raises OSError, its ``filename`` the folder, if an existing folder cannot be listed, or if there are more than :data:`MAX_NAMES`
    entries. The standard ``glob`` takes such a folder for an empty one, so its programs would be stopped, and ``/**`` never ends.
    """
    return sorted(set(_Names().below("/", pattern.strip("/").split("/"))))


class _Names:
    """The search for one pattern, which counts the entries that it examines."""

    def __init__(self) -> None:
        self._looked_at = 0

    def below(self, folder: str, parts: list[str]) -> Iterator[str]:
        """The paths under ``folder`` that match ``parts`` of a pattern."""
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
    """The content of ``path``. Raises OSError if it cannot be read, is not a regular file, or has more than ``limit`` bytes."""
    return _content(os.open(path, _READ), path, limit)


def read_trusted_file(path: str, limit: int) -> bytes:
    """Like :func:`read_regular_file`, for a file that may be in another user's folder; also raises the OSErrors of :mod:`.safe_open`."""
    return _content(safe_open.open_file(path, _READ), path, limit)


def _content(descriptor: int, path: str, limit: int) -> bytes:
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
