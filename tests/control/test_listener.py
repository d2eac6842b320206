"""The sockets that the API answers on: inherited, removed and made again, paused; and what serving loads."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from msgspec.structs import replace

from supervisord_async.config.model import Daemon, HttpTls
from supervisord_async.control import listener
from supervisord_async.control.counters import Counters
from supervisord_async.control.listener import listening
from supervisord_async.control.operation import Api
from supervisord_async.control.server import ControlServer
from supervisord_async.system.sockets import bind_unix
from tests.control.conftest import Answer, ask, playing, swift
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

Serving = Callable[..., Any]


async def test_inherited_sockets_go_on_answering(tmp_path: Any) -> None:
    daemon = Daemon(name="shop", run_dir=str(tmp_path), socket=str(tmp_path / "asupd.sock"), http=("127.0.0.1", 0))
    async with playing(swift("web"), daemon=daemon) as scene:
        async with listening(daemon, Api(scene.commands, Counters())) as listeners:
            sockets = listeners.sockets
            inherited = [os.dup(sock.fileno()) for sock in sockets]
            port = sockets[1].getsockname()[1]
            waiting = await anyio.connect_unix(daemon.socket)  # nobody accepts it before the next self
            os.link(daemon.socket, tmp_path / "kept.sock")
        os.rename(tmp_path / "kept.sock", daemon.socket)  # a re-exec does not unlink it
        again = replace(daemon, http=("127.0.0.1", port))
        async with listening(again, Api(scene.commands, Counters()), inherited) as listeners:
            assert [sock.fileno() for sock in listeners.sockets] == inherited
            async with await anyio.connect_unix(daemon.socket) as stream:
                assert (await ask(stream, "GET", "/v1/health")).status == 200
            assert (await ask_tcp(port)).status == 401
        await waiting.aclose()


async def test_inherited_sockets_that_the_file_no_longer_names_refuse(tmp_path: Any) -> None:
    daemon = Daemon(name="shop", run_dir=str(tmp_path), socket=str(tmp_path / "asupd.sock"), http=("127.0.0.1", 0))
    elsewhere = replace(daemon, socket=str(tmp_path / "other.sock"), http=None)
    bind_unix(elsewhere.socket).close()  # left by a daemon that was killed
    async with playing(swift("web"), daemon=daemon) as scene:
        async with listening(daemon, Api(scene.commands, Counters())) as listeners:
            inherited = [os.dup(sock.fileno()) for sock in listeners.sockets]
            port = listeners.sockets[1].getsockname()[1]
            os.link(daemon.socket, tmp_path / "former.sock")  # a re-exec does not unlink it
        async with listening(elsewhere, Api(scene.commands, Counters()), inherited):
            async with await anyio.connect_unix(elsewhere.socket) as stream:
                assert (await ask(stream, "GET", "/v1/health")).status == 200
            with pytest.raises(ConnectionRefusedError):
                await anyio.connect_unix(tmp_path / "former.sock")
            with pytest.raises(OSError, match=r"refused|attempts failed"):
                await anyio.connect_tcp("127.0.0.1", port)


async def test_a_socket_that_somebody_removed_is_made_anew_and_who_is_connected_stays(serving: Serving, caplog: Any) -> None:
    async with serving(swift("web")) as wire:
        async with await wire.connect() as stream:
            assert (await ask(stream, "GET", "/v1/health")).status == 200
            assert not await wire.listeners.renew()
            os.unlink(wire.path)
            assert await wire.listeners.renew()
            assert stat.S_IMODE(os.stat(wire.path).st_mode) == 0o600
            assert (await wire.ask("GET", "/v1/health")).status == 200
            assert (await ask(stream, "GET", "/v1/health")).status == 200
        assert not await wire.listeners.renew()
        os.unlink(wire.path)
        Path(wire.path).write_text("no socket")
        for _ in range(2):
            assert not await wire.listeners.renew()
        assert sum("a file that is not a socket is there" in record.message for record in caplog.records) == 1
    assert Path(wire.path).read_text() == "no socket"


async def test_a_removed_socket_for_which_there_is_no_descriptor_now_is_made_at_the_next_look(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def refuse(_sock: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async with serving(swift("web")) as wire:
        os.unlink(wire.path)
        with monkeypatch.context() as patch:
            patch.setattr(wire.listeners._server, "exchange", refuse)
            assert not await wire.listeners.renew()
        assert "Too many open files" in caplog.text
        assert await wire.listeners.renew()
        assert (await wire.ask("GET", "/v1/health")).status == 200


@pytest.mark.parametrize("silent", ["certificate", "token"])
async def test_a_silent_disk_of_the_certificate_or_the_token_holds_up_neither_the_loop_nor_the_unix_socket(
    silent: str, serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "FILES_SECONDS", 0.1)
    go_on = threading.Event()
    name = "Certificate" if silent == "certificate" else "token_of"
    monkeypatch.setattr(listener, name, lambda _: go_on.wait(10) and None)
    settings = {"http": ("127.0.0.1", 0), "http_tls": HttpTls(certificate="c.pem", key="k.pem")}
    try:
        async with serving(swift("web"), settings=settings) as wire:
            assert "has not answered for 0.1 s" in (await wire.ask("GET", "/v1/health")).json["http_trouble"]
    finally:
        go_on.set()


async def ask_tcp(port: int) -> Answer:
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        return await ask(stream, "GET", "/v1/health", headers={"host": f"127.0.0.1:{port}"})


async def test_serve_goes_on_until_cancelled(tmp_path: Any) -> None:
    daemon = Daemon(name="shop", run_dir=str(tmp_path), socket=str(tmp_path / "asupd.sock"))
    async with playing(swift("web"), daemon=daemon) as scene, anyio.create_task_group() as tasks:
        serving: list[Any] = []
        tasks.start_soon(partial(ControlServer(scene.supervisor, None).serve, on_serving=serving.append))
        await wait_until(lambda: bool(serving))
        async with await anyio.connect_unix(daemon.socket) as stream:
            listed = (await ask(stream, "GET", "/v1/processes")).json
            assert listed[0]["name"] == "web"
        tasks.cancel_scope.cancel()
    assert not os.path.exists(daemon.socket)


async def test_half_a_request_at_the_end_is_dropped_without_a_word(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """That a client never sent the rest is no bug whose place the log has to show."""
    monkeypatch.setattr(listener, "CLOSE_SECONDS", 0.05)
    daemon = Daemon(name="shop", run_dir=str(tmp_path), socket=str(tmp_path / "asupd.sock"))
    serving: list[Any] = []
    with socket.socket(socket.AF_UNIX) as client:
        async with playing(swift("web"), daemon=daemon) as scene, anyio.create_task_group() as tasks:
            tasks.start_soon(partial(ControlServer(scene.supervisor, None).serve, on_serving=serving.append))
            await wait_until(lambda: bool(serving))
            client.connect(daemon.socket)
            client.sendall(b"POST /v1/reload HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nabc")
            state = serving[0]._server.state
            await wait_until(lambda: bool(state.tasks), what="the rest of it is waited for")
            tasks.cancel_scope.cancel()
        assert not state.tasks and not state.connections
    assert caplog.messages == []


async def test_who_comes_in_a_pause_is_answered_after_it_and_who_was_there_before_it(tmp_path: Any) -> None:
    daemon = Daemon(name="shop", run_dir=str(tmp_path), socket=str(tmp_path / "asupd.sock"))
    async with playing(swift("web"), daemon=daemon) as scene, anyio.create_task_group() as tasks:
        serving: list[Any] = []
        tasks.start_soon(partial(ControlServer(scene.supervisor, None).serve, on_serving=serving.append))
        await wait_until(lambda: bool(serving))
        async with await anyio.connect_unix(daemon.socket) as early, anyio.create_task_group() as pausing:
            await wait_until(lambda: bool(serving[0]._server.state.connections), what="it was accepted")
            pausing.start_soon(serving[0].pause)
            await anyio.lowlevel.checkpoint()
            assert (await ask(early, "GET", "/v1/processes")).status == 200
        async with await anyio.connect_unix(daemon.socket) as late:
            await late.send(b"GET /v1/processes HTTP/1.1\r\nhost: x\r\n\r\n")
            with anyio.move_on_after(0.05) as scope:
                await late.receive()
            assert scope.cancelled_caught
            await serving[0].resume()
            assert (await late.receive()).startswith(b"HTTP/1.1 200")
        tasks.cancel_scope.cancel()


async def test_a_pause_whose_end_had_no_descriptor_for_the_second_socket_is_ended_by_the_next_attempt(tmp_path: Any) -> None:
    daemon = Daemon(name="shop", run_dir=str(tmp_path), socket=str(tmp_path / "asupd.sock"), http=("127.0.0.1", 0))
    async with playing(swift("web"), daemon=daemon) as scene, listening(daemon, Api(scene.commands, Counters())) as listeners:
        server = listeners._server
        await listeners.pause()
        listen, listened = server._listen, list[Any]()

        def listen_once(*arguments: Any) -> Any:
            if listened:
                raise OSError(errno.EMFILE, "Too many open files")
            listened.append(listen(*arguments))
            return listened[0]

        server._listen = listen_once  # type: ignore[method-assign]
        with pytest.raises(OSError, match="Too many open files"):
            await listeners.resume()
        server._listen = listen  # type: ignore[method-assign]
        await listeners.resume()
        assert listened[0]._listener.fileno() < 0, "only one listens at each socket"
        async with await anyio.connect_unix(daemon.socket) as stream:
            assert (await ask(stream, "GET", "/v1/health")).status == 200


def test_the_server_is_light_until_it_serves() -> None:
    code = "import sys, supervisord_async.control.server; print({'uvicorn', 'h11', 'prometheus_client'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout == b"set()\n"


def test_the_server_leaves_the_command_line_of_its_library_alone() -> None:
    code = (
        "import sys, supervisord_async.control.listener;"
        "print({'uvicorn.main', 'logging.config', 'multiprocessing', 'click', 'configparser', 'email', 'tempfile'} & sys.modules.keys());"
        "import uvicorn.main, logging.config, email.utils;"
        "print(uvicorn.main.Server.__name__, uvicorn.main.main.name, logging.config.dictConfig.__name__, email.utils.formatdate.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout == b"set()\nServer main dictConfig formatdate\n"


async def test_a_name_that_nobody_looks_up_costs_tcp_alone(serving: Serving, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """A name server that is away holds up the unix socket for a bounded time, and the loop not at all."""
    asked, end, known = threading.Event(), threading.Event(), socket.getaddrinfo

    def getaddrinfo(*question: Any) -> Any:
        if question[0] == b"host.silent" and not question[5] & socket.AI_NUMERICHOST:
            asked.set()
            end.wait(30)
        return known(*question)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(listener, "NAME_SECONDS", 0.2)
    try:
        async with serving(swift("web"), settings={"http": ("host.silent", 0), "http_insecure": True}) as wire:
            assert asked.is_set() and not wire.api.page_url
            assert (await wire.ask("GET", "/v1/health")).status == 200
        assert "no HTTP over TCP: cannot bind host.silent:0: no name server has answered for 0.2 s" in caplog.text
    finally:
        end.set()
