"""Connections are accepted, and one for which there is no descriptor waits without anybody's turning in circles."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import ssl
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from supervisord_async.system import accepting
from supervisord_async.system.accepting import Accepting
from supervisord_async.system.sockets import bind_unix
from tests.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.real]


class Greeter(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        transport.write(b"hello")
        transport.close()


class Short:
    """A listener whose process has no descriptor left while ``wanting``."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener, self.wanting, self.tried = listener, True, 0

    def accept(self) -> Any:
        self.tried += 1
        if self.wanting:
            raise OSError(errno.EMFILE, "Too many open files")
        return self.listener.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.listener, name)


async def heard(path: Path) -> bytes:
    async with await anyio.connect_unix(path) as stream:
        with anyio.fail_after(60):
            return await stream.receive()


def is_open(client: socket.socket) -> bool:
    try:
        return client.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False


async def test_whoever_connects_has_a_protocol_until_it_is_closed(tmp_path: Path) -> None:
    server = Accepting(bind_unix(tmp_path / "s"), Greeter, None, 10)
    for _ in range(3):
        assert await heard(tmp_path / "s") == b"hello"
    await server.introduced()
    server.close()
    with pytest.raises(OSError, match=r"refused|failed"):
        await anyio.connect_unix(tmp_path / "s")


async def test_without_tls_who_connect_at_once_are_all_served(tmp_path: Path) -> None:
    server = Accepting(bind_unix(tmp_path / "s"), Greeter, None, 1)
    clients = [socket.socket(socket.AF_UNIX) for _ in range(20)]
    for client in clients:
        client.connect(str(tmp_path / "s"))
        client.setblocking(False)
    await wait_until(lambda: select.select(clients, [], [], 0)[0] == clients)
    assert [client.recv(5) for client in clients] == [b"hello"] * 20
    server.close()
    for client in clients:
        client.close()


async def test_closing_it_again_does_nothing(tmp_path: Path) -> None:
    """A pause before a re-exec closes it, and a shutdown that comes then does so too."""
    server = Accepting(bind_unix(tmp_path / "s"), Greeter, None, 10)
    server.close()
    server.close()


async def test_a_want_of_descriptors_is_told_once_and_waited_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(accepting, "PAUSE_SECONDS", 1000.0)
    caplog.set_level("INFO", "asupd")
    listener: Any = Short(bind_unix(tmp_path / "s"))
    server = Accepting(listener, Greeter, None, 10)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
        await wait_until(lambda: listener.tried == 1)
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
        assert listener.tried == 1
        server._resume()
        await wait_until(lambda: listener.tried == 2)
        listener.wanting = False
        server._resume()
        await wait_until(lambda: "can be accepted again" in caplog.text)
        await server.introduced()
        assert client.recv(5) == b"hello"
    server.close()
    assert caplog.text.count("cannot accept a connection: Too many open files") == 1


async def test_clients_that_agree_on_no_tls_hold_no_more_descriptors_than_may_be(tmp_path: Path) -> None:
    """They need no token, and over a network no account either."""
    server = Accepting(bind_unix(tmp_path / "s"), Greeter, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), 10)
    clients = []
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        clients.append(socket.socket(socket.AF_UNIX))
        clients[-1].connect(str(tmp_path / "s"))
        clients[-1].setblocking(False)
    await wait_until(lambda: [is_open(client) for client in clients] == [False] * 40 + [True] * 10)  # the last ones have their time
    assert len(os.listdir("/proc/self/fd")) <= before + len(clients) + 10 + 1  # the loop opens one for itself
    server.close()
    for client in clients:
        client.close()
    with anyio.fail_after(60):
        await server.introduced()


async def test_a_client_has_a_bounded_time_for_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "HANDSHAKE_SECONDS", 0.1)
    server = Accepting(bind_unix(tmp_path / "s"), Greeter, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), 10)
    async with await anyio.connect_unix(tmp_path / "s") as stream:
        with anyio.fail_after(60), pytest.raises(anyio.EndOfStream):
            await stream.receive()
    server.close()


async def test_closed_while_it_waits_for_descriptors_it_comes_back_no_more(tmp_path: Path) -> None:
    listener: Any = Short(bind_unix(tmp_path / "s"))
    server = Accepting(listener, Greeter, None, 10)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
        await wait_until(lambda: listener.tried == 1)
        again = server._again
        server.close()
        assert again is not None and again.cancelled()
