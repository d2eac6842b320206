"""What /proc says of a contestant: its own processes (not the children that it supervises), their memory, CPU and wakeups."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

#: Every process of a contestant inherits this variable, whoever its parent is.
TAG = "BENCH_TAG"


class Spent(NamedTuple):
    """What one thread has used, or all of them."""

    cpu_seconds: float = 0.0
    wakeups: int = 0


def become_subreaper() -> None:
    """What contestants leave behind comes to us, and is reaped by :func:`sweep`."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def tagged(tag: str) -> list[int]:
    """All living processes with ``tag`` in their environment."""
    wanted = f"{TAG}={tag}".encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                if wanted in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                    found.append(int(name))
            except OSError:
                continue
    return found


def own(tag: str, child: Path) -> list[int]:
    """The contestant's processes, without the supervised children."""
    target = str(child.resolve())
    return [pid for pid in tagged(tag) if _executable(pid) != target]


def children(tag: str, child: Path) -> list[int]:
    target = str(child.resolve())
    return [pid for pid in tagged(tag) if _executable(pid) == target]


def _executable(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


def pss_bytes(pids: list[int]) -> int:
    """Proportional set size: shared pages are counted once in the sum."""
    total = 0
    for pid in pids:
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except OSError:
            continue
    return total


def threads(pids: list[int]) -> dict[str, Spent]:
    """Of each living thread the CPU by the scheduler's own count (nanoseconds), and how often it woke up."""
    found = {}
    for pid in pids:
        for task in _listed(f"/proc/{pid}/task"):
            base = f"/proc/{pid}/task/{task}"
            try:
                cpu_seconds = int(Path(f"{base}/schedstat").read_text().split()[0]) / 1e9
                lines = Path(f"{base}/status").read_text().splitlines()
            except OSError:  # it is over
                continue
            found[task] = Spent(cpu_seconds, next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt")))
    return found


def spent_between(earlier: dict[str, Spent], later: dict[str, Spent]) -> Spent:
    """By the threads that lived at the end: what those used that ended meanwhile is not known so exactly."""
    cpu_seconds, wakeups = 0.0, 0
    for task, spent in later.items():
        before = earlier.get(task, Spent())
        cpu_seconds += spent.cpu_seconds - before.cpu_seconds
        wakeups += spent.wakeups - before.wakeups
    return Spent(cpu_seconds, wakeups)


def cpu_seconds(pids: list[int]) -> float:
    """Since their start, with the threads that are over: those the kernel has by hundredths of a second alone."""
    total = 0.0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        coarse = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        total += max(coarse, sum(spent.cpu_seconds for spent in threads([pid]).values()))
    return total


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def sweep(tag: str) -> None:
    """Nothing with ``tag`` lives any more, and what became our child is reaped."""
    until = time.monotonic() + 20
    while pids := [pid for pid in tagged(tag) if not _is_zombie(pid)]:
        if time.monotonic() > until:
            raise RuntimeError(f"cannot end {pids}")
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.02)
    reap()


def reap() -> None:
    """Orphans that came to us are gone for good."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def wait_all_dead(pids: list[int], timeout_seconds: float) -> float | None:
    """The monotonic time at which the last of ``pids`` had died; None where some still live in the end."""
    import select

    poll = select.poll()
    open_: set[int] = set()
    for pid in pids:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        open_.add(fd)
        poll.register(fd, select.POLLIN)
    until = time.monotonic() + timeout_seconds
    while open_ and time.monotonic() < until:
        for fd, _ in poll.poll(max(1, int((until - time.monotonic()) * 1000))):
            poll.unregister(fd)
            os.close(fd)
            open_.discard(fd)
    at = time.monotonic()
    for fd in open_:
        os.close(fd)
    return None if open_ else at
