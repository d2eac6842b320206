"""Endless answers: followed logs and server-sent events. They use the standard library's HTTP, which is imported only for them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead

from supervisord_async.client.exchange import CutError, GarbledError
from supervisord_async.client.transport import connected, in_our_words

#: A longer line is passed on in pieces.
LONGEST_LINE_BYTES = 1024 * 1024
_BLOCK_BYTES = 64 * 1024


class _UnixConnection(HTTPConnection):
    def __init__(self, path: str, timeout_seconds: float | None) -> None:
        super().__init__("localhost", timeout=timeout_seconds)
        self._path, self._timeout_seconds = path, timeout_seconds

    def connect(self) -> None:
        self.sock: socket.socket = connected(self._path, self._timeout_seconds)


@contextmanager
def _in_our_words(path: str) -> Iterator[None]:
    """As :func:`in_our_words`, and for the errors of ``http.client`` as well."""
    with in_our_words(path):
        try:
            yield
        except IncompleteRead as error:
            raise CutError from error
        except ConnectionError:
            raise  # RemoteDisconnected is both this and an HTTPException
        except HTTPException as error:
            raise GarbledError(repr(error)) from error


@contextmanager
def stream(path: str, target: str, headers: dict[str, str], timeout_seconds: float | None) -> Iterator[HTTPResponse]:
    """An answer of the daemon at ``path``, to be read as it arrives, on its own connection, which is closed after the block."""
    connection = _UnixConnection(path, timeout_seconds)
    try:
        with _in_our_words(path):
            connection.request("GET", target, None, headers)
            response = connection.getresponse()
        yield response
    finally:
        connection.close()


def lines_of(response: HTTPResponse, path: str) -> Iterator[bytes]:
    """The body's lines without line ends, each as soon as it is complete; the last one may lack its line end."""
    rest = b""
    while block := _block(response, path):
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
        if len(rest) >= LONGEST_LINE_BYTES:
            yield rest
            rest = b""
    if rest:
        yield rest


def _block(response: HTTPResponse, path: str) -> bytes:
    with _in_our_words(path):
        return response.read1(_BLOCK_BYTES)


def server_sent(response: HTTPResponse, path: str) -> Iterator[tuple[str, str]]:
    """``(event, data)`` of each server-sent event (WHATWG HTML, "Server-sent events"); comments are left out."""
    event, data = "", list[str]()
    for raw in lines_of(response, path):
        line = raw.rstrip(b"\r").decode(errors="replace")
        if not line:
            if data:
                yield event or "message", "\n".join(data)
            event, data = "", []
            continue
        key, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if key == "data":
            data.append(value)
        elif key == "event":
            event = value
