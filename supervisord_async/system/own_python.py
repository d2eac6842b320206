"""Running our own Python once more, and why it cannot be run: it was removed, or its folder or filesystem was closed to us."""

from __future__ import annotations

import errno
import os
import sys

import supervisord_async

_ADVICE = {
    errno.ENOENT: "it was moved or removed since: install it again there, or call us by the one that is there now",
    errno.ENOTDIR: "it was moved or removed since: install it again there, or call us by the one that is there now",
    errno.EACCES: "uid {uid} needs the right to execute it, to pass every directory above it, and a filesystem not mounted noexec",
    errno.EPERM: "the kernel or its security policy forbids it to uid {uid}",
    errno.ENOEXEC: "it is no longer a binary for this machine: install it again",
}


def command(module: str, *arguments: str) -> list[str]:
    """The command that runs our ``module`` as this process would, whatever the current directory.

    The current directory is the user's, and may have a ``yaml.py`` or ``logging.py``, which ``-m`` alone would import instead of
    the real one. It is searched only if this process itself was run from it, as from a source tree that is not installed.
    """
    from_here = not sys.flags.safe_path and os.path.dirname(supervisord_async.__path__[0]) == sys.path[0]
    return [sys.executable, *([] if from_here else ["-P"]), "-m", module, *arguments]


def refusal(error: OSError) -> str:
    """A clause that says what failed, where, why, and what to do, for an ``error`` of executing our own Python."""
    where = f" {sys.executable}" if sys.executable else ", whose path is not known"
    advice = _ADVICE.get(error.errno or 0, "").format(uid=os.geteuid())
    return f"cannot execute its own Python{where}: {error.strerror}" + (f" ({advice})" if advice else "")
