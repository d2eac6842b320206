"""The event stream: numbered, resumable, honest about what was lost, indifferent to slow readers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from supervisord_async.config.model import Daemon, Restart
from supervisord_async.control import events as events_module
from supervisord_async.control import stream as stream_module
from supervisord_async.control.events import Events
from supervisord_async.supervise.records import bus as bus_module
from supervisord_async.supervise.records.bus import Bus
from supervisord_async.supervise.records.history import History
from tests.control.conftest import playing, swift
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio


class Reader:
    """Collects what a stream sends; can be made to stall."""

    def __init__(self) -> None:
        self.data = b""
        self.may_send = anyio.Event()
        self.may_send.set()

    async def send(self, chunk: bytes) -> None:
        await self.may_send.wait()
        self.data += chunk

    @property
    def events(self) -> list[tuple[str | None, str, Any]]:
        """Number, type and object of each event so far."""
        found = []
        for block in self.data.decode().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
            if "data" in fields:
                found.append((fields.get("id"), fields["event"], json.loads(fields["data"])))
        return found

    @property
    def ids(self) -> list[int]:
        return [int(number) for number, _, _ in self.events if number is not None]


def everything(_: Any) -> bool:
    return True


async def test_each_change_is_an_event_with_its_number(serving: Callable[..., Any]) -> None:
    async with serving(swift("web", autostart=False)) as wire, await wire.connect() as stream:
        await stream.send(b"GET /v1/events HTTP/1.1\r\nhost: a\r\n\r\n")
        await wait_until(lambda: wire.api.streams.open == 1)
        reader = Reader()
        await wire.scene.commands.start(["web"])
        with anyio.fail_after(60):
            while b'"RUNNING"' not in reader.data:
                reader.data += await stream.receive()
        assert b"content-type: text/event-stream" in reader.data
        assert b"event: state\n" in reader.data
        assert b'"from":"STOPPED","to":"STARTING","cause":"operator","run":1' in reader.data
    await wait_until(lambda: wire.api.streams.open == 0)


async def test_last_event_id_resumes_without_a_gap() -> None:
    bus = Bus()
    sent = [bus.publish("daemon").id for _ in range(20)]
    reader = Reader()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: Events(bus, None).follow(reader.send, everything, after=sent[4]))
        await wait_until(lambda: reader.ids == sent[5:])
        new = bus.publish("daemon").id
        await wait_until(lambda: reader.ids == [*sent[5:], new])
        tasks.cancel_scope.cancel()


async def test_what_memory_has_no_more_comes_from_the_history(tmp_path: Path) -> None:
    history = History(tmp_path / "history.db")
    bus = Bus(last_id=await history.open())
    bus.listen(history.take)
    events = Events(bus, history)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(history.run)
        sent = [bus.publish("daemon").id for _ in range(bus_module.RING_RECORDS + 1200)]
        await history.flush()
        reader = Reader()
        tasks.start_soon(lambda: events.follow(reader.send, everything, after=sent[0]))
        await wait_until(lambda: len(reader.ids) >= len(sent) - 1)
        assert reader.ids == sent[1:]
        assert all(type_ != "missed" for _, type_, _ in reader.events)
        first = await events.past(everything, after=sent[9], last=3)
        assert [record.id for record in first] == sent[10:13]
        rare = await events.past(lambda record: record.id in (sent[5], sent[1100]), after=sent[0], last=10)
        assert [record.id for record in rare] == [sent[5], sent[1100]]
        last = await events.past(everything, after=None, last=2500)
        assert [record.id for record in last] == sent[-2500:]
        tasks.cancel_scope.cancel()
    await history.aclose()


async def test_what_nobody_has_is_told_as_missed() -> None:
    bus = Bus()
    events = Events(bus, None)
    for _ in range(bus_module.RING_RECORDS + 10):
        bus.publish("daemon")
    reader = Reader()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: events.follow(reader.send, everything, after=3))
        await wait_until(lambda: len(reader.ids) == bus_module.RING_RECORDS)
        tasks.cancel_scope.cancel()
    assert reader.events[0] == (None, "missed", {"missed": 7})


async def test_a_number_of_another_history_is_told_as_missed() -> None:
    bus = Bus()
    bus.publish("daemon")
    reader = Reader()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: Events(bus, None).follow(reader.send, everything, after=999))
        await wait_until(lambda: bool(reader.events))
        new = bus.publish("daemon").id
        await wait_until(lambda: reader.ids == [new])
        tasks.cancel_scope.cancel()
    assert reader.events[0] == (None, "missed", {"missed": None})


async def test_more_at_once_than_a_queue_holds_comes_from_the_history(tmp_path: Path) -> None:
    """A thousand that die together are more records than that, and are told at once when somebody asks."""
    history = History(tmp_path / "history.db")
    bus = Bus(last_id=await history.open())
    bus.listen(history.take)
    events, reader = Events(bus, history), Reader()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(history.run)
        tasks.start_soon(lambda: events.follow(reader.send, everything))
        await wait_until(lambda: reader.data != b"")
        sent = [bus.publish("daemon").id for _ in range(2 * bus_module.SUBSCRIBER_RECORDS + 100)]
        await wait_until(lambda: bool(reader.ids) and reader.ids[-1] == bus.last_id)
        sent.append(bus.publish("daemon").id)
        await wait_until(lambda: reader.ids[-1] == bus.last_id)
        tasks.cancel_scope.cancel()
    await history.aclose()
    assert reader.ids == sent
    assert all(type_ != "missed" for _, type_, _ in reader.events)


async def test_a_slow_reader_loses_the_oldest_and_is_told_how_many() -> None:
    bus = Bus()
    reader = Reader()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: Events(bus, None).follow(reader.send, everything))
        await wait_until(lambda: reader.data != b"")
        reader.may_send = anyio.Event()
        bus.publish("daemon")
        await wait_until(lambda: not next(iter(bus._subscriptions))._queue)
        for _ in range(bus_module.SUBSCRIBER_RECORDS + 100):
            bus.publish("daemon")
        reader.may_send.set()
        await wait_until(lambda: bool(reader.ids) and reader.ids[-1] == bus.last_id)
        tasks.cancel_scope.cancel()
    [missed] = [data["missed"] for _, type_, data in reader.events if type_ == "missed"]
    assert missed == 100
    assert len(reader.ids) + missed == bus.last_id


async def test_silence_is_broken_by_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "HEARTBEAT_SECONDS", 0.01)
    reader = Reader()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: Events(Bus(), None).follow(reader.send, everything))
        await wait_until(lambda: reader.data.count(b": still here\n\n") > 2)
        tasks.cancel_scope.cancel()


async def test_streams_are_narrowed_by_name_and_type(serving: Callable[..., Any]) -> None:
    async with serving(swift("web"), swift("worker")) as wire:
        await wire.scene.commands.restart(["all"])
        web = (await wire.ask("GET", "/v1/events?follow=false&name=web&type=state")).json["events"]
        assert {one["name"] for one in web} == {"web"}
        assert (await wire.ask("GET", "/v1/events?follow=false&type=health")).json == {"events": []}
        two = (await wire.ask("GET", "/v1/events?follow=false&limit=2")).json["events"]
        assert [one["id"] for one in two] == [wire.scene.bus.last_id - 1, wire.scene.bus.last_id]
        (await wire.ask("GET", "/v1/events?name=wbe")).problem(404, "not_found")


async def test_a_stream_of_a_program_has_the_replicas_that_come_later_too(serving: Callable[..., Any]) -> None:
    async with serving(swift("web", replicas=2), swift("other")) as wire, await wire.connect() as stream:
        await stream.send(b"GET /v1/events?name=web HTTP/1.1\r\nhost: a\r\n\r\n")
        await wait_until(lambda: wire.api.streams.open == 1)
        await wire.scene.commands.restart(["other"])
        await wire.scene.commands.scale("web", 3)
        reader = Reader()
        with anyio.fail_after(60):
            while b'"web:2"' not in reader.data:
                reader.data += await stream.receive()
        assert b'"other"' not in reader.data


async def test_streams_are_bounded(serving: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "MAX_STREAMS", 2)
    async with serving(swift("web")) as wire:
        open_ones = [await wire.connect() for _ in range(2)]
        for stream in open_ones:
            await stream.send(b"GET /v1/events HTTP/1.1\r\nhost: a\r\n\r\n")
        await wait_until(lambda: wire.api.streams.open == 2)
        (await wire.ask("GET", "/v1/events")).problem(503, "busy")
        for stream in open_ones:
            await stream.aclose()
        await wait_until(lambda: wire.api.streams.open == 0)


async def test_fifty_subscribers_ten_of_them_stalled_leave_the_loop_free(serving: Callable[..., Any]) -> None:
    """Bounded memory and a loop that answers; the figures are for the note, only the bounds are asserted."""
    async with serving(swift("web")) as wire:
        streams = [await wire.connect() for _ in range(50)]
        for stream in streams:
            await stream.send(b"GET /v1/events HTTP/1.1\r\nhost: a\r\n\r\n")
        await wait_until(lambda: wire.api.streams.open == 50)
        received = [0]

        async def read(stream: Any) -> None:
            while True:
                received[0] += len(await stream.receive())

        late: list[float] = []
        async with anyio.create_task_group() as tasks:
            for stream in streams[10:]:
                tasks.start_soon(read, stream)
            for _ in range(100):
                for _ in range(10):
                    wire.scene.bus.publish("state", name="web", from_="STARTING", to="RUNNING", run=1, message="running", data={"pid": 1})
                before = time.monotonic()
                await anyio.sleep(0.01)
                late.append(time.monotonic() - before - 0.01)
            seen = -1
            while seen != received[0]:  # anyio's socket streams do not bear to be cancelled while something arrives
                seen = received[0]
                await anyio.sleep(0.1)
            tasks.cancel_scope.cancel()
        milliseconds = sorted(round(one * 1000, 1) for one in late)
        print(f"1,000 events, lag median {milliseconds[50]} ms, worst {milliseconds[-1]} ms")
        assert (await wire.ask("GET", "/v1/health")).status == 200
        assert received[0] > 0
        assert all(len(one._queue) <= bus_module.SUBSCRIBER_RECORDS for one in wire.scene.bus._subscriptions)
        assert sorted(late)[50] < 2.0
        for stream in streams:
            await stream.aclose()


async def test_the_end_that_exit_when_brings_is_told_after_what_brought_it() -> None:
    """A stream that got the later number first would leave the earlier one out."""
    daemon = Daemon(name="shop", run_dir="/nowhere", socket="/nowhere/asupd.sock", exit_when="any_fatal")
    fragile = swift("web", restart=Restart(max_restarts=0))
    async with playing(fragile, daemon=daemon) as scene:
        with scene.bus.subscribe() as records:
            scene.child("web").end(1)
            told = []
            while not told or told[-1].type != "daemon":
                record = await records.receive()
                assert record is not None
                told.append(record)
        assert [record.to or record.data["what"] for record in told] == ["FATAL", "stopping"]
        assert told[0].id < told[1].id
