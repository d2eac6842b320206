"""What is derived from a snapshot: health, flapping; and that it survives a trip to disk."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_async.core.state import FLAPPING_RESTARTS, Cause, Check, ExitStatus, Health, Snapshot, State

SNAPSHOTS = st.builds(
    Snapshot,
    state=st.sampled_from(State),
    since=st.floats(0, 1e9),
    wanted=st.booleans(),
    cause=st.sampled_from([None, *Cause]),
    detail=st.text(max_size=40),
    run=st.integers(0, 10**9),
    pid=st.one_of(st.none(), st.integers(1, 2**22)),
    exit=st.one_of(st.none(), st.builds(ExitStatus, code=st.one_of(st.none(), st.integers(0, 255)), core=st.booleans())),
    recent=st.lists(st.floats(0, 1e9), max_size=5).map(tuple),
    checks=st.lists(st.builds(Check, st.text(max_size=9), st.sampled_from(Health), st.text(max_size=9)), max_size=3).map(tuple),
)


@given(SNAPSHOTS)
def test_snapshot_survives_a_trip_to_disk(snapshot: Snapshot) -> None:
    assert msgspec.json.decode(msgspec.json.encode(snapshot), type=Snapshot) == snapshot


@pytest.mark.parametrize(
    ("words", "health"),
    [
        ((), Health.NONE),
        ((Health.HEALTHY,), Health.HEALTHY),
        ((Health.HEALTHY, Health.STARTING), Health.STARTING),
        ((Health.HEALTHY, Health.UNHEALTHY, Health.STARTING), Health.UNHEALTHY),
    ],
)
def test_health_is_the_worst_word(words: tuple[Health, ...], health: Health) -> None:
    assert Snapshot(checks=tuple(Check(f"check{n}", word) for n, word in enumerate(words))).health is health


def test_flapping_begins_with_the_fifth_restart() -> None:
    assert not Snapshot(restarts=FLAPPING_RESTARTS - 1).flapping
    assert Snapshot(restarts=FLAPPING_RESTARTS).flapping
    assert FLAPPING_RESTARTS == 5


def test_exit_nobody_saw_is_unknown() -> None:
    assert ExitStatus().unknown
    assert not ExitStatus(code=0).unknown
    assert not ExitStatus(signal=9).unknown


def test_states_are_the_words_of_the_contract() -> None:
    words = "STOPPED STARTING RUNNING BACKOFF STOPPING EXITED FATAL UNKNOWN WAITING"
    assert {str(state) for state in State} == set(words.split())
