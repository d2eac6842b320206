"""What a run is given beside its command."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from supervisord_async.config.model import Heartbeat, Notify, Socket
from supervisord_async.supervise.fleet.sockets import SocketRegistry
from supervisord_async.supervise.runs.equipment import equipped
from supervisord_async.system.spawn import SpawnSpec
from tests.fake_host import FakeHost, program


def environment_of(**settings: Any) -> dict[str, str]:
    """What is added to the environment of a program with these settings."""
    store = SimpleNamespace(saved=lambda: ())
    notify_socket: Any = SimpleNamespace(open=lambda *_: "/run/notify", run_begins=lambda: None, store=store)
    shared: Any = SimpleNamespace(sockets=SocketRegistry(), host=FakeHost())

    async def environment() -> dict[str, str]:
        async with equipped(SpawnSpec(("x",), "/", {}, 1, 2), program(**settings), notify_socket, shared) as spec:
            return dict(spec.environment)

    return anyio.run(environment)


def test_a_watchdogs_time_is_that_of_the_heartbeat() -> None:
    assert environment_of(notify=Notify(), heartbeat=Heartbeat(timeout_seconds=2.5)) == {
        "NOTIFY_SOCKET": "/run/notify",
        "WATCHDOG_USEC": "2500000",
    }
    assert environment_of(notify=Notify()) == {"NOTIFY_SOCKET": "/run/notify"}
    assert environment_of(heartbeat=Heartbeat()) == {}


@pytest.mark.anyio
async def test_sockets_that_a_reload_closes_while_the_spawn_waits_are_still_those(tmp_path: Path) -> None:
    """Their numbers became other files' of the daemon: a program was given the pipe that reports its own start, and never stopped."""
    settings = Socket(name="http", kind="unix", path=str(tmp_path / "s"))
    shared: Any = SimpleNamespace(sockets=SocketRegistry(), host=FakeHost())
    async with equipped(SpawnSpec(("x",), "/", {}, 1, 2), program(sockets=(settings,)), None, shared) as spec:
        [bound] = shared.sockets.descriptors(program().name)
        address, number = bound.getsockname(), bound.fileno()
        shared.sockets.retain({})
        taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(8)]
        assert number in taken
        [given] = spec.listen_fds
        assert given not in taken
        with socket.socket(fileno=os.dup(given)) as passed:
            assert passed.getsockname() == address
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(given)
    for fd in taken:
        os.close(fd)
