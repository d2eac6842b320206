"""Opening files in folders of other users, without letting those users lead us to files that they could not reach themselves.

A daemon that runs as root has logs and environment files in folders of its programs' users. A user who puts a symbolic link there
could have root append to any file, rename in any folder, or read what is secret. So a link is followed only if it belongs to root or
to ourselves, or leads into a folder of its own owner, or one directly below: these the owner could have put in its place. The
kernel's ``fs.protected_symlinks`` does much the same, but only in sticky folders such as /tmp. What is opened is what was checked:
each step is taken from the folder before, by its descriptor.

Not covered: a file system that is itself somebody else's (FUSE with ``allow_other``) may lie about owners.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

#: How many links the kernel follows in one path (``man 7 path_resolution``).
_LINKS = 40
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_ANYTHING = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def open_file(path: str, flags: int, mode: int = 0o666, *, make_folders: bool = False) -> int:
    """As ``os.open``; with ``make_folders`` missing folders on the way are made, with mode 0755 less the umask.

    Raises OSError as that does, and with ELOOP where a link on the way, or another name of the file, is not to be trusted.
    """
    folder, name = os.path.split(os.path.abspath(path))
    with _way(path, make_folders=make_folders) as way:
        way.arrive(folder)
        return way.open(name, flags | os.O_CLOEXEC, mode)


@contextmanager
def held_folder(path: str) -> Iterator[str]:
    """A path that means the folder now at ``path`` while in this context, even if that is replaced. Raises OSError as :func:`open_file`."""
    with _way(path) as way:
        way.arrive(os.path.abspath(path))
        held = os.dup(way.fd)
    try:
        yield f"/proc/self/fd/{held}"
    finally:
        os.close(held)


@contextmanager
def _way(path: str, *, make_folders: bool = False) -> Iterator[_Way]:
    """A :class:`_Way`, closed afterwards; an OSError in the context is raised as one of ``path``."""
    way = _Way(make_folders)
    try:
        yield way
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        if way.fd >= 0:
            os.close(way.fd)


class _Way:
    """A walk along a path; ``fd`` is the folder reached so far, -1 at first. All methods raise OSError."""

    def __init__(self, make_folders: bool) -> None:
        self.fd = -1
        self._make_folders = make_folders
        self._trusted_owners = frozenset({0, os.geteuid()})
        self._link_owner: int | None = None  # the untrusted owner of a link that was followed
        self._above: os.stat_result | None = None  # the parent of the folder reached, if the last step went down
        self._links = 0

    def arrive(self, folder: str) -> None:
        """Walk to ``folder``, an absolute path."""
        with suppress(FileNotFoundError):
            self._enter(os.open(folder, _FOLDER))
            if os.readlink(f"/proc/self/fd/{self.fd}") == folder:  # there is no link on the way: the usual case
                return
        self._walk(folder)
        self._refuse_detour()

    def open(self, name: str, flags: int, mode: int) -> int:
        """Open the file ``name`` in the folder reached, following links as far as they are trusted; returns its descriptor."""
        while True:
            try:
                fd = os.open(name, flags | os.O_NOFOLLOW, mode, dir_fd=self.fd)
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                if self._is_in_proc():  # a link such as /proc/self/fd/1, whose text does not say where it leads
                    return os.open(name, flags, mode, dir_fd=self.fd)
                folder, name = os.path.split(self._target(name))
                self._walk(folder)
                self._refuse_detour()
                continue
            try:
                self._refuse_second_name(fd)
            except BaseException:
                os.close(fd)
                raise
            return fd

    def _walk(self, path: str) -> None:
        """Walk to ``path``, relative to the folder reached, step by step."""
        steps = self._steps(path)
        while steps:
            step = steps.pop(0)
            found = self._look(step)
            if not stat.S_ISLNK(os.fstat(found).st_mode):
                above = os.fstat(self.fd) if step != ".." else None
                self._enter(found)
                self._above = above
                continue
            os.close(found)
            if self._is_in_proc():
                self._enter(os.open(step, _FOLDER, dir_fd=self.fd))
            else:
                steps = self._steps(self._target(step)) + steps

    def _steps(self, path: str) -> list[str]:
        if path.startswith("/"):
            self._enter(os.open("/", _FOLDER))
        return [step for step in path.split("/") if step not in ("", ".")]

    def _look(self, step: str) -> int:
        """A descriptor of the entry ``step``, without following a link; a missing folder is made, if that is wanted."""
        try:
            return os.open(step, _ANYTHING, dir_fd=self.fd)
        except FileNotFoundError:
            if not self._make_folders:
                raise
        self._refuse_detour()
        with suppress(FileExistsError):  # somebody else has just made it
            os.mkdir(step, 0o755, dir_fd=self.fd)
        return os.open(step, _ANYTHING, dir_fd=self.fd)

    def _enter(self, fd: int) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd, self._above = fd, None

    def _target(self, name: str) -> str:
        """Where the link ``name`` leads; its owner is noted for :meth:`_refuse_detour`."""
        self._links += 1
        if self._links > _LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        link = os.open(name, _ANYTHING, dir_fd=self.fd)
        try:
            owner = os.fstat(link).st_uid
            target = os.readlink("", dir_fd=link)
        finally:
            os.close(link)
        if owner not in self._trusted_owners:
            if self._link_owner not in (None, owner):
                raise _refusal(owner)
            self._link_owner = owner
        return target

    def _refuse_detour(self) -> None:
        """Raise OSError unless the owner of any link on the way could have put this very folder in the link's place."""
        if self._link_owner is None:
            return
        here, above = os.fstat(self.fd), self._above
        movable = above is not None and (above.st_uid, above.st_dev) == (self._link_owner, here.st_dev)
        if (here.st_uid != self._link_owner and not movable) or self._is_in_proc():
            raise _refusal(self._link_owner)

    def _refuse_second_name(self, fd: int) -> None:
        """Raise OSError if somebody may have hard-linked a file into this folder that belongs to another user."""
        found = os.fstat(fd)
        if found.st_nlink < 2 or not stat.S_ISREG(found.st_mode):
            return
        folder = os.fstat(self.fd)
        others_write = folder.st_uid not in self._trusted_owners or folder.st_mode & 0o022
        if others_write and not found.st_uid == folder.st_uid not in self._trusted_owners:
            raise OSError(errno.ELOOP, "the file has another name elsewhere, and others may write in its folder")

    def _is_in_proc(self) -> bool:
        return os.fstat(self.fd).st_dev == os.stat("/proc").st_dev


def _refusal(owner: int) -> OSError:
    return OSError(errno.ELOOP, f"a symbolic link on the way belongs to user {owner}, and leads to what does not")
