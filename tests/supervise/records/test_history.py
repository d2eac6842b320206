"""The history: what it keeps, what it survives, what it refuses to be stopped by."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from supervisord_async.core.record import Record
from supervisord_async.core.state import ExitStatus, Snapshot, State
from supervisord_async.errors import UnavailableError
from supervisord_async.jsontext import iso
from supervisord_async.supervise.records import history as history_module
from supervisord_async.supervise.records import history_store
from supervisord_async.supervise.records.bus import Bus
from supervisord_async.supervise.records.history import CORRUPT_KEPT, History
from supervisord_async.supervise.records.history_store import RESERVED_IDS, Reader, Store
from supervisord_async.system.mounts import Mount
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def kept(path: Path, left: dict[str, Snapshot] | None = None, **bounds: Any) -> AsyncIterator[tuple[History, Bus]]:
    """An open history that listens to a bus and writes."""
    history = History(path, **bounds)
    bus = Bus(last_id=await history.open(left=left))
    bus.listen(history.take)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(history.run)
        try:
            yield history, bus
        finally:
            tasks.cancel_scope.cancel()
    await history.aclose()


def asked(path: Path, sql: str) -> Any:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql).fetchone()


def state(bus: Bus, name: str, from_: str, to: str, run: int, cause: str = "autostart", **data: Any) -> None:
    bus.publish("state", name=name, from_=from_, to=to, cause=cause, run=run, message=f"{name} {to}", data=data)


async def test_records_come_back_whole_and_in_order(tmp_path: Path) -> None:
    async with kept(tmp_path / "history.db") as (history, bus):
        sent = [bus.publish("health", name="web", from_="none", to="healthy", run=1, message=f"n{n}", data={"n": n}) for n in range(5)]
        bus.publish("daemon", message="started", data={"what": "started"})
        await history.flush()
        assert await history.last_records(100, "web") == sent
        assert [record.id for record in await history.records(sent[2].id, 2)] == [sent[3].id, sent[4].id]
        assert (await history.last_records(1))[0].message == "started"


async def test_who_asks_sees_what_has_just_happened(tmp_path: Path) -> None:
    async with kept(tmp_path / "history.db") as (history, bus):
        for run in range(1, 4):
            state(bus, "web", "STOPPED", "STARTING", run)
            state(bus, "web", "STARTING", "EXITED", run, "exited", exit={"code": run}, uptime_seconds=0.1)
            newest = (await history.runs("web"))[0]
            assert (newest.run, newest.exit_status) == (run, {"code": run})


async def test_a_run_that_a_killed_daemon_had_not_written_is_known_once_it_is_taken_over(tmp_path: Path) -> None:
    """The one before it is not said to live for ever."""
    async with kept(tmp_path / "history.db") as (history, bus):
        state(bus, "web", "STOPPED", "STARTING", 1)
        state(bus, "web", "STARTING", "RUNNING", 1, pid=11)  # here the daemon died: run 1 had ended, and run 2 begun
        found = bus.publish("adopted", name="web", run=2, cause="adopted", message="found alive", data={"pid": 12, "uptime_seconds": 3.5})
        second, first = await history.runs("web")
        assert (second.run, second.pid, second.cause, second.ended_at) == (2, 12, None, None)
        assert second.started_at == iso(found.at - 3.5)
        assert (first.run, first.exit_status, first.ended_at) == (1, None, second.started_at)
        state(bus, "web", "UNKNOWN", "RUNNING", 2, "adopted", pid=12)
        bus.publish("adopted", name="web", run=2, cause="adopted", message="once more", data={"pid": 12, "uptime_seconds": 9.0})
        state(bus, "web", "RUNNING", "BACKOFF", 2, "exited", exit={"code": 3}, uptime_seconds=9.5)
        runs = await history.runs("web")
        assert [(run.run, run.started_at, run.exit_status) for run in runs] == [
            (2, second.started_at, {"code": 3}),
            (1, first.started_at, None),
        ]


async def test_what_a_killed_daemon_had_not_written_of_a_run_is_known_once_it_is_taken_over(tmp_path: Path) -> None:
    """Its PID, and when it was RUNNING: no record of that comes any more."""
    async with kept(tmp_path / "history.db") as (history, bus):
        state(bus, "web", "STOPPED", "STARTING", 1)  # here the daemon died: run 1 was saved as RUNNING
        data = {"pid": 11, "uptime_seconds": 3.5, "running_seconds": 2.0}
        found = bus.publish("adopted", name="web", run=1, cause="adopted", message="found alive", data=data)
        [run] = await history.runs("web")
        assert (run.pid, run.running_at, run.ended_at, run.cause) == (11, iso(found.at - 2.0), None, "autostart")
        bus.publish("adopted", name="web", run=1, cause="adopted", message="once more", data=data)
        assert await history.runs("web") == [run]
        found = bus.publish("adopted", name="web", run=2, cause="adopted", message="found alive", data=data | {"pid": 12})
        assert (await history.runs("web"))[0].running_at == iso(found.at - 2.0)


async def test_a_run_whose_end_nobody_saw_had_ended_when_the_next_one_began(tmp_path: Path) -> None:
    """Not when a daemon came that looked: two runs of one process seemed to have lived at a time."""
    async with kept(tmp_path / "history.db") as (_, bus):
        state(bus, "web", "STOPPED", "STARTING", 1)
    began = time.monotonic() - 0.001
    left = {"web": Snapshot(state=State.RUNNING, run=2, since=began, run_since=began)}
    await anyio.sleep(0.05)
    async with kept(tmp_path / "history.db", left=left) as (history, bus):
        found = bus.publish("adopted", name="web", run=2, cause="adopted", data={"pid": 12, "uptime_seconds": time.monotonic() - began})
        second, first = await history.runs("web")
        assert first.ended_at is not None and first.ended_at <= second.started_at < iso(found.at)


async def test_a_run_whose_end_was_not_written_is_ended_though_the_disk_was_full_when_the_daemon_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kept(tmp_path / "history.db") as (_, bus):
        state(bus, "job", "STOPPED", "STARTING", 1)
    prepare, full = Store._prepare, True

    def on_full_disk(store: Store) -> None:
        if full:
            raise sqlite3.OperationalError("database or disk is full")
        prepare(store)

    monkeypatch.setattr(Store, "_prepare", on_full_disk)
    left = {"job": Snapshot(state=State.EXITED, run=1, exit=ExitStatus(code=3), since=time.monotonic())}
    async with kept(tmp_path / "history.db", left=left) as (history, bus):
        state(bus, "job", "EXITED", "STARTING", 2)
        await wait_until(lambda: history.trouble is not None)
        full = False
        await history.flush()
        second, first = await history.runs("job")
        assert (first.exit_status, second.ended_at) == ({"code": 3}, None)
        assert first.ended_at is not None and first.ended_at <= second.started_at


async def test_a_run_whose_end_was_not_written_does_not_run_for_ever(tmp_path: Path) -> None:
    """After a death of the daemon, or of the machine: each is over but those that live, or whose end is still to be told."""
    async with kept(tmp_path / "history.db") as (_, bus):
        state(bus, "web", "STOPPED", "STARTING", 5)
        state(bus, "web", "STOPPED", "STARTING", 4)  # its number came again: the daemon had been killed before it was saved
        for name in ("job", "lost", "removed"):
            state(bus, name, "STOPPED", "STARTING", 1)
    now = time.monotonic()
    left = {
        "web": Snapshot(state=State.RUNNING, run=4),
        "job": Snapshot(state=State.EXITED, run=1, exit=ExitStatus(code=3), since=now),
        "lost": Snapshot(run=0),  # as after another boot
    }
    async with kept(tmp_path / "history.db", left) as (history, bus):
        bus.publish("daemon", message="started")
        await history.flush()
        living, former = await history.runs("web")
        assert (living.ended_at, living.exit_status, former.exit_status) == (None, None, {"unknown": True})
        (job,) = await history.runs("job")
        assert job.exit_status == {"code": 3}
        for one in (former, job, *await history.runs("lost"), *await history.runs("removed")):
            assert one.ended_at is not None and one.ended_at >= one.started_at, one
        state(bus, "web", "RUNNING", "BACKOFF", 4, "exited", exit={"code": 0})
        assert (await history.runs("web"))[0].exit_status == {"code": 0}


async def test_ids_rise_over_restarts_of_the_daemon(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    async with kept(path) as (_, bus):
        first = bus.publish("daemon").id
    async with kept(path) as (history, bus):
        second = bus.publish("daemon").id
        await history.flush()
        assert second > first
        assert [record.id for record in await history.records(0)] == [first, second]


async def test_ids_rise_after_a_crash_that_lost_records(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    crashed = History(path)
    bus = Bus(last_id=await crashed.open())
    lost = bus.publish("daemon").id  # never written, the file never closed cleanly
    again = History(path)
    assert await again.open() >= lost
    await again.aclose()
    await crashed.aclose()


async def test_what_a_former_self_had_not_written_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    former = History(path)
    bus = Bus(last_id=await former.open())
    bus.listen(former.take)
    for run in range(1, 4):
        state(bus, "web", "BACKOFF", "STARTING", run, "exited")
    left = former.unwritten()
    assert [record.run for record in left] == [1, 2, 3]
    await former._blocking(lambda: former._write(left[:2]))  # in its last instant: it does not know
    await former.aclose()
    with closing(sqlite3.connect(path)) as db:
        db.execute("DELETE FROM records WHERE id = ?", (left[2].id,))
        db.execute("DELETE FROM runs WHERE run = 3")
        db.execute("UPDATE totals SET count = 1")
        db.commit()
    successor = History(path)
    assert await successor.open(left) >= left[-1].id
    assert [record.run for record in successor.unwritten()] == [3]
    await successor.aclose()
    again = History(path)
    await again.open()
    assert await again.records(0) == left
    assert await again.totals("web") == {"exited": 2}
    await again.aclose()


async def test_runs_tell_cause_duration_exit_and_figures(tmp_path: Path) -> None:
    async with kept(tmp_path / "history.db") as (history, bus):
        state(bus, "web", "STOPPED", "STARTING", 1)
        state(bus, "web", "STARTING", "RUNNING", 1, pid=77)
        end = {"exit": {"code": 1}, "uptime_seconds": 0.4, "max_rss_bytes": 4096, "cpu_seconds": 0.25}
        state(bus, "web", "RUNNING", "BACKOFF", 1, "exited", **end)
        state(bus, "web", "BACKOFF", "STARTING", 2, "exited")
        state(bus, "web", "STARTING", "RUNNING", 2, "exited", pid=78)
        state(bus, "web", "RUNNING", "STOPPING", 2, "operator", pid=78)
        state(bus, "web", "STOPPING", "STARTING", 3, "operator", exit={"signal": "SIGTERM", "core": False}, uptime_seconds=9.0)
        await history.flush()
        third, second, first = await history.runs("web")
        assert (first.run, first.cause, first.end_cause) == (1, "autostart", "exited")
        assert (first.exit_status, first.duration_seconds) == ({"code": 1}, 0.4)
        assert (first.peak_memory_bytes, first.cpu_seconds, first.pid) == (4096, 0.25, 77)
        assert (second.exit_status, second.end_cause, second.duration_seconds) == ({"signal": "SIGTERM", "core": False}, "operator", 9.0)
        assert (third.run, third.ended_at, third.cause) == (3, None, "operator")
        assert await history.totals("web") == {"exited": 1, "operator": 1}
        assert await history.runs("nobody") == []


async def test_a_run_that_never_was_running_has_its_pid(tmp_path: Path) -> None:
    async with kept(tmp_path / "history.db") as (history, bus):
        state(bus, "web", "STOPPED", "STARTING", 1, pid=None)
        state(bus, "web", "STARTING", "BACKOFF", 1, "exited", pid=None, exit={"code": 1}, ended_pid=77)
        state(bus, "web", "BACKOFF", "STARTING", 2, "exited", pid=None)
        state(bus, "web", "STARTING", "STOPPING", 2, "operator", pid=78)
        state(bus, "web", "STOPPING", "STARTING", 3, "operator", pid=None, exit={"code": 0})
        state(bus, "web", "STARTING", "BACKOFF", 3, "spawn_failed", pid=None)
        await history.flush()
        assert [run.pid for run in await history.runs("web")] == [None, 78, 77]


async def test_a_restart_that_waits_for_dependencies_tells_how_the_run_before_ended(tmp_path: Path) -> None:
    async with kept(tmp_path / "history.db") as (history, bus):
        state(bus, "web", "STOPPED", "STARTING", 1)
        state(bus, "web", "RUNNING", "STOPPING", 1, "operator")
        state(bus, "web", "STOPPING", "WAITING", 1, "dependency", exit={"code": 0}, uptime_seconds=2.0, cpu_seconds=0.5)
        state(bus, "web", "WAITING", "STARTING", 2, "operator")
        await history.flush()
        _, run = await history.runs("web")
        assert (run.exit_status, run.end_cause, run.duration_seconds, run.cpu_seconds) == ({"code": 0}, "operator", 2.0, 0.5)


async def test_a_run_that_ends_with_leftovers_keeps_its_first_cause(tmp_path: Path) -> None:
    async with kept(tmp_path / "history.db") as (history, bus):
        state(bus, "web", "STOPPED", "STARTING", 1)
        state(bus, "web", "RUNNING", "STOPPING", 1, "exited", exit={"code": 3}, uptime_seconds=2.0)
        state(bus, "web", "STOPPING", "STOPPED", 1, "operator")
        await history.flush()
        [run] = await history.runs("web")
        assert (run.exit_status, run.end_cause, run.duration_seconds) == ({"code": 3}, "exited", 2.0)
        assert run.ended_at is not None


async def test_a_corrupt_database_is_moved_aside_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "history.db"
    path.write_bytes(b"this is no database" * 1000)
    async with kept(path) as (history, bus):
        bus.publish("daemon")
        await history.flush()
        assert len(await history.records(0)) == 1
    assert (tmp_path / "history.db.corrupt-1").read_bytes().startswith(b"this is no database")
    assert sum("damaged" in record.message for record in caplog.records) == 1


async def test_a_database_that_breaks_while_written_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    async with kept(path) as (history, bus):
        bus.publish("daemon")
        await history.flush()
        other = sqlite3.connect(path)
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        other.close()
        with path.open("r+b") as file:
            file.write(b"\xff" * path.stat().st_size)
        bus.publish("daemon")
        await wait_until(lambda: history.written >= 2)
        await wait_until(lambda: history.trouble is None)


async def test_a_database_of_a_newer_version_is_kept_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is no damage: whoever goes forward again may want it, however often somebody goes back. Its last records may be in its journal."""
    path = tmp_path / "history.db"
    for number in range(1, CORRUPT_KEPT + 3):
        caplog.clear()
        db = sqlite3.connect(path)
        db.executescript(f"PRAGMA user_version = 99; PRAGMA journal_mode = WAL; CREATE TABLE news AS SELECT {number} AS value")
        if number == 1:
            db.close()  # properly: there is no journal beside the database
        async with kept(path) as (history, bus):
            bus.publish("daemon")
            await history.flush()
            assert len(await history.records(0)) == 1
        db.close()
        [told] = [record.getMessage() for record in caplog.records]
        assert told.endswith(f"newer asupd (schema 99, this one knows 1): kept as history.db.newer-{number}, a new one is started")
        path.unlink()
    for number in range(1, CORRUPT_KEPT + 3):
        assert asked(tmp_path / f"history.db.newer-{number}", "SELECT value FROM news") == (number,)


