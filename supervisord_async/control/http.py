"""The ASGI application: the table of operations behind one door that bounds bodies, checks who asks and words every error.

Absent: sockets and connections (``listener``), what an operation does (``operations``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from supervisord_async.control.auth import Door
from supervisord_async.control.operations import OPERATIONS, Api, Call, Operation
from supervisord_async.control.parameters import Parameters
from supervisord_async.control.problems import MEDIA_TYPE, RequestError, document, of_status, too_large
from supervisord_async.control.web.assets import Pages

HEAD_LIMIT_BYTES = 16 * 1024
BODY_LIMIT_BYTES = 64 * 1024
#: A body that is not there after this is no longer waited for.
BODY_SECONDS = 10.0


def application(api: Api, door: Door) -> ASGIApp:
    """The whole API, and the page."""
    routes = [Route(operation.path, _endpoint(api, operation), methods=[operation.method]) for operation in OPERATIONS]
    app = Starlette(routes=[*routes, *Pages().routes()], exception_handlers={HTTPException: _library_error, Exception: _bug})
    app.router.redirect_slashes = False
    return _Gate(app, door)


class _Gate:
    """Lets in whom the door lets in."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app, self._door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # no websockets, no lifespan
            return
        try:
            _check_head(scope)
            answer = self._door.check(scope)
        except Exception as error:
            answer = problem_response(error)
        if answer is not None:
            await answer(scope, receive, _unkept(send))
        else:
            await self._app(scope, receive, _unkept(send))


def _unkept(send: Send) -> Send:
    """Nobody keeps an answer that does not say that it may be kept."""

    async def send_unkept(message: Message) -> None:
        if message["type"] == "http.response.start" and not any(name == b"cache-control" for name, _ in message["headers"]):
            message = {**message, "headers": [*message["headers"], (b"cache-control", b"no-store")]}
        await send(message)

    return send_unkept


def _check_head(scope: Scope) -> None:
    """The head is small: a large one that came at one stroke was parsed before anybody counted."""
    size = len(scope["raw_path"]) + len(scope["query_string"]) + sum(len(name) + len(value) + 4 for name, value in scope["headers"])
    if size > HEAD_LIMIT_BYTES:
        close = {"connection": "close"}
        raise RequestError(431, "header_too_large", f"request line and headers are larger than {HEAD_LIMIT_BYTES} bytes", headers=close)


def _endpoint(api: Api, operation: Operation) -> Callable[[Request], Awaitable[Response]]:
    known = frozenset(parameter.name for parameter in operation.parameters)

    async def endpoint(request: Request) -> Response:
        try:
            body = await _body(request)
            parameters = Parameters(_query(request), body, known=known)
            return await operation.run(api, Call(dict(request.path_params), parameters, request.headers))
        except Exception as error:
            return problem_response(error)

    endpoint.__name__ = operation.name
    return endpoint


def _query(request: Request) -> dict[str, str]:
    items = request.query_params.multi_items()
    query = dict(items)
    if len(query) != len(items):
        raise RequestError(400, "usage", "a parameter is given twice")
    return query


async def _body(request: Request) -> bytes:
    """The whole body; RequestError for one that is too large or too slow."""
    length = request.headers.get("content-length", "")
    if not length and "transfer-encoding" not in request.headers:
        return b""  # RFC 9112, section 6.3: there is none
    if length.isdigit() and int(length[:20]) > BODY_LIMIT_BYTES:
        raise too_large(BODY_LIMIT_BYTES)
    parts, size = [], 0
    try:
        with anyio.fail_after(BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > BODY_LIMIT_BYTES:
                    raise too_large(BODY_LIMIT_BYTES)
                parts.append(part)
    except ClientDisconnect:
        raise RequestError(400, "usage", "the client left before its body was whole") from None
    except TimeoutError:
        raise RequestError(408, "timeout", f"the body was not there after {BODY_SECONDS:g} s", headers={"connection": "close"}) from None
    return b"".join(parts)


def problem_response(error: Exception) -> Response:
    """``error`` as its problem document."""
    status, body, headers = document(error)
    return Response(body, status, headers, media_type=MEDIA_TYPE)


async def _library_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  it is registered for no other
    path = request.url.path
    words = {404: f"there is nothing at {path!r}", 405: f"{request.method} is not for {path!r}"}.get(error.status_code, error.detail)
    return problem_response(of_status(error.status_code, words, error.headers))


async def _bug(_request: Request, error: Exception) -> Response:
    return problem_response(error)
