"""Time for decisions, and the boot that it belongs to. Wall time is deliberately absent: it jumps."""

from __future__ import annotations

import functools
import time
from pathlib import Path


def monotonic() -> float:
    """Seconds of the clock that never jumps; it does not run while the machine sleeps."""
    return time.monotonic()


@functools.cache
def boot_id() -> str:
    """The kernel's random name for this boot: PIDs and start times mean something only within it.

    Returns "" where /proc does not show it (a very restricted container); then only start times are compared. Raises OSError for lack of
    a descriptor or memory: to return "" then would look like another boot, and an operator's stops would be forgotten.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return ""


def is_same_boot(one: str, other: str) -> bool:
    """Whether two boot IDs name the same boot, as far as can be known: if either is "", they may."""
    return one == other or not one or not other
