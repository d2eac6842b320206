"""One exchange of HTTP/1.1 (RFC 9112) over a connected socket: a request is sent, its answer is read, completely or as it arrives.

Only as much of HTTP as our daemon speaks: ``http.client`` would import the email package and TLS, which would take half of
the time of ``asupctl status``.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import NamedTuple

#: A larger status line and headers are not a daemon's.
LARGEST_HEAD_BYTES = 64 * 1024
#: A larger answer is not a daemon's, nor a larger part of a stream.
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
    """The complete answer to one request; raises what :func:`ask` and :meth:`Arriving.complete` raise."""
    arriving = ask(connection, method, target, body, headers)
    return Answer(arriving.status, arriving.complete(), arriving.keep)


def ask(connection: socket.socket, method: str, target: str, body: bytes | None, headers: dict[str, str]) -> Arriving:
    """The answer to one request, as soon as its head is there.

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
    return Arriving(connection)


def _number(text: bytes, base: int) -> int:
    """A size, written in digits only. Raises GarbledError."""
    try:
        number = int(text, base) if text.isalnum() else -1
    except ValueError:
        number = -1
    if not 0 <= number <= LARGEST_ANSWER_BYTES:
        raise GarbledError(f"{text[:40]!r} is not the size of an answer")
    return number


class Arriving:
    """An answer as it arrives; buffers the bytes that have been received but not consumed."""

    def __init__(self, connection: socket.socket) -> None:
        """Read the head; raises as :func:`ask`."""
        self._connection = connection
        self._buffer = bytearray()
        self._began = False
        self.status, self._fields = self._head()
        while 100 <= self.status < 200:  # informational: the answer is still to come
            self.status, self._fields = self._head()

    def field(self, name: str) -> str | None:
        """The header of that name, in lower case; None if there is none."""
        value = self._fields.get(name.encode())
        return value.decode("latin-1") if value is not None else None

    @property
    def keep(self) -> bool:
        """Whether the connection may be used again, once the whole body was read."""
        ends = self.status in (204, 304) or b"transfer-encoding" in self._fields or b"content-length" in self._fields
        return ends and self._fields.get(b"connection", b"").lower() != b"close"

    def complete(self) -> bytes:
        """The whole body. Raises CutError, GarbledError, TimeoutError and OSError."""
        parts, total = [], 0
        for part in self.parts():
            parts.append(part)
            total += len(part)
            if total > LARGEST_ANSWER_BYTES:
                raise GarbledError("it is larger than any daemon's")
        return b"".join(parts)

    def parts(self) -> Iterator[bytes]:
        """The body, in pieces as they arrive, without trailers; raises as :meth:`complete`."""
        if self.status in (204, 304):
            return
        if b"transfer-encoding" in self._fields:
            while size := _number(self._until(b"\r\n").partition(b";")[0].strip(), 16):
                yield from self._exactly(size)
                self._until(b"\r\n")
            while self._until(b"\r\n"):
                pass
        elif b"content-length" in self._fields:
            yield from self._exactly(_number(self._fields[b"content-length"], 10))
        else:  # until the connection ends
            if self._buffer:
                yield bytes(self._buffer)
            while block := self._connection.recv(_BLOCK_BYTES):
                yield block

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

    def _exactly(self, size: int) -> Iterator[bytes]:
        """The next ``size`` bytes."""
        while size:
            if not self._buffer:
                self._more()
            part = bytes(self._buffer[:size])
            del self._buffer[:size]
            size -= len(part)
            yield part

    def _head(self) -> tuple[int, dict[bytes, bytes]]:
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
