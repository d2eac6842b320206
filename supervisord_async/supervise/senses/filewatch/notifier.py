"""What tells of changes in single directories: watchfiles' notifier, which must be asked, and a bell that says when."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from typing import Protocol

from supervisord_async.system.inotify import DirectoryBell

_log = logging.getLogger(__name__)

Hint = tuple[int, str]


class Notifier(Protocol):
    """What RustNotify is here."""

    def watch(self, debounce_ms: int, step_ms: int, timeout_ms: int, stop_event: _LooksTwice | None) -> object:
        """Changes, or why there are none."""

    def close(self) -> None:
        """Ends its thread."""


def open_notifier(directories: list[str]) -> Notifier:
    """A notifier of what happens in each of ``directories`` itself, not below.

    Raises FileNotFoundError and PermissionError for a directory, OSError and RuntimeError when the system has no more
    watches or instances.
    """
    from watchfiles._rust_notify import RustNotify

    # It needs a thread, and where there is none it does not raise but aborts the whole process.
    canary = threading.Thread(target=int, name="asup-files-canary", daemon=True)
    canary.start()
    canary.join()
    return RustNotify(directories, False, False, 0, False, False)


class _NothingThereError(Exception):
    """Ends a look at the notifier that found nothing."""


class _LooksTwice:
    """A stop event that lets the notifier look twice and then ends the call by an exception.

    Its own time-out would do, but for dropping what arrives in the moment in which it passes.
    """

    def __init__(self) -> None:
        self._looks = 0

    def is_set(self) -> bool:
        """False, twice."""
        self._looks += 1
        if self._looks > 2:
            raise _NothingThereError
        return False


def open_bell(directories: Iterable[str]) -> DirectoryBell | None:
    """A bell on what happens in ``directories``; None where the system has none to give."""
    try:
        return DirectoryBell(directories)
    except OSError as error:
        _log.info("no bell for watched directories (%s): the notifier is asked again and again", error.strerror)
        return None


def drain(notifier: Notifier) -> set[Hint]:
    """What the notifier has, without waiting; raises RuntimeError when it broke."""
    try:
        found = notifier.watch(0, 0, 0, _LooksTwice())
    except _NothingThereError:
        return set()
    return found if isinstance(found, set) else set()
