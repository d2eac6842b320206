"""Endless responses: a producer that sends for as long as the client listens and the server runs.

A client that does not read costs the transport's buffer (64 KiB) and one waiting task; it disturbs no other client.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

import anyio
import msgspec

from supervisord_async.control.message import Request, Send, head_of
from supervisord_async.errors import BusyError

#: Streams that may be open at once, of events and logs together.
MAX_STREAMS = 128
#: How long the transport may take to accept the end of a stream.
CLOSE_SECONDS = 0.5

SendChunk: TypeAlias = Callable[[bytes], Awaitable[None]]
Producer: TypeAlias = Callable[[SendChunk], Awaitable[None]]


class Streams:
    """Counts the open streams of one server, and ends them all together."""

    def __init__(self) -> None:
        self.open = 0
        self.closing = anyio.Event()

    def close(self) -> None:
        """Every stream ends, and no new one can begin."""
        self.closing.set()

    def refuse_when_full(self) -> None:
        """Raises BusyError unless there is room for one more stream. Does not count it."""
        if self.closing.is_set():
            raise BusyError("cannot open a stream: the daemon is going")
        if self.open >= MAX_STREAMS:
            raise BusyError(f"cannot open a stream: {self.open} are open already")


class Stream(msgspec.Struct, frozen=True):
    """A response that consists of what ``produce`` sends, until it returns, the client disconnects or the streams are closed."""

    streams: Streams
    produce: Producer
    media: str
    headers: Mapping[str, str] = {}

    def __post_init__(self) -> None:
        """Raises BusyError if there are too many streams, or they are closed."""
        self.streams.refuse_when_full()

    async def respond(self, request: Request, send: Send) -> None:
        """The stream has ended."""

        async def send_chunk(chunk: bytes) -> None:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})

        self.streams.open += 1
        try:
            head = head_of(self.media, {"x-accel-buffering": "no", **self.headers})
            await send({"type": "http.response.start", "status": 200, "headers": head})
            if request.method != "HEAD":
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(cancel_when_gone, request, tasks.cancel_scope)
                    tasks.start_soon(_until_closed, self.streams, tasks.cancel_scope)
                    await self.produce(send_chunk)
                    tasks.cancel_scope.cancel()
            with anyio.move_on_after(CLOSE_SECONDS):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self.streams.open -= 1


async def cancel_when_gone(request: Request, scope: anyio.CancelScope) -> None:
    """``scope`` is cancelled when the client has disconnected."""
    await request.wait_gone()
    scope.cancel()


async def _until_closed(streams: Streams, scope: anyio.CancelScope) -> None:
    await streams.closing.wait()
    scope.cancel()
