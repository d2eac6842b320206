"""The Python that we run by, run once more; and when it cannot be: its environment was removed, its folder or filesystem closed to us."""

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
    """What runs our ``module`` as this process would, wherever we are.

    The folder that we are in is the user's, and may hold a ``yaml.py`` or ``logging.py`` of his: ``-m`` alone would import that for ours.
    It is looked in only if this very process was run from it, as from a source tree that is not installed.
    """
    from_here = not sys.flags.safe_path and os.path.dirname(supervisord_async.__path__[0]) == sys.path[0]
    return [sys.executable, *([] if from_here else ["-P"]), "-m", module, *arguments]


def refusal(error: OSError) -> str:
    """What, where, why and what to do, in a clause, of an ``error`` in executing our own Python."""
    where = f" {sys.executable}" if sys.executable else ", whose place it does not know"
    advice = _ADVICE.get(error.errno or 0, "").format(uid=os.geteuid())
    return f"cannot execute its own Python{where}: {error.strerror}" + (f" ({advice})" if advice else "")
