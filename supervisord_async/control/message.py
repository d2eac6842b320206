"""What is asked and answered: a request as ASGI 3 tells it, read when it is wanted, and an answer in one piece.

Absent: how they travel (``listener``, ``connection``), and answers without an end (``stream``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

import msgspec

from supervisord_async.control.problems import MEDIA_TYPE, RequestError, document

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]


class Peer(msgspec.Struct, frozen=True):
    """Who is at the other end of a unix socket."""

    pid: int
    uid: int
    gid: int


class Headers:
    """A request's headers, their names in small letters."""

    def __init__(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        self._items = list(items)

    @property
    def size_bytes(self) -> int:
        """What they take on the wire."""
        return sum(len(name) + len(value) + 4 for name, value in self._items)

    def all(self, name: str) -> list[str]:
        """The values of ``name``, in their order."""
        wanted = name.encode()
        return [value.decode("latin-1") for key, value in self._items if key == wanted]

    def one(self, name: str) -> str | None:
        """The value of ``name``; None without one. Raises RequestError: it comes twice, which is nobody's word."""
        found = self.all(name)
        if len(found) > 1:
            raise RequestError(400, "usage", f"the header {name} comes {len(found)} times")
        return found[0] if found else None


class Request:
    """One request: its head, and what comes behind it."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.headers = Headers(scope["headers"])
        self._scope, self._receive = scope, receive

    @property
    def method(self) -> str:
        """In capitals, as it came."""
        return str(self._scope["method"])

    @property
    def path(self) -> str:
        """What is asked for, decoded."""
        return str(self._scope["path"])

    @property
    def peer(self) -> Peer | None:
        """Who asks; None over TCP."""
        peer: Peer | None = self._scope.get("state", {}).get("peer")
        return peer

    @property
    def size_bytes(self) -> int:
        """What the head takes on the wire, about."""
        return len(self._scope["raw_path"]) + len(self._scope["query_string"]) + self.headers.size_bytes

    def query(self) -> dict[str, str]:
        """The parameters behind the path. Raises RequestError: one is given twice."""
        text = self._scope["query_string"]
        items = parse_qsl(text.decode("latin-1"), keep_blank_values=True) if text else []
        query = dict(items)
        if len(query) != len(items):
            raise RequestError(400, "usage", "a parameter is given twice")
        return query

    async def body(self) -> AsyncIterator[bytes]:
        """The parts of the body as they come. Raises RequestError: the client left before the last."""
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise RequestError(400, "usage", "the client left before its body was whole")
            more = message.get("more_body", False)
            yield message.get("body", b"")

    async def wait_gone(self) -> None:
        """The client has gone; what it still sent was passed over."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


class Response(msgspec.Struct, frozen=True):
    """A whole answer."""

    body: bytes = b""
    status: int = 200
    media: str | None = None
    headers: Mapping[str, str] = {}

    async def give(self, _request: Request, send: Send) -> None:
        """It was sent, as far as anybody listened; of an answer to HEAD the server leaves the body out."""
        head = head_of(self.media, self.headers)
        if self.status != HTTPStatus.NOT_MODIFIED:
            head.append((b"content-length", str(len(self.body)).encode()))
        await send({"type": "http.response.start", "status": self.status, "headers": head})
        await send({"type": "http.response.body", "body": self.body})


def head_of(media: str | None, headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """The headers of an answer; nobody keeps one that does not say that it may be kept."""
    head = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    if media is not None:
        head.append((b"content-type", media.encode("latin-1")))
    if "cache-control" not in headers:
        head.append((b"cache-control", b"no-store"))
    return head


def problem_response(error: Exception) -> Response:
    """``error`` as its problem document."""
    status, body, headers = document(error)
    return Response(body, status, MEDIA_TYPE, headers)
