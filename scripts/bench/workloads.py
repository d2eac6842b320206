"""The workloads: each is run on one contestant in an empty folder and returns figures, by name.

Figures come from the children's stamps and from /proc, never from what a contestant says of itself.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import processes
from asking import safe_name
from contestants import Contestant
from peers import Tools

Figures = dict[str, float]


class IncompleteError(Exception):
    """The contestant did not do it in time, or not wholly."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    fleets: tuple[int, ...] = (1, 100, 1000)
    crowd: int = 500
    kills: int = 30
    log_bytes: int = 1_073_741_800  #: whole lines: a logger may keep a part of one back
    loggers: int = 100
    logger_seconds: int = 5
    idle_seconds: float = 4.0
    settle_seconds: float = 1.3  #: s6 and runit keep starts one second apart, and start_seconds passes
    questions: int = 5
    patience_seconds: float = 40.0


#: For many rounds in little time: less of what is a mean in itself.
SWIFT = Sizes(fleets=(1, 10, 100, 1000, 3000), kills=10, logger_seconds=3, idle_seconds=2.0, questions=3)

SHORT = Sizes(
    fleets=(1, 20),
    crowd=20,
    kills=3,
    log_bytes=8_000_000,
    loggers=5,
    logger_seconds=1,
    idle_seconds=0.2,
    settle_seconds=0.1,
    questions=2,
    patience_seconds=15,
)


@contextlib.contextmanager
def running(kind: type[Contestant], tools: Tools, count: int, mode: str = "", *, logs: bool = False) -> Iterator[Contestant]:
    """The contestant in a folder of its own; nothing is left of it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=f"bench-{safe_name(kind.name)}-"))
    contestant = kind(tools, folder, uuid.uuid4().hex, count, mode, logs=logs)
    try:
        yield contestant
    finally:
        contestant.end()
        shutil.rmtree(folder, ignore_errors=True)


def stamps(contestant: Contestant) -> list[tuple[int, float]]:
    """PID and monotonic seconds of each start (and end of a mode) so far, in the order of the file."""
    try:
        whole, _, _ = contestant.stamps_file.read_text().rpartition("\n")  # the last one may be on its way
    except FileNotFoundError:
        return []
    return [(int(pid), int(at) / 1e9) for pid, at in (line.split() for line in whole.splitlines())]


def wait_stamps(contestant: Contestant, count: int, sizes: Sizes, *, every: float = 0.02) -> list[tuple[int, float]]:
    """All stamps, once there are ``count``."""
    until = time.monotonic() + sizes.patience_seconds
    while True:
        with contextlib.suppress(FileNotFoundError):
            if contestant.stamps_file.stat().st_size >= count * 4:
                found = stamps(contestant)
                if len(found) >= count:
                    return found
        if time.monotonic() > until or contestant.is_over():
            raise IncompleteError(f"{len(stamps(contestant))} of {count} stamps; {contestant.failure_text()}")
        time.sleep(every)


def started(contestant: Contestant, sizes: Sizes) -> float:
    """All programs run; returns seconds from the daemon's start to the last one's."""
    begin = contestant.start()
    return max(at for _, at in wait_stamps(contestant, contestant.count, sizes)) - begin


def settle(contestant: Contestant, sizes: Sizes) -> None:
    """Nothing of the start is going on any more."""
    contestant.ready()
    time.sleep(sizes.settle_seconds)
    until = time.monotonic() + 10
    while time.monotonic() < until:
        pids = processes.own(contestant.tag, contestant.tools.child)
        before = processes.threads(pids)
        time.sleep(0.25)
        if processes.spent_between(before, processes.threads(pids)).cpu_seconds < 0.01:
            return


def fleet(kind: type[Contestant], tools: Tools, sizes: Sizes, count: int) -> Figures:
    """Start of N, memory, idle, and status."""
    with running(kind, tools, count) as contestant:
        figures = {f"start {count} [s]": started(contestant, sizes)}
        settle(contestant, sizes)
        pids = processes.own(contestant.tag, tools.child)
        figures[f"start CPU {count} [s]"] = processes.cpu_seconds(pids)
        figures[f"memory {count} [MiB]"] = processes.pss_bytes(pids) / (1 << 20)
        before, begin = processes.threads(pids), time.monotonic()
        time.sleep(sizes.idle_seconds)
        spent, seconds = processes.spent_between(before, processes.threads(pids)), time.monotonic() - begin
        figures[f"idle wakeups {count} [1/s]"] = spent.wakeups / seconds
        figures[f"idle CPU {count} [ms/s]"] = spent.cpu_seconds * 1000 / seconds
        contestant.raw_status()  # the first one is not counted; circus's own has one before it as well
        raw = [took for _ in range(sizes.questions) if (took := contestant.raw_status()) is not None]
        if raw:
            figures[f"status API {count} [ms]"] = statistics.median(raw) * 1000
        command = contestant.status_command()
        if command is not None:
            figures[f"status command {count} [ms]"] = statistics.median(_timed(contestant, command) for _ in range(sizes.questions)) * 1000
        return figures


def _timed(contestant: Contestant, command: list[str]) -> float:
    begin = time.monotonic()
    subprocess.run(
        command, env=contestant.environment, cwd=contestant.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    )
    return time.monotonic() - begin


def respawn(kind: type[Contestant], tools: Tools, sizes: Sizes) -> Figures:
    """SIGKILL to one after the other, each long alive; from the signal to the successor's own stamp."""
    with running(kind, tools, sizes.kills) as contestant:
        started(contestant, sizes)
        settle(contestant, sizes)
        took = []
        for number, (pid, _) in enumerate(stamps(contestant)[: sizes.kills], start=1):
            begin = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            took.append(wait_stamps(contestant, sizes.kills + number, sizes, every=0.002)[-1][1] - begin)
            time.sleep(0.03)
        took.sort()
        return {"respawn, median [ms]": statistics.median(took) * 1000, "respawn, p99 [ms]": took[int(len(took) * 0.99)] * 1000}


