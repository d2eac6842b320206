"""Which change ends the daemon, by ``exit_when``."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from supervisord_async.core.policy import Policy
from supervisord_async.core.record import Record
from supervisord_async.core.state import ExitStatus, Snapshot, State
from supervisord_async.supervise.fleet.exit_when import exit_for
from supervisord_async.supervise.process import Process


def process(name: str, state: State, *, in_motion: bool = False, code: int | None = 0, **settings: Any) -> Process:
    program = SimpleNamespace(schedule=None, start_on_connect=False)
    snapshot = Snapshot(state=state, exit=ExitStatus(code=code))
    one = SimpleNamespace(name=name, program=program, snapshot=snapshot, policy=Policy(), next_at=None, in_motion=in_motion)
    vars(one).update(settings)
    return cast("Process", one)


def ends(*processes: Process, stuck: bool = True, to: State = State.EXITED, when: str = "all_exited") -> int | None:
    """The exit code after a change to ``to``, where all who wait are ``stuck``; None: the daemon goes on."""
    record = Record(id=1, at=0.0, type="state", name="a", to=to, message="")
    found = exit_for(when, record, processes, lambda _: stuck)
    return found[0] if found is not None else None


OVER, WAITS = process("over", State.EXITED), process("waits", State.WAITING)


def test_who_waits_in_vain_ends_it_as_a_failure() -> None:
    assert ends(OVER) == 0
    assert ends(OVER, WAITS) == 1
    assert ends(OVER, WAITS, to=State.WAITING) == 1
    assert ends(OVER, process("failed", State.FATAL)) == 1


def test_a_job_that_failed_makes_it_a_failure() -> None:
    assert ends(OVER, process("failed", State.EXITED, code=1)) == 1
    assert ends(OVER, process("stopped", State.STOPPED, code=1)) == 0
    assert ends(OVER, process("unknown", State.EXITED, code=None)) == 0


def test_who_is_released_or_about_to_be_started_keeps_it_up() -> None:
    assert ends(OVER, WAITS, stuck=False) is None
    assert ends(OVER, process("waits", State.WAITING, in_motion=True)) is None
    assert ends(process("asked", State.STOPPED, in_motion=True), WAITS) is None


@pytest.mark.parametrize("state", sorted(set(State) - {State.STOPPED, State.EXITED, State.FATAL, State.WAITING}))
def test_who_is_up_keeps_it_up(state: State) -> None:
    assert ends(OVER, process("up", state), WAITS) is None
    assert ends(OVER, to=state) is None


def test_any_fatal_looks_at_the_change_alone() -> None:
    assert ends(OVER, when="any_fatal") is None
    assert ends(process("up", State.RUNNING), to=State.FATAL, when="any_fatal") == 1
