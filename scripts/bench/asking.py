"""Small things that contestants are asked by."""

from __future__ import annotations

import http.client
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path


def timed_request(path: Path, method: str, url: str, body: str | None = None, headers: dict[str, str] | None = None) -> float:
    """Seconds of a request on a unix socket, connecting included, its answer read."""
    begin = time.monotonic()
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(60)
    connection.sock.connect(str(path))
    connection.request(method, url, body, headers or {})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    if answer.status != 200 or b"<fault>" in text:
        raise RuntimeError(f"{url}: {answer.status} {text[:200]!r}")
    return time.monotonic() - begin


def free_port(start: int) -> int:
    for port in range(start, start + 500, 3):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port")


def wait(condition: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError("it does not answer")
        time.sleep(0.01)


def safe_name(name: str) -> str:
    return re.sub(r"\W+", "-", name)
