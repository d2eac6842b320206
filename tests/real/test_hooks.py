"""Hooks of programs of a real daemon."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemons import LiveDaemon, alive

Make = Callable[..., LiveDaemon]
pytestmark = pytest.mark.real


def test_a_failing_before_start_shows_its_output(daemon: Make, tmp_path: Path) -> None:
    live = daemon("""
programs:
  a:
    command: [touch, started]
    hooks: {before_start: [sh, -c, "echo migration 7 is broken; exit 4"]}
    restart: {max_restarts: 1, backoff: {initial: 10ms}}
""")
    status = live.wait_for("a", "FATAL")
    assert (status["run"], status["cause"]) == (2, "restart_limit")
    assert "hook: before_start exited with 4: migration 7 is broken" in live.do("why", "a")
    assert not (tmp_path / "started").exists()
    live.wait_until(lambda: (tmp_path / ".asupd/logs/a.log").read_text().count("migration 7 is broken\n") == 2, "the log has it, too")


def test_hooks_run_around_each_run_and_learn_how_it_ended(daemon: Make, tmp_path: Path) -> None:
    after = "echo ${ASUP_EXIT_CODE-none} ${ASUP_EXIT_SIGNAL-none} $ASUP_CAUSE $ASUP_RUN $GREETING >> after"
    live = daemon(f"""
x-hook: &after [sh, -c, '{after.replace("${", "$${")}']
programs:
  a:
    command: [sh, -c, 'test -e prepared && test $ASUP_RUN != 1 || exit 3; exec sleep 1000']
    environment: {{GREETING: hello}}
    start_seconds: 0
    hooks: {{before_start: [touch, prepared], after_exit: *after}}
    restart: {{backoff: {{initial: 10ms}}}}
""")
    live.wait_for("a", "RUNNING", run=2)
    live.do("stop", "a")
    assert (tmp_path / "after").read_text().splitlines() == ["3 none exited 1 hello", "none SIGTERM operator 2 hello"]


def test_a_long_hook_is_given_up_by_a_stop_with_all_it_started(daemon: Make, tmp_path: Path) -> None:
    live = daemon("programs: {a: {command: [sleep, '1'], hooks: {before_start: [sh, -c, 'sleep 1000 & echo $! > pid; wait']}}}")
    live.wait_until(lambda: (tmp_path / "pid").read_text().strip(), "the hook runs")
    live.do("stop", "--timeout", "20s", "a")
    assert live.process_of("a")["state"] == "STOPPED"
    assert not alive(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("hastened", ["by stop_timeout", "by a second signal"])
def test_an_after_exit_that_hangs_does_not_hold_up_the_daemons_end(daemon: Make, tmp_path: Path, hastened: str) -> None:
    after = 'trap "" TERM; sleep 1000 & echo $! > pid; wait; sleep 1000'
    live = daemon(
        f"daemon: {{stop_timeout: {'1s' if hastened == 'by stop_timeout' else '10m'}}}\n"
        f"programs: {{a: {{command: [sleep, '1000'], start_seconds: 0, hooks: {{after_exit: [sh, -c, '{after}']}}}}}}",
        constants={"supervisord_async.supervise.runs.run.HASTY_SECONDS": 0.5},
    )
    live.wait_for("a", "RUNNING")
    live.send(signal.SIGTERM)
    live.wait_until(lambda: (tmp_path / "pid").read_text().strip(), "the hook runs")
    if hastened == "by a second signal":
        live.send(signal.SIGINT)
    assert live.wait() == 0
    assert "after_exit took too long for the daemon's end" in live.text()
    assert not alive(int((tmp_path / "pid").read_text()))


def test_a_hook_that_is_missing_is_a_failure_of_the_start_only(daemon: Make, tmp_path: Path) -> None:
    live = daemon("""
programs:
  before: {command: [sleep, "1"], hooks: {before_start: ./no-such-hook}, restart: {max_restarts: 0}}
  after: {command: ["false"], hooks: {after_exit: ./no-such-hook}, restart: {max_restarts: 1, backoff: {initial: 10ms}}}
""")
    assert live.wait_for("before", "FATAL")["cause"] == "restart_limit"
    assert "hook: cannot run before_start: exec: ./no-such-hook" in live.do("why", "before")
    assert live.wait_for("after", "FATAL")["run"] == 2
    assert "after_exit cannot be run: exec: ./no-such-hook" in live.text()


def test_a_hook_that_floods_stops_nothing(daemon: Make, tmp_path: Path) -> None:
    live = daemon(
        "programs: {a: {command: [sleep, '1000'], start_seconds: 0, hooks: {before_start: [sh, -c, 'head -c 3000000 /dev/zero | tr \"\\\\0\" x; echo; echo end']}}}"
    )
    live.wait_for("a", "RUNNING")
    log = tmp_path / ".asupd/logs/a.log"
    live.wait_until(lambda: log.read_bytes() == b"x" * 3_000_000 + b"\nend\n", "all of it is in the log")
