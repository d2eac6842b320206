"""on_event: what is told, to whom, how often; without a network."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from supervisord_async.config.model import EventHook
from supervisord_async.core.record import Record
from supervisord_async.errors import HookRefusedError
from supervisord_async.supervise.records import on_event
from supervisord_async.supervise.records.bus import Bus
from supervisord_async.supervise.records.on_event import EventHooks, events_of
from supervisord_async.system.threads import DaemonThreads
from tests.fake_host import FakeHost, program
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

URL = "https://user:pass@hooks.example/services/T0P/SECRET"


class Hook:
    """A webhook; ``refuse`` is what it says to the next posts, ``hold`` keeps it from answering."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.posts = 0
        self.refuse: list[HookRefusedError] = []
        self.hold = threading.Event()
        self.hold.set()

    def post(self, url: str, body: bytes) -> None:
        self.posts += 1
        assert self.hold.wait(60)
        if self.refuse:
            raise self.refuse.pop(0)
        self.taken.append(json.loads(body))


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Hook:
    monkeypatch.setattr(on_event, "RETRY_SECONDS", (0.01, 0.01))
    return Hook()


@asynccontextmanager
async def telling(hook: Hook, *hooks: EventHook, **settings: Any) -> AsyncIterator[tuple[Bus, EventHooks]]:
    configuration: Any = SimpleNamespace(daemon=SimpleNamespace(on_event=hooks, name="shop", socket="/s"), file="/nowhere/programs.yaml")
    host: Any = FakeHost()
    events = EventHooks(lambda: configuration, lambda name: program(name, **settings), host, instance="i", null_fd=1, post=hook.post)
    bus = Bus()
    bus.listen(events.on_record)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(events.run)
        await anyio.wait_all_tasks_blocked()
        yield bus, events
        hook.hold.set()
        tasks.cancel_scope.cancel()


def fatal(bus: Bus, message: str = "broken", cause: str = "spawn_failed") -> Record:
    return bus.publish("state", name="web", from_="STARTING", to="FATAL", cause=cause, run=3, message=message, data={"exit": {"code": 1}})


def test_which_records_are_which_events() -> None:
    def of(type_: str, to: str | None, cause: str | None = None, **data: Any) -> list[str]:
        return events_of(Record(id=1, at=0, type=type_, to=to, cause=cause, data=data))

    assert of("state", "FATAL", "spawn_failed") == ["fatal"]
    assert of("state", "FATAL", "restart_limit") == ["restart_limit", "fatal"]
    assert (of("state", "EXITED", "exited", failed={"code": 3}), of("state", "EXITED", "exited")) == (["failed"], [])
    assert (of("flapping", "true"), of("flapping", "false")) == (["flapping"], [])
    assert (of("health", "unhealthy"), of("health", "healthy")) == (["unhealthy"], [])
    assert of("state", "RUNNING") == of("daemon", None) == []


async def test_each_hook_is_told_what_it_asked_for(hook: Hook) -> None:
    async with telling(hook, EventHook(events=("restart_limit",), url=URL), EventHook(events=("flapping",), url=URL)) as (bus, events):
        fatal(bus)
        record = fatal(bus, cause="restart_limit")
        bus.publish("flapping", name="web", to="true", run=5, message="flapping")
        await wait_until(lambda: len(hook.taken) == 2)
        told = next(one for one in hook.taken if one["event"] == "restart_limit")
        assert (told["id"], told["daemon"], told["name"], told["to"], told["run"], told["exit_status"]) == (
            record.id,
            "shop",
            "web",
            "FATAL",
            3,
            {"code": 1},
        )
        await events.drain(10)


async def test_secrets_of_the_program_are_masked(hook: Hook) -> None:
    async with telling(hook, EventHook(events=("fatal",), url=URL), environment={"DB_PASSWORD": "hunter22"}) as (bus, _):
        fatal(bus, "cannot log in as x with hunter22 at pg://x:geheim@db")
        await wait_until(lambda: hook.taken)
        assert "hunter22" not in hook.taken[0]["message"] and "geheim" not in hook.taken[0]["message"]


async def test_what_a_webhook_cannot_take_is_tried_again(hook: Hook) -> None:
    hook.refuse = [HookRefusedError("answered 503"), HookRefusedError("refused")]
    async with telling(hook, EventHook(events=("fatal",), url=URL)) as (bus, _):
        fatal(bus)
        await wait_until(lambda: hook.taken)
        assert hook.posts == 3


async def test_a_webhook_waits_until_there_is_a_thread_to_call_it_in(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    submit, refused = DaemonThreads.submit, [1, 2, 3]

    def refuse(*work: Any, **how: Any) -> Any:
        if refused:
            refused.pop()
            raise BlockingIOError(11, "can't start new thread")
        return submit(*work, **how)

    monkeypatch.setattr(DaemonThreads, "submit", refuse)
    async with telling(hook, EventHook(events=("fatal",), url=URL)) as (bus, _):
        fatal(bus)
        await wait_until(lambda: hook.taken)
    assert not refused


async def test_failures_are_said_once_without_the_urls_secrets_and_the_end_of_them_too(
    hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    hook.refuse = [HookRefusedError("answered 404", final=True)] * 3
    async with telling(hook, EventHook(events=("fatal",), url=URL)) as (bus, events):
        for _ in range(4):
            fatal(bus)
        await wait_until(lambda: hook.taken)
        await events.drain(10)
    assert hook.posts == 4  # final: not tried again
    words = [record.getMessage() for record in caplog.records if "on_event" in record.getMessage()]
    assert len(words) == 2 and "https://hooks.example: answered 404; given up" in words[0] and "works again" in words[1]
    assert "SECRET" not in caplog.text and "pass" not in caplog.text


async def test_a_slow_webhook_holds_nobody_up_and_its_queue_is_bounded(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_event, "QUEUE_EVENTS", 5)
    hook.hold.clear()
    async with telling(hook, EventHook(events=("fatal",), url=URL), EventHook(events=("fatal",), command=("tell",))) as (bus, events):
        for number in range(50):
            fatal(bus, str(number))
        await wait_until(lambda: len(events._queues) == 1)  # the command had its fifty
        hook.hold.set()
        await events.drain(10)
        assert [told["message"] for told in hook.taken][-5:] == ["45", "46", "47", "48", "49"] and len(hook.taken) <= 6


async def test_nothing_is_left_when_all_is_told(hook: Hook) -> None:
    async with telling(hook, EventHook(events=("fatal",), url=URL)) as (bus, events):
        fatal(bus)
        await events.drain(10)
        assert events._queues == {} and len(hook.taken) == 1
