"""Stopping real processes: the asked way first, the hard way in time, and as PID 1."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisord_async.client import Client
from supervisord_async.errors import NoDaemonError
from tests.daemons import LiveDaemon, alive

Make = Callable[..., LiveDaemon]
pytestmark = pytest.mark.real


def stubborn(said: str = "") -> str:
    """``command:`` of a program that takes no TERM."""
    return json.dumps(["sh", "-c", f"trap '' TERM; touch {said or '/dev/null'}; while :; do sleep 0.05; done"])


def test_a_stop_command_ends_the_program_its_own_way(daemon: Make, tmp_path: Path) -> None:
    """It runs as the program does, knows whom to stop, and no signal is needed."""
    script = "trap 'echo term >> signals' TERM; while [ ! -e please ]; do sleep 0.05; done; echo bye > ended; exit 0"
    live = daemon(f"""
programs:
  w:
    command: {json.dumps(["sh", "-c", script])}
    environment: {{WORD: please}}
    stop:
      command: [sh, -c, 'echo $ASUP_MAIN_PID $ASUP_NAME > who; touch $WORD; while [ ! -e ended ]; do sleep 0.05; done']
      grace_period: 20s
    start_seconds: 0
""")
    pid = live.wait_for("w", "RUNNING")["pid"]
    live.do("stop", "w")
    assert (tmp_path / "who").read_text().split() == [str(pid), "w"]
    status = live.process_of("w")
    assert (status["state"], status["exit_status"]) == ("STOPPED", {"code": 0}) and not (tmp_path / "signals").exists()


def test_a_stop_command_that_hangs_or_is_missing_delays_no_stop_beyond_the_grace_period(daemon: Make, tmp_path: Path) -> None:
    live = daemon(f"""
programs:
  hanging: {{command: {stubborn()}, stop: {{command: [sleep, "1000"], grace_period: 500ms}}, start_seconds: 0}}
  missing: {{command: [sleep, "1000"], stop: {{command: [/no/such/command], grace_period: 10m}}, start_seconds: 0}}
""")
    pids = [live.wait_for(name, "RUNNING")["pid"] for name in ("hanging", "missing")]
    live.do("stop", "hanging", "missing")
    assert not any(map(alive, pids)) and live.tagged() == []
    assert live.process_of("missing")["exit_status"] == {"signal": "SIGTERM", "core": False}  # the signal came instead
    assert "/no/such/command" in live.text()


def test_what_loses_its_parent_becomes_the_daemons_child(daemon: Make, tmp_path: Path) -> None:
    live = daemon("programs: {a: {command: '(setsid sleep 1000 & echo $! > orphan); exec sleep 1000', shell: true, start_seconds: 0}}")
    live.wait_until(lambda: (tmp_path / "orphan").read_text().strip(), "it has forked")
    stat = Path("/proc", (tmp_path / "orphan").read_text().strip(), "stat")
    live.wait_until(lambda: stat.read_text().rpartition(")")[2].split()[1] == str(live.pid), "it is ours")
    live.do("stop", "a")
    assert live.tagged() == []


def test_scope_main_leaves_descendants_alone(daemon: Make, tmp_path: Path) -> None:
    live = daemon("programs: {w: {command: [sh, -c, 'sleep 1000 & echo $! > child; wait'], stop: {scope: main}, start_seconds: 0}}")
    live.wait_until(lambda: (tmp_path / "child").read_text().strip(), "the child is there")
    child, main = int((tmp_path / "child").read_text()), live.wait_for("w", "RUNNING")["pid"]
    live.do("stop", "w")
    assert not alive(main) and alive(child)
    os.kill(child, signal.SIGKILL)


def test_scope_mixed_tells_the_main_process_first_and_the_rest_when_that_has_gone(daemon: Make, tmp_path: Path) -> None:
    """As a queue's worker is to be stopped: it finishes its task by processes that must not hear of it. Also over a re-exec."""
    rest = "trap 'echo rest >> order; exit' TERM; touch rest-up; while :; do sleep 0.05; done"
    main = f"trap 'touch asked' TERM; sh -c {json.dumps(rest)} & while [ ! -e go ]; do sleep 0.05; done; echo main >> order; exit 7"
    live = daemon(f"""
programs: {{w: {{command: {json.dumps(["sh", "-c", main])}, stop: {{scope: mixed, grace_period: 1h}}, start_seconds: 0}}}}
""")
    live.wait_until((tmp_path / "rest-up").exists, "all of it is up")
    live.do("stop", "--no-wait", "w")
    live.wait_until((tmp_path / "asked").exists, "the main process was asked")
    live.do("reexec")
    (tmp_path / "go").touch()
    live.do("stop", "w")
    assert (tmp_path / "order").read_text().split() == ["main", "rest"]
    assert live.process_of("w")["exit_status"] == {"code": 7} and live.tagged() == []


