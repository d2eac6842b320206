"""Causes, ends, durations and sizes as parts of a sentence. Pure."""

from __future__ import annotations

from typing import Any

from supervisord_async.wire import exit_words

#: Causes, as they read after "because".
CAUSES = {
    "operator": "an operator asked for it",
    "autostart": "it starts with the daemon",
    "exited": "the run before ended by itself",
    "spawn_failed": "the run before could not be started",
    "heartbeat_missed": "its heartbeat stopped",
    "liveness_failed": "its liveness probe failed",
    "readiness_failed": "it was not ready in time",
    "file_changed": "a watched file changed",
    "config_changed": "its configuration changed",
    "dependency": "a program that depends on it was to start",
    "memory_limit": "it used more memory than allowed",
    "restart_limit": "the restart limit was reached",
    "schedule": "its schedule said so",
    "daemon_stop": "the daemon was stopping",
    "adopted": "a daemon found it running and took it over",
    "internal_error": "of a bug in the daemon",
}


def cause_words(cause: str | None, *, on_connect: bool = False, by: str = "") -> str:
    """The words after "because"; ``on_connect``: its autostart means a first connection, not the daemon's start; ``by``: who ordered it."""
    if by:
        return f"{by} asked for it"
    if cause == "autostart" and on_connect:
        return "somebody connected to one of its sockets"
    return CAUSES.get(cause or "", cause or "of something unknown")


def exit_phrase(exit_status: dict[str, Any] | None) -> str:
    """The exit status as a predicate: ``exited with 1``, ``was killed by SIGSEGV (core dumped)``."""
    words = exit_words(exit_status)
    return f"was {words}" if words.startswith("killed") else words


def span(seconds: float) -> str:
    """A duration: ``0.4 s``, ``59 s``, ``3 min 5 s``, ``2 h 10 min``, ``3 d 4 h``."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    for size, name, small, small_name in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {name}" + (f" {rest} {small_name}" if rest else "")
    return f"{whole} s"


def size_words(count: int) -> str:
    """A size in bytes: ``512 KiB``, ``3.4 MiB``."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit in ("B", "KiB") else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"
