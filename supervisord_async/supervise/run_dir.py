"""Preparing the run_dir: it exists and can be used, and the control socket's path in it is free."""

from __future__ import annotations

import errno
import logging
import os
import stat

from supervisord_async.daemon_registry import LOCK_NAME
from supervisord_async.errors import DaemonError

_log = logging.getLogger("asupd")


def make_run_dir(path: str) -> str:
    """The run_dir exists. Returns "" if it can be written, else why not, if the daemon can go on all the same.

    It can if an earlier daemon used the run_dir and the disk has become read-only since: the lock file is there, and programs may
    live that must be adopted. Raises DaemonError where the run_dir cannot be made or used.
    """
    try:
        os.makedirs(path, mode=0o755, exist_ok=True)
    except OSError as error:
        raise DaemonError(f"cannot make the run_dir {path}: {error.strerror} (set daemon.run_dir, or pass --run-dir)") from error
    if os.access(path, os.W_OK | os.X_OK, effective_ids=True):  # effective: capabilities count
        return ""
    is_read_only = bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    trouble = f"cannot write in the run_dir {path}: {os.strerror(errno.EROFS if is_read_only else errno.EACCES).lower()}"
    if is_read_only and os.path.exists(os.path.join(path, LOCK_NAME)):
        return trouble
    raise DaemonError(f"{trouble} (set daemon.run_dir, or pass --run-dir)")


def warn_of_others(path: str) -> None:
    """Log a warning if somebody else may write in the run_dir, and thereby control the daemon."""
    found = os.stat(path)
    if found.st_uid not in (0, os.geteuid()):
        who = f"user {found.st_uid}, to whom it belongs,"
    elif found.st_mode & 0o002 and not found.st_mode & stat.S_ISVTX:
        who = "anybody"
    else:
        return
    _log.warning("%s may write in the run_dir %s: put another socket, state or token there, and so command this daemon", who, path)


def set_aside_false_socket(path: str, run_dir: str) -> None:
    """Anything but a socket at ``path`` is renamed to ``path.stale``, if that lies in our own run_dir."""
    try:
        if os.path.dirname(path) == run_dir and not stat.S_ISSOCK(os.lstat(path).st_mode):
            os.replace(path, f"{path}.stale")
            _log.warning("%s was no socket; it is %s.stale now", path, path)
    except FileNotFoundError:
        pass  # the usual case
    except OSError as error:
        _log.warning("cannot set %s aside: %s", path, error.strerror)
