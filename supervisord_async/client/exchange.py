"""One exchange of HTTP/1.1 over a connected socket: a request leaves, its answer comes whole (RFC 9112).

As much of HTTP as a daemon on this machine speaks: ``http.client`` would bring e-mail's headers and TLS along, and with
them half of the time that ``asupctl status`` takes.
"""

from __future__ import annotations

import socket
from typing import NamedTuple

#: An answer's status line and headers are never larger.
LARGEST_HEAD_BYTES = 64 * 1024
#: Only streams end of themselves by the daemon's will; an answer of another kind is never larger.
LARGEST_ANSWER_BYTES = 256 * 1024 * 1024
_BLOCK_BYTES = 256 * 1024


class CutError(Exception):
    """The connection ended in the middle of an answer."""


class GarbledError(Exception):
    """What came is no answer of HTTP/1, or a larger one than any daemon gives."""


class Answer(NamedTuple):
    """An answer in whole."""

    status: int
    content: bytes
    keep: bool  #: the connection may be used again


def exchange(connection: socket.socket, method: str, target: str, body: bytes | None, headers: dict[str, str]) -> Answer:
    """The answer to one request.

    Args:
        connection: a connected socket, its timeout the bound of the other side's silence.
        method: GET or POST.
        target: path and query, quoted.
        body: None for a question.
        headers: further ones than Host and Content-Length, names and values in ASCII without line ends.

    Raises ConnectionError where the connection ended before an answer began, CutError where it ended later, GarbledError
    for nonsense, TimeoutError and OSError as the socket does.
    """
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in headers.items())]
    if method != "GET":
        lines.append(f"Content-Length: {len(body or b'')}")
    connection.sendall("\r\n".join([*lines, "", ""]).encode("ascii") + (body or b""))
    received = _Received(connection)
    status, fields = received.head()
    while 100 <= status < 200:  # "wait a moment": the answer is still to come
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
    """A size, as digits and nothing else."""
    try:
        number = int(text, base) if text.isalnum() else -1
    except ValueError:
        number = -1
    if not 0 <= number <= LARGEST_ANSWER_BYTES:
        raise GarbledError(f"{text[:40]!r} is not the size of an answer")
    return number


class _Received:
    """What came and is not taken yet."""

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
        """Status and headers, their names in small letters."""
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
        """All until the connection ends."""
        while block := self._connection.recv(_BLOCK_BYTES):
            self._buffer += block
            if len(self._buffer) > LARGEST_ANSWER_BYTES:
                raise GarbledError("it is larger than any daemon's")
        return bytes(self._buffer)
