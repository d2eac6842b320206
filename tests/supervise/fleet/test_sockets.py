"""The registry of listening sockets, on real sockets, without a daemon."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from supervisord_async.config.model import Logs, Program, Socket
from supervisord_async.core.state import Cause, Snapshot, State
from supervisord_async.errors import SpawnError
from supervisord_async.supervise.fleet.activation import is_armed
from supervisord_async.supervise.fleet.sockets import SocketRegistry, url
from tests.fake_host import FakeHost


def program(*sockets: Socket, name: str = "web") -> Program:
    return Program(name=name, command=("web",), group="web", directory="/", logs=Logs(stdout="none"), sockets=sockets)


def opened(registry: SocketRegistry, which: Program) -> tuple[tuple[str, int], ...]:
    return anyio.run(registry.open, which, FakeHost())


@pytest.fixture
def registry() -> Iterator[SocketRegistry]:
    made = SocketRegistry()
    yield made
    anyio.run(closing, made)


async def closing(registry: SocketRegistry) -> None:
    registry.close()


def test_a_socket_stays_the_same_while_its_settings_do(registry: SocketRegistry, free_port: int) -> None:
    settings = Socket(name="http", kind="tcp", host="127.0.0.1", port=free_port)
    first = opened(registry, program(settings))
    assert opened(registry, program(settings)) == first
    with socket.create_connection(("127.0.0.1", free_port), 5):
        assert os.get_inheritable(first[0][1]) is False
        assert os.get_blocking(first[0][1]) is True


def test_an_address_can_be_bound_again_while_connections_of_before_linger(registry: SocketRegistry, free_port: int) -> None:
    which = program(Socket(name="http", kind="tcp", host="127.0.0.1", port=free_port))
    fd = opened(registry, which)[0][1]
    with socket.socket(fileno=os.dup(fd)) as listener, socket.create_connection(("127.0.0.1", free_port), 5) as client:
        listener.accept()[0].close()  # closed here first, so it lingers here (TIME_WAIT)
        assert client.recv(1) == b""
    anyio.run(closing, registry)
    assert opened(registry, which)


def test_what_is_accepted_from_a_tcp_socket_sends_at_once(registry: SocketRegistry, free_port: int) -> None:
    """A server that is given a descriptor may not know that it is TCP, so as to say it for each connection."""
    fd = opened(registry, program(Socket(name="http", kind="tcp", host="127.0.0.1", port=free_port)))[0][1]
    with socket.socket(fileno=os.dup(fd)) as listener, socket.create_connection(("127.0.0.1", free_port), 5):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_a_socket_has_the_queue_and_the_owner_of_its_settings(registry: SocketRegistry, free_port: int, tmp_path: Path) -> None:
    tcp = Socket(name="http", kind="tcp", host="127.0.0.1", port=free_port, backlog=3)
    unix = Socket(name="local", kind="unix", path=str(tmp_path / "s"), mode=0o640, user="somebody", backlog=2)

    class Users(FakeHost):
        async def credentials(self, user: str | None, group: str | None) -> Any:
            assert (user, group) == ("somebody", None)
            return SimpleNamespace(uid=os.geteuid() or 65534, gid=65534)

    anyio.run(registry.open, program(tcp, unix), Users())
    info = registry.descriptors("web")[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
    assert int.from_bytes(info[28:32], sys.byteorder) == 3  # tcpi_sacked: of a listening socket the greatest length of its queue
    found = (tmp_path / "s").stat()
    assert (found.st_mode & 0o777, found.st_uid) == (0o640, os.geteuid() or 65534)
    waiting = []
    try:
        with pytest.raises(BlockingIOError):
            for _ in range(10):
                waiting.append(socket.socket(socket.AF_UNIX))
                waiting[-1].setblocking(False)
                waiting[-1].connect(str(tmp_path / "s"))
        assert len(waiting) <= 4
    finally:
        for each in waiting:
            each.close()


def test_an_address_in_use_is_a_spawn_error_of_stage_socket(registry: SocketRegistry, free_port: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port))
        taken.listen()
        with pytest.raises(SpawnError, match=rf"socket: cannot bind tcp://127.0.0.1:{free_port}: Address already in use"):
            opened(registry, program(Socket(name="http", kind="tcp", host="127.0.0.1", port=free_port)))


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1", "\N{SNOWMAN}.invalid"])
def test_an_address_that_is_not_ours_is_a_spawn_error(registry: SocketRegistry, free_port: int, host: str) -> None:
    with pytest.raises(SpawnError) as caught:
        opened(registry, program(Socket(name="http", kind="tcp", host=host, port=free_port)))
    assert caught.value.stage == "socket"


def test_what_no_program_asks_for_is_closed_and_its_file_removed(registry: SocketRegistry, tmp_path: Path) -> None:
    kept, gone = (Socket(name=name, kind="unix", path=str(tmp_path / name), mode=0o600) for name in ("kept", "gone"))
    opened(registry, program(kept, gone))
    assert (tmp_path / "gone").stat().st_mode & 0o777 == 0o600

    async def retain() -> None:
        registry.retain({"web": program(kept)})

    anyio.run(retain)
    assert not (tmp_path / "gone").exists()
    assert (tmp_path / "kept").is_socket()


def test_a_file_that_somebody_else_put_there_is_left_alone(registry: SocketRegistry, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    opened(registry, program(Socket(name="web", kind="unix", path=str(path))))
    path.unlink()
    path.write_text("mine")
    anyio.run(closing, registry)
    assert path.read_text() == "mine"


def test_a_former_selfs_sockets_come_back_by_descriptor_or_from_a_living_holder(registry: SocketRegistry, free_port: int) -> None:
    settings = Socket(name="http", kind="tcp", host="127.0.0.1", port=free_port)
    former = SocketRegistry()
    ((_, fd),) = opened(former, program(settings))
    saved = former.saved()
    with subprocess.Popen([sys.executable, "-c", "input()"], pass_fds=(fd,), stdin=subprocess.PIPE) as holder:
        anyio.run(closing, former)  # as a daemon that died
        registry.inherit(saved, {"other": [holder.pid]}, by_reexec=False)
        assert registry.descriptors("web") == ()
        registry.inherit(saved, {"web": [holder.pid]}, by_reexec=False)
        assert holder.stdin is not None
        holder.stdin.close()
    if not registry.descriptors("web"):
        pytest.skip("we may not take descriptors from another process here")
    with socket.create_connection(("127.0.0.1", free_port), 5):
        heir = SocketRegistry()
        duplicate = os.dup(registry.descriptors("web")[0].fileno())
        heir.inherit([type(each)(each.program, each.settings, each.inode, duplicate) for each in registry.saved()], {}, by_reexec=True)
        assert [each.fileno() for each in heir.descriptors("web")] == [duplicate]
        anyio.run(closing, heir)


def test_sockets_that_no_state_tells_of_come_back_from_who_was_given_them(registry: SocketRegistry, free_port: int, tmp_path: Path) -> None:
    """By their names; one that the file has at another address by now is none of them."""
    web = Socket(name="web", kind="tcp", host="localhost", port=free_port)
    local = Socket(name="local", kind="unix", path=str(tmp_path / "local.sock"))
    former = SocketRegistry()
    (_, web_fd), (_, local_fd) = opened(former, program(web, local))
    code = f"import os; os.dup2({web_fd}, 100); os.dup2({local_fd}, 4); os.dup2(100, 3); print(flush=True); os.read(0, 1)"
    environment = {**os.environ, "LISTEN_FDNAMES": "web:local"}
    with subprocess.Popen(
        [sys.executable, "-c", code], pass_fds=(web_fd, local_fd), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        holder.stdout.readline()
        moved = replace(web, port=free_port + 1)
        anyio.run(registry.find, [program(moved, replace(local, name="unknown"))], {"web": [holder.pid]})
        assert registry.saved() == ()
        anyio.run(registry.find, [program(web, local)], {"web": [holder.pid]})
        found = {each.settings.name: each.inode for each in registry.saved()}
        holder.stdin.close()
    wanted = {each.settings.name: each.inode for each in former.saved()}
    anyio.run(closing, former)
    if not found:
        pytest.skip("we may not take descriptors from another process here")
    assert found == wanted


def test_addresses_are_told_as_the_file_writes_them() -> None:
    assert url(Socket(name="a", kind="udp", host="::1", port=53)) == "udp://[::1]:53"
    assert url(Socket(name="a", kind="unix", path="/run/a.sock")) == "unix:/run/a.sock"


@pytest.mark.parametrize(
    ("snapshot", "armed"),
    [
        (Snapshot(), True),
        (Snapshot(state=State.EXITED, cause=Cause.EXITED, run=1), True),
        (Snapshot(state=State.STOPPED, cause=Cause.OPERATOR), False),
        (Snapshot(state=State.FATAL, cause=Cause.RESTART_LIMIT), False),
        (Snapshot(state=State.RUNNING, pid=5, run=1), False),
    ],
)
def test_a_connection_starts_what_nobody_stopped(snapshot: Snapshot, armed: bool) -> None:
    process: Any = SimpleNamespace(snapshot=snapshot)
    assert is_armed(process) is armed
