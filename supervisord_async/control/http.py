"""The ASGI application: bounds and authorizes each request, dispatches it to its operation, and words every error.

Not here: sockets and connections (``listener``, ``connection``), what an operation does (``operations``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import TypeAlias

import anyio

from supervisord_async.control.auth import Authorizer
from supervisord_async.control.message import Receive, Request, Response, Scope, Send, problem_response
from supervisord_async.control.operation import Api, Call, Operation
from supervisord_async.control.operations import OPERATIONS
from supervisord_async.control.parameters import Parameters
from supervisord_async.control.problems import RequestError, of_status, too_large
from supervisord_async.control.stream import Stream, cancel_when_gone
from supervisord_async.control.web.assets import Pages

HEAD_LIMIT_BYTES = 16 * 1024
BODY_LIMIT_BYTES = 64 * 1024
#: A request whose body has not arrived after this is refused.
BODY_SECONDS = 10.0

#: Answers a request, given the values of the placeholders in its path.
Endpoint: TypeAlias = Callable[[Request, dict[str, str]], Awaitable[Response | Stream]]


class Application:
    """The whole API, and the page. No request makes it raise."""

    def __init__(self, api: Api, authorizer: Authorizer) -> None:
        self._authorizer, self._routes = authorizer, Routes()
        for operation in OPERATIONS:
            known = frozenset(parameter.name for parameter in operation.parameters)
            self._routes.add(operation.method, operation.path, partial(_operate, api, operation, known))
        for path, endpoint in Pages().endpoints().items():
            self._routes.add("GET", path, endpoint)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The request was answered (ASGI 3). Websockets and lifespan are not supported."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        try:
            answer = await self._answer(request)
        except Exception as error:
            answer = problem_response(error)
        await answer.respond(request, send)

    async def _answer(self, request: Request) -> Response | Stream:
        _check_head(request)
        answer = await self._authorizer.check(request)
        if answer is not None:
            return answer
        endpoint, path_parameters = self._routes.find(request.method, request.path)
        return await endpoint(request, path_parameters)


class Routes:
    """The endpoint for each path: the placeholder ``{name}`` is one segment of it, ``{name:path}`` all the rest."""

    def __init__(self) -> None:
        self._plain: dict[str, dict[str, Endpoint]] = {}  # path → method → endpoint
        self._patterns: dict[tuple[str, ...], dict[str, Endpoint]] = {}  # segments of a path with placeholders → the same

    def add(self, method: str, path: str, endpoint: Endpoint) -> None:
        """``endpoint`` answers ``method`` at ``path``; an endpoint for GET also answers HEAD."""
        endpoints = self._patterns.setdefault(tuple(path.split("/")), {}) if "{" in path else self._plain.setdefault(path, {})
        endpoints[method] = endpoint
        if method == "GET":
            endpoints["HEAD"] = endpoint

    def find(self, method: str, path: str) -> tuple[Endpoint, dict[str, str]]:
        """The endpoint and the values of the path's placeholders. Raises RequestError if there is none for the path or method."""
        allowed: list[str] = []
        for endpoints, path_parameters in self._at(path):
            if method in endpoints:
                return endpoints[method], path_parameters
            allowed += endpoints
        if allowed:
            raise of_status(405, f"{method} is not for {path!r}: that takes {' or '.join(allowed)}", {"allow": ", ".join(allowed)})
        raise of_status(404, f"there is nothing at {path!r}")

    def _at(self, path: str) -> Iterator[tuple[dict[str, Endpoint], dict[str, str]]]:
        if path in self._plain:
            yield self._plain[path], {}
        for segments, endpoints in self._patterns.items():
            path_parameters = _match(segments, path)
            if path_parameters is not None:
                yield endpoints, path_parameters


def _match(segments: tuple[str, ...], path: str) -> dict[str, str] | None:
    """The values of the placeholders in ``segments``, as found in ``path``; None if they do not match."""
    found = path.split("/", len(segments) - 1)
    if len(found) != len(segments):
        return None
    path_parameters = {}
    for wanted, segment in zip(segments, found, strict=True):
        if wanted.startswith("{"):
            name, _, kind = wanted[1:-1].partition(":")
            if kind != "path" and (not segment or "/" in segment):
                return None
            path_parameters[name] = segment
        elif wanted != segment:
            return None
    return path_parameters


async def _operate(
    api: Api, operation: Operation, known: frozenset[str], request: Request, path_parameters: dict[str, str]
) -> Response | Stream:
    body = await _body(request)
    by = await api.askers.name_of(request) if operation.method == "POST" else ""
    call = Call(path_parameters, Parameters(request.query(), body, known=known), request.headers, by)
    return await (_run_until_gone(api, operation, call, request) if operation.until_gone else operation.run(api, call))


async def _run_until_gone(api: Api, operation: Operation, call: Call, request: Request) -> Response | Stream:
    """The operation's answer; any, where the client has gone before there was one: a wait may take a day, and nobody would end it."""
    answer: Response | Stream = Response()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancel_when_gone, request, tasks.cancel_scope)
        try:
            answer = await operation.run(api, call)
        except Exception as error:
            answer = problem_response(error)
        tasks.cancel_scope.cancel()
    return answer


def _check_head(request: Request) -> None:
    """Raises RequestError if the head is too large (one that arrives in a single read is parsed before uvicorn counts it), or states the
    body's length in two ways.
    """
    if request.size_bytes > HEAD_LIMIT_BYTES:
        close = {"connection": "close"}
        raise RequestError(431, "header_too_large", f"request line and headers are larger than {HEAD_LIMIT_BYTES} bytes", headers=close)
    if request.headers.all("transfer-encoding") and (request.headers.all("content-length") or request.version == "1.0"):
        words = "transfer-encoding beside content-length, or in HTTP/1.0: a proxy may see another end of the body there"  # RFC 9112, 6.1
        raise RequestError(400, "usage", words, headers={"connection": "close"})


async def _body(request: Request) -> bytes:
    """The whole body. Raises RequestError if it is too large or too slow."""
    length = request.headers.one("content-length")
    if length is None and request.headers.one("transfer-encoding") is None:
        return b""  # RFC 9112, section 6.3: there is no body
    if length is not None and length.isdigit() and int(length[:20]) > BODY_LIMIT_BYTES:
        raise too_large(BODY_LIMIT_BYTES)
    parts, size = [], 0
    try:
        with anyio.fail_after(BODY_SECONDS):
            async for part in request.body():
                size += len(part)
                if size > BODY_LIMIT_BYTES:
                    raise too_large(BODY_LIMIT_BYTES)
                parts.append(part)
    except TimeoutError:
        raise RequestError(408, "timeout", f"the body was not there after {BODY_SECONDS:g} s", headers={"connection": "close"}) from None
    return b"".join(parts)
