"""Backups of a log: ``x.log.1`` is the youngest, then ``x.log.2`` …; with ``compress`` they become ``.gz``.

Each step is one ``rename`` or ``unlink``, in an order that a kill may interrupt anywhere: backups are renumbered from the
oldest to the youngest, so an interrupted rotation leaves a gap in the numbers and no duplicate, and the next one
moves only what is below the gap. A compressed backup is written under another name and then renamed; if a backup exists both
plain and compressed, the compressed one is complete, and the plain one is removed. Where the log is a link, ``x.log`` here is what
it leads to: the link stays.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Iterator

from supervisord_async.system import safe_open

_BLOCK_BYTES = 256 * 1024


def backup_path(path: str, number: int) -> str | None:
    """The file that is backup ``number`` of ``path``, plain or compressed; None if there is none."""
    for candidate in (f"{path}.{number}.gz", f"{path}.{number}"):
        if os.path.lexists(candidate):
            return candidate
    return None


def backups_of(path: str) -> list[tuple[int, str]]:
    """All existing backups of ``path``, the youngest first, however many are configured."""
    folder, name = os.path.split(path)
    numbers = set()
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for entry in os.listdir(folder or "."):
            if entry.startswith(name + "."):
                digits = entry[len(name) + 1 :].removesuffix(".gz")
                if digits.isascii() and digits.isdigit() and digits[0] != "0":
                    numbers.add(int(digits))
    return [(number, found) for number in sorted(numbers) if (found := backup_path(path, number)) is not None]


def shift(path: str, backups: int) -> None:
    """Rename ``path`` to backup 1, and keep at most ``backups - 1`` older ones. Raises OSError."""
    with _held(path) as there:
        _shift(there, backups)


def prune(path: str, backups: int) -> None:
    """Remove backups with numbers above ``backups``. Raises OSError."""
    with _held(path) as there:
        _prune(there, backups)


@contextlib.contextmanager
def _held(path: str) -> Iterator[str]:
    """A path of the log whose folder cannot be exchanged meanwhile: a user who may write there could put a link in its place."""
    folder, name = os.path.split(os.path.abspath(path))
    with safe_open.held_folder(folder) as there:
        yield os.path.join(there, name)


def _shift(path: str, backups: int) -> None:
    settle(path)
    gap = 1
    while gap < backups and backup_path(path, gap) is not None:
        gap += 1
    for number in range(gap - 1, 0, -1):
        source = backup_path(path, number)
        if source is not None:
            _remove_backup(path, number + 1)
            os.rename(source, f"{path}.{number + 1}{'.gz' if source.endswith('.gz') else ''}")
    _remove_backup(path, 1)
    os.rename(path, f"{path}.1")
    _prune(path, backups)


def _prune(path: str, backups: int) -> None:
    for number, _ in backups_of(path):
        if number > backups:
            _remove_backup(path, number)


def settle(path: str) -> None:
    """Remove the plain file of each backup that exists both plain and compressed."""
    for number, found in backups_of(path):
        if found.endswith(".gz"):
            _unlink(f"{path}.{number}")


def compress_backups(path: str, lock: threading.Lock) -> None:
    """Compress all backups of ``path``. ``lock`` must be held to rename backups; it is taken here only for moments.

    This may take long; rotations go on meanwhile. Raises OSError; then the backup is left as it is.
    """
    with contextlib.suppress(FileNotFoundError), _held(path) as there:  # a log that nothing was written to may have no folder yet
        _compress_backups(there, lock)


def _compress_backups(path: str, lock: threading.Lock) -> None:
    for leftover in _leftovers(path):
        _unlink(leftover)
    with lock:
        settle(path)
    while (plain := next((found for _, found in reversed(backups_of(path)) if not found.endswith(".gz")), None)) is not None:
        _compress(path, plain, lock)


def _compress(path: str, plain: str, lock: threading.Lock) -> None:
    """Replace ``plain``, wherever a rotation may move it meanwhile, by its compressed form."""
    import gzip
    import shutil

    try:
        descriptor = _open_backup(plain)
    except FileNotFoundError:  # a rotation moved it between the listing and now; the next listing has it
        return
    with _closing(descriptor), os.fdopen(descriptor, "rb", closefd=False) as source:
        status = os.fstat(descriptor)
        temporary = f"{path}.{status.st_ino}.gz.part"
        _unlink(temporary)
        try:
            with open(temporary, "xb") as raw:  # x: not through a link that somebody made
                # no time in the header, where only 1970 to 2106 fit: the file keeps its own
                with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as packed:
                    shutil.copyfileobj(source, packed, _BLOCK_BYTES)
                raw.flush()
                os.fsync(raw.fileno())
                os.fchmod(raw.fileno(), status.st_mode & 0o777)
                os.utime(raw.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
            with lock:
                for number, found in backups_of(path):
                    if not found.endswith(".gz") and os.lstat(found).st_ino == status.st_ino:
                        os.rename(temporary, f"{path}.{number}.gz")
                        _unlink(found)
                        return
        finally:
            _unlink(temporary)


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)


def _open_backup(plain: str) -> int:
    """Open a backup for reading. Raises OSError, also if it is no regular file: then no rotation has put it there."""
    descriptor = os.open(plain, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"{os.path.basename(plain)} is not a regular file")
    return descriptor


def _leftovers(path: str) -> Iterator[str]:
    """The temporary files that interrupted compressions left."""
    folder, name = os.path.split(path)
    with contextlib.suppress(FileNotFoundError):
        for entry in os.listdir(folder or "."):
            if entry.startswith(name + ".") and entry.endswith(".gz.part") and entry[len(name) + 1 : -8].isdigit():
                yield os.path.join(folder, entry)


def _remove_backup(path: str, number: int) -> None:
    _unlink(f"{path}.{number}")
    _unlink(f"{path}.{number}.gz")


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
