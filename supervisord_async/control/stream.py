"""Responses without an end: a producer that sends as long as the client listens and the server lives.

A client that does not read costs what the transport buffers (64 KiB) and one waiting task; it disturbs nobody.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from supervisord_async.errors import BusyError

#: Streams that may be open at once, of events and logs together.
MAX_STREAMS = 128
#: How long an ended stream's last word may take to be accepted.
FAREWELL_SECONDS = 0.5

SendChunk: TypeAlias = Callable[[bytes], Awaitable[None]]
Producer: TypeAlias = Callable[[SendChunk], Awaitable[None]]


class Streams:
    """The open streams of one server: how many, and their common end."""

    def __init__(self) -> None:
        self.open = 0
        self.closing = anyio.Event()

    def close(self) -> None:
        """Every stream ends, and none begins any more."""
        self.closing.set()

    def claim(self) -> None:
        """There is room for one more; raises BusyError."""
        if self.closing.is_set():
            raise BusyError("cannot open a stream: the daemon is going")
        if self.open >= MAX_STREAMS:
            raise BusyError(f"cannot open a stream: {self.open} are open already")


class Stream(Response):
    """Sends what ``producer`` sends, until it returns, the client goes or the streams are closed."""

    def __init__(self, streams: Streams, producer: Producer, media_type: str) -> None:
        """Raises BusyError: there are too many."""
        streams.claim()
        super().__init__(media_type=media_type, headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._streams, self._producer = streams, producer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The stream was sent, as far as anybody listened."""

        async def send_chunk(chunk: bytes) -> None:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})

        self._streams.open += 1
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if scope["method"] != "HEAD":
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_until_gone, receive, tasks.cancel_scope)
                    tasks.start_soon(_until_closed, self._streams, tasks.cancel_scope)
                    await self._producer(send_chunk)
                    tasks.cancel_scope.cancel()
            with anyio.move_on_after(FAREWELL_SECONDS):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._streams.open -= 1


async def _until_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _until_closed(streams: Streams, scope: anyio.CancelScope) -> None:
    await streams.closing.wait()
    scope.cancel()
