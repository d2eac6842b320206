"""That all programs of a dead daemon are to end: begun by its guardian or by ``asupctl cleanup``, finished by who comes next.

A program that was told to go by them did not end by its own will: judged by its restart policy it would stay down, or count
a failure. So a mark is in run_dir from before the first is told until a daemon comes, which finishes what was begun, and starts
what had lived as after an end in peace.

Whoever calls these holds the run_dir's lock. Imports next to nothing: the guardian is small, and the code on the disk may be
another by the time it acts.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

MARK_NAME = "ending"

_log = logging.getLogger("asupd")


def begin(run_dir: str) -> None:
    """Whoever comes knows that all are to end; where that cannot be written, he does not."""
    with contextlib.suppress(OSError):
        os.close(os.open(os.path.join(run_dir, MARK_NAME), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW, 0o600))


def is_begun(run_dir: str) -> bool:
    """Whether somebody began to end all, and did not finish."""
    return os.path.lexists(os.path.join(run_dir, MARK_NAME))


def finish(run_dir: str) -> None:
    """What was begun is over. Where that cannot be written it is told: whoever comes will end all once more."""
    try:
        Path(run_dir, MARK_NAME).unlink(missing_ok=True)
    except OSError as error:
        _log.warning("cannot remove %s: %s", os.path.join(run_dir, MARK_NAME), error.strerror)
