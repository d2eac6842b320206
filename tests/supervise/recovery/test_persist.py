"""The state file: whole or not at all, the previous good copy kept, nothing believed that is not ours."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from supervisord_async.config.model import Socket
from supervisord_async.core.state import Cause, ExitStatus, Snapshot, State
from supervisord_async.supervise.fleet.sockets import SavedSocket
from supervisord_async.supervise.keep_running import FIRST_PAUSE_SECONDS, keep_running
from supervisord_async.supervise.recovery import persist
from supervisord_async.supervise.recovery.persist import (
    SAVE_INTERVAL_SECONDS,
    SavedNotifySocket,
    SavedProcess,
    SavedState,
    SavedStream,
    Saver,
    StateError,
)
from supervisord_async.supervise.sources.fdstore import StoredDescriptor
from tests.virtual_clock import run_virtually

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
    file.write_bytes(file.read_bytes().rstrip()[:-10] if damage is None else damage)
    state, complaints = persist.load(str(tmp_path))
    assert state == STATE
    assert len(complaints) == 1 and "state.json" in complaints[0]


@pytest.mark.parametrize("place", [persist.FILE_NAME, persist.SPARE_NAME])
@pytest.mark.parametrize("kind", ["fifo", "device", "folder"])
def test_what_is_no_file_is_told_and_hangs_nobody(tmp_path: Path, place: str, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / place
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
    state, complaints = persist.load(str(tmp_path))
    assert state is None
    assert complaints == [f"cannot use {path}: {'Is a directory' if kind == 'folder' else 'it is not a file'}"]
    if kind == "folder":
        with contextlib.suppress(OSError):
            persist.save(str(tmp_path), STATE)
        persist.forget(str(tmp_path))
        assert f"cannot remove {tmp_path / persist.SPARE_NAME}: Is a directory" in caplog.text  # where a state took its name
    else:
        persist.save(str(tmp_path), STATE)
        assert persist.load(str(tmp_path)) == (STATE, [])
        persist.forget(str(tmp_path))
        assert not list(tmp_path.iterdir())


def test_a_reexec_carries_every_kind_of_descriptor_over() -> None:
    notify_socket = SavedNotifySocket(fd=3, address="@a", stored=(StoredDescriptor(name="kept", fd=4),))
    process = SavedProcess(
        name="web",
        program="web",
        replica=0,
        snapshot=Snapshot(),
        streams={"stdout": SavedStream(1, read_fd=5, child_fd=6), "stderr": SavedStream(2, read_fd=7, child_fd=8)},
        notify_socket=notify_socket,
    )
    state = replace(
        STATE,
        processes=(process,),
        sockets=(SavedSocket("web", Socket(name="http", kind="tcp"), inode=1, fd=9),),
        descriptors={"lock": [10], "listening": [11, 12]},
    )
    assert state.all_descriptors() == set(range(3, 13))


def test_a_newer_version_is_refused_by_name() -> None:
    head, body = persist.encode(STATE).split(b"\n", 1)
    words = head.split()
    with pytest.raises(StateError, match="newer asupd"):
        persist.decode(b" ".join([words[0], b"999", words[2]]) + b"\n" + body)


def sealed(document: dict[str, Any]) -> bytes:
    body = json.dumps(document).encode()
    return f"{persist.MAGIC} {persist.VERSION} {hashlib.sha256(body).hexdigest()}\n".encode() + body


def test_words_of_a_newer_version_cost_no_other_program_its_orders(tmp_path: Path) -> None:
    def process(name: str, **snapshot: Any) -> dict[str, Any]:
        known = {"state": "RUNNING", "wanted": True, "cause": "operator", "run": 3, "pid": 77, "since": 1.5, **snapshot}
        return {"name": name, "program": name, "replica": 0, "snapshot": known, "start_ticks": 5, "settings": "abc"}

    document = {"boot_id": "b", "instance": "i", "scaled": {"web": 3}, "last_record_id": 41}
    processes = [
        process("known", state="STOPPED", wanted=False, pid=None),
        process("cause", state="STOPPED", wanted=False, cause="full_moon", pid=None),
        process("check", checks=[["liveness", "sleepy", ""]]),
        process("state", state="DREAMING"),
        "of no kind",
    ]
    (tmp_path / persist.FILE_NAME).write_bytes(sealed({**document, "processes": processes}))
    state, complaints = persist.load(str(tmp_path))
    assert state is not None and (state.scaled, state.last_record_id) == ({"web": 3}, 41)
    found = {each.name: (each.snapshot.state, each.snapshot.wanted, each.snapshot.cause, each.snapshot.run) for each in state.processes}
    assert found == {
        "known": (State.STOPPED, False, Cause.OPERATOR, 3),
        "cause": (State.STOPPED, False, Cause.OPERATOR, 3),
        "check": (State.RUNNING, True, Cause.OPERATOR, 3),
    }
    assert [(each.start_ticks, each.settings, each.snapshot.since) for each in state.processes] == [(5, "abc", 1.5)] * 3
    for words in ("of cause can be read in part", "of check can be read in part", "of state cannot be read", "of None cannot be read"):
        assert [each for each in complaints if each.startswith(f"{tmp_path / persist.FILE_NAME}: what it says {words}")], words
    assert len(complaints) == 4
    with pytest.raises(StateError, match="full_moon"):  # a re-exec, which would lose descriptors, is refused
        persist.decode(sealed({**document, "processes": processes}))


@pytest.mark.parametrize("content", [b"", b"\n", b"asupd-state\n{}", b"asupd-state 1\n{}", b"asupd-state 1 2 3\n{}", b"other 1 2\n{}"])
def test_a_strange_file_is_no_state(content: bytes) -> None:
    with pytest.raises(StateError, match="not a state file of asupd"):
        persist.decode(content)


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
    assert (tmp_path / "state.json").exists()


def test_a_copy_that_somebody_keeps_by_a_hard_link_stays_as_it_is(tmp_path: Path) -> None:
    for number in range(2):
        persist.save(str(tmp_path), replace(STATE, last_record_id=number))
    kept = tmp_path / "kept"
    os.link(tmp_path / persist.SPARE_NAME, kept)
    before = kept.read_bytes()
    persist.save(str(tmp_path), replace(STATE, last_record_id=2))
    assert kept.read_bytes() == before


def test_whatever_instant_the_power_goes_in_one_good_copy_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new state is on the disk before it has the name, and the names are when the save is over; the file is never missing."""
    later = SavedState(boot_id="later", instance="i")
    for _ in range(2):
        persist.save(str(tmp_path), STATE)
    steps: list[str] = []
    sync, swap = os.fsync, persist.exchange

    def synced(descriptor: int) -> None:
        steps.append(f"sync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        assert persist.load(str(tmp_path)) == (STATE if len(steps) == 1 else later, [])
        sync(descriptor)

    def exchanged(one: str, other: str) -> None:
        steps.append(f"{Path(one).name} for {Path(other).name}")
        swap(one, other)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(persist, "exchange", exchanged)
    persist.save(str(tmp_path), later)
    assert steps == ["sync state.json.previous", "state.json.previous for state.json", f"sync {tmp_path.name}"]
    assert persist.decode((tmp_path / "state.json.previous").read_bytes()) == STATE


def test_a_filesystem_that_exchanges_no_names_has_the_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*_: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(persist, "exchange", cannot)
    for _ in range(3):
        persist.save(str(tmp_path), STATE)
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]
    assert persist.load(str(tmp_path)) == (STATE, [])