def test_scope_mixed_kills_all(daemon: Make, tmp_path: Path) -> None:
    command = json.dumps(["sh", "-c", "trap '' TERM; setsid sleep 1000 & touch up; while :; do sleep 0.05; done"])
    live = daemon(f"programs: {{w: {{command: {command}, stop: {{scope: mixed, grace_period: 200ms}}, start_seconds: 0}}}}")
    live.wait_until((tmp_path / "up").exists, "it is up")
    live.do("stop", "w")
    assert live.process_of("w")["exit_status"] == {"signal": "SIGKILL", "core": False} and live.tagged() == []


def test_a_program_that_leaves_for_the_background_is_ended_and_told(daemon: Make) -> None:
    live = daemon("""
defaults: {autostart: false}
programs:
  forks: {command: [sh, -c, "(exec setsid sleep 1000) & exit 0"]}
  main: {command: [sh, -c, "(exec setsid sleep 1000) & exit 0"], stop: {scope: main}}
""")
    said = live.do("start", "forks")
    assert "run 1 exited with 0; it left 1 process (" in said and "a program has to stay in the foreground" in said
    assert "it left 1 process" in live.do("status", "forks") and "it left 1 process" in live.do("why", "forks")
    assert "exited with 0; it left 1 process" in live.do("history", "forks") and live.tagged() == []
    assert live.do("start", "main") == "main: run 1 exited with 0: it is done\n" and len(live.tagged()) == 1


def test_scope_main_holds_for_the_kill_too(daemon: Make, tmp_path: Path) -> None:
    script = "trap '' TERM; sleep 1000 & echo $! > child; while :; do wait; done"
    settings = "stop: {scope: main, grace_period: 200ms}, start_seconds: 0"
    live = daemon(f"programs: {{w: {{command: {json.dumps(['sh', '-c', script])}, {settings}}}}}")
    live.wait_until(lambda: (tmp_path / "child").read_text().strip(), "the child is there")
    child, main = int((tmp_path / "child").read_text()), live.wait_for("w", "RUNNING")["pid"]
    live.do("stop", "w")
    assert not alive(main) and alive(child)
    assert live.process_of("w")["exit_status"] == {"signal": "SIGKILL", "core": False}
    os.kill(child, signal.SIGKILL)


def test_a_suspended_program_hears_its_stop(daemon: Make, tmp_path: Path) -> None:
    """TERM alone would wait in a stopped process for its SIGKILL."""
    script = "trap 'touch heard; exit 0' TERM; touch up; while :; do sleep 0.05; done"
    live = daemon(f"programs: {{w: {{command: {json.dumps(['sh', '-c', script])}, stop: {{grace_period: 10m}}, start_seconds: 0}}}}")
    live.wait_until((tmp_path / "up").exists, "it is up")
    os.kill(live.wait_for("w", "RUNNING")["pid"], signal.SIGSTOP)
    live.do("stop", "w")
    assert (tmp_path / "heard").exists()


def test_a_daemon_that_is_told_to_go_to_the_last_ends_well(daemon: Make) -> None:
    live = daemon("programs: {w: {command: [sleep, '1000'], start_seconds: 0}}")
    live.wait_for("w", "RUNNING")
    live.send(signal.SIGTERM)
    live.wait_until(lambda: "everything is down" in live.text(), "everything is down", every=0.001)
    assert live.process is not None
    while live.process.poll() is None:  # bounded by the test's own time
        live.send(signal.SIGTERM)
        time.sleep(0.01)
    assert live.wait() == 0


def test_the_last_record_of_a_daemon_is_in_the_history_of_the_next(daemon: Make) -> None:
    live = daemon("programs: {w: {command: [sleep, '1000'], start_seconds: 0}}")
    live.wait_for("w", "RUNNING")
    assert live.end() == 0
    live.start()
    told = [event["message"] for event in live.events()]
    assert "everything is down; ending with 0" in told


