"""When a command is done, judged from snapshots alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from supervisord_async.control.goal import WAITS, Verdict, is_restarted, is_started, is_stopped
from supervisord_async.core.policy import OnLimit, Policy
from supervisord_async.core.state import Cause, Check, ExitStatus, Health, Snapshot, State

DONE, FAILED = ExitStatus(code=0), ExitStatus(code=1)
LIMIT = {"cause": Cause.RESTART_LIMIT, "detail": "restart limit of 3 reached; last: exited", "exit": FAILED}


def one(state: State, on_limit: OnLimit = OnLimit.FATAL, **fields: Any) -> Any:
    """A process as goals see it."""
    return SimpleNamespace(snapshot=Snapshot(**{"state": state, "run": 2, **fields}), policy=Policy(on_limit=on_limit))


@pytest.mark.parametrize(
    ("process", "verdict"),
    [
        (one(State.RUNNING, pid=7), Verdict(True, "running, pid 7, run 2")),
        (one(State.EXITED, exit=DONE), Verdict(True, "run 2 exited with 0: it is done")),
        (one(State.EXITED, exit=FAILED, cause=Cause.EXITED), Verdict(False, "run 2 exited with 1")),
        (one(State.STARTING), None),
        (one(State.WAITING), None),
        (one(State.STOPPING), None),
        (one(State.STOPPED, cause=Cause.OPERATOR), Verdict(False, "stopped meanwhile (operator)")),
        (one(State.STOPPED), Verdict(False, "stopped meanwhile (not started)")),
        (one(State.BACKOFF, cause=Cause.SPAWN_FAILED, detail="exec: no such file"), Verdict(False, "exec: no such file")),
        (one(State.FATAL, **LIMIT), Verdict(False, "restart limit of 3 reached; last: exited with 1")),
        (one(State.UNKNOWN, detail="a bug"), Verdict(False, "a bug broke its supervision, its process is left alone: a bug")),
    ],
)
def test_a_start_is_done_when_it_runs_or_was_a_job_that_ended_well(process: Any, verdict: Verdict | None) -> None:
    assert is_started(process, Snapshot()) == verdict


def test_a_restart_is_done_with_a_newer_run_alone() -> None:
    before = Snapshot(state=State.RUNNING, run=2, pid=7)
    assert is_restarted(one(State.RUNNING, pid=7), before) is None
    assert is_restarted(one(State.EXITED, exit=DONE), before) is None
    assert is_restarted(one(State.RUNNING, pid=8, run=3), before) == Verdict(True, "running, pid 8, run 3")


@pytest.mark.parametrize(
    ("process", "verdict"),
    [
        (one(State.STOPPED, ended_run=2, exit=ExitStatus(signal=15)), Verdict(True, "stopped; killed by SIGTERM")),
        (one(State.STOPPED, ended_run=1), Verdict(True, "stopped")),
        (one(State.STOPPING), None),
        (one(State.STARTING, cause=Cause.OPERATOR), Verdict(False, "started again meanwhile (operator)")),
        (one(State.UNKNOWN, detail="a bug"), Verdict(False, "a bug broke its supervision, its process is left alone: a bug")),
    ],
)
def test_a_stop_is_done_when_it_is_stopped(process: Any, verdict: Verdict | None) -> None:
    assert is_stopped(process, Snapshot(state=State.RUNNING, run=2, ended_run=1)) == verdict


def test_a_stop_before_there_was_a_process_tells_of_no_end() -> None:
    """``exit`` is that of the run before."""
    for earlier in (None, FAILED):
        starting = Snapshot(state=State.STARTING, run=2, ended_run=1, exit=earlier)
        assert is_stopped(one(State.STOPPED, ended_run=2, exit=earlier), starting) == Verdict(True, "stopped")


def test_a_stop_of_what_is_stopped_is_done() -> None:
    assert is_stopped(one(State.STOPPED), Snapshot(state=State.STOPPED)) == Verdict(True, "already stopped")


SICK = (Check("liveness", Health.UNHEALTHY, "refused"),)


@pytest.mark.parametrize(
    ("for_", "process", "ok"),
    [
        ("ready", one(State.RUNNING, pid=7), True),
        ("ready", one(State.RUNNING, pid=7, checks=SICK), None),
        ("ready", one(State.STOPPED), None),
        ("ready", one(State.BACKOFF), None),
        ("ready", one(State.FATAL, **LIMIT), False),
        ("ready", one(State.FATAL, OnLimit.RETRY, **LIMIT), None),
        ("ready", one(State.FATAL, OnLimit.RETRY, cause=Cause.SPAWN_FAILED), False),
        ("stopped", one(State.STOPPED), True),
        ("stopped", one(State.EXITED, exit=FAILED), True),
        ("stopped", one(State.FATAL, **LIMIT), True),
        ("stopped", one(State.FATAL, OnLimit.RETRY, **LIMIT), None),
        ("stopped", one(State.BACKOFF), None),
        ("exited", one(State.EXITED, exit=FAILED), True),
        ("exited", one(State.STOPPED), None),
        ("exited", one(State.FATAL, **LIMIT), False),
        ("exited", one(State.FATAL, OnLimit.RETRY, **LIMIT), None),
    ],
)
def test_a_wait_ends_where_the_state_will_not_come_by_itself(for_: str, process: Any, ok: bool | None) -> None:
    verdict = WAITS[for_](process, Snapshot())
    assert (None if verdict is None else verdict.ok) is ok


def test_a_wait_for_stopped_says_in_which_way_it_is_down() -> None:
    assert WAITS["stopped"](one(State.STOPPED), Snapshot()) == Verdict(True, "stopped")
    found = WAITS["stopped"](one(State.EXITED, exit=FAILED, cause=Cause.EXITED), Snapshot())
    assert found == Verdict(True, "EXITED: run 2 exited with 1")
