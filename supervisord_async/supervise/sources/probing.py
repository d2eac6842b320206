"""Asks what listens at a probe's address, by HTTP or TCP. Without threads, except to look up a host name.

The answer is None when all is well, else what is wrong, in words. A wrong answer, or none at all, never raises an exception.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Sequence
from urllib.parse import SplitResult, urlsplit

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream

from supervisord_async.config.model import Probe
from supervisord_async.errors import ProbeNotRunError
from supervisord_async.system import names
from supervisord_async.system.shortage import is_shortage

#: A response with a longer line than this before its status is no answer; what follows the status is not read.
HEAD_BYTES = 16384
GOOD_STATUS = range(200, 400)


async def ask(probe: Probe) -> str | None:
    """The answer to a probe by HTTP or TCP, within its timeout.

    Raises ProbeNotRunError where the program was not reached for lack of a descriptor, a thread or a name server that answers.
    """
    words = f"no answer within {probe.timeout_seconds:g} s"
    with anyio.move_on_after(probe.timeout_seconds):
        try:
            words = await (_ask_http(probe) if probe.kind == "http" else _ask_tcp(probe)) or ""
            return words or None
        except (anyio.EndOfStream, anyio.IncompleteRead):
            return f"{_target(probe)}: the connection was closed without an answer"
        except (OSError, UnicodeError, anyio.BrokenResourceError) as error:
            tried = _tried(error)
            words = f"{_target(probe)}: {_reason(tried)}"  # UnicodeError: not a valid host name
            if any(map(_is_ours, tried)):
                raise ProbeNotRunError(words) from error
            return words
    if names.is_awaited(_host(probe)):
        raise ProbeNotRunError(f"{_target(probe)}: no name server has answered within {probe.timeout_seconds:g} s")
    return words


def _tried(error: Exception) -> Sequence[Exception]:
    """What went wrong, for each address that was tried."""
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    return cause.exceptions if isinstance(cause, ExceptionGroup) else (cause,)


def _reason(tried: Iterable[Exception]) -> str:
    """What went wrong, as the system words it."""
    return ", ".join(dict.fromkeys(getattr(one, "strerror", None) or str(one) or type(one).__name__ for one in tried))


def _is_ours(error: Exception) -> bool:
    """Whether the program was not reached for lack of something here, or because no name server answers."""
    return is_shortage(error) or (isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN)


def _target(probe: Probe) -> str:
    return probe.http or "tcp {}:{}".format(*(probe.tcp or ("?", 0)))


def _host(probe: Probe) -> str:
    return (urlsplit(probe.http).hostname or "") if probe.http is not None else (probe.tcp or ("", 0))[0]


async def _ask_tcp(probe: Probe) -> str | None:
    assert probe.tcp is not None  # noqa: S101  by its kind
    async with await _connect(*probe.tcp):
        return None


async def _connect(host: str, port: int) -> anyio.abc.ByteStream:
    """A connection to ``host``. For ``localhost`` without a look-up, which would take a thread."""
    if host == "localhost":
        try:
            return await anyio.connect_tcp("127.0.0.1", port)
        except OSError:
            host = "::1"
    return await anyio.connect_tcp(host, port)


async def _ask_http(probe: Probe) -> str | None:
    url = urlsplit(probe.http or "")
    host = url.hostname or ""
    stream = await _connect(host, url.port or (443 if url.scheme == "https" else 80))
    async with stream:
        if url.scheme == "https":
            from anyio.streams.tls import TLSStream

            context = ssl.create_default_context()  # as kubelet does: the question is whether it serves, not who it is
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            stream = await TLSStream.wrap(stream, hostname=host, ssl_context=context, standard_compatible=False)
        await stream.send(_request(url))
        status = await _status(stream)
    if status is None:
        return f"{probe.http}: what answers is not HTTP"
    return None if status in (probe.expect_status or GOOD_STATUS) else f"{probe.http}: status {status}"


def _request(url: SplitResult) -> bytes:
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    head = f"GET {path} HTTP/1.1\r\nHost: {url.netloc.rpartition('@')[2]}\r\nUser-Agent: asupd\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    return head.encode("latin-1", "replace")


async def _status(stream: anyio.abc.ByteStream) -> int | None:
    """The status code of a response; None if that is not HTTP. Interim responses (1xx) are passed over (RFC 9110, section 15.2)."""
    lines = BufferedByteReceiveStream(stream)
    try:
        while True:
            words = (await lines.receive_until(b"\n", HEAD_BYTES)).split(None, 2)
            if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
                return None
            if (status := int(words[1])) >= 200:
                return status
            while await lines.receive_until(b"\n", HEAD_BYTES) not in (b"", b"\r"):
                pass
    except anyio.DelimiterNotFound:
        return None
