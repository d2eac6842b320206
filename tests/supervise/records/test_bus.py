"""Records are numbered and told to everybody; who is slow, or has a bug, harms nobody else."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from supervisord_async.core.record import Record
from supervisord_async.supervise.records.bus import CHECK_SECONDS, RING_RECORDS, Bus
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

        def tell(what: str, at: float) -> None:
            bus.publish("state", at=at, message=what)

        async def begin() -> None:
            heard.append("begun")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(begin)
            bus.publish_soon(tell, "told")
            assert heard == []
        assert heard == ["begun", "told"]
        bus.publish_soon(tell, "first")
        bus.publish("daemon", message="second")
        bus.publish_soon(tell, "last")
        bus.close()
        assert heard[2:] == ["first", "second", "last"]
        bus.publish_soon(tell, "asked for")
        assert bus.since(bus.last_id)[0][0].message == "asked for"
        bus.publish_soon(tell, "before")
        with bus.subscribe() as records:
            bus.publish("daemon", message="after")
            assert (found := records.receive_nowait()) is not None and found.message == "after"

    run_virtually(main)


def test_what_is_told_soon_gives_way_to_a_crowd_but_not_for_long_and_says_when_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        crowd, heard, clock = [True], list[Record](), [1000.0]
        bus = Bus(wall_clock=lambda: clock[0], starting=lambda: bool(crowd))
        bus.listen(heard.append)

        def tell(what: str, at: float) -> None:
            bus.publish("state", at=at, message=what)

        async def turn(times: int = 20) -> None:
            for _ in range(times):
                await anyio.lowlevel.checkpoint()

        for number in range(300):
            bus.publish_soon(tell, str(number))
        await turn()
        assert heard == []
        clock[0] = 1000.5
        crowd.clear()
        await anyio.sleep(CHECK_SECONDS)
        assert 0 < len(heard) < 300, "not all in one turn"
        await turn()
        assert [record.message for record in heard] == [str(number) for number in range(300)]
        assert [record.id for record in heard] == list(range(1, 301))
        assert {record.at for record in heard} == {1000.0}, "as it happened, to the last digit: each has its order"

        heard.clear()
        crowd.append(True)
        monkeypatch.setattr("supervisord_async.supervise.records.bus.LATE_SECONDS", 0.0)
        bus.publish_soon(tell, "late")
        await turn()
        assert [record.message for record in heard] == ["late"]

    run_virtually(main)


def test_a_teller_that_fails_loses_nobody_else() -> None:
    async def main() -> None:
        bus, heard = Bus(), list[str]()
        bus.listen(lambda record: heard.append(record.message))

        def fail(_what: str, _at: float) -> None:
            raise ValueError("a bug")

        bus.publish_soon(fail, "")
        bus.publish_soon(lambda what, at: bus.publish("state", at=at, message=what), "told")
        with pytest.raises(ValueError, match="a bug"):
            bus.catch_up()
        bus.catch_up()
        assert heard == ["told"]

    run_virtually(main)
