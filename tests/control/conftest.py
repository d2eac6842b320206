"""A real supervisor over a fake machine: real states, records and timing, no process is spawned."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from supervisord_async.config.model import Backoff, Configuration, Daemon, Program, Restart
from supervisord_async.control.commands import Commands
from supervisord_async.control.counters import Counters
from supervisord_async.control.listener import listening
from supervisord_async.control.operation import Api
from supervisord_async.core.state import State
from supervisord_async.supervise.records.bus import Bus
from supervisord_async.supervise.shared_context import SharedContext
from supervisord_async.supervise.supervisor import Supervisor
from tests.fake_host import FakeChild, FakeHost, program, shared_context
from tests.waiting import wait_until

#: Restarts without a limit, quick ones.
QUICK = Restart(backoff=Backoff(initial_seconds=0.05, max_seconds=0.05, jitter=0.0))


class Scene:
    """A supervisor, its fake machine, and the commands on it."""

    def __init__(self, supervisor: Supervisor, host: FakeHost, commands: Commands) -> None:
        self.supervisor, self.host, self.commands = supervisor, host, commands

    @property
    def bus(self) -> Bus:
        return self.supervisor.bus

    def snapshot(self, name: str) -> Any:
        return self.supervisor.processes[name].snapshot

    def has_begun(self, name: str) -> bool:
        """Whether what was asked of it first has happened; a spawn in flight has not."""
        now = self.snapshot(name)
        return now.state is not State.STOPPED and (now.state is not State.STARTING or now.pid is not None)

    def child(self, name: str) -> FakeChild:
        """The living child of ``name``."""
        pid = self.snapshot(name).pid
        return next(child for child in self.host.children if child.pid == pid)

    async def state(self, name: str, *states: State) -> None:
        """``name`` is in one of ``states``, or has been since the call: a short backoff may be over before anybody looks."""
        seen: set[str | None] = set()
        with self.bus.subscribe() as records:

            def reached() -> bool:
                while (record := records.receive_nowait()) is not None:
                    if record.name == name and record.type == "state":
                        seen.add(record.to)
                return self.snapshot(name).state in states or not seen.isdisjoint(states)

            await wait_until(reached, what=f"{name} in {states}")


async def refuse_reexec() -> None:
    raise AssertionError("no test re-executes")


def swift(name: str, **settings: Any) -> Program:
    """A program that is RUNNING as soon as it has a process."""
    return program(name, **({"start_seconds": 0.0, "restart": QUICK} | settings))


@asynccontextmanager
async def playing(*programs: Program, daemon: Daemon | None = None, load: Any = None, **parts: Any) -> AsyncIterator[Scene]:
    """``programs`` supervised on a fake machine; the autostart ones are up."""
    host = FakeHost()
    daemon = daemon or Daemon(name="shop", run_dir="/nowhere", socket="/nowhere/asupd.sock")
    configuration = Configuration(file="/nowhere/programs.yaml", daemon=daemon, programs={one.name: one for one in programs})

    def shared(made: Supervisor) -> SharedContext:
        return shared_context(host, waits_for=made.dependencies.waits_for, spawned=made.dependencies.release)

    supervisor = Supervisor(configuration, load or _no_file, shared, refuse_reexec)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(supervisor.run)
        await wait_until(lambda: len(supervisor.processes) >= len(programs))
        scene = Scene(supervisor, host, Commands(supervisor, **parts))
        for one in programs:
            if one.autostart:
                for name in one.process_names():
                    await wait_until(lambda name=name: scene.has_begun(name), what=f"{name} to have begun")  # type: ignore[misc]
        yield scene
        tasks.cancel_scope.cancel()


async def _no_file() -> Any:
    raise AssertionError("no test loads a file here")


class Wire:
    """A scene that answers on a unix socket, and on TCP where its daemon says so."""

    def __init__(self, scene: Scene, api: Api, path: str) -> None:
        self.scene, self.api, self.path = scene, api, path

    async def connect(self) -> anyio.abc.SocketStream:
        return await anyio.connect_unix(self.path)

    async def ask(self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        """One request on a connection of its own."""
        async with await self.connect() as stream:
            return await ask(stream, method, target, body, headers)


class Answer:
    """A parsed response."""

    def __init__(self, head: bytes, body: bytes) -> None:
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines[1:])}
        self.body = body

    @property
    def json(self) -> Any:
        import json

        return json.loads(self.body)

    def problem(self, status: int, kind: str) -> Any:
        """The problem document, which must be of that status and kind."""
        assert self.headers["content-type"] == "application/problem+json", self.body
        assert (self.status, self.json["status"], self.json["kind"]) == (status, status, kind)
        return self.json


async def ask(stream: Any, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
    """Send one request and read its whole answer."""
    given = {"host": "localhost", "content-length": str(len(body)), **(headers or {})}
    head = "".join(f"{key}: {value}\r\n" for key, value in given.items())
    await stream.send(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + body)
    return await read_answer(stream)


async def read_answer(stream: Any) -> Answer:
    """The next answer on ``stream``; for those with a length, or that end with the connection."""
    with anyio.fail_after(60):
        data = b""
        while b"\r\n\r\n" not in data:
            data += await stream.receive()
        head, _, rest = data.partition(b"\r\n\r\n")
        answer = Answer(head, rest)
        length = int(answer.headers.get("content-length", 0))
        while len(answer.body) < length:
            answer.body += await stream.receive()
        return answer


@pytest.fixture
def socket_path(tmp_path: Path) -> str:
    return str(tmp_path / "asupd.sock")


@pytest.fixture
def serving(tmp_path: Path) -> Callable[..., Any]:
    """Makes a scene that answers: ``async with serving(program, …) as wire``."""

    @asynccontextmanager
    async def serve(*programs: Program, load: Any = None, settings: dict[str, Any] | None = None, **parts: Any) -> AsyncIterator[Wire]:
        daemon = Daemon(name="shop", run_dir=str(tmp_path), socket=str(tmp_path / "asupd.sock"), **(settings or {}))
        async with playing(*programs, daemon=daemon, load=load, **parts) as scene:
            counters = Counters()
            scene.bus.listen(counters.on_record)
            api = Api(scene.commands, counters)
            async with listening(daemon, api) as listeners:
                wire = Wire(scene, api, daemon.socket)
                wire.tcp_port = next((s.getsockname()[1] for s in listeners.sockets if s.family == socket.AF_INET), None)  # type: ignore[attr-defined]
                wire.listeners = listeners  # type: ignore[attr-defined]
                yield wire

    return serve
