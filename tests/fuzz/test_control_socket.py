"""Raw bytes at a real daemon's control socket: it answers or hangs up, goes on, and its programs notice nothing."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.daemons import LiveDaemon

pytestmark = pytest.mark.real

METHODS = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "CONNECT", "get", "\x00", "GET GET"]
PATHS = [
    "/v1/processes",
    "/v1/processes/a",
    "/v1/processes/%00/start",
    "/v1/processes/../../etc/passwd",
    "/v1/processes/a/logs?n=-1&since=x",
    "/",
    "*",
    "//",
    "/v1/events?type=%ff",
    "/metrics",
    "/v1/processes?select=[",
    "/" + "a" * 5000,
    "",
]
HEADERS = [
    "Host: asupd",
    "Host: evil.example",
    "Content-Length: -1",
    "Content-Length: 99999999999999999999",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: \x0bchunked",
    "Last-Event-ID: x",
    "Last-Event-ID: 9" + "9" * 400,
    "Authorization: Bearer \xff",
    "Expect: 100-continue",
    "Upgrade: websocket\r\nConnection: Upgrade",
    "Connection: close",
    ": x",
    "x" * 9000 + ": 1",
]
BODIES = [b"", b"{}", b"[" * 2000, b"\xff\xfe", b"0\r\n\r\n", b"ffffffffffffffffff\r\n", b'{"signal": "KILL"', b"x" * 100_000]
REQUESTS = st.builds(
    lambda method, path, version, headers, body: (
        f"{method} {path} {version}\r\n{''.join(header + chr(13) + chr(10) for header in headers)}\r\n".encode("latin-1") + body
    ),
    st.sampled_from(METHODS),
    st.sampled_from(PATHS),
    st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/9", "", "HTTP/1.1\x00"]),
    st.lists(st.sampled_from(HEADERS), max_size=4),
    st.sampled_from(BODIES),
)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveDaemon]:
    folder = tmp_path_factory.mktemp("fuzz")
    with LiveDaemon(folder, "programs: {a: {command: [sleep, '1000'], start_seconds: 0}}") as daemon:
        daemon.wait_for("a", "RUNNING")
        yield daemon


def say(path: Path, data: bytes) -> bytes:
    """What comes back; b"" when it hangs up, or has nothing to say in a moment."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(0.2)
        client.connect(str(path))
        try:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            return client.recv(65536)
        except OSError:
            return b""


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=2000) | REQUESTS)
def test_no_bytes_bring_the_daemon_down(live: LiveDaemon, data: bytes) -> None:
    answer = say(live.folder / ".asupd" / "asupd.sock", data)
    assert b" 500 " not in answer.split(b"\r\n")[0], answer


def test_afterwards_it_answers_and_nothing_was_touched(live: LiveDaemon) -> None:
    noise = random.Random(7)
    for _ in range(50):
        say(live.folder / ".asupd" / "asupd.sock", noise.randbytes(3000))
    assert live.answers()
    status = live.process_of("a")
    assert (status["state"], status["run"]) == ("RUNNING", 1)
    assert "Traceback" not in live.text(), live.text()[-4000:]
