"""Errors as RFC 9457 problem documents: the one place where an exception becomes an HTTP status."""

from __future__ import annotations

import http
import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from supervisord_async.errors import CommandError, ConfigError, Problem
from supervisord_async.jsontext import json_bytes
from supervisord_async.system.shortage import is_shortage

MEDIA_TYPE = "application/problem+json"

_log = logging.getLogger(__name__)


class ProblemDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong with a request (RFC 9457), with the word that scripts compare and asupctl's exit code."""

    type: str  #: urn:asup:problem:KIND
    title: str  #: the status in words
    status: int
    detail: str  #: what happened in this case, for people
    kind: str
    exit_code: int


class RequestError(CommandError):
    """The request itself is invalid; no command was carried out."""

    def __init__(self, status: int, kind: str, detail: str, *, exit_code: int = 2, headers: Mapping[str, str] | None = None) -> None:
        self.status, self.kind, self.exit_code = status, kind, exit_code
        self.headers = dict(headers or {})
        super().__init__(detail)


def too_large(limit_bytes: int) -> RequestError:
    """The error for a body larger than ``limit_bytes``; the connection is closed after the answer."""
    return RequestError(413, "too_large", f"the body is larger than {limit_bytes} bytes", headers={"connection": "close"})


def of_status(status: int, detail: str, headers: Mapping[str, str] | None = None) -> RequestError:
    """The error for an HTTP ``status`` that does not come from a command."""
    kinds = {400: "usage", 404: "not_found", 405: "method_not_allowed", 431: "header_too_large", 503: "busy"}
    codes = {404: 1, 503: 1}
    kind = kinds.get(status, "usage" if status < 500 else "internal")
    return RequestError(status, kind, detail, exit_code=codes.get(status, 2), headers=headers)


def document(error: Exception, **extra: Any) -> tuple[int, bytes, dict[str, str]]:
    """The status, body and headers of ``error``'s problem document; ``extra`` are further members of it.

    A shortage of resources is not a bug: the client is told to try again. Nor is a module that is missing, mostly because the package was
    moved away or is being replaced. Any other exception that is neither a CommandError nor a
    ConfigError is a bug: it is logged with its traceback, and answered without it.
    """
    headers: dict[str, str] = {}
    if isinstance(error, ConfigError):
        status, kind, code, detail = 422, "bad_configuration", 2, str(error)
        extra = {"problems": [problem_json(problem) for problem in error.problems], **extra}
    elif isinstance(error, CommandError):
        status, kind, code, detail = error.status, error.kind, error.exit_code, str(error)
        headers = getattr(error, "headers", {})
    elif is_shortage(error):
        reason = (error.strerror if isinstance(error, OSError) else str(error)) or "no memory"
        status, kind, code, detail = 503, "unavailable", 1, f"the daemon is short of something just now, try again: {reason}"
        _log.warning("transient: a request was not answered: %s", reason)
    elif isinstance(error, ImportError):
        advice = "install it again, then `asupctl reexec`"
        status, kind, code, detail = 503, "unavailable", 1, f"a part of the daemon cannot be imported: {error} ({advice})"
        _log.warning("degraded: %s cannot be imported: %s; a request was not answered (%s)", error.name, error, advice)
    else:
        _log.error("a request failed by a bug", exc_info=error)
        status, kind, code, detail = 500, "internal", 1, "an internal error; the daemon's log has the traceback"
    title = http.HTTPStatus(status).phrase
    members = {"type": f"urn:asup:problem:{kind}", "title": title, "status": status, "detail": detail, "kind": kind, "exit_code": code}
    return status, json_bytes({**members, **extra}), headers


def problem_json(problem: Problem) -> dict[str, Any]:
    """One problem of a configuration as JSON, with its line for people."""
    return {**problem.document, "text": str(problem)}
