"""A dead daemon's programs are ended, by the guardian or by ``cleanup``; the next daemon makes of that what was wished for."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from supervisord_async.supervise.recovery import guardian
from tests.daemons import LiveDaemon, alive, unbroken

Make = Callable[..., LiveDaemon]
pytestmark = pytest.mark.real

SLEEPER = "programs: {a: {command: [sleep, '1000'], start_seconds: 0}}"


def guardians(live: LiveDaemon) -> int:
    """How many guardians this folder's daemons have."""
    return len(guardian_pids(live))


def lock_of(live: LiveDaemon) -> str:
    return str(live.folder / ".asupd" / "asupd.lock")


def guardian_pids(live: LiveDaemon) -> list[int]:
    lock = lock_of(live).encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if lock in (entry / "cmdline").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def test_on_death_stop_ends_the_programs_of_a_daemon_that_does_not_return(daemon: Make, tmp_path: Path) -> None:
    tree = "(exec setsid sleep 1000) & exec sleep 1000"
    live = daemon(
        f"daemon: {{on_death: stop}}\nprograms: {{a: {{command: [sleep, '1000'], start_seconds: 0}}, b: {{command: {json.dumps(tree)}, shell: true, start_seconds: 0}}}}"
    )
    for name in ("a", "b"):
        live.wait_for(name, "RUNNING")
    live.wait_until(lambda: len(live.tagged()) == 3, "the whole tree is there")
    live.wait_until(lambda: guardians(live) == 1, "the guardian is there")
    live.kill()
    live.wait_until(lambda: live.tagged() == [], "everything is ended")
    live.wait_until(lambda: guardians(live) == 0, "the guardian has done its duty")


def test_the_guardian_kills_what_takes_no_term(daemon: Make) -> None:
    stubborn = "trap '' TERM; (trap '' TERM; exec setsid sleep 1000) & touch up; while :; do sleep 0.1; done"
    how = "shell: true, start_seconds: 0, stop: {grace_period: 0.5s}"
    live = daemon(f"programs: {{b: {{command: {json.dumps(stubborn)}, {how}}}}}")
    live.wait_until((live.folder / "up").exists, "it ignores TERM")
    live.wait_until(lambda: len(live.tagged()) >= 2, "the whole tree is there")
    live.kill()
    guardian.end_all(live.instance, lock_of(live))
    assert live.tagged() == []


def test_on_death_stop_spares_the_programs_of_a_daemon_that_returns(daemon: Make) -> None:
    live = daemon("daemon: {on_death: stop}\nprograms: {a: {command: [sleep, '1000'], start_seconds: 0}}")
    pid = live.wait_for("a", "RUNNING")["pid"]
    live.wait_until(lambda: guardians(live) == 1, "the guardian is there")
    live.kill()
    live.start()
    live.wait_until(lambda: guardians(live) == 1, "one guardian, the successor's")
    live.do("reexec")
    live.wait_until(live.answers, "it answers again")
    live.wait_until(lambda: guardians(live) == 1, "one guardian still")
    assert live.wait_for("a", "RUNNING")["pid"] == pid
    assert live.end() == 0
    live.wait_until(lambda: guardians(live) == 0, "no guardian is left")


def test_on_death_follows_a_reload_and_a_killed_guardian_is_replaced(daemon: Make) -> None:
    live = daemon(SLEEPER, constants={"supervisord_async.supervise.recovery.guardian_process.PAUSE_SECONDS": 0.5})
    live.write("daemon: {on_death: stop}\n" + SLEEPER)
    live.do("reload")
    live.wait_until(lambda: guardians(live) == 1, "the guardian is there")
    (guardian,) = guardian_pids(live)
    os.kill(guardian, signal.SIGKILL)
    live.wait_until(lambda: guardian_pids(live) not in ([], [guardian]), "there is another one")
    live.write(SLEEPER)
    live.do("reload")
    live.wait_until(lambda: guardians(live) == 0, "there is none")


SLOW_TO_GO = """
defaults: {start_seconds: 0}
programs:
  slow: {command: "trap 'sleep 1; exit 0' TERM; while :; do sleep 0.05; done", shell: true, restart: never}
  quick: {command: [sleep, "1000"], restart: on-failure}
  down: {command: [sleep, "1000"]}
  done: {command: ["true"], restart: never}
"""


