"""The configuration that the trial of a re-exec has loaded, handed to the new code, so that it need not be loaded again.

Loading would be a quarter of the time in which the API does not answer, with a thousand programs; and a file that becomes
unsound in between must not end a daemon that cannot go back. It is pickled, so that shared objects stay shared, into a memory
file that only the trial, the old and the new code have.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from supervisord_async.config.load_cache import LoadCache
from supervisord_async.config.model import Configuration
from supervisord_async.errors import Problem
from supervisord_async.supervise.recovery.persist import SavedState

#: Its key among a saved state's descriptors.
KEY = "prepared"


class Prepared(NamedTuple):
    """The result of loading the configuration."""

    configuration: Configuration
    warnings: tuple[Problem, ...]
    load_cache: LoadCache


def hand_over(prepared: Prepared, state: SavedState) -> None:
    """In the trial: write the result to the descriptor that the daemon passed in ``state``; an older daemon passed none."""
    import pickle  # here, as only a re-exec needs it

    for descriptor in state.descriptors.get(KEY, ()):
        with os.fdopen(descriptor, "wb") as file:
            pickle.dump(prepared, file, pickle.HIGHEST_PROTOCOL)


def handed_over(state: SavedState) -> Prepared | None:
    """In the new code: the trial's result. None, and the file has to be loaded, if another version left none, or none that is valid."""
    import pickle  # here, as only a re-exec needs it

    for descriptor in state.descriptors.pop(KEY, ()):
        with os.fdopen(descriptor, "rb") as file:
            file.seek(0)
            try:
                found = pickle.load(file)  # noqa: S301  nobody else has this file
            except Exception:  # whatever this version cannot read: the file on disk is loaded instead
                return None
            return found if isinstance(found, Prepared) else None
    return None
