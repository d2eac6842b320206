"""Configuration files on disk: regular ones, read within bounds, never waiting for anybody; and what a path in one of them means."""

from __future__ import annotations

import errno
import glob
import os
import stat
from collections.abc import Mapping

#: The most of a configuration file.
MAX_FILE_BYTES = 8 * 1024 * 1024


def absolute(path: str, directory: str, variables: Mapping[str, str]) -> str:
    """``path`` as seen from ``directory``, normalised; ``~/`` is the daemon's HOME."""
    if path.startswith("~/") and variables.get("HOME"):
        path = variables["HOME"] + path[1:]
    return os.path.normpath(os.path.join(directory, path))


def begin_to_list(pattern: str) -> None:
    """The folder in which the wildcards of ``pattern`` begin can be listed, or there is none. Raises OSError, its ``filename`` the folder.

    ``glob`` says of a folder that cannot be listed what it says of an empty one, and its programs would be stopped.
    """
    folder = pattern
    while glob.has_magic(folder):
        folder = os.path.dirname(folder)
    if folder == pattern:
        return
    try:
        with os.scandir(folder) as entries:
            next(entries, None)
    except (FileNotFoundError, NotADirectoryError):
        return


def read_regular_file(path: str, limit: int) -> bytes:
    """The content of ``path``; OSError where it cannot be read, is no regular file, or holds more than ``limit`` bytes."""
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
