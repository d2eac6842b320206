"""HTTP messages: a request from ASGI 3, parsed only as far as needed, and a complete response.

Not here: how they are transported (``listener``, ``connection``), and endless responses (``stream``).
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
    """The credentials of a client on a unix socket."""

    pid: int
    uid: int
    gid: int


class Headers:
    """A request's headers, with lower-case names."""

    def __init__(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        self._items = list(items)

    @property
    def size_bytes(self) -> int:
        """Their size on the wire."""
        return sum(len(name) + len(value) + 4 for name, value in self._items)

    def all(self, name: str) -> list[str]:
        """The values of ``name``, in order."""
        wanted = name.encode()
        return [value.decode("latin-1") for key, value in self._items if key == wanted]

    def one(self, name: str) -> str | None:
        """The value of ``name``, or None. Raises RequestError if it occurs twice, and so is ambiguous."""
        found = self.all(name)
        if len(found) > 1:
            raise RequestError(400, "usage", f"the header {name} comes {len(found)} times")
        return found[0] if found else None


class Request:
    """One request: its head, and its body as it arrives."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.headers = Headers(scope["headers"])
        self._scope, self._receive = scope, receive

    @property
    def method(self) -> str:
        """The method, such as ``GET``."""
        return str(self._scope["method"])

    @property
    def version(self) -> str:
        """The HTTP version, ``1.0`` or ``1.1``."""
        return str(self._scope["http_version"])

    @property
    def path(self) -> str:
        """The path, percent-decoded."""
        return str(self._scope["path"])

    @property
    def peer(self) -> Peer | None:
        """The client's credentials; None over TCP."""
        peer: Peer | None = self._scope.get("state", {}).get("peer")
        return peer

    @property
    def address(self) -> str:
        """The client's address; empty if the transport has none."""
        client = self._scope.get("client")
        return str(client[0]) if client else ""

    @property
    def size_bytes(self) -> int:
        """The approximate size of the head on the wire."""
        return len(self._scope["raw_path"]) + len(self._scope["query_string"]) + self.headers.size_bytes

    def query(self) -> dict[str, str]:
        """The query's parameters. Raises RequestError if one is given twice."""
        text = self._scope["query_string"]
        items = parse_qsl(text.decode("latin-1"), keep_blank_values=True) if text else []
        query = dict(items)
        if len(query) != len(items):
            raise RequestError(400, "usage", "a parameter is given twice")
        return query

    async def body(self) -> AsyncIterator[bytes]:
        """The parts of the body as they arrive. Raises RequestError if the client disconnects before the last."""
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise RequestError(400, "usage", "the client left before its body was whole")
            more = message.get("more_body", False)
            yield message.get("body", b"")

    async def wait_gone(self) -> None:
        """The client has disconnected; whatever it sent before that is ignored."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


class Response(msgspec.Struct, frozen=True):
    """A complete response."""

    body: bytes = b""
    status: int = 200
    media: str | None = None
    headers: Mapping[str, str] = {}

    async def respond(self, _request: Request, send: Send) -> None:
        """The response was sent, unless the client has gone. For HEAD the server omits the body."""
        head = head_of(self.media, self.headers)
        if self.status != HTTPStatus.NOT_MODIFIED:
            head.append((b"content-length", str(len(self.body)).encode()))
        await send({"type": "http.response.start", "status": self.status, "headers": head})
        await send({"type": "http.response.body", "body": self.body})


def head_of(media: str | None, headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """The headers of a response, which must not be cached unless ``headers`` say otherwise."""
    head = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    if media is not None:
        head.append((b"content-type", media.encode("latin-1")))
    if "cache-control" not in headers:
        head.append((b"cache-control", b"no-store"))
    return head


def problem_response(error: Exception, **extra: Any) -> Response:
    """The problem document for ``error``, with ``extra`` as further members."""
    status, body, headers = document(error, **extra)
    return Response(body, status, MEDIA_TYPE, headers)
