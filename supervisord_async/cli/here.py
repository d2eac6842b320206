"""The directory that a command is called in: it may have been removed by then, as a release that a newer one replaced."""

from __future__ import annotations

import os

#: What is said then, of paths that are relative to it.
GONE = "the directory that you are in was removed: cd to one that exists"


def is_gone() -> bool:
    """Whether nobody can say any more where we are."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False
