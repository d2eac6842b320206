"""What a need means, over one process and over many."""

from __future__ import annotations

import pytest

from supervisord_async.core.order import Need, Outlook, judge, with_dependencies
from supervisord_async.core.policy import Policy
from supervisord_async.core.state import Cause, Check, ExitStatus, Health, Snapshot, State

POLICY = Policy()
UP = Snapshot(state=State.RUNNING, pid=1, run=1)
RISING = Snapshot(state=State.STARTING, pid=1, run=1)
ORDERED = Snapshot(state=State.STARTING, run=1)
SICK = Snapshot(state=State.RUNNING, pid=1, run=1, checks=(Check("readiness", Health.UNHEALTHY),))
DONE = Snapshot(state=State.EXITED, run=1, exit=ExitStatus(code=0))
FAILED = Snapshot(state=State.EXITED, run=1, exit=ExitStatus(code=1))
DOWN = Snapshot()
LOST = Snapshot(state=State.FATAL)
AGAIN = Snapshot(state=State.BACKOFF, run=1)

MET, OPEN, GONE = Outlook.MET, Outlook.OPEN, Outlook.LOST


@pytest.mark.parametrize(
    ("need", "outlooks"),
    [
        (
            Need.STARTED,
            {
                "UP": MET,
                "RISING": MET,
                "ORDERED": OPEN,
                "SICK": MET,
                "DONE": MET,
                "FAILED": GONE,
                "DOWN": OPEN,
                "LOST": GONE,
                "AGAIN": OPEN,
            },
        ),
        (
            Need.READY,
            {
                "UP": MET,
                "RISING": OPEN,
                "ORDERED": OPEN,
                "SICK": OPEN,
                "DONE": GONE,
                "FAILED": GONE,
                "DOWN": OPEN,
                "LOST": GONE,
                "AGAIN": OPEN,
            },
        ),
        (
            Need.COMPLETED,
            {
                "UP": OPEN,
                "RISING": OPEN,
                "ORDERED": OPEN,
                "SICK": OPEN,
                "DONE": MET,
                "FAILED": MET,
                "DOWN": OPEN,
                "LOST": GONE,
                "AGAIN": OPEN,
            },
        ),
        (
            Need.SUCCEEDED,
            {
                "UP": OPEN,
                "RISING": OPEN,
                "ORDERED": OPEN,
                "SICK": OPEN,
                "DONE": MET,
                "FAILED": GONE,
                "DOWN": OPEN,
                "LOST": GONE,
                "AGAIN": OPEN,
            },
        ),
    ],
)
def test_a_need_is_judged_by_state_and_health(need: Need, outlooks: dict[str, Outlook]) -> None:
    found = {name: judge(need, [("db", globals()[name], POLICY)]).outlook for name in outlooks}
    assert found == outlooks


@pytest.mark.parametrize("need", list(Need))
def test_what_was_stopped_meets_no_need_however_well_it_ended(need: Need) -> None:
    stopped = Snapshot(state=State.STOPPED, run=1, exit=ExitStatus(code=0))
    assert judge(need, [("db", stopped, POLICY)]).outlook is OPEN


@pytest.mark.parametrize(
    ("need", "words"),
    [(Need.STARTED, "to be started"), (Need.READY, "to be ready"), (Need.COMPLETED, "to complete"), (Need.SUCCEEDED, "to succeed")],
)
def test_what_is_awaited_is_said_in_words(need: Need, words: str) -> None:
    assert judge(need, [("db", ORDERED, POLICY)]).words == f"db {words} (it is STARTING)"
    assert judge(need, [("db", LOST, POLICY)]).words == f"db is FATAL, it was {words}"


def test_what_an_operator_stopped_is_said_to_be_so_since_nothing_else_starts_it() -> None:
    stopped = Snapshot(state=State.STOPPED, cause=Cause.OPERATOR)
    assert judge(Need.READY, [("db", stopped, POLICY)]).words == "db to be ready (it is STOPPED by an operator)"


def test_of_several_replicas_the_first_that_is_awaited_is_named() -> None:
    assert judge(Need.READY, [("db:0", SICK, POLICY), ("db:1", RISING, POLICY)]).words == "db:0 to be ready (it is RUNNING, unhealthy)"


def test_a_need_of_replicas_is_met_when_all_meet_it() -> None:
    assert judge(Need.READY, [("db:0", UP, POLICY), ("db:1", RISING, POLICY)]).outlook is OPEN
    assert "db:1 to be ready (it is STARTING)" in judge(Need.READY, [("db:0", UP, POLICY), ("db:1", RISING, POLICY)]).words
    assert judge(Need.READY, [("db:0", RISING, POLICY), ("db:1", LOST, POLICY)]).outlook is GONE
    assert judge(Need.READY, [("db:0", UP, POLICY), ("db:1", UP, POLICY)]).outlook is MET


def test_dependencies_come_before_what_needs_them() -> None:
    graph = {"web": ("app",), "app": ("db", "cache"), "db": (), "cache": ("db",), "other": ()}
    assert with_dependencies(["web"], graph) == ["db", "cache", "app", "web"]


def test_a_chain_of_all_programs_is_no_recursion() -> None:
    chain = {str(number): [str(number + 1)] for number in range(5000)}
    assert with_dependencies(["4998", "0"], chain) == [str(number) for number in range(5000, -1, -1)]
