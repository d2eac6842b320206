"""The mark in the run_dir that all programs of a dead daemon are being ended, by its guardian or by ``asupctl cleanup``.

A program that these asked to stop did not end by itself: judged by its restart policy, it would stay down or count as a
failure. So the mark is there from before the first program is signalled until a daemon starts. That daemon finishes the ending,
and then starts what had been running, as after an orderly shutdown.

Callers of these functions hold the run_dir's lock. Imports next to nothing: the guardian is small, and the code on the disk may
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
    """The mark is there; if it cannot be written, that is ignored, and the next daemon will not know of the ending."""
    with contextlib.suppress(OSError):
        os.close(os.open(os.path.join(run_dir, MARK_NAME), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW, 0o600))


def is_begun(run_dir: str) -> bool:
    """Whether the mark is there: an ending was begun and not finished."""
    return os.path.lexists(os.path.join(run_dir, MARK_NAME))


def finish(run_dir: str) -> None:
    """The mark is removed. If that fails it is logged: the next daemon will end all programs once more."""
    try:
        Path(run_dir, MARK_NAME).unlink(missing_ok=True)
    except OSError as error:
        _log.warning("cannot remove %s: %s", os.path.join(run_dir, MARK_NAME), error.strerror)
