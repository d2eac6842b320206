"""What /proc says about processes: parsed, but neither cached nor interpreted.

A process may be gone at any moment, so "not there" is an answer (None, an empty set), never an error. Reading /proc
involves no disk and takes some 10 µs per process, so it is done on the loop.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

_BLOCK = 1 << 16
_ENVIRON_LIMIT_BYTES = 1 << 22
_PF_EXITING = 0x4


class Stat(msgspec.Struct, frozen=True):
    """The fields of /proc/PID/stat that identify a process and relate it to others (``man 5 proc_pid_stat``)."""

    pid: int
    name: str
    state: str  #: one letter; Z and X are dead
    parent: int
    group: int
    session: int
    flags: int  #: the kernel's PF_ bits
    threads: int  #: including a dead main thread, while others live
    start_ticks: int  #: since boot, in clock ticks
    wait_status: int  #: meaningful once dead, and only to those who may trace the process; else 0

    @property
    def dead(self) -> bool:
        """True for a zombie, and for a process being torn down: it runs nothing any more.

        A process of which only the main thread has ended also shows as Z, but lives.
        """
        return self.state in "ZXx" and self.threads <= 1

    @property
    def dying(self) -> bool:
        """True from the moment a process begins to exit: its environment may be gone, but it still has its children."""
        return bool(self.flags & _PF_EXITING) and self.threads <= 1


def read_file(path: str, limit_bytes: int = _BLOCK) -> bytes | None:
    """Up to ``limit_bytes`` of a file of /proc; None if the process is gone or we may not look at it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    try:
        data = os.read(fd, min(limit_bytes, _BLOCK))
        parts = [data]
        total = len(data)
        while data and total < limit_bytes:
            data = os.read(fd, min(limit_bytes - total, _BLOCK))
            parts.append(data)
            total += len(data)
        return b"".join(parts)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    finally:
        os.close(fd)


def parse_stat(text: bytes) -> Stat:
    """The parsed line. The name may contain spaces and parentheses, so fields are counted from the last ``)``.

    Raises ValueError, IndexError if ``text`` is not a line of /proc/PID/stat.
    """
    opening, closing = text.index(b"("), text.rindex(b")")
    fields = text[closing + 1 :].split()
    return Stat(
        pid=int(text[:opening]),
        name=text[opening + 1 : closing].decode("utf-8", "replace"),
        state=fields[0].decode("ascii"),
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        flags=int(fields[6]),
        threads=int(fields[17]),
        start_ticks=int(fields[19]),
        wait_status=int(fields[49]) if len(fields) > 49 else 0,
    )


def stat(pid: int) -> Stat | None:
    """What /proc says about ``pid`` now, dead or alive; None if there is no such process."""
    text = read_file(f"/proc/{pid}/stat")
    return parse_stat(text) if text else None


def pids() -> Iterator[int]:
    """The PID of every process, in no order; some may be gone by the time they are looked at."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            yield int(name)


def snapshot() -> dict[int, Stat]:
    """All processes in one pass."""
    found = ((pid, stat(pid)) for pid in pids())
    return {pid: process for pid, process in found if process is not None}


def children_by_parent(processes: dict[int, Stat]) -> dict[int, list[int]]:
    """The children of each parent in a whole snapshot."""
    children: dict[int, list[int]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process.pid)
    return children


def can_list_children() -> bool:
    """True if the kernel lists a process's children (CONFIG_PROC_CHILDREN, which all distributions set)."""
    return os.path.exists(f"/proc/self/task/{os.getpid()}/children")


def children(pid: int) -> set[int]:
    """The direct children of all threads of ``pid``, zombies too; empty if it is gone.

    A child that exits during the read can hide a sibling (``man 5 proc_tid_children``): for certainty, read again.
    """
    found: set[int] = set()
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return found
    for thread in threads:
        text = read_file(f"/proc/{pid}/task/{thread}/children", 1 << 24)
        if text:
            found.update(map(int, text.split()))
    return found


def status_field(pid: int | Literal["self"], name: bytes) -> list[bytes]:
    """The words of the field ``name`` of /proc/PID/status; none if there is no such field, or the process is gone."""
    for line in (read_file(f"/proc/{pid}/status") or b"").splitlines():
        if line.startswith(name + b":"):
            return line.split()[1:]
    return []


def real_uid(pid: int) -> int | None:
    """The real user ID of a process, readable for all, and not changed by a set-uid bit; None if the process is gone."""
    users = status_field(pid, b"Uid")
    return int(users[0]) if users else None


def innermost_pid(pid: int) -> int | None:
    """The PID that a process has in its own PID namespace; None if it is gone or we may not look at it."""
    pids = status_field(pid, b"NSpid")
    return int(pids[-1]) if pids else None


def environment_value(pid: int, name: str) -> str | None:
    """The value of ``name`` in the environment that ``pid`` was executed with; "" if not set. None as for :func:`environment_values`."""
    values = environment_values(pid, name)
    return values[0] if values is not None else None


def environment_values(pid: int, *names: str) -> list[str] | None:
    """The values of ``names`` in the environment that ``pid`` was executed with; "" for one that is not set.

    None if that is not known: the process is gone, is just being executed, or we may not read its environment.
    """
    text = read_file(f"/proc/{pid}/environ", _ENVIRON_LIMIT_BYTES)
    if not text:
        return None
    entries = text.split(b"\0")
    return [_value(entries, name.encode() + b"=") for name in names]


def _value(entries: Iterable[bytes], prefix: bytes) -> str:
    return next((entry[len(prefix) :].decode("utf-8", "surrogateescape") for entry in entries if entry.startswith(prefix)), "")
