"""What a test may leave behind: nothing. Reads /proc, so that it sees what the code under test does not know of."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

#: What is being closed while a test ends may take this long.
SETTLE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Holdings:
    """What this process has: children (zombies too), descriptors, threads."""

    children: dict[int, str]
    descriptors: dict[int, str]
    threads: frozenset[str]

    def beyond(self, before: Holdings) -> list[str]:
        """What is here that was not there before, in words."""
        found = [f"child {pid}: {command}" for pid, command in self.children.items() if pid not in before.children]
        found += [
            f"descriptor {number} → {target}" for number, target in self.descriptors.items() if before.descriptors.get(number) != target
        ]
        found += [f"thread {name}" for name in sorted(self.threads - before.threads)]
        return found


def holdings() -> Holdings:
    """What this process has now."""
    descriptors = {number: target for number, target in descriptors_of(os.getpid()).items() if not target.startswith("/proc/")}
    return Holdings(_children(), descriptors, frozenset(_threads()))


def left_behind(before: Holdings, settle_seconds: float = SETTLE_SECONDS) -> list[str]:
    """What is beyond ``before`` after at most ``settle_seconds`` of waiting for it to go."""
    until = time.monotonic() + settle_seconds
    while (found := holdings().beyond(before)) and time.monotonic() < until:
        time.sleep(0.02)
    return found


def end_processes_in(folder: Path, settle_seconds: float = SETTLE_SECONDS) -> list[str]:
    """Nothing runs in ``folder`` any more; returns, in words, what had to be killed for still being there after ``settle_seconds``."""
    until = time.monotonic() + settle_seconds
    while (found := _processes_in(folder)) and time.monotonic() < until:
        time.sleep(0.02)
    killed = []
    for pid, command in found.items():
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if pid in _processes_in(folder):  # the same: its number was not given to another meanwhile
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                killed.append(f"process {pid}: {command}")
        except ProcessLookupError:
            pass
        finally:
            os.close(descriptor)
    return killed


def _processes_in(folder: Path) -> dict[int, str]:
    """Those whose working directory it is."""
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int(entry.name) != os.getpid() and os.readlink(entry / "cwd") == str(folder.resolve()):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:  # it ended meanwhile, or is a zombie
            continue
    return found


def _children() -> dict[int, str]:
    found: dict[int, str] = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            pids = (task / "children").read_text().split()
        except OSError:  # the thread ended meanwhile
            continue
        for pid in map(int, pids):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:
                continue
            found[pid] = command or "(zombie, or just born)"
    return found


def descriptors_of(pid: int) -> dict[int, str]:
    """What the process has open, by number; what it closes meanwhile is left out, such as the one that this lists the directory by."""
    found: dict[int, str] = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    return found


def _threads() -> list[str]:
    # Worker threads of a loop's default executor, and anyio's, end with their loop; a pool's idle ones carry these names.
    return [f"{thread.name}/{thread.ident}" for thread in threading.enumerate() if not thread.name.startswith("AnyIO worker")]
