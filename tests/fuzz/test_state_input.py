"""Whatever bytes a state file or a successor's input holds: a state, or a StateError; and no program is forgotten or doubled by it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from supervisord_async.core.state import Cause, Snapshot, State
from supervisord_async.supervise.recovery import persist
from supervisord_async.supervise.recovery.persist import SavedProcess, SavedState, StateError
from supervisord_async.supervise.recovery.takeover import reconcile
from supervisord_async.system.identity import Identity
from supervisord_async.system.tags import Tagged

SNAPSHOTS = st.builds(
    Snapshot,
    state=st.sampled_from(State),
    wanted=st.booleans(),
    cause=st.none() | st.sampled_from(Cause),
    run=st.integers(0, 9),
    ended_run=st.integers(0, 9),
    pid=st.none() | st.integers(2, 50),
    restarts=st.integers(0, 9),
    detail=st.text(max_size=20),
)
PROCESSES = st.builds(
    SavedProcess,
    name=st.sampled_from(["a", "b", "c:0"]),
    program=st.just("p"),
    replica=st.just(0),
    snapshot=SNAPSHOTS,
    start_ticks=st.integers(0, 9),
)
STATES = st.builds(
    SavedState,
    boot_id=st.sampled_from(["this", "another"]),
    instance=st.just("i"),
    last_record_id=st.integers(0),
    processes=st.lists(PROCESSES, max_size=4).map(tuple),
)
IDENTITIES = st.builds(Identity, pid=st.integers(2, 50), start_ticks=st.integers(0, 9), boot_id=st.just("this"))
LIVING = st.lists(
    st.builds(Tagged, IDENTITIES, st.sampled_from(["a", "b", "c:0", "strange/name"]), st.integers(0, 9), st.booleans()), max_size=6
)
JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def sealed(body: bytes, version: object = persist.VERSION) -> bytes:
    """``body`` with a head that is right."""
    return f"{persist.MAGIC} {version} {hashlib.sha256(body).hexdigest()}\n".encode() + body


def decoded(content: bytes) -> SavedState | None:
    """What is read of it without a loss; where that is all, what is known of it is the same, and where that is nothing, so is this."""
    try:
        known, left_out = persist.decode_what_is_known(content)
    except StateError:
        known, left_out = None, []
    try:
        state = persist.decode(content)
    except StateError:
        assert known is None or left_out
        return None
    assert (known, left_out) == (state, [])
    return state


@given(st.binary(max_size=300))
def test_any_bytes_are_a_state_or_refused_as_none(content: bytes) -> None:
    assert decoded(content) is None


@given(
    st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()), st.integers(-5, 9) | st.text("0123456789-x", max_size=4)
)
def test_any_sealed_body_is_a_state_or_refused(body: bytes, version: object) -> None:
    decoded(sealed(body, version))


@given(STATES)
def test_what_is_written_is_what_is_read(state: SavedState) -> None:
    assert persist.decode(persist.encode(state)) == state


@given(STATES, st.data())
def test_a_state_with_one_byte_changed_is_refused(state: SavedState, data: st.DataObject) -> None:
    content = bytearray(persist.encode(state))
    place = data.draw(st.integers(content.index(b"\n") + 1, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    assert decoded(bytes(content)) is None


@given(STATES, JSON, st.sampled_from(["processes", "boot_id", "last_record_id", "descriptors", "unknown"]))
def test_a_sealed_state_with_another_value_is_a_state_or_refused(state: SavedState, value: Any, key: str) -> None:
    document = json.loads(persist.encode(state).partition(b"\n")[2])
    document[key] = value
    decoded(sealed(json.dumps(document).encode()))


@given(st.none() | STATES, LIVING, st.booleans())
def test_no_living_run_is_forgotten_and_none_is_two(saved: SavedState | None, living: list[Tagged], by_reexec: bool) -> None:
    slots = reconcile(saved, living, "this", by_reexec=by_reexec)
    for process in living:
        slot = slots[process.name]
        known = process.run in slot.stray_runs or (slot.main is not None and slot.snapshot.run == process.run)
        assert known, f"{process} is in no slot"
    for name, slot in slots.items():
        if slot.main is not None:
            assert slot.snapshot.run not in slot.stray_runs
            newer = [process for process in living if process.name == name and process.is_leader and process.run > slot.snapshot.run]
            assert not newer
    if saved is not None and saved.boot_id == "another":
        assert set(slots) == {process.name for process in living}


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_a_run_dir_with_any_files_yields_a_state_or_complaints(present: bytes, previous: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / persist.FILE_NAME).write_bytes(present)
        (Path(folder) / f"{persist.FILE_NAME}.previous").write_bytes(previous)
        state, complaints = persist.load(folder)
        assert state is None and len(complaints) == 2
