"""Misfortune on real processes, by a seed, and what must have survived it.

Where a file system can be mounted (as root) the run_dir is a small one of its own, so that it can be full. Then one
program says more than a full disk's pipe keeps: what is missing of it must be what the daemon says was lost.
"""

from __future__ import annotations

import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.daemons import LiveDaemon, alive

#: It numbers its lines over all its runs: the next run goes on with what the one before it came to say.
TALKER = """
import os, sys, time
path = os.environ["ASUP_NAME"].replace(":", "-") + ".next"
n = int(open(path).read() or 0) if os.path.exists(path) else 0
while True:
    os.write(1, b"%d\\n" % n)
    n += 1
    time.sleep(0.002)
"""
LINE_BYTES = 100  #: each of the loud one's, its end included
#: A few lines, or far too many while there is a file ``loud``.
LOUD = f"""
import os, time
n = 0
while True:
    count = 600 if os.path.exists("loud") else 2
    lines = memoryview(b"".join(b"%0{LINE_BYTES - 1}d\\n" % each for each in range(n, n + count)))
    while lines:
        lines = lines[os.write(1, lines):]
    n += count
    time.sleep(0.02)
"""
SLACK_BYTES = 4 * 1024 * 1024
STEADY = 2  #: talkers that nothing of this kills: their output is one sequence
AGAIN = "start_seconds: 0, restart: {policy: always, backoff: {initial: 50ms, max: 200ms}}"
PROGRAMS = f"""
programs:
  steady: {{command: [{sys.executable}, -c, {json.dumps(TALKER)}], replicas: {STEADY}, start_seconds: 0, logs: {{max_size: 1GiB}}}}
  mortal: {{command: [sleep, "SECONDS"], replicas: 4, {AGAIN}}}
  family: {{command: [sh, -c, "setsid sleep 1000 & sleep 1000"], {AGAIN}}}
  loud: {{command: [{sys.executable}, -c, {json.dumps(LOUD)}], start_seconds: 0, logs: {{max_size: 1GiB}}}}
"""
#: What the daemon says of a log at the beginning and at the end of its trouble.
BROKEN = re.compile(r"cannot write \S+, the log of (\S+) \(\w+\):")
MENDED = re.compile(r"the log of (\S+) \(\w+\), is written again; (?:nothing was lost|(\d+) bytes in (\d+) lines were lost)")


