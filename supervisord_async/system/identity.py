"""Which process, exactly: a PID alone may be reused; together with start time and boot ID it is unique."""

from __future__ import annotations

import os
import time

import msgspec

from supervisord_async.system import clock, procfs


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
    return Identity(process.pid, process.start_ticks, clock.boot_id())


def began(identity: Identity) -> float:
    """When a process of this boot started, in seconds of the monotonic clock. Time that the machine slept since counts as its age."""
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - identity.start_ticks / os.sysconf("SC_CLK_TCK")
    return clock.monotonic() - max(0.0, age)


def is_alive(identity: Identity) -> bool:
    """True while that very process runs: a zombie, and a stranger with its PID, count as gone."""
    return identify(identity.pid) == identity
