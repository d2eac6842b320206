"""The wall clock is set while everything runs, and the machine sleeps: no healthy program is touched, and nothing is due twice.

Daemon, programs and commands alike see the clocks that the test shows them (tests/liar.py). What the kernel itself goes
by is not shifted: the times of files that are written (beats here are ``utime``, which is), and timers that run already.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.daemons import LiveDaemon, python
from tests.liar import Liar

Make = Callable[..., LiveDaemon]
pytestmark = pytest.mark.real

HOUR = 3600.0
#: Far more than a test takes, far less than the clock is set by.
ABOUT = 1200.0
BEATING = "import os,time\nwhile True:\n  os.utime(os.environ['ASUP_HEARTBEAT_FILE'])\n  time.sleep(0.05)"
#: A file whose times are far off, and run backwards.
ASTRAY = (
    "import itertools,os,time\nfor n in itertools.count():\n  os.utime(os.environ['ASUP_HEARTBEAT_FILE'], (0, 4e9 - n))\n  time.sleep(0.05)"
)
NOTIFYING = """
import os, socket, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.connect(os.environ["NOTIFY_SOCKET"].replace("@", "\\0", 1))
s.send(b"READY=1")
while True:
  s.send(b"WATCHDOG=1")
  time.sleep(0.05)
"""
SPEAKING = "import time\nwhile True:\n  print(time.time(), flush=True)\n  time.sleep(0.05)"
#: Alive, and to be left alone.
HEALTHY = ("beating", "astray", "notifying", "speaking", "limited")
#: How long the healthy ones are watched after each change of a clock: more than a heartbeat's timeout.
WATCHED_SECONDS = 3.5


def programs() -> str:
    """Something for each kind of deadline. The daily jobs are due half an hour from now."""
    due = datetime.fromtimestamp(time.time() + HOUR / 2, UTC)
    daily = f"at: '{due.minute} {due.hour} * * *', timezone: UTC"
    return f"""
daemon: {{stop_timeout: 1s}}
defaults: {{start_seconds: 0}}
programs:
  beating: {{command: {python(BEATING)}, heartbeat: 3s}}
  astray: {{command: {python(ASTRAY)}, heartbeat: 3s}}
  notifying: {{command: {python(NOTIFYING)}, heartbeat: 3s, notify: true}}
  speaking: {{command: {python(SPEAKING)}, logs: {{format: timestamp}}}}
  limited: {{command: [sleep, "1000"], restart: {{max_restarts: 2, within: 20m, backoff: {{initial: 10ms, factor: 1}}}}}}
  waiting: {{command: ["false"], restart: {{backoff: {{initial: 30m, max: 30m}}}}}}
  soon: {{command: ["false"], restart: {{max_restarts: 1, backoff: {{initial: 3s, max: 3s}}}}, autostart: false}}
  starting: {{command: [sleep, "1000"], start_seconds: 20m}}
  stopping: {{command: [sh, -c, 'trap "" TERM; touch up; while :; do sleep 0.1; done'], stop: {{grace_period: 20m}}}}
  caught_up: {{command: ["true"], schedule: {{{daily}, catch_up: once}}}}
  left_out: {{command: ["true"], schedule: {{{daily}}}}}
  often: {{command: ["true"], schedule: "@every 1s"}}
"""


def settle(live: LiveDaemon) -> dict[str, int]:
    """Everything is where a deadline counts; the PIDs of the healthy ones."""
    for name in HEALTHY:
        live.wait_for(name, "RUNNING")
    live.wait_for("beating", "RUNNING", health="healthy")
    live.wait_for("waiting", "BACKOFF")
    live.wait_until((live.folder / "up").exists, "it ignores TERM")
    live.do("stop", "stopping", "--no-wait")
    live.wait_for("stopping", "STOPPING")
    os.kill(live.process_of("limited")["pid"], signal.SIGKILL)
    live.wait_for("limited", "RUNNING", run=2)
    live.wait_until(lambda: live.process_of("often")["run"] > 0, "the job that is often due was started")
    return {name: live.process_of(name)["pid"] for name in HEALTHY}


def goes_on(live: LiveDaemon, pids: dict[str, int]) -> dict[str, dict[str, Any]]:
    """For more than a heartbeat's timeout nobody is touched, no deadline is cut or passes early, and what is often due is started."""
    before = live.status()
    until = before["beating"]["uptime_seconds"] + WATCHED_SECONDS
    live.wait_until(lambda: live.process_of("beating")["uptime_seconds"] > until, "the heartbeat's timeout passes", every=0.3)
    live.wait_until(lambda: live.process_of("often")["run"] > before["often"]["run"] + 1, "what is often due is started", every=0.3)
    after = live.status()
    assert {name: (after[name]["state"], after[name]["pid"]) for name in pids} == {name: ("RUNNING", pid) for name, pid in pids.items()}
    assert [after[name]["health"] for name in HEALTHY[:3]] == ["healthy"] * 3
    assert [(after[name]["state"], after[name]["run"]) for name in ("waiting", "starting", "stopping")] == [
        ("BACKOFF", 1),
        ("STARTING", 1),
        ("STOPPING", 1),
    ]
    assert all(0 <= after[name]["uptime_seconds"] < ABOUT for name in pids)
    assert "Traceback" not in live.text(), live.text()[-8000:]
    return after