@pytest.mark.parametrize("version", [99, None])
async def test_numbers_rise_over_a_database_that_was_moved_aside(tmp_path: Path, version: int | None) -> None:
    """Whoever follows the events would take smaller ones for seen."""
    path = tmp_path / "history.db"
    async with kept(path) as (history, bus):
        last = bus.publish("daemon").id
        await history.flush()
    if version is not None:
        with closing(sqlite3.connect(path)) as db:
            db.execute(f"PRAGMA user_version = {version}")
    else:
        path.write_bytes(b"this is no database" * 1000)
    async with kept(path) as (history, bus):
        assert history.last_id > last + RESERVED_IDS
        bus.publish("daemon")
        await history.flush()
    async with kept(path) as (again, _):
        assert again.last_id > history.last_id


async def test_a_question_that_a_hanging_disk_holds_up_is_answered_within_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first question is told that there is no answer, the next ones are so sooner; all is well when the disk goes on."""
    monkeypatch.setattr(history_module, "ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(history_module, "FRESH_SECONDS", 0.01)
    goes_on, ask = threading.Event(), Reader._ask

    def slow(self: Reader, sql: str, arguments: tuple[Any, ...]) -> list[Any]:
        goes_on.wait(20)
        return ask(self, sql, arguments)

    async with kept(tmp_path / "history.db") as (history, bus):
        sent = bus.publish("daemon")
        await history.flush()
        monkeypatch.setattr(Reader, "_ask", slow)
        try:
            for _ in range(2 * history_module.READERS):
                with pytest.raises(UnavailableError, match="its disk does not answer"):
                    await history.runs("web")
                assert await history.last_records(1) == []
        finally:
            goes_on.set()
        monkeypatch.setattr(history_module, "FRESH_SECONDS", 20)
        assert await history.last_records(1) == [sent]


async def test_a_folder_that_may_not_be_entered_is_a_trouble_like_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "RETRY_SECONDS", (0.01,))
    stat, folder = os.stat, tmp_path / "folder"
    folder.mkdir()

    def closed(path: Any, *arguments: Any, **named: Any) -> Any:
        if str(path).startswith(f"{folder}/"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, *arguments, **named)

    async with kept(folder / "history.db") as (history, bus):
        with monkeypatch.context() as patch:
            patch.setattr(os, "stat", closed)
            bus.publish("daemon")
            await wait_until(lambda: history.trouble is not None)
        await history.flush()
        assert history.trouble is None


async def test_a_locked_database_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("supervisord_async.supervise.records.history_store.BUSY_SECONDS", 0.05)
    monkeypatch.setattr(history_module, "RETRY_SECONDS", (0.05,))
    path = tmp_path / "history.db"
    async with kept(path) as (history, bus):
        locker = sqlite3.connect(path, isolation_level=None)
        locker.execute("BEGIN EXCLUSIVE")
        sent = bus.publish("daemon")
        await wait_until(lambda: history.trouble is not None and "locked" in history.trouble)
        locker.execute("COMMIT")
        locker.close()
        await history.flush()
        assert [record.id for record in await history.records(0)] == [sent.id]
    assert sum("cannot write" in record.message for record in caplog.records) == 1


async def test_a_folder_that_cannot_be_written_is_said_once_and_never_fatal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "RETRY_SECONDS", (0.01,))
    monkeypatch.setattr(history_module, "QUEUE_RECORDS", 10)
    (tmp_path / "file").write_text("in the way")
    async with kept(tmp_path / "file" / "history.db") as (history, bus):
        assert bus.last_id > 1_000_000_000_000  # from the clock: rises over restarts even so
        for _ in range(50):
            bus.publish("daemon")
        await wait_until(lambda: history.trouble is not None)
        assert history.dropped == 40
        with pytest.raises(UnavailableError, match="cannot open"):
            await history.runs("web")
        (tmp_path / "file").unlink()
        await history.flush()
        assert len(await history.records(0)) == 10
    assert sum("cannot open" in record.message for record in caplog.records if record.levelno >= logging.ERROR) == 1


async def test_a_removed_file_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    async with kept(path) as (history, bus):
        bus.publish("daemon")
        await history.flush()
        for file in tmp_path.iterdir():
            file.unlink()
        sent = bus.publish("daemon")
        await history.flush()
        assert [record.id for record in await history.records(0)] == [sent.id]


async def test_age_and_size_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "PRUNE_RECORDS", 1000)
    path = tmp_path / "history.db"
    history = History(path, max_age_seconds=3600.0, max_size_bytes=400_000)
    await history.open()
    clock = [time.time() - 7200.0]
    bus = Bus(last_id=history.last_id, wall_clock=lambda: clock[0])
    bus.listen(history.take)
    for _ in range(100):
        bus.publish("daemon", message="old")
    clock[0] = time.time()
    for _ in range(5000):
        bus.publish("daemon", message="x" * 300)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(history.run)
        await history.flush()
        await wait_until(lambda: path.stat().st_size <= 500_000)
        tasks.cancel_scope.cancel()
    left = await history.records(0, 10_000)
    assert left[-1].id == bus.last_id
    assert all(record.message != "old" for record in left)
    assert 100 < len(left) < 2000
    await history.aclose()
    assert path.stat().st_size <= 500_000


@pytest.mark.parametrize("bounds", [{"max_age_seconds": 3600.0}, {"max_size_bytes": 1}], ids=["age", "size"])
async def test_a_run_that_outlives_the_bounds_is_told_with_its_end(tmp_path: Path, bounds: dict[str, Any]) -> None:
    """What has run for longer than history.max_age is what one asks about when it dies."""
    path = tmp_path / "history.db"
    history = History(path)
    await history.open()
    clock = [time.time() - 7200.0]
    bus = Bus(last_id=history.last_id, wall_clock=lambda: clock[0])
    bus.listen(history.take)
    for run in (1, 2):
        state(bus, "db", "STOPPED", "STARTING", run)
        state(bus, "db", "STARTING", "RUNNING", run, pid=76 + run)
        state(bus, "job", "STOPPED", "STARTING", run)
        state(bus, "job", "STARTING", "EXITED", run, "exited", exit={"code": 0})
    await history.aclose()
    pruned = Store(path)
    pruned.prune(bounds.get("max_age_seconds"), bounds.get("max_size_bytes"))
    pruned.close()
    async with kept(path) as (history, bus):
        assert await history.runs("job") == []
        assert (await history.totals("job"), await history.totals("db")) == ({}, {"autostart": 1}), "names that come and go would pile up"
        assert [(run.run, run.pid, run.ended_at) for run in await history.runs("db")] == [(2, 78, None)], "of run 1 no end will be told"
        state(bus, "db", "RUNNING", "BACKOFF", 2, "exited", exit={"code": 9}, uptime_seconds=7200.0)
        await history.flush()
        (run,) = await history.runs("db")
        assert (run.exit_status, run.duration_seconds, run.ended_at is None) == ({"code": 9}, 7200.0, False)


async def test_what_was_taken_last_is_written_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    async with kept(path) as (_, bus):
        for _ in range(5000):
            bus.publish("daemon")
    assert not path.with_name("history.db-wal").exists()
    assert asked(path, "SELECT count(*) FROM records") == (5000,)
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_thousand_records_a_second_leave_the_loop_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is waited for in threads alone."""
    writers, write = set(), Store.write

    def seen(self: Store, records: Sequence[Record]) -> None:
        writers.add(threading.get_ident())
        write(self, records)

    monkeypatch.setattr(Store, "write", seen)
    async with kept(tmp_path / "history.db") as (history, bus):
        for _ in range(100):
            for number in range(10):
                state(bus, f"p{number}", "STARTING", "RUNNING", 1, pid=number)
            await anyio.sleep(0.005)
        await history.flush()
        assert history.dropped == 0
        assert history.written == 1000
    assert writers and threading.get_ident() not in writers


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk to fill")
async def test_a_full_disk_is_said_once_and_written_again_when_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "RETRY_SECONDS", (0.05,))
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=False)
    if mounted.returncode != 0:
        pytest.skip("this machine lets nobody mount")
    try:
        async with kept(disk / "history.db") as (history, bus):
            bus.publish("daemon")
            await history.flush()
            filler = disk / "filler"
            with suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(b"x" * 4096)
            for _ in range(2000):
                bus.publish("daemon", message="y" * 100)
            await wait_until(lambda: history.trouble is not None and "full" in history.trouble)
            filler.unlink()
            await history.flush()
            assert history.trouble is None
            assert len(await history.records(0, 5000)) == 2001
        assert sum("cannot write" in record.message for record in caplog.records) == 1
        assert sum("is written again" in record.message for record in caplog.records) == 1
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    ("kind", "block_bytes", "mode"),
    [("ext4", 4096, "WAL"), ("overlay", 4096, "WAL"), ("ext4", 1024, "TRUNCATE"), ("btrfs", 4096, "TRUNCATE")],
)
def test_the_index_is_mapped_only_where_a_full_disk_leaves_it_its_pages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, block_bytes: int, mode: str
) -> None:
    found = [Mount("/", "/", "tmpfs", 1), Mount(str(tmp_path), "/", kind, 2), Mount(f"{tmp_path}/run2", "/", "zfs", 3)]
    monkeypatch.setattr(history_store, "mounts", lambda: found)
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bsize=block_bytes))
    monkeypatch.setattr(os, "sysconf", lambda _: 4096)
    (tmp_path / "run").mkdir()
    assert history_store.journal_mode(tmp_path / "run") == mode