@pytest.mark.parametrize("by_reexec", [True, False])
def test_what_scope_main_has_left_behind_outlives_the_daemon(daemon: Make, tmp_path: Path, by_reexec: bool) -> None:
    script = "sleep 1000 & echo $! > left"
    live = daemon(f"programs: {{w: {{command: {json.dumps(['sh', '-c', script])}, restart: never, stop: {{scope: main}}}}}}")
    live.wait_for("w", "EXITED")
    left = int((tmp_path / "left").read_text())
    if by_reexec:
        live.do("reexec")
        live.wait_until(lambda: "re-executed" in live.text(), "the new code is there")
    else:
        live.kill()
        live.start()
    live.do("start", "w")
    assert alive(left)
    for pid in (left, int((tmp_path / "left").read_text())):
        os.kill(pid, signal.SIGKILL)


def test_a_program_gets_the_signal_it_asks_for(daemon: Make, tmp_path: Path) -> None:
    script = "trap 'touch int; exit 0' INT; trap '' TERM; touch up; while :; do sleep 0.05; done"
    live = daemon(f"""
programs:
  w: {{command: {json.dumps(["sh", "-c", script])}, stop: {{signal: INT, grace_period: 10m}}, start_seconds: 0}}
""")
    live.wait_until((tmp_path / "up").exists, "it is up")
    live.do("stop", "w")
    assert (tmp_path / "int").exists()


def test_the_whole_shutdown_has_a_bound(daemon: Make, tmp_path: Path) -> None:
    live = daemon(
        f"daemon: {{stop_timeout: 500ms}}\nprograms: {{a: {{command: {stubborn('up.a')}, stop: {{grace_period: 10m}}, start_seconds: 0}}, "
        f"b: {{command: {stubborn('up.b')}, depends_on: [a], stop: {{grace_period: 10m}}, start_seconds: 0}}}}"
    )
    live.wait_until(lambda: (tmp_path / "up.a").exists() and (tmp_path / "up.b").exists(), "both are up")
    assert live.end() == 0
    assert live.tagged() == []


def daemon_below(pid: int) -> int | None:
    """The child of ``unshare``."""
    return next(iter(children_of(pid)), None)


def children_of(pid: int) -> list[int]:
    """Zombies too."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_as_pid_1_it_reaps_every_orphan_and_leaves_nothing(daemon: Make, tmp_path: Path) -> None:
    """In a PID namespace of its own, as in a container: who double-forks gives its children to us."""
    namespace = ("unshare", "--pid", "--fork", "--mount-proc")
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine gives us no PID namespace")
    forks = (
        "import os, time\n"
        "for n in range(50):\n"
        "  if os.fork() == 0:\n"
        "    if os.fork() == 0: time.sleep(0.05)\n"
        "    os._exit(0)\n"
        "  os.wait()\n"
        "open('forked', 'w').close(); time.sleep(1000)"
    )
    programs = f"""
programs:
  f: {{command: [{sys.executable}, -c, {json.dumps(forks)}], stop: {{scope: main}}, start_seconds: 0}}
  j: {{command: ["true"]}}
"""
    live = daemon(programs, start=False, prefix=namespace)
    live.start(wait=False)

    def first_process() -> int | None:
        with Client(tmp_path / ".asupd" / "asupd.sock") as client:
            try:
                return client.health().pid
            except NoDaemonError:
                return None

    live.wait_until(lambda: first_process() == 1, "it answers as PID 1")
    inside = daemon_below(live.pid)
    assert inside is not None
    live.wait_until((tmp_path / "forked").exists, "fifty orphans were made")
    live.wait_until(lambda: len(children_of(inside)) == 1, "all are dead and reaped, but for their maker")
    live.wait_for("j", "EXITED")
    assert live.process_of("j")["exit_status"] == {"code": 0}  # and no child's status was taken away
    os.kill(inside, signal.SIGTERM)
    assert live.wait() == 0


def test_five_hundred_restarts_cost_no_descriptor_and_leave_no_zombie(daemon: Make) -> None:
    """Quick deaths, with a heartbeat and a log each."""
    live = daemon("""
programs:
  r: {command: [sh, -c, "echo hello; exit 1"], heartbeat: 10s, restart: {policy: always, backoff: {initial: 0, max: 0}}}