def _up_and_down(live: LiveDaemon) -> None:
    for name in ("slow", "quick", "down"):
        live.wait_for(name, "RUNNING")
    live.do("stop", "down")
    live.wait_for("done", "EXITED")


def _as_before(live: LiveDaemon) -> None:
    """What had lived was started, what an operator had stopped or had ended by itself was not."""
    live.wait_for("slow", "RUNNING", run=2, restarts=0)
    live.wait_for("quick", "RUNNING", run=2, restarts=0)
    assert live.process_of("down")["cause"] == "operator" and live.process_of("down")["state"] == "STOPPED"
    assert live.process_of("done")["run"] == 1
    assert sorted(process.name for process in live.tagged() if process.is_leader and process.run == 2) == ["quick", "slow"]
    assert not [process for process in live.tagged() if process.run == 1]


@pytest.mark.parametrize("returns", ["amid it", "afterwards"])
def test_what_the_guardian_ended_runs_again_with_the_next_daemon(daemon: Make, returns: str) -> None:
    """The guardian is here, and gives no time to return."""
    live = daemon(SLOW_TO_GO)
    _up_and_down(live)
    live.kill()
    with ThreadPoolExecutor() as threads:
        ended = threads.submit(guardian.end_all, live.instance, lock_of(live))
        if returns == "amid it":
            live.wait_until((live.folder / ".asupd" / "ending").exists, "the guardian has begun")
        else:
            ended.result()
            assert not live.tagged()
        live.start()
    _as_before(live)
    live.kill()  # the ending is over: now they are taken over
    live.start()
    _as_before(live)


def test_what_cleanup_ended_runs_again_with_the_next_daemon(daemon: Make) -> None:
    live = daemon(SLOW_TO_GO)
    _up_and_down(live)
    live.kill()
    live.do("cleanup", "--apply")
    live.start()
    _as_before(live)


TAKES_ITS_TIME = """
defaults: {start_seconds: 0}
programs:
  long:
    command: "trap 'echo told >> told; while [ ! -e go ]; do sleep 0.05; done; exit 0' USR1; trap : TERM; echo up; while :; do sleep 0.05; done"
    shell: true
    stop: {signal: USR1, grace_period: 10m}
  stubborn: {command: "trap '' TERM; while :; do sleep 0.05; done", shell: true, stop: {grace_period: 100ms}}
  wrapped: {command: "sh -c 'trap : TERM; echo up; while [ ! -e go ]; do sleep 0.05; done' & wait", shell: true, stop: {grace_period: 10m}}
"""


def _manners(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / ".asupd" / "state.json").read_bytes().partition(b"\n")[2])["manners"])


def test_a_daemon_that_comes_amid_an_ending_answers_and_gives_each_program_its_time(daemon: Make, tmp_path: Path) -> None:
    live = daemon(TAKES_ITS_TIME)
    for name in ("long", "wrapped"):
        live.wait_for(name, "RUNNING")
        live.wait_until(lambda name=name: "up" in live.do("logs", name), f"{name} to hear")
    pids = {name: live.process_of(name)["pid"] for name in ("long", "wrapped")}
    assert _manners(tmp_path) == {"long": [10, 600.0, "tree"], "stubborn": [15, 0.1, "tree"], "wrapped": [15, 600.0, "tree"]}
    live.write(TAKES_ITS_TIME.replace("signal: USR1, grace_period: 10m", "signal: USR1, grace_period: 1h"))
    live.do("reload")
    live.wait_until(lambda: _manners(tmp_path)["long"] == [10, 3600.0, "tree"], "what changed in place is saved")
    live.kill()
    os.kill(pids["wrapped"], signal.SIGKILL)  # its wrapper heard at once, and what it wraps has time
    (tmp_path / ".asupd" / "ending").touch()  # as the guardian leaves it
    live.start()  # until it answers
    assert live.process_of("long")["state"] == live.process_of("wrapped")["state"] == "STOPPING"
    live.wait_until(lambda: (tmp_path / "told").exists(), "the program's own signal")
    live.wait_for("stubborn", "RUNNING", run=2)
    assert {each.run for each in live.tagged() if each.name == "wrapped"} == {1}
    assert alive(pids["long"])
    (tmp_path / "go").touch()
    live.wait_for("long", "RUNNING", run=2, restarts=0)
    live.wait_until(lambda: live.process_of("wrapped")["run"] >= 2, "the wrapped one's next run")
    assert not [each for each in live.tagged() if each.run == 1]
    unbroken(live)
