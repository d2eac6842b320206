"""watchfiles' RustNotify, as used here: opened for single directories, and read without waiting."""

from __future__ import annotations

import threading
from typing import Protocol

#: A change: its kind, as RustNotify numbers them (1 added, 2 modified, 3 deleted), and the path.
Hint = tuple[int, str]


class Notifier(Protocol):
    """The part of RustNotify's interface that is used here."""

    def watch(self, debounce_ms: int, step_ms: int, timeout_ms: int, stop_event: _LooksTwice | None) -> object:
        """A set of changes, or a word that says why there are none."""

    def close(self) -> None:
        """End its thread."""


def open_notifier(directories: list[str]) -> Notifier:
    """A notifier for changes directly in each of ``directories``, not below them.

    Raises FileNotFoundError and PermissionError for a directory; OSError and RuntimeError where the system has no watch or
    instance left, or no thread.
    """
    from watchfiles._rust_notify import RustNotify

    # RustNotify starts a thread; if that fails it does not raise, but aborts the whole process. So first try one of our own.
    canary = threading.Thread(target=int, name="asup-files-canary", daemon=True)
    canary.start()
    canary.join()
    return RustNotify(directories, False, False, 0, False, False)


class _NothingThereError(Exception):
    """Raised to end a call of the notifier that found nothing."""


class _LooksTwice:
    """A stop event that lets the notifier look twice, and then ends its call by an exception.

    The notifier's own timeout would drop changes that arrive in the instant in which it expires.
    """

    def __init__(self) -> None:
        self._looks = 0

    def is_set(self) -> bool:
        """False, twice."""
        self._looks += 1
        if self._looks > 2:
            raise _NothingThereError
        return False


def drain(notifier: Notifier) -> set[Hint]:
    """The changes that have come so far, without waiting for any; raises RuntimeError where the notifier broke."""
    try:
        found = notifier.watch(0, 0, 0, _LooksTwice())
    except _NothingThereError:
        return set()
    return found if isinstance(found, set) else set()
