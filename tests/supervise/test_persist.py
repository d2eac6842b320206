"""The state file: whole or not at all, the previous good copy kept, nothing believed that is not ours."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from supervisord_async.core.state import Cause, ExitStatus, Snapshot, State
from supervisord_async.supervise.outlive import persist
from supervisord_async.supervise.outlive.persist import SavedProcess, SavedState, SavedStream, StateError

SNAPSHOT = Snapshot(
    state=State.BACKOFF,
    since=12.5,
    wanted=True,
    cause=Cause.EXITED,
    run=7,
    ended_run=7,
    exit=ExitStatus(signal=9, core=True),
    restarts=3,
    recent=(1.0, 2.5),
)
STATE = SavedState(
    boot_id="b",
    instance="i",
    last_record_id=41,
    processes=(SavedProcess(name="web:0", program="web", replica=0, snapshot=SNAPSHOT, streams={"stdout": SavedStream(99, 5, 6)}),),
)


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    persist.save(str(tmp_path), STATE)
    assert persist.load(str(tmp_path)) == (STATE, [])
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600


def test_a_state_without_a_file_is_none(tmp_path: Path) -> None:
    assert persist.load(str(tmp_path)) == (None, [])


@pytest.mark.parametrize("damage", [b"", b"garbage", b"asupd-state 1 00\n{}", None])
def test_a_damaged_state_is_replaced_by_the_previous_one(tmp_path: Path, damage: bytes | None) -> None:
    persist.save(str(tmp_path), STATE)
    persist.save(str(tmp_path), STATE)
    file = tmp_path / "state.json"
    file.write_bytes(file.read_bytes()[:-10] if damage is None else damage)
    state, complaints = persist.load(str(tmp_path))
    assert state == STATE
    assert len(complaints) == 1 and "state.json" in complaints[0]


def test_a_newer_version_is_refused_by_name() -> None:
    head, body = persist.encode(STATE).split(b"\n", 1)
    words = head.split()
    with pytest.raises(StateError, match="newer asupd"):
        persist.decode(b" ".join([words[0], b"999", words[2]]) + b"\n" + body)


@pytest.mark.parametrize("cut", range(0, 200, 7))
def test_a_truncated_state_is_never_garbage(cut: int) -> None:
    content = persist.encode(STATE)
    with pytest.raises(StateError):
        persist.decode(content[: len(content) - 1 - cut])


def test_a_full_disk_leaves_the_former_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    persist.save(str(tmp_path), STATE)

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        persist.save(str(tmp_path), SavedState(boot_id="x", instance="y"))
    assert persist.load(str(tmp_path))[0] == STATE
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_a_clean_end_leaves_nothing(tmp_path: Path) -> None:
    persist.save(str(tmp_path), STATE)
    persist.save(str(tmp_path), STATE)
    persist.forget(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
