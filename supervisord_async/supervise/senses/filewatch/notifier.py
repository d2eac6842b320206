"""watchfiles' RustNotify, as it is used here: opened for single directories, and asked without waiting."""

from __future__ import annotations

import threading
from typing import Protocol

#: The kind of a change, as RustNotify numbers them (1 added, 2 modified, 3 deleted), and the path.
Hint = tuple[int, str]


class Notifier(Protocol):
    """What is used of RustNotify."""

    def watch(self, debounce_ms: int, step_ms: int, timeout_ms: int, stop_event: _LooksTwice | None) -> object:
        """Changes, or why there are none."""

    def close(self) -> None:
        """Ends its thread."""


def open_notifier(directories: list[str]) -> Notifier:
    """A notifier of what happens directly in each of ``directories``, not below.

    Raises FileNotFoundError and PermissionError for a directory; OSError and RuntimeError where the system has no watch or
    instance left, or no thread.
    """
    from watchfiles._rust_notify import RustNotify

    # It starts a thread of its own, and where none can be started it does not raise but aborts the whole process.
    canary = threading.Thread(target=int, name="asup-files-canary", daemon=True)
    canary.start()
    canary.join()
    return RustNotify(directories, False, False, 0, False, False)


class _NothingThereError(Exception):
    """Ends a call of the notifier that found nothing."""


class _LooksTwice:
    """A stop event that lets the notifier look twice, and then ends the call by an exception.

    Its own timeout would serve, if it did not drop what arrives in the instant in which it expires.
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
    """The hints that have come, without waiting for any; raises RuntimeError where the notifier broke."""
    try:
        found = notifier.watch(0, 0, 0, _LooksTwice())
    except _NothingThereError:
        return set()
    return found if isinstance(found, set) else set()
