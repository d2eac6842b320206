"""Whose turn it is in a stop of several processes, judged without any process or task."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from supervisord_async.core.inputs import StopRequested
from supervisord_async.core.policy import Policy
from supervisord_async.core.state import Cause, Snapshot, State
from supervisord_async.errors import BusyError
from supervisord_async.supervise.fleet.stopping import KILL_WAIT_SECONDS, POLL_SECONDS, OrderlyStop

GRACE_SECONDS = 5.0
UP = Snapshot(state=State.RUNNING, wanted=True, run=1, pid=7)
GOING = Snapshot(state=State.STOPPING, wanted=False, run=1, pid=7, cause=Cause.OPERATOR)
GONE = Snapshot(state=State.STOPPED, wanted=False, run=1, ended_run=1, cause=Cause.OPERATOR)
AGAIN = Snapshot(state=State.STOPPING, wanted=True, run=1, pid=7, cause=Cause.OPERATOR)


class Slot(SimpleNamespace):
    """A process as a stop sees it: what it was told, and how it is."""

    def post(self, _: object) -> None:
        if self.busy:
            raise BusyError("256 requests wait for this process already")
        self.told = True


def slot(name: str) -> Any:
    policy = Policy(grace_seconds=GRACE_SECONDS)
    return Slot(name=name, program=SimpleNamespace(name=name), snapshot=UP, policy=policy, told=False, busy=False)


@pytest.fixture
def web() -> Any:
    return slot("web")


@pytest.fixture
def db() -> Any:
    return slot("db")


@pytest.fixture
def stop(web: Any, db: Any) -> OrderlyStop:
    """web depends on db; web has been told at 100.0."""
    stop = OrderlyStop([db, web], lambda program: [web] if program == "db" else [], StopRequested())
    stop.tell_free(100.0)
    return stop


def test_what_depends_on_another_goes_first_and_is_waited_for(stop: OrderlyStop, web: Any, db: Any) -> None:
    assert (web.told, db.told, list(stop.pending), stop.levels) == (True, False, ["db"], 2)
    web.snapshot = GOING
    stop.tell_free(101.0)
    assert not db.told
    web.snapshot = GONE
    stop.tell_free(102.0)
    assert db.told and not stop.pending


def test_what_was_told_is_undecided_until_it_has_taken_the_stop(stop: OrderlyStop, web: Any, db: Any) -> None:
    assert stop.is_undecided(web) and stop.is_undecided(db)
    web.snapshot = GOING
    assert not stop.is_undecided(web)
    web.snapshot = AGAIN  # somebody wants it up again: that is a decision too
    assert not stop.is_undecided(web)
    db.snapshot = GONE
    assert not stop.is_undecided(db), "its turn has not come, but it is at rest"
    assert not stop.is_undecided(slot("stranger"))


def test_whoever_is_not_down_yet_is_left_to_the_next_daemon_unless_somebody_wants_it_up(stop: OrderlyStop, web: Any, db: Any) -> None:
    assert stop.unfinished == {"web", "db"}
    web.snapshot = GOING
    assert stop.unfinished == {"web", "db"}
    web.snapshot = AGAIN
    assert stop.unfinished == {"db"}
    stop.overrule(["db"])
    assert stop.unfinished == set()


def test_what_somebody_wants_up_again_holds_the_others_up_for_a_moment_only(stop: OrderlyStop, web: Any, db: Any) -> None:
    web.snapshot = AGAIN
    stop.tell_free(100.0 + POLL_SECONDS)
    assert not db.told
    stop.tell_free(100.1 + POLL_SECONDS)
    assert db.told


def test_what_outlives_its_kill_holds_the_others_up_no_longer(stop: OrderlyStop, web: Any, db: Any) -> None:
    web.snapshot = GOING
    stop.tell_free(99.9 + GRACE_SECONDS + KILL_WAIT_SECONDS)
    assert not db.told
    stop.tell_free(100.0 + GRACE_SECONDS + KILL_WAIT_SECONDS)
    assert db.told


def test_what_is_down_but_wanted_is_told(db: Any) -> None:
    db.snapshot = Snapshot(state=State.EXITED, wanted=True, run=1, ended_run=1)
    stop = OrderlyStop([db], lambda _: [], StopRequested())
    assert stop.is_undecided(db)
    stop.tell_free(100.0)
    assert db.told


def test_what_cannot_be_told_is_refused_and_holds_nobody_up(web: Any, db: Any) -> None:
    web.busy = True
    stop = OrderlyStop([db, web], lambda program: [web] if program == "db" else [], StopRequested())
    stop.tell_free(100.0)
    assert "requests wait" in stop.refused["web"]
    stop.tell_free(100.0)
    assert db.told
