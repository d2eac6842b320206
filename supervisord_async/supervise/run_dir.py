"""The folder that a daemon has for itself: it is there and can be used, and the control socket's name in it is free."""

from __future__ import annotations

import errno
import logging
import os
import stat

from supervisord_async.errors import DaemonError

_log = logging.getLogger("asupd")


def make_run_dir(path: str) -> None:
    """The run_dir exists; raises DaemonError where it cannot be made or used."""
    try:
        os.makedirs(path, mode=0o755, exist_ok=True)
    except OSError as error:
        raise DaemonError(f"cannot make the run_dir {path}: {error.strerror} (set daemon.run_dir, or pass --run-dir)") from error
    if not os.access(path, os.W_OK | os.X_OK, effective_ids=True):  # capabilities count
        reason = os.strerror(errno.EROFS if os.statvfs(path).f_flag & os.ST_RDONLY else errno.EACCES).lower()
        raise DaemonError(f"cannot write in the run_dir {path}: {reason} (set daemon.run_dir, or pass --run-dir)")


def set_aside_false_socket(path: str, run_dir: str) -> None:
    """In our own run_dir nothing but a socket may have the socket's name; what has it is kept under another."""
    try:
        if os.path.dirname(path) == run_dir and not stat.S_ISSOCK(os.lstat(path).st_mode):
            os.replace(path, f"{path}.stale")
            _log.warning("%s was no socket; it is %s.stale now", path, path)
    except FileNotFoundError:
        pass  # the usual case
    except OSError as error:
        _log.warning("cannot set %s aside: %s", path, error.strerror)
