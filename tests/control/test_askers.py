"""Who gave an order: the user at the other end of the unix socket, or whoever has the token."""

from __future__ import annotations

import os
import pwd
import threading
from functools import partial
from typing import Any

import pytest

from supervisord_async.control import askers
from supervisord_async.control.askers import Askers
from supervisord_async.control.message import Message, Peer, Request
from supervisord_async.core.state import State
from tests.control.conftest import playing, swift
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio


async def nothing_comes() -> Message:
    raise AssertionError("the head alone says who asks")


def asked_by(peer: Peer | None, **scope: Any) -> Request:
    return Request({"method": "POST", "path": "/", "headers": [], "state": {"peer": peer}, **scope}, nothing_comes)


def user(name: str, uid: int) -> pwd.struct_passwd:
    return pwd.struct_passwd((name, "x", uid, uid, "", "/", "/bin/sh"))


async def test_a_peer_has_a_users_name_and_the_token_an_address() -> None:
    found = Askers()
    assert await found.name_of(asked_by(Peer(1, os.getuid(), 0))) == pwd.getpwuid(os.getuid()).pw_name
    assert await found.name_of(asked_by(Peer(1, 4_000_000, 0))) == "uid 4000000"
    assert await found.name_of(asked_by(None, client=("10.0.0.7", 4711))) == "token from 10.0.0.7"
    assert await found.name_of(asked_by(None)) == "token"


async def test_a_directory_that_does_not_answer_delays_no_order_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(askers, "NAME_SECONDS", 0.02)
    hangs = threading.Event()

    def getpwuid(uid: int) -> pwd.struct_passwd:
        hangs.wait(30)
        return user("alice", uid)

    monkeypatch.setattr(askers.pwd, "getpwuid", getpwuid)
    found = Askers()
    assert await found.name_of(asked_by(Peer(1, 1000, 1000))) == "uid 1000"
    hangs.set()
    monkeypatch.setattr(askers, "NAME_SECONDS", 30.0)
    assert await found.name_of(asked_by(Peer(1, 1000, 1000))) == "alice"


async def test_a_number_that_was_given_to_another_user_names_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Askers()
    for name in ("alice", "bob"):
        monkeypatch.setattr(askers.pwd, "getpwuid", partial(user, name))
        assert await found.name_of(asked_by(Peer(1, 1000, 1000))) == name


async def test_every_record_of_an_order_says_who_gave_it() -> None:
    async with playing(swift("web", replicas=2), swift("db")) as scene:
        await scene.state("db", State.RUNNING)
        told = [record async for record in _orders(scene)]
    assert {record.data["by"] for record in told} == {"alice"}
    lines = [f"{record.name or record.type}: {record.message}" for record in told if record.to in (None, "STOPPING", "STARTING")]
    assert lines == [
        "db: stopping (operator: alice)",
        "db: starting run 2 (operator: alice)",
        "db: stopping (operator: alice)",
        "db: starting run 3 (operator: alice)",
        "scale: web: scaled by alice from 2 to 1 until the next reload",
        "daemon: stopping everything (asked to by alice)",
    ]


async def _orders(scene: Any) -> Any:
    with scene.bus.subscribe() as records:
        commands = scene.commands
        await commands.stop(["db"], by="alice")
        await commands.start(["db"], by="alice")
        await commands.restart(["db"], by="alice")
        await commands.scale("web", 1, by="alice")
        commands.shutdown("alice")
        await wait_until(lambda: scene.supervisor.shutting_down, what="the shutdown")
        scene.bus.catch_up()
        while (record := records.receive_nowait()) is not None:
            if (record.name == "db" and record.cause == "operator") or record.type in ("scale", "daemon"):
                yield record
