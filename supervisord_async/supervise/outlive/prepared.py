"""The configuration as the trial of a re-exec has loaded it, handed to the new self: the same code, some milliseconds later.

It would be read again while nobody answers, a quarter of that time with a thousand programs; and a file that becomes unsound
in between does not end a daemon that cannot go back. It travels in a memory file which only the trial and both selves have,
with what is shared in it shared afterwards.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from supervisord_async.config.model import Configuration
from supervisord_async.config.recollection import Recollection
from supervisord_async.errors import Problem
from supervisord_async.supervise.outlive.persist import SavedState

#: Among a saved state's descriptors.
KEY = "prepared"


class Prepared(NamedTuple):
    """What is left of a load when the file's text is forgotten."""

    configuration: Configuration
    warnings: tuple[Problem, ...]
    recollection: Recollection


def hand_over(prepared: Prepared, state: SavedState) -> None:
    """The trial's result is with the daemon that asked for it by ``state``; an older daemon left no descriptor for it."""
    import pickle  # for a re-exec alone

    for descriptor in state.descriptors.get(KEY, ()):
        with os.fdopen(descriptor, "wb") as file:
            pickle.dump(prepared, file, pickle.HIGHEST_PROTOCOL)


def handed_over(state: SavedState) -> Prepared | None:
    """What the trial left beside ``state``; None where it is to be loaded: by a former self that knew nothing of this, or by other code."""
    import pickle

    for descriptor in state.descriptors.pop(KEY, ()):
        with os.fdopen(descriptor, "rb") as file:
            file.seek(0)
            try:
                found = pickle.load(file)  # noqa: S301  nobody else has this file
            except Exception:  # whatever it is that this code cannot read: the file on disk says what holds
                return None
            return found if isinstance(found, Prepared) else None
    return None