class Disk:
    """A file system of its own at ``path``, which is full or is not."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._filling = path / "filling"

    def fill(self) -> None:
        """Not one more page is to be had. What is written meanwhile must fit: some room first, then nothing of it is left."""
        used = os.statvfs(self._path)
        self._resize(f"{(used.f_blocks - used.f_bfree) * used.f_frsize + SLACK_BYTES}")
        with self._filling.open("wb", buffering=0) as stream, suppress(OSError):
            while True:
                stream.write(b"x" * 4096)

    def free(self) -> None:
        """There is room again."""
        self._filling.unlink()
        self._resize("1g")

    def _resize(self, size: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self._path)], check=True, capture_output=True)


@contextmanager
def disk(path: Path) -> Iterator[Disk | None]:
    """The directory ``path`` is a file system of its own meanwhile; None where that cannot be."""
    path.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(path)], capture_output=True, check=False)
    if done.returncode:
        yield None
        return
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@dataclass
class Report:
    """What was done, and what was wrong afterwards."""

    faults: Counter[str] = field(default_factory=Counter)
    lines: int = 0
    reported_bytes: int = 0  #: what the daemon said was lost, of the loud one's
    missing_bytes: int = 0  #: and what was
    complaints: list[str] = field(default_factory=list)

    def describe(self) -> str:
        done = ", ".join(f"{count} × {what}" for what, count in sorted(self.faults.items()))
        verdict = "nothing was lost or doubled" if not self.complaints else "\n".join(self.complaints)
        if self.reported_bytes or self.missing_bytes:
            verdict = f"{self.missing_bytes} bytes are missing by full disks, {self.reported_bytes} were reported; else {verdict}"
        return f"{sum(self.faults.values())} faults ({done}), {self.lines} lines: {verdict}"


def programs(seconds: int) -> str:
    """The file; with another number of ``seconds`` the mortal ones are to be restarted."""
    return PROGRAMS.replace("SECONDS", str(seconds))


def run(folder: Path, *, seed: int, seconds: float) -> Report:  # noqa: C901  the deeds are its own
    """Misfortune for so long, then the reckoning; nothing is left running."""
    chance, report, edits = random.Random(seed), Report(), 0
    with disk(folder / ".asupd") as room, LiveDaemon(folder, programs(1000)) as live:

        def kill_program() -> None:
            victims = [each for each in live.tagged() if each.name.partition(":")[0] in ("mortal", "family")]
            if victims:
                victim = chance.choice(victims)
                if alive(victim.identity.pid):
                    os.kill(victim.identity.pid, signal.SIGKILL)

        def kill_daemon() -> None:
            live.kill()
            live.start()

        def reload() -> None:
            nonlocal edits
            edits += 1
            live.write(programs(1000 + edits % 3))
            live.send(signal.SIGHUP)

        def reexec() -> None:
            live.ctl("reexec")
            live.wait_until(live.answers, "it answers after the re-exec")

        def starve() -> None:
            before = resource.prlimit(live.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(live.pid, resource.RLIMIT_NOFILE, (3, before[1]))
            kill_program()
            time.sleep(chance.uniform(0.05, 0.5))
            resource.prlimit(live.pid, resource.RLIMIT_NOFILE, before)

        def freeze() -> None:
            live.send(signal.SIGSTOP)
            kill_program()
            time.sleep(chance.uniform(0.05, 0.5))
            live.send(signal.SIGCONT)

        def fill_disk() -> None:
            assert room is not None
            (folder / "loud").touch()
            room.fill()
            kill_program()
            time.sleep(chance.uniform(0.1, 2.0))
            room.free()
            (folder / "loud").unlink()
            live.wait_until(lambda: not _broken_logs(live), "every log is written again")

        def kill_daemon_on_a_full_disk() -> None:
            assert room is not None
            room.fill()
            kill_program()
            time.sleep(chance.uniform(0.0, 0.3))
            kill_daemon()
            room.free()

        deeds: list[tuple[Callable[[], None], int]] = [
            (kill_program, 8),
            (kill_daemon, 2),
            (reload, 2),
            (reexec, 1),
            (starve, 1),
            (freeze, 1),
        ]
        if room is not None:
            deeds += [(fill_disk, 2), (kill_daemon_on_a_full_disk, 1)]
        # A run that has no process yet when the daemon is killed counts as one that ended.
        live.wait_until(lambda: {each["state"] for each in live.status().values()} == {"RUNNING"}, "everything runs")
        until = time.monotonic() + seconds
        first = chance.sample([each for each, _ in deeds], len(deeds))  # each once, however short it is
        while time.monotonic() < until or first:
            deed = first.pop() if first else chance.choices([each for each, _ in deeds], [weight for _, weight in deeds])[0]
            deed()
            report.faults[deed.__name__.replace("_", " ")] += 1
            time.sleep(chance.uniform(0.0, 0.3))
        _reckon(live, report)
    return report


def _broken_logs(live: LiveDaemon) -> set[str]:
    """Whose logs the daemon called broken and not mended; a successor of the one who said so begins anew."""
    text = live.text()
    last = text.rfind(f"pid {live.pid}, ")
    told = [(each.start(), each[1], each.re is MENDED) for what in (BROKEN, MENDED) for each in what.finditer(text)]
    mended = {name: is_mended for at, name, is_mended in sorted(told) if at > last}
    return {name for name, is_mended in mended.items() if not is_mended}


def _reckon_losses(live: LiveDaemon, report: Report) -> None:
    """What is missing of the loud one's lines is what the daemon said; a torn line at each end of a gap is neither."""
    log = live.folder / ".asupd" / "logs" / "loud.log"
    lines = log.read_bytes().split(b"\n")[:-1]
    there = [int(line) for line in lines if len(line) == LINE_BYTES - 1 and line.isdigit()]
    wrong = next((at for at in range(1, len(there)) if there[at] <= there[at - 1]), None)
    if wrong is not None:
        report.complaints.append(f"loud: {there[wrong]} comes after {there[wrong - 1]}")
    ends = [each for each in MENDED.finditer(live.text()) if each[1].startswith("loud") and each[2]]
    report.reported_bytes = sum(int(each[2]) for each in ends)
    report.missing_bytes = (there[-1] + 1 - len(there)) * LINE_BYTES
    report.lines += len(there)
    if abs(report.missing_bytes - report.reported_bytes) > 2 * LINE_BYTES * len(ends):
        report.complaints.append(
            f"loud: {report.missing_bytes} bytes are missing, {report.reported_bytes} were reported, {len(ends)} times"
        )


def _reckon(live: LiveDaemon, report: Report) -> None:
    """Everything runs once, and every number is there once."""
    names = [f"steady:{n}" for n in range(STEADY)] + [f"mortal:{n}" for n in range(4)] + ["family", "loud"]
    live.wait_until(lambda: {each["state"] for each in live.status().values()} == {"RUNNING"}, "everything runs again", every=0.3)
    live.wait_until(lambda: {each.name for each in live.tagged()} >= set(names), "all show their tags")  # not while they are just executed
    leaders = Counter(each.name for each in live.tagged() if each.is_leader and each.run == live.process_of(each.name)["run"])
    others = [each for each in live.tagged() if each.run != live.process_of(each.name)["run"]]
    report.complaints += [f"{each.name}: pid {each.identity.pid} of run {each.run} still lives" for each in others]
    report.complaints += [
        f"{name} runs {leaders[name]} times" for name in names if leaders[name] < 1 or (name != "family" and leaders[name] > 1)
    ]
    for number in range(STEADY):
        status = live.process_of(f"steady:{number}")
        if status["run"] != 1:
            report.complaints.append(f"steady:{number} was not left alone: run {status['run']}, {status['cause']}")
        log = live.folder / ".asupd" / "logs" / f"steady-{number}.log"
        numbers = [int(line) for line in log.read_bytes().split(b"\n")[:-1]]
        report.lines += len(numbers)
        wrong = next((at for at, each in enumerate(numbers) if each != at), None)
        if wrong is not None:
            report.complaints.append(f"steady:{number}: line {wrong} says {numbers[wrong]}")
    _reckon_losses(live, report)
    if live.end() != 0 or live.tagged():
        report.complaints.append(f"the end left {live.tagged()}")
