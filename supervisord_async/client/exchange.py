"""One exchange of HTTP/1.1 (RFC 9112) over a connected socket: a request is sent, its complete answer is read.

Only as much of HTTP as our daemon speaks: ``http.client`` would import the email package and TLS, which would take half of
the time of ``asupctl status``.
"""

from __future__ import annotations

import socket
from typing import NamedTuple

#: A larger status line and headers are not a daemon's.
LARGEST_HEAD_BYTES = 64 * 1024
#: A larger answer is not a daemon's; only streams may be longer, and they are not read here.
LARGEST_ANSWER_BYTES = 256 * 1024 * 1024
_BLOCK_BYTES = 256 * 1024


class CutError(Exception):
    """The connection ended in the middle of an answer."""


class GarbledError(Exception):
    """The answer is not HTTP/1, or larger than any daemon's."""


class Answer(NamedTuple):
    """A complete answer."""

    status: int
    content: bytes
    keep: bool  #: whether the connection may be used again


def exchange(connection: socket.socket, method: str, target: str, body: bytes | None, headers: dict[str, str]) -> Answer:
    """The answer to one request.

    Args:
        connection: a connected socket; its timeout bounds the daemon's silence.
        method: GET or POST.
        target: path and query, quoted.
        body: None for a GET.
        headers: in addition to Host and Content-Length, names and values in ASCII without line ends.

    Raises ConnectionError if the connection ends before an answer begins, CutError if it ends later, GarbledError if the
    answer is malformed, TimeoutError and OSError as the socket does.
    """
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in headers.items())]
    if method != "GET":
        lines.append(f"Content-Length: {len(body or b'')}")
    connection.sendall("\r\n".join([*lines, "", ""]).encode("ascii") + (body or b""))
    received = _Received(connection)
    status, fields = received.head()
    while 100 <= status < 200:  # informational: the answer is still to come
        status, fields = received.head()
    keep = fields.get(b"connection", b"").lower() != b"close"
    if status in (204, 304):
        return Answer(status, b"", keep)
    if b"transfer-encoding" in fields:
        return Answer(status, received.chunks(), keep)
    if b"content-length" in fields:
        return Answer(status, received.exactly(_number(fields[b"content-length"], 10)), keep)
    return Answer(status, received.rest(), keep=False)


def _number(text: bytes, base: int) -> int:
    """A size, written in digits only. Raises GarbledError."""
    try:
        number = int(text, base) if text.isalnum() else -1
    except ValueError:
        number = -1
    if not 0 <= number <= LARGEST_ANSWER_BYTES:
        raise GarbledError(f"{text[:40]!r} is not the size of an answer")
    return number


class _Received:
    """Reads an answer; buffers the bytes that have been received but not consumed."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = bytearray()
        self._began = False

    def _more(self) -> None:
        block = self._connection.recv(_BLOCK_BYTES)
        if not block:
            raise CutError if self._began else ConnectionResetError("closed without an answer")
        self._began = True
        self._buffer += block

    def _until(self, end: bytes) -> bytes:
        """Everything before ``end``; ``end`` itself is consumed."""
        while (at := self._buffer.find(end)) < 0:
            if len(self._buffer) > LARGEST_HEAD_BYTES:
                raise GarbledError("its head does not end")
            self._more()
        taken = bytes(self._buffer[:at])
        del self._buffer[: at + len(end)]
        return taken

    def head(self) -> tuple[int, dict[bytes, bytes]]:
        """Status and headers, with lower-case names."""
        while len(self._buffer) < len(b"HTTP/1."):
            self._more()
        if not self._buffer.startswith(b"HTTP/1."):
            raise GarbledError(f"it begins with {bytes(self._buffer[:40])!r}")
        first, *lines = self._until(b"\r\n\r\n").split(b"\r\n")
        status = first[len(b"HTTP/1.1 ") :][:3]
        if not status.isdigit():
            raise GarbledError(f"it begins with {first[:40]!r}")
        fields = {}
        for line in lines:
            name, _, value = line.partition(b":")
            fields[name.lower()] = value.strip()
        return int(status), fields

    def exactly(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        while len(self._buffer) < size:
            self._more()
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def chunks(self) -> bytes:
        """A chunked body; trailers are left out."""
        parts, total = [], 0
        while size := _number(self._until(b"\r\n").partition(b";")[0].strip(), 16):
            total += size
            if total > LARGEST_ANSWER_BYTES:
                raise GarbledError("it is larger than any daemon's")
            parts.append(self.exactly(size))
            self.exactly(len(b"\r\n"))
        while self._until(b"\r\n"):
            pass
        return b"".join(parts)

    def rest(self) -> bytes:
        """Everything until the connection ends."""
        while block := self._connection.recv(_BLOCK_BYTES):
            self._buffer += block
            if len(self._buffer) > LARGEST_ANSWER_BYTES:
                raise GarbledError("it is larger than any daemon's")
        return bytes(self._buffer)
