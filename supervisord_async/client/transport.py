"""HTTP over a unix socket by the standard library, and what can go wrong there in this package's words.

Every error that leaves this module is of the tree in ``errors``; a broken pipe here is never mistaken for one of
the caller's own output.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead, RemoteDisconnected

from supervisord_async.errors import CommandError, NoDaemonError, NotAllowedError, TimedOutError, UsageError

#: A line longer than this is passed on in pieces.
LONGEST_LINE_BYTES = 1024 * 1024
#: Only streams end of themselves by the daemon's will; an answer of another kind is never larger.
LARGEST_ANSWER_BYTES = 256 * 1024 * 1024
_BLOCK_BYTES = 64 * 1024


class _UnixConnection(HTTPConnection):
    def __init__(self, path: str, timeout_seconds: float | None) -> None:
        super().__init__("localhost", timeout=timeout_seconds)
        self._path = path

    def connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(self.timeout)
        try:
            connection.connect(self._path)
        except BaseException:
            connection.close()
            raise
        self.sock = connection


@contextmanager
def in_our_words(path: str) -> Iterator[None]:
    """Errors of sockets and HTTP leave the block as CommandErrors that say which daemon, why and what to do.

    Raises:
        NoDaemonError: nobody listens there, or the daemon went away in the middle.
        NotAllowedError: the socket's mode keeps the caller out.
        TimedOutError: the daemon was silent for too long.
        UsageError: the path cannot be a socket's.
    """
    try:
        yield
    except PermissionError as error:
        raise NotAllowedError(
            f"cannot reach the daemon at {path}: permission denied (run as its user, or have daemon.socket_group open it)"
        ) from error
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
        raise NoDaemonError(f"no daemon at {path}") from error
    except TimeoutError as error:
        raise TimedOutError(f"the daemon at {path} does not answer (is it stopped, or very busy?)") from error
    except (ConnectionError, RemoteDisconnected, IncompleteRead) as error:
        raise NoDaemonError(f"the daemon at {path} went away before it had answered") from error
    except HTTPException as error:
        raise CommandError(f"cannot understand the answer of {path}: {error!r} (is it a daemon's socket?)") from error
    except OSError as error:
        if "AF_UNIX path too long" in str(error):
            raise UsageError(f"cannot reach {path}: the path of a unix socket holds at most 107 bytes") from error
        raise CommandError(f"cannot reach the daemon at {path}: {error.strerror or error}") from error


class Connection:
    """One kept connection for requests, each answered whole, and further ones for streams."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._kept: _UnixConnection | None = None

    def close(self) -> None:
        """The kept connection is closed."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def request(
        self, method: str, target: str, body: bytes | None, headers: dict[str, str], timeout_seconds: float | None
    ) -> tuple[int, str, bytes]:
        """Status, content type and body of the answer.

        A question is asked again on a new connection where the kept one turns out to be closed; an action never is.
        """
        with in_our_words(self._path):
            if method == "GET" and self._kept is not None:
                try:
                    return self._exchange(method, target, body, headers, timeout_seconds)
                except (ConnectionError, RemoteDisconnected):
                    pass  # the daemon closed an idle connection, or is a new one
            self.close()
            try:
                return self._exchange(method, target, body, headers, timeout_seconds)
            except BaseException:
                self.close()
                raise

    def _exchange(
        self, method: str, target: str, body: bytes | None, headers: dict[str, str], timeout_seconds: float | None
    ) -> tuple[int, str, bytes]:
        if self._kept is None:
            self._kept = _UnixConnection(self._path, timeout_seconds)
            self._kept.connect()
        connection = self._kept
        if connection.sock is not None:
            connection.sock.settimeout(timeout_seconds)
        connection.request(method, target, body, headers)
        response = connection.getresponse()
        content = response.read(LARGEST_ANSWER_BYTES)
        if response.length:  # a bounded read says nothing of what did not come
            raise IncompleteRead(content, response.length)
        if response.will_close or not response.isclosed():
            self.close()
        return response.status, response.headers.get_content_type(), content

    @contextmanager
    def stream(self, target: str, headers: dict[str, str], timeout_seconds: float | None) -> Iterator[HTTPResponse]:
        """An answer that is read as it comes, on a connection of its own that ends with the block."""
        connection = _UnixConnection(self._path, timeout_seconds)
        try:
            with in_our_words(self._path):
                connection.request("GET", target, None, headers)
                response = connection.getresponse()
            yield response
        finally:
            connection.close()


def lines_of(response: HTTPResponse, path: str) -> Iterator[bytes]:
    """The body's lines without their ends, each as soon as it is whole; the last also without an end."""
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
    with in_our_words(path):
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
