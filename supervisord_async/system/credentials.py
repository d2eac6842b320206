"""Whom a program runs as: user, primary group and supplementary groups, which always go together.

Looking up names may ask a directory service over the network (NSS), so it is to be done in a thread; and anew for each
spawn, as the answer may have changed.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd

import msgspec

from supervisord_async.errors import SpawnError
from supervisord_async.system import procfs

_CAP_SETGID, _CAP_SETUID = 6, 7


class Credentials(msgspec.Struct, frozen=True):
    """A user, with everything that a process needs to run as that user."""

    uid: int
    gid: int
    groups: tuple[int, ...]  #: supplementary ones; may repeat ``gid``
    name: str  #: for USER and LOGNAME
    home: str  #: for HOME

    def may_execute(self, path: str | os.PathLike[str]) -> bool:
        """Whether the permissions of ``path`` let this user execute it, or enter it if it is a folder. Raises OSError."""
        status = os.stat(path)
        if self.uid == 0:
            return bool(status.st_mode & 0o111)
        shift = 6 if status.st_uid == self.uid else 3 if status.st_gid in (self.gid, *self.groups) else 0
        return bool(status.st_mode >> shift & 1)


def lookup(user: str | None, group: str | None) -> Credentials | None:
    """The credentials of ``user`` (a name or a number; None: ours) with ``group`` instead of their primary one.

    None when neither is given. Raises SpawnError, stage ``user``, where one is unknown, or we may not become that user, and as
    :func:`may_switch`. Blocks for as long as the directory service takes.
    """
    if user is None and group is None:
        return None
    # Asked before and after the directory: where that has no descriptor, it knows no user, and leaves groups out without a word.
    may_switch()
    entry = _user(user)
    gid = _group(group) if group is not None else None
    if entry is None:  # a number without an entry in the directory
        if user is None or gid is None:
            raise SpawnError("user", None, f"user {user} has no entry, so no group; name one (group_name)")
        found = Credentials(int(user), gid, (gid,), user, "/")
    else:
        primary = entry.pw_gid if gid is None else gid
        groups = tuple(os.getgrouplist(entry.pw_name, primary))
        found = Credentials(entry.pw_uid, primary, groups, entry.pw_name, entry.pw_dir)
    if not may_switch() and (found.uid, found.gid) != (os.geteuid(), os.getegid()):
        raise SpawnError("user", errno.EPERM, f"cannot run as {user or group} without being root")
    return found


def may_switch() -> bool:
    """True if this process may become any user: it is root, with the capabilities that containers sometimes drop.

    Raises SpawnError, stage ``fork``: there is no descriptor to ask with.
    """
    try:
        effective = procfs.status_field("self", b"CapEff")
    except OSError as error:
        raise SpawnError("fork", error.errno, "cannot ask whether we may become another user") from error
    if not effective:
        return os.geteuid() == 0
    held = int(effective[0], 16)
    return bool(held >> _CAP_SETUID & held >> _CAP_SETGID & 1)


def _user(user: str | None) -> pwd.struct_passwd | None:
    try:
        if user is None:
            return pwd.getpwuid(os.geteuid())
        return pwd.getpwnam(user)
    except KeyError:
        pass
    number = _number(user if user is not None else str(os.geteuid()))
    if number is None:
        raise SpawnError("user", None, f"no user named {user!r}")
    try:
        return pwd.getpwuid(number)
    except KeyError:
        if user is None:
            raise SpawnError("user", None, f"our own user {number} has no entry; name one (user)") from None
        return None


def _group(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        number = _number(group)
        if number is None:
            raise SpawnError("user", None, f"no group named {group!r}") from None
        return number


def _number(text: str) -> int | None:
    """``text`` as a user's or group's number; None if it is not one, or 2**32 - 1, which the kernel takes for "unchanged"."""
    return int(text) if text.isascii() and text.isdigit() and int(text) < 2**32 - 1 else None