""")

    def held() -> tuple[int, int]:
        proc = Path(f"/proc/{live.pid}")
        return len(os.listdir(proc / "fd")), len((proc / f"task/{live.pid}/children").read_text().split())

    live.wait_until(lambda: live.process_of("r")["run"] >= 20, "it restarts", every=0.2)
    live.do("stop", "r")
    before = held()
    live.do("start", "r", "--no-wait")
    live.wait_until(lambda: live.process_of("r")["run"] >= 520, "five hundred times", every=0.5)
    live.do("stop", "r")
    live.wait_until(
        lambda: all(now <= then for now, then in zip(held(), before, strict=True)), f"to hold no more than {before}, not {held()}"
    )


def test_a_stop_command_that_only_asks_is_given_the_grace_period(daemon: Make, tmp_path: Path) -> None:
    """No signal overtakes what it asked for; what the main process leaves behind then hears the signal."""
    left = "trap 'touch left-heard; exit' TERM; touch left-up; while :; do sleep 0.05; done"
    main = f"trap 'touch term' TERM; sh -c {json.dumps(left)} & while [ ! -e please ]; do sleep 0.05; done; sleep 0.3; exit 7"
    live = daemon(f"""
programs:
  w: {{command: {json.dumps(["sh", "-c", main])}, stop: {{command: [touch, please], grace_period: 1h}}, start_seconds: 0}}
  failing: {{command: [sleep, "1000"], stop: {{command: ["false"], grace_period: 1h}}, start_seconds: 0}}
""")
    live.wait_until((tmp_path / "left-up").exists, "all of it is up")
    live.wait_for("w", "RUNNING")
    live.do("stop", "w", "failing")
    status = live.process_of("w")
    assert (status["state"], status["exit_status"]) == ("STOPPED", {"code": 7}) and not (tmp_path / "term").exists()
    assert (tmp_path / "left-heard").exists() and live.tagged() == []
    assert live.process_of("failing")["exit_status"] == {"signal": "SIGTERM", "core": False}  # it failed: the signal came instead


IN_ORDER = (
    "programs: {db: {command: [sleep, '1000'], start_seconds: 0}, web: {command: [sh, -c, 'trap \"\" TERM; touch up; while :; do sleep 0.1; done'],"
    " start_seconds: 0, stop: {grace_period: GRACE}, depends_on: [db]}}"
)


@pytest.mark.parametrize("by", ["death", "re-exec"])
def test_a_stop_that_waits_for_its_turn_survives_the_daemon(daemon: Make, by: str) -> None:
    live = daemon(IN_ORDER.replace("GRACE", "1h"))
    live.wait_until((live.folder / "up").exists, "it ignores TERM")
    db = live.wait_for("db", "RUNNING")["pid"]
    live.do("stop", "all", "--no-wait")
    live.wait_for("web", "STOPPING")
    if by == "death":
        live.kill()
        live.start()
    else:
        live.do("reexec")
    assert live.process_of("web")["state"] == "STOPPING" and live.process_of("db")["pid"] == db, "db waits for its dependent"
    live.do("signal", "KILL", "web")
    live.wait_for("db", "STOPPED", cause="operator", run=1)
    assert not alive(db) and live.process_of("web")["state"] == "STOPPED"


def test_a_start_that_was_answered_outlives_a_stop_that_waited_for_its_turn(daemon: Make) -> None:
    live = daemon(IN_ORDER.replace("GRACE", "2s"))
    live.wait_until((live.folder / "up").exists, "it ignores TERM")
    db = live.wait_for("db", "RUNNING")["pid"]
    live.do("stop", "all", "--no-wait")
    live.wait_for("web", "STOPPING")
    live.do("start", "db")
    live.kill()
    live.start()
    live.wait_for("web", "STOPPED", cause="operator")
    assert live.process_of("db")["pid"] == db and live.process_of("db")["state"] == "RUNNING"


def test_a_stop_in_order_that_was_answered_outlives_a_death_in_that_moment(daemon: Make) -> None:
    live = daemon(IN_ORDER.replace("GRACE", "100ms"))
    for _ in range(3):
        live.wait_for("web", "RUNNING")
        live.do("stop", "all")
        live.kill()
        live.start()
        live.wait_for("web", "STOPPED")
        assert (live.process_of("db")["state"], live.process_of("db")["cause"]) == ("STOPPED", "operator")
        live.do("start", "all")