def test_the_first_save_has_room_for_the_next(tmp_path: Path) -> None:
    """What fills the disk in between takes the place of no order."""
    persist.save(str(tmp_path), STATE)
    first, spare = tmp_path / persist.FILE_NAME, tmp_path / persist.SPARE_NAME
    assert spare.stat().st_size == first.stat().st_size
    assert persist.load(str(tmp_path)) == (STATE, [])
    inodes = {first.stat().st_ino, spare.stat().st_ino}
    persist.save(str(tmp_path), STATE)
    assert {first.stat().st_ino, spare.stat().st_ino} == inodes
    assert spare.stat().st_size == first.stat().st_size


def test_a_save_that_gets_no_descriptor_costs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        persist.save(str(tmp_path), STATE)

    def none_left(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="Too many"):
        patch.setattr(os, "open", none_left)
        persist.save(str(tmp_path), STATE)
    assert sorted(path.name for path in tmp_path.iterdir()) == [persist.FILE_NAME, persist.SPARE_NAME]


def test_a_save_takes_no_room_that_the_files_do_not_have_until_the_state_has_grown_by_much(tmp_path: Path) -> None:
    def state(processes: int) -> SavedState:
        return SavedState(boot_id="b", instance="i", processes=tuple(replace(STATE.processes[0], name=f"a:{n}") for n in range(processes)))

    def sizes() -> set[int]:
        return {path.stat().st_size for path in tmp_path.iterdir()}

    for processes in (100, 100, 105, 95, 110, 40):
        persist.save(str(tmp_path), state(processes))
        assert len(sizes()) == 1
        assert len(persist.load(str(tmp_path))[0].processes) == processes  # type: ignore[union-attr]
    (size,) = sizes()
    for processes in (200, 200, 1, 1):
        persist.save(str(tmp_path), state(processes))
        assert persist.load(str(tmp_path)) == (state(processes), [])
    assert all(small < size / 4 for small in sizes())


