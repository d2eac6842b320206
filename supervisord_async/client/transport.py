"""A kept connection to the daemon's unix socket, and the translation of its errors.

Every error that leaves this module is one of ``errors``, so a broken pipe here is never mistaken for one of the caller's
own output. HTTP itself is in ``exchange``, endless answers are in ``streams``.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from supervisord_async.client.exchange import Answer, CutError, GarbledError, exchange
from supervisord_async.errors import CommandError, NoDaemonError, NotAllowedError, TimedOutError, UsageError, WentAwayError


def connected(path: str, timeout_seconds: float | None) -> socket.socket:
    """A new connection to the unix socket at ``path``; reads and writes raise TimeoutError after ``timeout_seconds`` of silence."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout_seconds)
    try:
        connection.connect(path)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def in_our_words(path: str) -> Iterator[None]:
    """Errors of sockets and HTTP leave the block as CommandErrors that say which daemon, why and what to do.

    Raises:
        NoDaemonError: nobody listens there; WentAwayError: the daemon closed the connection before it had answered.
        NotAllowedError: the socket's mode keeps the caller out.
        TimedOutError: the daemon was silent for too long.
        UsageError: the path is too long for a socket.
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
        raise TimedOutError(f"the daemon at {path} does not answer (is it stopped, or very busy? `asupctl doctor` looks closer)") from error
    except (ConnectionError, CutError) as error:
        raise WentAwayError(f"the daemon at {path} went away before it had answered") from error
    except GarbledError as error:
        raise CommandError(f"cannot understand the answer of {path}: {error} (is it a daemon's socket?)") from error
    except OSError as error:
        if "AF_UNIX path too long" in str(error):
            raise UsageError(f"cannot reach {path}: the path of a unix socket holds at most 107 bytes") from error
        raise CommandError(f"cannot reach the daemon at {path}: {error.strerror or error}") from error


class Connection:
    """A connection that is kept between requests, whose answers are read completely."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._kept: socket.socket | None = None

    def close(self) -> None:
        """The kept connection is closed."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def request(
        self, method: str, target: str, body: bytes | None, headers: dict[str, str], timeout_seconds: float | None
    ) -> tuple[int, bytes]:
        """The answer's status and body.

        If the kept connection turns out to be closed, a GET is repeated on a new one; an action is never repeated.
        """
        with in_our_words(self._path):
            if method == "GET" and self._kept is not None:
                try:
                    return self._exchange(method, target, body, headers, timeout_seconds)
                except ConnectionError:
                    pass  # the daemon has closed an idle connection, or was replaced by a new one
            self.close()
            return self._exchange(method, target, body, headers, timeout_seconds)

    def _exchange(
        self, method: str, target: str, body: bytes | None, headers: dict[str, str], timeout_seconds: float | None
    ) -> tuple[int, bytes]:
        """Exchanges over the kept connection or a new one, which is kept if the answer is complete and the daemon keeps it open."""
        connection, self._kept = self._kept or connected(self._path, timeout_seconds), None
        answer: Answer | None = None
        try:
            connection.settimeout(timeout_seconds)
            answer = exchange(connection, method, target, body, headers)
        finally:
            if answer is not None and answer.keep:
                self._kept = connection
            else:
                connection.close()
        return answer.status, answer.content
