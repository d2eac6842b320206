"""A connection to one daemon, and the queries whose answers are used as plain JSON objects.

Just what ``asupctl status`` needs, since every call of it imports this. Typed answers, streams and commands are in ``api``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from os import PathLike, fspath
from typing import Any, Self

from supervisord_async.client.transport import Connection
from supervisord_async.errors import (
    BusyError,
    CommandError,
    ConfigError,
    FailedError,
    NotAllowedError,
    NotFoundError,
    Problem,
    SupervisordError,
    TimedOutError,
    UsageError,
)

_KINDS: tuple[type[CommandError], ...] = (UsageError, NotAllowedError, NotFoundError, FailedError, BusyError, TimedOutError)
_BY_KIND = {kind.kind: kind for kind in _KINDS}
#: For kinds that only HTTP knows.
_BY_STATUS = {kind.status: kind for kind in _KINDS} | {401: NotAllowedError} | dict.fromkeys((405, 413, 414, 415, 422, 431), UsageError)


def as_object(document: Any) -> dict[str, Any]:
    """``document``, if it is a JSON object. Raises CommandError if it is anything else."""
    if isinstance(document, dict):
        return document
    raise CommandError(f"cannot understand the daemon's answer: expected an object, found {type(document).__name__}")


def as_list(document: Any, key: str) -> list[Any]:
    """``document``, if it is a list, or the list under its ``key``. Raises CommandError if there is neither."""
    if isinstance(document, dict):
        document = document.get(key)
    if isinstance(document, list):
        return document
    raise CommandError(f"cannot understand the daemon's answer: expected a list of {key}")


def problem(document: Any) -> Problem:
    """A configuration's problem as the daemon sends it: an object, or its text."""
    if not isinstance(document, dict):
        return Problem("", 0, 0, str(document))
    empty = {"file": "", "line": 0, "column": 0, "message": ""}
    return Problem(**{**empty, **{key: document[key] for key in (*empty, "warning") if key in document}})


def refusal(status: int, document: Any) -> SupervisordError:
    """The exception for a problem document (RFC 9457)."""
    known = document if isinstance(document, dict) else {}
    problems = known.get("problems")
    if isinstance(problems, list) and problems:
        return ConfigError([problem(one) for one in problems])
    kind = _BY_KIND.get(str(known.get("kind", "")), _BY_STATUS.get(status, CommandError))
    return kind(str(known.get("detail") or known.get("title") or f"the daemon answered {status}"))


class JsonClient:
    """Sends requests to one daemon; connects at the first one, and belongs to one thread.

    Args:
        socket_path: the daemon's unix socket.
        timeout_seconds: how long the daemon may be silent during a query. Actions, waits and followed streams have their own bounds.
    """

    def __init__(self, socket_path: str | PathLike[str], *, timeout_seconds: float = 30.0) -> None:
        self.socket_path = fspath(socket_path)
        self.timeout_seconds = timeout_seconds
        self._connection = Connection(self.socket_path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """The connection is closed; another request would open a new one."""
        self._connection.close()

    def process_documents(self, *selectors: str, figures: bool = True) -> list[dict[str, Any]]:
        """The processes that the selectors name (none: all), in file order, as the JSON objects that were sent."""
        query = {"name": joined(selectors), "figures": None if figures else "false"}
        return as_list(self.request("GET", "/v1/processes", query), "processes")

    def health_document(self) -> dict[str, Any]:
        """The daemon's own identity and state."""
        return as_object(self.request("GET", "/v1/health"))

    def config(self, name: str | None = None) -> dict[str, Any]:
        """The effective configuration, whole or of one program, secrets masked."""
        return as_object(self.request("GET", "/v1/config", {"name": name}))

    def request(
        self,
        method: str,
        path: str,
        query: dict[str, Any] | None = None,
        body: dict[str, Any] | None = None,
        *,
        silence_seconds: float | None = None,
    ) -> Any:
        """The JSON document of the daemon's answer. Raises the error that a problem document stands for.

        An answer with ``results`` is always returned, since they say what happened to each process.
        """
        content = None if body is None else json.dumps(body).encode()
        headers = {"Accept": "application/json"} | ({"Content-Type": "application/json"} if content is not None else {})
        status, answer = self._connection.request(
            method, target_of(path, query or {}), content, headers, silence_seconds or self.timeout_seconds
        )
        document = decoded(answer)
        if document is None and answer and status < 400:
            raise CommandError(f"cannot understand the answer of {self.socket_path} (is it a daemon's socket?)")
        if status >= 400 and not (isinstance(document, dict) and "results" in document):
            raise refusal(status, document)
        return document


def decoded(text: str | bytes) -> Any:
    """``text`` as JSON; None if it is not JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def path_of(selectors: Sequence[str], verb: str = "") -> str:
    """The path of ``verb`` for the processes that ``selectors`` name. Raises UsageError if there are no selectors."""
    if not selectors:
        raise UsageError("cannot act: no name was given")
    return f"/v1/processes/{_quoted(joined(selectors) or '', safe=',:*')}/{verb}".rstrip("/")


def joined(selectors: Sequence[str]) -> str | None:
    """All selectors joined by commas; None if there are none.

    Raises UsageError for an empty one, which may be an unset variable in a script, and must not mean "all".
    """
    if not all(selectors):
        raise UsageError("cannot act: a name is empty")
    return ",".join(selectors) if selectors else None


def target_of(path: str, query: dict[str, Any]) -> str:
    """``path`` with those parameters of ``query`` that are not None."""
    given = [f"{key}={_quoted(str(value))}" for key, value in query.items() if value is not None]
    return f"{path}?{'&'.join(given)}" if given else path


def _quoted(text: str, safe: str = "") -> str:
    if text.isascii() and text.isalnum():
        return text
    from urllib.parse import quote  # costs 3 ms, which most names do not need

    return quote(text, safe=safe, errors="surrogateescape")  # a command line may contain bytes that are not UTF-8
