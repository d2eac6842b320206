"""Records are numbered and told to everybody; who is slow, or has a bug, harms nobody else."""

from __future__ import annotations

import anyio
import pytest

from supervisord_async.core.record import Record
from supervisord_async.supervise.records.bus import RING_RECORDS, Bus
from tests.virtual_clock import run_virtually


def test_a_listener_with_a_bug_harms_neither_the_publisher_nor_others(caplog: pytest.LogCaptureFixture) -> None:
    bus, heard = Bus(wall_clock=lambda: 0.0), list[Record]()

    def fail(_: Record) -> None:
        raise LookupError("a bug")

    bus.listen(fail)
    bus.listen(heard.append)
    with bus.subscribe() as records:
        record = bus.publish("state", name="web", message="said")
        assert heard == [record]
        assert records.receive_nowait() == record
    assert "a listener failed on record 1 (state)" in caplog.text and "a bug" in caplog.text


def test_a_slow_subscriber_loses_its_oldest_and_is_told_how_many() -> None:
    bus = Bus(wall_clock=lambda: 0.0)
    with bus.subscribe(limit=2) as slow, bus.subscribe() as other:
        for _ in range(5):
            bus.publish("daemon")
        assert [record.id for record in iter(slow.receive_nowait, None)] == [4, 5]
        assert (slow.take_missed(), slow.take_missed()) == (3, 0)
        assert len(list(iter(other.receive_nowait, None))) == 5


def test_who_comes_back_gets_what_is_kept_and_hears_whether_that_is_all() -> None:
    bus = Bus(last_id=10, wall_clock=lambda: 0.0)
    assert bus.since(10) == ([], True)
    for _ in range(RING_RECORDS + 5):
        bus.publish("daemon")
    kept, whole = bus.since(15)
    assert (kept[0].id, len(kept), whole) == (16, RING_RECORDS, True)
    kept, whole = bus.since(14)
    assert (kept[0].id, whole) == (16, False)


def test_a_closed_bus_delivers_what_it_has_and_ends() -> None:
    async def main() -> list[int]:
        bus = Bus(wall_clock=lambda: 0.0)
        with bus.subscribe() as records:
            bus.publish("daemon")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(close, bus)
                return [record.id async for record in records]

    async def close(bus: Bus) -> None:
        await anyio.sleep(1.0)
        bus.publish("daemon")
        bus.close()

    assert run_virtually(main) == [1, 2]


def test_what_is_told_soon_comes_after_what_was_begun_and_before_any_other_record() -> None:
    async def main() -> None:
        bus, heard = Bus(wall_clock=lambda: 0.0), list[str]()
        bus.listen(lambda record: heard.append(record.message))

        async def begin() -> None:
            heard.append("begun")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(begin)
            bus.soon(lambda: bus.publish("state", message="told"))
            assert heard == []
        assert heard == ["begun", "told"]
        bus.soon(lambda: bus.publish("state", message="first"))
        bus.publish("daemon", message="second")
        bus.soon(lambda: bus.publish("state", message="last"))
        bus.close()
        assert heard[2:] == ["first", "second", "last"]
        bus.soon(lambda: bus.publish("state", message="asked for"))
        assert bus.since(bus.last_id)[0][0].message == "asked for"
        bus.soon(lambda: bus.publish("state", message="before"))
        with bus.subscribe() as records:
            bus.publish("daemon", message="after")
            assert (found := records.receive_nowait()) is not None and found.message == "after"

    run_virtually(main)
