"""The mark that all programs of a dead daemon are being ended: by its guardian or ``asupctl cleanup``, and finished by the next daemon.

A program that they told to stop did not end by itself: judged by its restart policy it would stay down, or count as a
failure. So a mark is in run_dir from before the first is told until a daemon comes. That finishes what was begun, and starts
what had been running as after an orderly shutdown.

Whoever calls these functions holds the run_dir's lock. Imports next to nothing: the guardian is small, and the code on the disk may
have changed by the time it acts.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

MARK_NAME = "ending"

_log = logging.getLogger("asupd")


def begin(run_dir: str) -> None:
    """The mark is there; unless it cannot be written, and then the next daemon will not know."""
    with contextlib.suppress(OSError):
        os.close(os.open(os.path.join(run_dir, MARK_NAME), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW, 0o600))


def is_begun(run_dir: str) -> bool:
    """Whether an ending was begun and not finished."""
    return os.path.lexists(os.path.join(run_dir, MARK_NAME))


def finish(run_dir: str) -> None:
    """The mark is removed. Where it cannot be, that is logged: the next daemon will end all programs once more."""
    try:
        Path(run_dir, MARK_NAME).unlink(missing_ok=True)
    except OSError as error:
        _log.warning("cannot remove %s: %s", os.path.join(run_dir, MARK_NAME), error.strerror)
