"""Programs in all the states that outlive a daemon, and what must be true of them under its successor."""

from __future__ import annotations

import json
import sys

from tests.daemons import LiveDaemon

COUNTER = "import itertools,sys,time\nfor n in itertools.count():\n  print(n, flush=True)\n  time.sleep(0.0005)"
PROGRAMS = f"""
programs:
  counter: {{command: [{sys.executable}, -c, {json.dumps(COUNTER)}], start_seconds: 0}}
  quiet: {{command: [sleep, "1000"], start_seconds: 0}}
  many: {{command: [sleep, "1000"], replicas: 3, start_seconds: 0}}
  stopped: {{command: [sleep, "1000"], start_seconds: 0}}
  flaky: {{command: ["false"], restart: {{backoff: {{initial: 1h, max: 1h}}}}}}
"""
NAMES = ("counter", "quiet", "many:0", "many:1", "many:2")
SLEEPER = "programs: {a: {command: [sleep, '1000'], start_seconds: 0}}"


def settle(live: LiveDaemon) -> dict[str, int]:
    """Everything is up, one is stopped by the operator, one waits in BACKOFF; the PIDs."""
    pids = {name: live.wait_for(name, "RUNNING")["pid"] for name in NAMES}
    live.do("stop", "stopped")
    live.wait_for("flaky", "BACKOFF", restarts=1)
    return pids


def check_nothing_lost(live: LiveDaemon, pids: dict[str, int], cause: str | None = None) -> None:
    """The same processes, once each; wishes and counters as they were; every line once."""
    for name, pid in pids.items():
        status = live.wait_for(name, "RUNNING")
        assert (status["pid"], status["run"]) == (pid, 1), name
        assert cause is None or status["cause"] == cause, name
    assert live.process_of("stopped")["state"] == "STOPPED"
    assert (live.process_of("flaky")["state"], live.process_of("flaky")["restarts"]) == ("BACKOFF", 1)
    assert sorted(process.identity.pid for process in live.tagged()) == sorted(pids.values())


def check_log(live: LiveDaemon) -> None:
    """The counter's numbers are in its log, each once, in order, and go on."""
    log = live.folder / ".asupd" / "logs" / "counter.log"
    count = len(log.read_bytes().splitlines())
    live.wait_until(lambda: len(log.read_bytes().splitlines()) > count + 50, "the counter goes on")
    numbers = [int(line) for line in log.read_bytes().split(b"\n")[:-1]]
    assert numbers == list(range(len(numbers)))
