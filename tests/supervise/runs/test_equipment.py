"""What a run is given beside its command."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anyio

from supervisord_async.config.model import Heartbeat, Notify
from supervisord_async.supervise.fleet.sockets import SocketRegistry
from supervisord_async.supervise.runs.equipment import equip
from supervisord_async.system.spawn import SpawnSpec
from tests.fake_host import FakeHost, program


def environment_of(**settings: Any) -> dict[str, str]:
    """What is added to the environment of a program with these settings."""
    store = SimpleNamespace(saved=lambda: ())
    notify_socket: Any = SimpleNamespace(open=lambda *_: "/run/notify", run_begins=lambda: None, store=store)
    shared: Any = SimpleNamespace(sockets=SocketRegistry(), host=FakeHost())
    spec = SpawnSpec(("x",), "/", {}, 1, 2)
    return dict(anyio.run(equip, spec, program(**settings), notify_socket, shared).environment)


def test_a_watchdogs_time_is_that_of_the_heartbeat() -> None:
    assert environment_of(notify=Notify(), heartbeat=Heartbeat(timeout_seconds=2.5)) == {
        "NOTIFY_SOCKET": "/run/notify",
        "WATCHDOG_USEC": "2500000",
    }
    assert environment_of(notify=Notify()) == {"NOTIFY_SOCKET": "/run/notify"}
    assert environment_of(heartbeat=Heartbeat()) == {}
