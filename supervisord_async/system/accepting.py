"""Accepts the connections of a listening socket, each with a transport and protocol; waits while no descriptor is free.

A client can make a TLS handshake last as long as it likes, so the number of pending handshakes and their duration are limited.

The event loops' own servers are not used: without a free descriptor uvloop's is called again and again, as the client still
waits in the queue, and uses up a whole processor.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable

#: The pause after an attempt without a free descriptor; clients wait in the kernel's queue.
PAUSE_SECONDS = 0.5
#: How long a TLS handshake may take.
HANDSHAKE_SECONDS = 10.0

_log = logging.getLogger("asupd")


class Accepting:
    """Accepts connections until it is closed. Owns the socket, which must be listening and non-blocking."""

    def __init__(self, listener: socket.socket, protocol: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None, most: int) -> None:
        """To be made on the running loop. At most ``most`` connections may be in the TLS handshake; beyond, the oldest is closed."""
        self._loop = asyncio.get_running_loop()
        self._listener, self._protocol, self._most = listener, protocol, most
        self.tls = tls  #: of connections that are accepted from now on
        self._introductions: dict[asyncio.Task[None], None] = {}  # the oldest first
        self._again: asyncio.TimerHandle | None = None
        self._exhausted = False
        self._loop.add_reader(listener.fileno(), self._accept)

    def _accept(self) -> None:
        """Accept one connection; the loop calls this again while more wait."""
        try:
            connection, _address = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            self._pause(error)
            return
        if self._exhausted:
            _log.info("connections can be accepted again")
            self._exhausted = False
        connection.setblocking(False)
        introduction = self._loop.create_task(self._introduce(connection))
        self._introductions[introduction] = None
        introduction.add_done_callback(lambda done: self._introductions.pop(done, None))
        if self.tls is not None and len(self._introductions) > self._most:  # without TLS it takes a turn or two, whatever the client does
            longest = next(iter(self._introductions))
            del self._introductions[longest]
            longest.cancel()

    async def _introduce(self, connection: socket.socket) -> None:
        patience = HANDSHAKE_SECONDS if self.tls is not None else None
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection, ssl=self.tls, ssl_handshake_timeout=patience)
        except OSError as error:  # the client went away, or its TLS handshake failed
            _log.debug("a connection came to nothing: %s", error)
            connection.close()

    def _pause(self, error: OSError) -> None:
        if not self._exhausted:
            _log.warning("transient: cannot accept a connection: %s; trying again", error.strerror)
            self._exhausted = True
        self._loop.remove_reader(self._listener.fileno())
        self._again = self._loop.call_later(PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        self._again = None
        self._loop.add_reader(self._listener.fileno(), self._accept)

    async def introduced(self) -> None:
        """Return once every connection accepted so far has its protocol, or was dropped."""
        if self._introductions:
            await asyncio.wait(self._introductions)

    def close(self) -> None:
        """Accept no more; existing connections stay. May be called repeatedly."""
        if self._listener.fileno() < 0:
            return
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