def jobs(live: LiveDaemon) -> tuple[int, int]:
    """How often the daily jobs were started: the one that is caught up, the one that is not."""
    return live.process_of("caught_up")["run"], live.process_of("left_out")["run"]


def close_to(at: float, expected: float) -> bool:
    return abs(at - expected) < ABOUT


def ends(live: LiveDaemon) -> None:
    assert live.end() == 0
    assert live.tagged() == []


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_the_wall_clock_is_set_and_set_right_again(daemon: Make, liar: Liar, tmp_path: Path, jump: float) -> None:
    live = daemon(programs(), environment=liar.environment)
    pids = settle(live)
    liar.jump(jump)
    shown = goes_on(live, pids)
    assert jobs(live) == ((1, 0) if jump > 0 else (0, 0))
    assert jump < 0 or any(event.get("data", {}).get("what") == "missed" for event in live.events() if event.get("name") == "left_out")
    # what people read goes by the clock that they see
    assert close_to(datetime.fromisoformat(shown["waiting"]["next_at"]).timestamp(), time.time() + jump + HOUR / 2)
    stamp, said = (tmp_path / ".asupd" / "logs" / "speaking.log").read_text().splitlines()[-1].split()[:2]
    assert close_to(datetime.fromisoformat(stamp).timestamp(), float(said)) and close_to(float(said), time.time() + jump)
    assert close_to(datetime.fromisoformat(live.events()[-1]["at"]).timestamp(), time.time() + jump)
    liar.jump(0)
    goes_on(live, pids)
    assert jobs(live) == ((1, 0) if jump > 0 else (0, 0)), "a time that comes again is not due again"
    os.kill(live.process_of("limited")["pid"], signal.SIGKILL)  # the window of twenty minutes saw the death before the first jump
    live.wait_for("limited", "RUNNING", run=3)
    os.kill(live.process_of("limited")["pid"], signal.SIGKILL)
    live.wait_for("limited", "FATAL", cause="restart_limit")
    durations = [entry["duration_seconds"] for entry in json.loads(live.do("history", "limited", "--json"))["runs"]]
    assert len(durations) == 3 and all(0 <= seconds < ABOUT for seconds in durations)
    ends(live)


def test_a_machine_that_slept_for_an_hour(daemon: Make, liar: Liar) -> None:
    """All stops at once; when it goes on, an hour has passed by the clocks that count sleep, and none by the one for decisions."""
    live = daemon(programs(), environment=liar.environment)
    pids = settle(live)
    live.do("start", "soon", "--no-wait")
    live.wait_for("soon", "BACKOFF")
    everybody = [live.pid, *(process.identity.pid for process in live.tagged())]
    often = live.process_of("often")["run"]
    asleep = [pid for pid in everybody if sent(pid, signal.SIGSTOP)]
    live.wait_until(lambda: all(state_of(pid) in "TZX" for pid in asleep), "everybody is stopped")
    liar.jump(HOUR, boottime_seconds=HOUR)
    woke = time.monotonic()
    for pid in asleep:
        sent(pid, signal.SIGCONT)
    live.wait_until(lambda: live.process_of("often")["run"] > often, "it goes on")
    assert live.process_of("often")["run"] - often <= time.monotonic() - woke + 2, "what was due often is not made up for"
    goes_on(live, pids)
    assert jobs(live) == (1, 0)
    assert live.wait_for("soon", "FATAL", cause="restart_limit")["run"] == 2
    ends(live)


def sent(pid: int, number: int) -> bool:
    """Whether it was there to hear it."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"
