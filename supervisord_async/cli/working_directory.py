"""The current directory, which may have been removed, for instance with a release that a newer one replaced."""

from __future__ import annotations

import os

#: The error message when a relative path is needed then.
GONE = "the directory that you are in was removed: cd to one that exists"


def is_gone() -> bool:
    """Whether the current directory no longer exists."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False
