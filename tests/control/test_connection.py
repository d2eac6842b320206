"""One connection in the turns that clients take: several requests at once, bodies that nobody wants, heads alone, changes of mind."""

from __future__ import annotations

import json
import os
import resource
import socket
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from tests.control.conftest import ask, read_answer, swift

pytestmark = pytest.mark.anyio

Serving = Callable[..., Any]
HEALTH = b"GET /v1/health HTTP/1.1\r\nhost: a\r\n\r\n"
LAST = HEALTH.replace(b"host: a", b"host: a\r\nconnection: close")


async def everything(stream: Any) -> bytes:
    """All that comes until the end of the connection."""
    data = b""
    with anyio.fail_after(60):
        try:
            while True:
                data += await stream.receive()
        except anyio.EndOfStream:
            return data


async def test_requests_that_come_at_one_stroke_are_answered_in_their_order(serving: Serving) -> None:
    async with serving(swift("web")) as wire, await wire.connect() as stream:
        await stream.send(HEALTH + b"GET /v1/ready HTTP/1.1\r\nhost: a\r\n\r\n" + LAST)
        bodies = [part.partition(b"\r\n\r\n")[2] for part in (await everything(stream)).split(b"HTTP/1.1 200 OK\r\n")[1:]]
        assert [b'"pid"' in bodies[0], bodies[1].startswith(b'{"ready":true'), b'"pid"' in bodies[2]] == [True] * 3


async def test_who_waits_for_a_word_before_the_body_gets_it_or_the_refusal(serving: Serving) -> None:
    head = b"POST /v1/processes/web/restart HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: "
    async with serving(swift("web")) as wire, await wire.connect() as stream:
        await stream.send(head + b"14\r\n\r\n")
        with anyio.fail_after(60):
            assert (await stream.receive()).startswith(b"HTTP/1.1 100 ")
        await stream.send(b'{"wait": true}')
        assert (await read_answer(stream)).status == 200
        await stream.send(head + b"99999999\r\n\r\n")
        (await read_answer(stream)).problem(413, "too_large")


async def test_a_refused_request_is_passed_over_with_its_body(serving: Serving) -> None:
    async with serving(swift("web"), settings={"http": ("127.0.0.1", 0)}) as wire:
        async with await anyio.connect_tcp("127.0.0.1", wire.tcp_port) as stream:
            for _ in range(2):
                answer = await ask(stream, "POST", "/v1/processes/web/stop", b'{"wait": false}', {"host": f"127.0.0.1:{wire.tcp_port}"})
                answer.problem(401, "unauthorized")
        assert wire.scene.snapshot("web").run == 1


async def test_a_body_that_is_no_body_is_told(serving: Serving) -> None:
    async with serving(swift("web")) as wire, await wire.connect() as stream:
        await stream.send(b"POST /v1/reload HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n")
        head, _, body = (await everything(stream)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ") and json.loads(body)["kind"] == "usage"
        assert wire.scene.supervisor.processes["web"].snapshot.run == 1


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1/reload?plan=true HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST /v1/reload?plan=true HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 999\r\n\r\n",
        b"POST /v1/reload?plan=true HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n",
    ],
)
async def test_a_body_with_two_ends_hides_no_second_request(serving: Serving, head: bytes) -> None:
    async with serving(swift("web")) as wire, await wire.connect() as stream:
        await stream.send(head + b"0\r\n\r\n" + HEALTH)
        answer = await everything(stream)
        assert answer.startswith(b"HTTP/1.1 400 ") and b"transfer-encoding beside content-length" in answer
        assert answer.count(b"HTTP/1.1") == 1


async def test_a_head_alone_is_answered_by_one(serving: Serving) -> None:
    async with serving(swift("web")) as wire, await wire.connect() as stream:
        for target in ("/v1/health", "/v1/processes/web", "/v1/events", "/nothing", "/v1/reload"):
            await stream.send(f"HEAD {target} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
            with anyio.fail_after(60):
                head = b""
                while b"\r\n\r\n" not in head:
                    head += await stream.receive()
            assert head.endswith(b"\r\n\r\n"), target
            assert b"cache-control: no-store" in head
        assert b"405" in head
        assert b"allow: POST" in head
        assert (await ask(stream, "GET", "/v1/health")).status == 200


async def test_an_old_client_and_one_that_would_rather_speak_something_else_are_answered(serving: Serving) -> None:
    async with serving(swift("web")) as wire:
        async with await wire.connect() as stream:
            await stream.send(b"GET /v1/health HTTP/1.0\r\n\r\n")
            assert b'"status":"ok"' in await everything(stream)
        async with await wire.connect() as stream:
            answer = await ask(stream, "GET", "/v1/health", headers={"connection": "upgrade", "upgrade": "websocket"})
            assert answer.status == 200
            assert (await ask(stream, "GET", "/v1/health")).status == 200


async def test_a_place_of_a_path_is_one_segment_decoded_and_never_empty(serving: Serving) -> None:
    async with serving(swift("web"), swift("worker", replicas=2)) as wire, await wire.connect() as stream:
        assert (await ask(stream, "GET", "/v1/processes/worker%3A0")).json["name"] == "worker:0"
        assert (await ask(stream, "GET", "/v1/processes/w%65b/why")).json["name"] == "web"
        for target in (
            "/v1/processes/",
            "/v1/processes//why",
            "/v1/processes/web/",
            "/v1/processes/web/why/more",
            "/v1",
            "",
            "/v1/processes%2Fweb%2F",
        ):
            (await ask(stream, "GET", target or "/nowhere")).problem(404, "not_found")
        allowed = await ask(stream, "PUT", "/v1/processes/web/stop")
        assert allowed.problem(405, "method_not_allowed")["detail"] == "PUT is not for '/v1/processes/web/stop': that takes POST"
        assert allowed.headers["allow"] == "POST"
        assert (await ask(stream, "PUT", "/v1/processes")).headers["allow"] == "GET, HEAD"


async def test_who_gets_the_last_descriptor_is_answered(serving: Serving) -> None:
    """Who it is must be known before it may ask, and to find that out takes no descriptor more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with serving(swift("web")) as wire, await wire.connect() as stream:
        assert (await ask(stream, "GET", "/v1/health")).status == 200  # what is needed once is there
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            spare = os.dup(client.fileno())
            taken = [spare]
            resource.setrlimit(resource.RLIMIT_NOFILE, (spare + 1, hard))
            try:
                with pytest.raises(OSError, match="Too many open files"):
                    while True:
                        taken.append(os.open(os.devnull, os.O_RDONLY))
                os.close(taken.pop())
                client.connect(str(wire.path))
                client.send(LAST)
                with anyio.fail_after(20):
                    await anyio.wait_readable(client)
                assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                for fd in taken:
                    os.close(fd)
