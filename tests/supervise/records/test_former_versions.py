"""A history that an earlier version wrote stays readable, and is written on. Samples are named after the commit of that version."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from supervisord_async.supervise.records.bus import Bus
from supervisord_async.supervise.records.history import History

pytestmark = pytest.mark.anyio

SAMPLES = sorted((Path(__file__).parent / "former_versions").glob("*.sql"))


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.stem)
async def test_an_earlier_versions_history_goes_on(sample: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "history.db")) as db:
        db.executescript(sample.read_text())
    history = History(tmp_path / "history.db")
    last_id = await history.open()
    assert last_id >= 37
    bus = Bus(last_id=last_id)
    bus.listen(history.take)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(history.run)
        bus.publish(
            "state", name="flaky", from_="BACKOFF", to="STARTING", cause="exited", run=2, message="starting run 2", data={"pid": None}
        )
        await history.flush()
        assert [(run.run, run.exit_status, run.pid) for run in await history.runs("flaky")] == [(2, None, None), (1, {"code": 1}, 4113)]
        [stopped] = await history.runs("stopped")
        assert (stopped.exit_status, stopped.end_cause, stopped.duration_seconds) == (
            {"signal": "SIGTERM", "core": False},
            "operator",
            0.481,
        )
        records = await history.last_records(100, "flaky")
        assert [record.to for record in records] == ["STARTING", "RUNNING", "BACKOFF", "STARTING"]
        assert records[2].data["uptime_seconds"] == 0.004
        tasks.cancel_scope.cancel()
    await history.aclose()
    assert [path.name for path in tmp_path.iterdir()] == ["history.db"]
