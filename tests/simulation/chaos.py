"""Misfortune on real processes, by a seed, and what must have survived it."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
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
STEADY = 2  #: talkers that nothing of this kills: their output is one sequence
AGAIN = "start_seconds: 0, restart: {policy: always, backoff: {initial: 50ms, max: 200ms}}"
PROGRAMS = f"""
programs:
  steady: {{command: [{sys.executable}, -c, {json.dumps(TALKER)}], replicas: {STEADY}, start_seconds: 0, logs: {{max_size: 1GiB}}}}
  mortal: {{command: [sleep, "SECONDS"], replicas: 4, {AGAIN}}}
  family: {{command: [sh, -c, "setsid sleep 1000 & sleep 1000"], {AGAIN}}}
"""


@dataclass
class Report:
    """What was done, and what was wrong afterwards."""

    faults: Counter[str] = field(default_factory=Counter)
    lines: int = 0
    complaints: list[str] = field(default_factory=list)

    def describe(self) -> str:
        done = ", ".join(f"{count} × {what}" for what, count in sorted(self.faults.items()))
        verdict = "nothing was lost or doubled" if not self.complaints else "\n".join(self.complaints)
        return f"{sum(self.faults.values())} faults ({done}), {self.lines} lines: {verdict}"


def programs(seconds: int) -> str:
    """The file; with another number of ``seconds`` the mortal ones are to be restarted."""
    return PROGRAMS.replace("SECONDS", str(seconds))


def run(folder: Path, *, seed: int, seconds: float) -> Report:
    """Misfortune for so long, then the reckoning; nothing is left running."""
    chance, report, edits = random.Random(seed), Report(), 0
    with LiveDaemon(folder, programs(1000)) as live:

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

        deeds: list[tuple[Callable[[], None], int]] = [
            (kill_program, 8),
            (kill_daemon, 2),
            (reload, 2),
            (reexec, 1),
            (starve, 1),
            (freeze, 1),
        ]
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            deed = chance.choices([each for each, _ in deeds], [weight for _, weight in deeds])[0]
            deed()
            report.faults[deed.__name__.replace("_", " ")] += 1
            time.sleep(chance.uniform(0.0, 0.3))
        _reckon(live, report)
    return report


def _reckon(live: LiveDaemon, report: Report) -> None:
    """Everything runs once, and every number is there once."""
    names = [f"steady:{n}" for n in range(STEADY)] + [f"mortal:{n}" for n in range(4)] + ["family"]
    live.wait_until(lambda: {each["state"] for each in live.status().values()} == {"RUNNING"}, "everything runs again", every=0.3)
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
    if live.end() != 0 or live.tagged():
        report.complaints.append(f"the end left {live.tagged()}")
