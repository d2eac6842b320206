"""Endless answers: followed logs and server-sent events, read as they arrive, each on a connection of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from supervisord_async.client.exchange import Arriving, ask
from supervisord_async.client.transport import connected, in_our_words

#: A longer line is passed on in pieces.
LONGEST_LINE_BYTES = 1024 * 1024


@contextmanager
def stream(path: str, target: str, headers: dict[str, str], timeout_seconds: float | None) -> Iterator[Arriving]:
    """An answer of the daemon at ``path``, to be read as it arrives, on its own connection, which is closed after the block."""
    with in_our_words(path):
        connection = connected(path, timeout_seconds)
    with closing(connection):
        with in_our_words(path):
            answer = ask(connection, "GET", target, None, headers)
        yield answer


def lines_of(answer: Arriving, path: str) -> Iterator[bytes]:
    """The body's lines without line ends, each as soon as it is complete; the last one may lack its line end."""
    parts, rest = answer.parts(), b""
    while part := _next(parts, path):
        *lines, rest = (rest + part).split(b"\n")
        yield from lines
        if len(rest) >= LONGEST_LINE_BYTES:
            yield rest
            rest = b""
    if rest:
        yield rest


def _next(parts: Iterator[bytes], path: str) -> bytes:
    """The next part; empty if there is none. Only its errors are the daemon's, not those of whoever the lines are for."""
    with in_our_words(path):
        return next(parts, b"")


def server_sent(answer: Arriving, path: str) -> Iterator[tuple[str, str]]:
    """``(event, data)`` of each server-sent event (WHATWG HTML, "Server-sent events"); comments are left out."""
    event, data = "", list[str]()
    for raw in lines_of(answer, path):
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
