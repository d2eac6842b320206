"""Counts, lists and paths in sentences for people. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def counted(count: int, noun: str, plural: str = "") -> str:
    """``1 program``, ``3 programs``; ``plural`` is given where that is not the noun with an s."""
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"


def listed(words: Sequence[str], most: int = 5) -> str:
    """``web, db``; of more than ``most`` the first ones, and how many are left out: ``a, b, c, d, e and 4 more``."""
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def shell_word(path: str) -> str:
    """``path`` as a word of a command that people copy into a shell: in quotes if it needs them."""
    if path.isascii() and path.replace("/", "").replace(".", "").replace("-", "").replace("_", "").isalnum():
        return path
    import shlex  # only for the few that need it

    return shlex.quote(path)
