"""Which process, exactly: a PID alone may be reused; together with start time and boot ID it is unique."""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path

import msgspec

from supervisord_async.system import procfs


class Identity(msgspec.Struct, frozen=True):
    """One process of one boot."""

    pid: int
    start_ticks: int  #: field 22 of /proc/PID/stat
    boot_id: str


def identify(pid: int) -> Identity | None:
    """The identity of the living process ``pid``; None if it is gone or a zombie."""
    found = procfs.stat(pid)
    return None if found is None or found.dead else of(found)


def of(process: procfs.Stat) -> Identity:
    """The identity of a process whose stat was just read, dead or alive."""
    return Identity(process.pid, process.start_ticks, boot_id())


def began(identity: Identity) -> float:
    """When a process of this boot started, in seconds of the monotonic clock. Time that the machine slept since counts as its age."""
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - identity.start_ticks / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - max(0.0, age)


def is_alive(identity: Identity) -> bool:
    """True while that very process runs: a zombie, and a stranger with its PID, count as gone."""
    return identify(identity.pid) == identity


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