def crowd(kind: type[Contestant], tools: Tools, sizes: Sizes) -> Figures:
    """Deaths of all at once, one more by a reload, and the stop of all."""
    count, figures = sizes.crowd, {}
    with running(kind, tools, count) as contestant:
        started(contestant, sizes)
        settle(contestant, sizes)
        victims = [pid for pid, _ in stamps(contestant)]
        begin = time.monotonic()
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        expected = 2 * count
        figures[f"{count} deaths at once [s]"] = max(at for _, at in wait_stamps(contestant, expected, sizes)) - begin
        settle(contestant, sizes)
        contestant.prepare_one_more()
        begin = time.monotonic()
        contestant.add_one()
        expected += 1
        figures[f"reload, one more of {count} [ms]"] = (wait_stamps(contestant, expected, sizes, every=0.002)[-1][1] - begin) * 1000
        settle(contestant, sizes)
        alive = processes.children(contestant.tag, tools.child)
        begin = time.monotonic()
        contestant.stop()
        end = processes.wait_all_dead(alive, sizes.patience_seconds)
        if end is None:
            raise IncompleteError("some did not stop")
        figures[f"stop of {count} [ms]"] = (end - begin) * 1000
        return figures


def log(kind: type[Contestant], tools: Tools, sizes: Sizes) -> Figures:
    """One program that writes as fast as it can, with rotation: from its first byte until its last one is in a file."""
    with running(kind, tools, 1, f"write:{sizes.log_bytes}", logs=True) as contestant:
        contestant.start()
        wait_stamps(contestant, 1, sizes)
        time.sleep(0.7)  # the child rests for a second
        before = processes.threads(processes.own(contestant.tag, tools.child))
        begin = wait_stamps(contestant, 2, sizes)[1][1]
        until = time.monotonic() + sizes.patience_seconds
        while contestant.log_bytes() < sizes.log_bytes:
            if time.monotonic() > until:
                raise IncompleteError(f"{contestant.log_bytes()} of {sizes.log_bytes} bytes are in the files")
            time.sleep(0.005)
        seconds = time.monotonic() - begin
        spent = processes.spent_between(before, processes.threads(processes.own(contestant.tag, tools.child)))
        per_gib = (1 << 30) / sizes.log_bytes
        return {"log throughput [MB/s]": sizes.log_bytes / seconds / 1e6, "log CPU [s/GiB]": spent.cpu_seconds * per_gib}


def fanin(kind: type[Contestant], tools: Tools, sizes: Sizes) -> Figures:
    """Many programs that each write 1,000 lines a second: CPU of the contestant and its loggers."""
    lines = 1000
    with running(kind, tools, sizes.loggers, f"rate:{lines}:{sizes.logger_seconds}", logs=True) as contestant:
        contestant.start()
        wait_stamps(contestant, sizes.loggers, sizes)
        before = processes.threads(processes.own(contestant.tag, tools.child))
        wait_stamps(contestant, 2 * sizes.loggers, sizes, every=0.1)
        expected = sizes.loggers * sizes.logger_seconds * lines * 100
        until = time.monotonic() + sizes.patience_seconds
        while contestant.log_bytes() < expected:
            if time.monotonic() > until:
                raise IncompleteError(f"{contestant.log_bytes()} of {expected} bytes are in the files")
            time.sleep(0.05)
        spent = processes.spent_between(before, processes.threads(processes.own(contestant.tag, tools.child)))
        per_ten = 10 / sizes.logger_seconds
        return {
            f"{sizes.loggers} loggers, CPU in 10 s [s]": spent.cpu_seconds * per_ten,
            f"{sizes.loggers} loggers, wakeups [1/s]": spent.wakeups * per_ten / 10,
        }


def workloads(sizes: Sizes) -> dict[str, Callable[[type[Contestant], Tools], Figures]]:
    """By name, what can be asked with ``--only``."""
    found: dict[str, Callable[[type[Contestant], Tools], Figures]] = {}
    for count in sizes.fleets:
        found[f"fleet-{count}"] = lambda kind, tools, count=count: fleet(kind, tools, sizes, count)  # type: ignore[misc]
    found["respawn"] = lambda kind, tools: respawn(kind, tools, sizes)
    found["crowd"] = lambda kind, tools: crowd(kind, tools, sizes)
    found["log"] = lambda kind, tools: log(kind, tools, sizes)
    found["fanin"] = lambda kind, tools: fanin(kind, tools, sizes)
    return found