def test_a_state_of_an_older_version_is_brought_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    old = persist.encode(STATE)

    def first(data: Any) -> Any:
        return {**data, "instance": data["instance"] + "+1"}

    def second(data: Any) -> Any:
        return {**data, "instance": data["instance"] + "+2"}

    monkeypatch.setattr(persist, "VERSION", 3)
    monkeypatch.setattr(persist, "UPGRADES", (*persist.UPGRADES, first, second))
    assert persist.decode(old).instance == "i+1+2"
    assert persist.decode(persist.encode(STATE)).instance == "i"


def test_saves_are_as_many_as_the_disk_bears_and_the_last_one_has_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    changes = 0

    async def save_in_a_thread(_save: object, _run_dir: str, state: SavedState) -> None:
        await anyio.sleep(0.001)
        saved.append(state.last_record_id)

    monkeypatch.setattr(persist, "in_thread", save_in_a_thread)

    async def main() -> None:
        nonlocal changes
        saver = Saver(str(tmp_path), lambda: replace(STATE, last_record_id=changes))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(saver.run)
            for _ in range(1000):  # a second of them
                changes += 1
                saver.changed()
                await anyio.sleep(0.001)
            await anyio.sleep(10 * SAVE_INTERVAL_SECONDS)
            tasks.cancel_scope.cancel()

    run_virtually(main)
    assert saved[-1] == 1000
    assert 2 <= len(saved) <= 1.0 / SAVE_INTERVAL_SECONDS + 2


@pytest.mark.parametrize(("takes", "pause"), [(0.001, SAVE_INTERVAL_SECONDS), (0.02, 0.2), (0.3, persist.LONGEST_PAUSE_SECONDS)])
def test_a_slow_save_delays_the_next_one_but_not_for_long(monkeypatch: pytest.MonkeyPatch, takes: float, pause: float) -> None:
    """What changes meanwhile is lost if the daemon is killed; and a save is slow wherever the machine is busy."""

    async def main() -> list[float]:
        saver, began = Saver("/nowhere", lambda: STATE), []
        twice = anyio.Event()

        async def save() -> bool:
            began.append(anyio.current_time())
            if len(began) == 2:
                twice.set()
            await anyio.sleep(takes)
            saver.changed()
            return True

        monkeypatch.setattr(saver, "save", save)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(saver.run)
            saver.changed()
            await twice.wait()
            tasks.cancel_scope.cancel()
        return began

    first, second = run_virtually(main)
    assert second - first == pytest.approx(takes + pause)


