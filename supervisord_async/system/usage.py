"""What processes use, from /proc: CPU time, memory and threads in one pass for all; descriptors and IO on request.

Apart from ``procfs``, as this parses other fields and leaves out what costs time. Blocking, about 15 µs per process: for
worker threads.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from supervisord_async.system import procfs

#: Clock ticks per second.
TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Usage(NamedTuple):
    """The fields of /proc/PID/stat about usage (``man 5 proc_pid_stat``)."""

    pid: int
    parent: int
    session: int
    threads: int
    start_ticks: int  #: since boot
    cpu_ticks: int  #: its own, and those of children that it has waited for
    rss_pages: int


def usages() -> dict[int, Usage]:
    """Every living process, by PID."""
    found = map(_usage, procfs.pids())
    return {usage.pid: usage for usage in found if usage is not None}


def _usage(pid: int) -> Usage | None:
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(fd, 4096)
    except OSError:  # it has ended since
        return None
    finally:
        os.close(fd)
    fields = text[text.rfind(b")") + 2 :].split(b" ", 22)
    if len(fields) < 23 or fields[0] in b"ZXx":
        return None
    cpu = int(fields[11]) + int(fields[12]) + int(fields[13]) + int(fields[14])
    return Usage(pid, int(fields[1]), int(fields[3]), int(fields[17]), int(fields[19]), cpu, int(fields[21]))


def proportional_bytes(pid: int) -> int | None:
    """The proportional size (PSS) of ``pid``: shared memory is divided among those that share it. None if it is gone or we may not read it.

    The kernel visits each of its pages: 0.1 ms for most processes, some 10 ms for each GB.
    """
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb", buffering=0) as file:
            _, found, rest = file.read(4096).partition(b"\nPss:")
        return int(rest.split(None, 1)[0]) * 1024 if found else None
    except (OSError, ValueError, IndexError):
        return None


def open_files(pid: int) -> int | None:
    """How many descriptors ``pid`` has open; None if it is gone or we may not look."""
    folder = f"/proc/{pid}/fd"
    try:
        return os.stat(folder).st_size or len(os.listdir(folder))  # the size is the count since Linux 6.2
    except OSError:
        return None


def storage_bytes(pid: int) -> tuple[int, int] | None:
    """The bytes that ``pid`` has read from and written to storage; None if it is gone or we may not look."""
    try:
        with open(f"/proc/{pid}/io", "rb") as file:
            lines = dict(line.split(b": ") for line in file.read().splitlines())
        return int(lines[b"read_bytes"]), int(lines[b"write_bytes"])
    except (OSError, ValueError, KeyError):
        return None
