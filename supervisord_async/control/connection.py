"""One HTTP connection: uvicorn's, plus the peer's credentials, bounds on time and number, and errors as problem documents.

All of this defends against bad clients: one that sends its head slowly, one that keeps hundreds of connections open, one that
does not speak HTTP. None of them may keep others out. This is an asyncio protocol by nature; everything above it is anyio.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import sys
from typing import Any

from supervisord_async.control.message import Peer
from supervisord_async.control.problems import MEDIA_TYPE, document, of_status
from supervisord_async.control.uvicorn_core import H11Protocol
from supervisord_async.system.sockets import peer

MAX_CONNECTIONS = 256
#: Connections get at most one in this many of the descriptors that the process may open: the programs and the daemon need the rest.
DESCRIPTOR_PART = 8
#: The request line and headers must arrive within this time of the connection, or of their first byte.
HEAD_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 15
#: Lets the status of a thousand processes leave in one write. The kernel caps it at its own limit, and uses memory only as needed.
SEND_BUFFER_BYTES = 512 * 1024

_REASONS = {400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large", 503: "Service Unavailable"}
_CRLF = chr(13) + chr(10)


class Connection(H11Protocol):
    """One connection to the API."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_timer: asyncio.TimerHandle | None = None
        self._refused = False
        self.idle_since = self.loop.time()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected. If there are too many, the longest idle connection is closed; if none is idle, this one."""
        if len(self.connections) >= most_connections() and not self._make_room():
            self.transport, self._refused = transport, True
            self._refuse(503, f"{len(self.connections)} connections are open and busy")
            return
        super().connection_made(transport)
        if (sock := transport.get_extra_info("socket")) is not None and sock.family == socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self.app_state = {"peer": _peer_of(transport)}
        self._await_head()

    def _make_room(self) -> bool:
        idle = [other for other in self.connections if isinstance(other, Connection) and other.is_idle]
        if not idle:
            return False
        longest = min(idle, key=lambda other: other.idle_since)
        self.connections.discard(longest)
        longest.transport.abort()
        return True

    @property
    def has_asked(self) -> bool:
        """Whether a complete request head has ever arrived."""
        cycle: Any = self.cycle
        return cycle is not None

    @property
    def is_idle(self) -> bool:
        """True between two requests, and before the first head is complete."""
        cycle: Any = self.cycle  # uvicorn's annotation hides that it is None at first
        return cycle is None or bool(cycle.response_complete)

    def data_received(self, data: bytes) -> None:
        """``data`` was handed to the parser. If a head has begun, the rest of it has to follow within :data:`HEAD_SECONDS`."""
        if self._refused:
            return
        super().data_received(data)
        if not self.is_idle:
            self._stop_awaiting_head()
        elif self._head_timer is None and not self.transport.is_closing():
            self._await_head()

    def on_response_complete(self) -> None:
        """The connection is idle, unless the next request has already arrived."""
        self.idle_since = self.loop.time()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection's timers are cancelled."""
        self._stop_awaiting_head()
        self._unset_keepalive_if_required()
        if not self._refused:
            super().connection_lost(exc)

    def _await_head(self) -> None:
        self._stop_awaiting_head()
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _stop_awaiting_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if not self.is_idle or self.transport.is_closing():
            return
        if self.conn.trailing_data[0]:
            self._refuse(408, f"the request's head was not here within {HEAD_SECONDS:g} s")
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """What arrived is not HTTP, or its head is too long: it is refused."""
        error = sys.exc_info()[1]
        if not self.is_idle:
            incomplete = self.cycle.more_body and not self.cycle.response_started
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if not incomplete:  # nonsense after a request that is being answered: no second answer can follow in order
                self.transport.close()
                return
        too_long = getattr(error, "error_status_hint", 400) == 431
        self._refuse(431 if too_long else 400, f"{msg} {error}" if error is not None else msg)

    def _refuse(self, status: int, words: str) -> None:
        """The problem document is sent, and the connection closed."""
        self._stop_awaiting_head()
        _, body, _ = document(of_status(status, words))
        head = (f"HTTP/1.1 {status} {_REASONS[status]}", f"content-type: {MEDIA_TYPE}", f"content-length: {len(body)}", "connection: close")
        self.transport.write(_CRLF.join((*head, "", "")).encode() + body)
        self.transport.close()


def most_connections() -> int:
    """How many connections may be open at once."""
    return min(MAX_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // DESCRIPTOR_PART)


def _peer_of(transport: asyncio.BaseTransport) -> Peer | None:
    """The credentials of the peer on a unix socket; None on TCP."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family != socket.AF_UNIX:
        return None
    borrowed = socket.socket(sock.family, sock.type, sock.proto, fileno=sock.fileno())  # the transport's is a wrapper without all methods
    try:
        return Peer(*peer(borrowed))
    finally:
        borrowed.detach()
