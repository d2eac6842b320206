"""What records tell of a change: each end of a run exactly once."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from msgspec.structs import replace

from supervisord_async.core.inputs import Exited, Faulted, Input, SpawnFailed, StopRequested, TreeGone
from supervisord_async.core.machine import step
from supervisord_async.core.policy import Policy, RestartPolicy
from supervisord_async.core.state import Cause, ExitStatus, Snapshot, State
from supervisord_async.supervise.records.narrate import records_of, state_message

RUNNING = Snapshot(state=State.RUNNING, wanted=True, run=1, pid=7, run_since=10.0)
POLICY = Policy(backoff_jitter=0.0)


def ends_told(snapshot: Snapshot, *inputs: Input) -> list[tuple[str, Any]]:
    """The states whose records tell an exit status, and which."""
    told = []
    for number, input_ in enumerate(inputs):
        now = 20.0 + number
        after, _ = step(snapshot, input_, POLICY, now)
        for type_, fields in records_of("web", snapshot, after, POLICY, now):
            if type_ == "state" and "exit" in fields["data"]:
                told.append((fields["to"], fields["data"]["exit"]))
        snapshot = after
    return told


def test_an_end_by_itself_is_told_once_also_if_something_of_it_remains() -> None:
    assert ends_told(RUNNING, Exited(1, ExitStatus(code=1))) == [("BACKOFF", {"code": 1})]
    assert ends_told(RUNNING, Exited(1, ExitStatus(code=1), remains=True), TreeGone(1)) == [("STOPPING", {"code": 1})]


def test_an_end_while_it_was_stopping_is_told_once_also_if_something_of_it_remains() -> None:
    killed = ExitStatus(signal=15)
    expected = [("STOPPED", {"signal": "SIGTERM", "core": False})]
    assert ends_told(RUNNING, StopRequested(), Exited(1, killed)) == expected
    assert ends_told(RUNNING, StopRequested(), Exited(1, killed, remains=True), TreeGone(1)) == expected
    earlier = replace(RUNNING, run=2, ended_run=1, exit=ExitStatus(code=0))
    assert ends_told(earlier, StopRequested(), Exited(2, killed, remains=True), TreeGone(2)) == expected


def test_a_run_that_was_never_born_has_not_ended_as_the_one_before() -> None:
    killed = ExitStatus(signal=15)
    began = replace(RUNNING, state=State.STARTING, run=2, ended_run=1, pid=None, exit=killed)
    assert ends_told(began, SpawnFailed(2, "exec: no such file")) == []
    assert ends_told(replace(began, pid=8), Exited(2, killed)) == [("BACKOFF", {"signal": "SIGTERM", "core": False})]


@pytest.mark.parametrize("earlier", [None, ExitStatus(code=3)])
def test_a_run_that_was_told_to_stop_before_it_had_a_process_was_stopped_and_ended_in_no_way(earlier: ExitStatus | None) -> None:
    told = replace(RUNNING, state=State.STOPPING, wanted=False, run=2, ended_run=1, pid=None, exit=earlier, cause=Cause.OPERATOR)
    assert ends_told(told, SpawnFailed(2, "the start is not wanted any more")) == []
    after, _ = step(told, SpawnFailed(2, "the start is not wanted any more"), POLICY, 9.0)
    assert state_message(told, after, POLICY, 9.0) == "stopped"
    after, _ = step(replace(told, pid=8), Exited(2, ExitStatus(code=4)), POLICY, 9.0)
    assert state_message(replace(told, pid=8), after, POLICY, 9.0) == "stopped; exited with 4"


def test_an_end_by_a_real_time_signal_names_it() -> None:
    status = ExitStatus(signal=signal.SIGRTMIN + 1)
    assert ends_told(RUNNING, Exited(1, status)) == [("BACKOFF", {"signal": "SIGRTMIN+1", "core": False})]


def test_how_long_a_run_was_up_is_not_taken_for_a_part_of_its_fault() -> None:
    ended, _ = step(RUNNING, Exited(1, ExitStatus(code=1)), POLICY, 20.0)
    assert state_message(RUNNING, ended, POLICY, 20.0) == "exited with 1 after 10.0 s; restart 1 in 0.5 s"
    stopping, _ = step(RUNNING, Faulted(1, Cause.LIVENESS_FAILED, "tcp 127.0.0.1:1: Connection refused"), POLICY, 20.0)
    ended, _ = step(stopping, Exited(1, ExitStatus(signal=15)), POLICY, 20.0)
    words = "tcp 127.0.0.1:1: Connection refused, up 10.0 s; restart 1 in 0.5 s"
    assert state_message(stopping, ended, POLICY, 20.0) == words


@pytest.mark.parametrize(
    ("status", "remains", "failed"),
    [
        (ExitStatus(code=0), False, None),
        (ExitStatus(code=3), False, {"code": 3}),
        (ExitStatus(code=3), True, {"code": 3}),
        (ExitStatus(), False, {"unknown": True}),
    ],
)
def test_a_run_that_failed_and_is_not_followed_by_another_is_told_as_that(status: ExitStatus, remains: bool, failed: Any) -> None:
    once = replace(POLICY, restart=RestartPolicy.NEVER)
    last, _ = step(RUNNING, Exited(1, status, remains=remains), once, 20.0)
    before = RUNNING
    if remains:
        before, (last, _) = last, step(last, TreeGone(1), once, 21.0)
    [(_, fields)] = records_of("job", before, last, once, 21.0)
    assert (fields["to"], fields["data"].get("failed")) == ("EXITED", failed)


def test_an_end_names_the_process_that_ended() -> None:
    starting = replace(RUNNING, state=State.STARTING)
    after, _ = step(starting, Exited(1, ExitStatus(code=1)), POLICY, 11.0)
    [(_, fields)] = records_of("web", starting, after, POLICY, 11.0)
    assert (fields["data"]["pid"], fields["data"]["ended_pid"]) == (None, 7)
