"""Looks up host names in threads of its own: a name server that does not answer delays nobody else, nor the end of the process.

The loops have a few threads for it (four in uvloop, for all that libuv does). With one probe of a name that is not answered each
of them soon waits, all other names queue behind, and at its end the process waits for the whole queue.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from supervisord_async.system.threads import Call, DaemonThreads

#: How many names can be looked up at a time; if so many hang, all others wait behind them.
THREADS = 32


class NameLookups:
    """Replaces ``getaddrinfo`` of a loop. A mixin."""

    _lookups: Lookups | None = None

    async def getaddrinfo(self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> list[Any]:  # noqa: A002
        """What ``socket.getaddrinfo`` returns or raises. Raises OSError, EAGAIN, where no thread can be started."""
        if self._lookups is None:
            self._lookups = Lookups()
        return await self._lookups.find(host, port, family, type, proto, flags)


def is_awaited(host: str) -> bool:
    """Whether ``host`` is being looked up on the running loop, also if whoever asked has given up."""
    lookups: Lookups | None = getattr(asyncio.get_running_loop(), "_lookups", None)
    return lookups is not None and lookups.is_awaited(host)


class Lookups:
    """The look-ups of one loop."""

    def __init__(self) -> None:
        self._threads = DaemonThreads(THREADS, "name")
        self._asked: dict[tuple[Any, ...], Call[list[Any]]] = {}  # those under way, which later callers share

    async def find(self, host: Any, port: Any, *kind: int) -> list[Any]:
        """What ``socket.getaddrinfo(host, port, *kind)`` returns or raises; numeric addresses take no thread."""
        family, type_, proto, flags = kind
        try:
            return socket.getaddrinfo(host, port, family, type_, proto, flags | socket.AI_NUMERICHOST)
        except socket.gaierror:  # it is a name
            asked = self._begin((host, port, *kind))
        await asyncio.wait([asked])  # not the look-up itself, which others may wait for as well, is cancelled with this
        return asked.result()

    def is_awaited(self, host: str) -> bool:
        """Whether ``host`` is being looked up."""
        return any(name in (host, host.encode()) for name, *_ in self._asked)

    def _begin(self, question: tuple[Any, ...]) -> Call[list[Any]]:
        asked = self._asked.get(question)
        if asked is None:
            asked = self._asked[question] = self._threads.begin(socket.getaddrinfo, *question)
            asked.add_done_callback(lambda asked: self._heard(question, asked))
        return asked

    def _heard(self, question: tuple[Any, ...], asked: Call[list[Any]]) -> None:
        del self._asked[question]
        if not asked.cancelled():
            asked.exception()  # retrieved, also if nobody waits any more