def test_a_disk_that_refuses_is_told_once_and_so_is_that_it_does_not_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "asupd")
    full, tries = True, 0

    async def save_in_a_thread(*_: object) -> None:
        nonlocal tries
        tries += 1
        await anyio.sleep(0.001)
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(persist, "in_thread", save_in_a_thread)

    async def main() -> None:
        nonlocal full
        saver = Saver(str(tmp_path), lambda: STATE)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(saver.run)
            saver.changed()
            await anyio.sleep(60.0)
            full = False
            await anyio.sleep(60.0)
            tasks.cancel_scope.cancel()

    run_virtually(main)
    assert 5 < tries < 100  # again and again until it works, then no more
    assert caplog.text.count("cannot save the state") == 1
    assert caplog.text.count("the state is saved again") == 1


def test_what_was_decided_is_carried_out_before_it_is_saved(tmp_path: Path) -> None:
    order = []

    def collect() -> SavedState:
        order.append("save")
        return STATE

    async def carry_out() -> None:
        order.append("spawn")

    async def main() -> None:
        saver = Saver(str(tmp_path), collect)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(saver.run)
            await anyio.wait_all_tasks_blocked()
            saver.changed()
            tasks.start_soon(carry_out)
            await saver.caught_up()
            tasks.cancel_scope.cancel()

    run_virtually(main)
    assert order == ["spawn", "save"]


def test_who_waits_for_a_save_waits_for_one_that_knows_and_for_no_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number, saved, hang = 0, [], False

    async def save_in_a_thread(_save: object, _run_dir: str, state: SavedState) -> None:
        await anyio.sleep(3600.0 if hang else 0.01)
        saved.append(state.last_record_id)

    monkeypatch.setattr(persist, "in_thread", save_in_a_thread)

    async def main() -> None:
        nonlocal number, hang
        saver = Saver(str(tmp_path), lambda: replace(STATE, last_record_id=number))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(saver.run)
            await saver.caught_up()  # nothing has changed
            for number in (1, 2, 3):
                saver.changed()
                began = anyio.current_time()
                await saver.caught_up()
                assert saved[-1] == number
                assert anyio.current_time() - began < SAVE_INTERVAL_SECONDS / 2
            saver.changed()
            await anyio.sleep(1.005)
            number = 4
            saver.changed()
            await anyio.sleep(0.001)
            number = 5  # while the save of 4 is under way
            saver.changed()
            await saver.caught_up()
            assert saved[-1] == 5
            hang = True
            saver.changed()
            began = anyio.current_time()
            await saver.caught_up()
            assert anyio.current_time() - began == pytest.approx(persist.TIMEOUT_SECONDS)
            tasks.cancel_scope.cancel()

    run_virtually(main)


def test_a_clean_end_leaves_nothing(tmp_path: Path) -> None:
    persist.save(str(tmp_path), STATE)
    persist.save(str(tmp_path), STATE)
    persist.forget(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_save_that_failed_is_tried_again_every_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """... and not only after ten times the pause that the failure itself brought."""

    async def main() -> list[float]:
        saver, tried = persist.Saver("/nowhere", lambda: STATE), []
        done = anyio.Event()

        async def save() -> bool:
            tried.append(anyio.current_time())
            if len(tried) < 3:
                saver.changed()
                return False
            done.set()
            return True

        monkeypatch.setattr(saver, "save", save)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(saver.run)
            saver.changed()
            await done.wait()
            tasks.cancel_scope.cancel()
        return [at - tried[0] for at in tried]

    assert run_virtually(main) == [0.0, persist.RETRY_SECONDS, 2 * persist.RETRY_SECONDS]


def test_a_save_that_a_bug_broke_is_made_up_for_without_another_change(monkeypatch: pytest.MonkeyPatch) -> None:
    collected: list[float] = []

    def collect() -> SavedState:
        collected.append(anyio.current_time())
        if len(collected) == 1:
            raise ZeroDivisionError("a bug")
        return STATE

    async def save_in_a_thread(_save: object, _run_dir: str, _state: SavedState) -> None:
        return None

    monkeypatch.setattr(persist, "in_thread", save_in_a_thread)

    async def main() -> None:
        saver = Saver("/nowhere", collect)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_running, "saving the state", saver.run)
            saver.changed()
            await anyio.sleep(60.0)
            tasks.cancel_scope.cancel()

    run_virtually(main)
    assert [round(at - collected[0], 1) for at in collected] == [0.0, FIRST_PAUSE_SECONDS]
