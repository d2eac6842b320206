"""Records of running daemons, so that a configuration file still leads to its daemon after the file was broken or edited.

``asupctl -c FILE`` reads ``daemon.run_dir`` and ``daemon.socket`` from FILE. If FILE can no longer be read, or no longer
names the run_dir of the running daemon, the record of the file's last daemon is used instead. Records are kept in one
directory of the user who runs the daemon: ``$XDG_STATE_HOME/asup``, else ``/var/lib/asup`` for root, else
``~/.local/state/asup``; one small JSON file each, named by a hash of FILE's real path, mode 0600. A daemon at the
default place (``.asupd`` beside FILE) needs no record and leaves none.

The daemon calls :func:`remember` when it starts, asupctl calls :func:`recall`. A record is a hint, never proof:
its user asks the daemon found there which file it serves.
"""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT_RUN_DIR = ".asupd"
SOCKET_NAME = "asupd.sock"
LOCK_NAME = "asupd.lock"


class DaemonPlace(NamedTuple):
    """Where a daemon is, or was."""

    run_dir: str
    socket: str


def default_place(file: str | os.PathLike[str]) -> DaemonPlace:
    """Where the daemon of ``file`` is if that sets neither ``daemon.run_dir`` nor ``daemon.socket``."""
    run_dir = os.path.join(os.path.dirname(os.path.abspath(file)), DEFAULT_RUN_DIR)
    return DaemonPlace(run_dir, os.path.join(run_dir, SOCKET_NAME))


def remember(file: str | os.PathLike[str], run_dir: str | os.PathLike[str], socket: str | os.PathLike[str]) -> Path | None:
    """From now on ``recall(file)`` returns this run_dir and socket; the record is replaced atomically.

    Returns the record's path, or None for the default place, which needs no record: an older one is then removed.
    Raises OSError if it cannot be written: the daemon can then only be found through its file.
    """
    from pathlib import Path

    record = Path(_record(file))
    if os.path.realpath(socket) == os.path.realpath(default_place(file).socket):
        record.unlink(missing_ok=True)
        return None
    record.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = {"file": os.path.realpath(file), "run_dir": os.path.abspath(run_dir), "socket": os.path.abspath(socket)}
    draft = record.with_name(f".{record.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as stream:
            json.dump(content, stream)
        draft.replace(record)
    except BaseException:
        with suppress(FileNotFoundError):
            draft.unlink()
        raise
    return record


def recall(file: str | os.PathLike[str]) -> DaemonPlace | None:
    """Where the file's last daemon was; None if there is no readable record, or if another user (not root) wrote it."""
    try:
        with open(_record(file), encoding="utf-8") as stream:
            if os.fstat(stream.fileno()).st_uid not in (0, os.geteuid()):
                return None
            content = json.load(stream)
        if content["file"] != os.path.realpath(file):
            return None
        return DaemonPlace(str(content["run_dir"]), str(content["socket"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a missing hint is no error: the caller tries the default place


def _record(file: str | os.PathLike[str]) -> str:
    from hashlib import sha256  # costs 2 ms, which a client given the socket need not pay

    real = os.fsencode(os.path.realpath(file))
    return os.path.join(_records(), f"{sha256(real).hexdigest()[:32]}.json")


def _records() -> str:
    state = os.environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(state):
        return os.path.join(state, "asup")
    if os.geteuid() == 0:  # by uid, not by HOME: sudo may keep another user's
        return "/var/lib/asup"
    home = os.path.expanduser("~")
    if home == "~":
        raise FileNotFoundError(errno.ENOENT, "no home directory to keep records in")
    return os.path.join(home, ".local", "state", "asup")
