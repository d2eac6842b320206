"""The API's OpenAPI 3.1 description, made from the table of operations and the types of their answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from supervisord_async import __version__
from supervisord_async.control.answers import Accepted, Ready, Reload, Results
from supervisord_async.control.commands import Result
from supervisord_async.control.problems import MEDIA_TYPE, ProblemDocument
from supervisord_async.control.view import EventView, ProcessView

if TYPE_CHECKING:
    from supervisord_async.control.operation import Operation, Parameter

_NAME = "^[A-Za-z0-9_.:-]+$"
_DURATION = "^(?=[0-9])([0-9]{1,6}d)?([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?([0-9]{1,6}ms)?$|^[0-9]{1,6}$"
_SIGNALS = ("HUP", "INT", "QUIT", "KILL", "TERM", "USR1", "USR2", "CONT", "STOP", "WINCH")

#: The kinds of parameters: their schema, and an example.
KINDS: dict[str, tuple[dict[str, Any], Any]] = {
    "boolean": ({"type": "boolean"}, True),
    "duration": ({"type": "string", "pattern": _DURATION}, "30s"),
    "selectors": ({"type": "string", "minLength": 1}, "web,group:*"),
    "types": ({"type": "string"}, "state,health"),
    "name": ({"type": "string", "minLength": 1}, "web"),
    "signal": ({"type": "string", "enum": list(_SIGNALS)}, "HUP"),
    "replicas": ({"type": "integer", "minimum": 0, "maximum": 10_000}, 3),
    "limit": ({"type": "integer", "minimum": 1, "maximum": 10_000}, 50),
    "count": ({"type": "integer", "minimum": 0, "maximum": 100_000}, 100),
    "event_id": ({"type": "string", "pattern": "^[0-9]{1,15}$"}, "42"),
    "stream": ({"type": "string", "enum": ["stdout", "stderr"]}, "stdout"),
    "wait_for": ({"type": "string", "enum": ["ready", "stopped", "exited"]}, "ready"),
    "moment": ({"type": "string", "anyOf": [{"format": "date-time"}, {"pattern": _DURATION}]}, "10m"),
}

_PROBLEMS = {
    202: "Accepted; it is being done",
    400: "A parameter, the body or the request itself is malformed",
    401: "Over TCP: no token, or a wrong one",
    403: "Not allowed: the peer, the Host or the Origin",
    404: "No such process",
    409: "It was tried and failed for at least one name",
    413: "The body is larger than 64 KiB",
    422: "The configuration file is unsound; problems has every reason",
    503: "Too much is asked at once, or the daemon is shutting down, or not ready, or cannot read what is asked for",
    504: "The result did not come in time",
}
#: Statuses that every operation may answer with.
_ALWAYS = (400, 401, 403, 413)
_REF = "#/components/schemas/{name}"


_WEB = ProcessView(
    name="web",
    program="web",
    group="shop",
    state="RUNNING",
    health="healthy",
    pid=4711,
    run=2,
    uptime_seconds=12.5,
    restarts=0,
    flapping=False,
    exit_status={"code": 0},
    cause="operator",
    next_at=None,
    description="run 2",
    cpu_percent=1.5,
    memory_bytes=31_457_280,
)
_RESULTS = Results(results=[Result(name="web", ok=True, state="RUNNING", cause="operator", message="running, pid 4711, run 2")])
#: Examples of answers, by their type.
_EXAMPLES: tuple[tuple[Any, Any], ...] = (
    (list[ProcessView], [_WEB]),
    (ProcessView, _WEB),
    (Results, _RESULTS),
    (Accepted, Accepted(accepted=True)),
    (Reload, Reload(applied=True, lines=["~ web restart: command"], plan={}, results=_RESULTS.results)),
    (Ready, Ready(ready=True, not_ready=[])),
)
_PROBLEM = ProblemDocument(
    type="urn:asup:problem:not_found",
    title="Not Found",
    status=404,
    detail="no program 'wbe': did you mean 'web'?",
    kind="not_found",
    exit_code=1,
)


def describe(operations: Iterable[Operation]) -> dict[str, Any]:
    """The whole description."""
    table = tuple(operations)
    types = [operation.answer for operation in table if operation.answer is not None]
    schemas, components = msgspec.json.schema_components([*types, ProblemDocument, EventView], ref_template=_REF)
    answers = dict(zip((operation.name for operation in table if operation.answer is not None), schemas, strict=False))
    paths: dict[str, Any] = {}
    for operation in table:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, answers.get(operation.name))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "supervisord_async",
            "version": __version__,
            "description": "The control plane of one supervision daemon. Over TCP every request carries the token.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "Over TCP only: run_dir/http.token"}},
        },
        "security": [{"token": []}],
    }


def _operation(operation: Operation, answer: dict[str, Any] | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": [*_path_parameters(operation), *(_query_parameter(operation, one) for one in operation.parameters)],
        "responses": _responses(operation, answer),
    }
    if operation.name == "stream_events":
        header = "resume behind this event's number"
        schema = {"type": "string", "pattern": "^[0-9]{1,15}$"}
        found["parameters"].append({"name": "Last-Event-ID", "in": "header", "description": header, "schema": schema, "example": "42"})
    return found


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    found = []
    for name, says, example in (
        ("name", "one process's name", "web"),
        ("selector", "a name, GROUP:*, a glob, all, or several of them joined by commas", "web"),
    ):
        if f"{{{name}}}" in operation.path:
            schema = {"type": "string", "minLength": 1, "pattern": _NAME if name == "name" else "^[^/]+$"}
            found.append({"name": name, "in": "path", "required": True, "description": says, "schema": schema, "example": example})
    return found


def _query_parameter(operation: Operation, parameter: Parameter) -> dict[str, Any]:
    schema, example = KINDS[parameter.kind]
    return {
        "name": parameter.name,
        "in": "query",
        "required": parameter.name in operation.required,
        "description": parameter.says,
        "schema": schema,
        "example": example,
    }


def _responses(operation: Operation, answer: dict[str, Any] | None) -> dict[str, Any]:
    content: dict[str, Any] = {operation.media: {"schema": answer if answer is not None else {"type": "string"}}}
    for type_, example in _EXAMPLES:
        if operation.answer == type_:
            content[operation.media]["example"] = msgspec.to_builtins(example)
    if operation.name == "stream_events":
        content["application/json"] = {"schema": {"type": "object", "properties": {"events": {"type": "array"}}}}
    found: dict[str, Any] = {"200": {"description": "As asked", "content": content}}
    for status in sorted({*_ALWAYS, *operation.statuses}):
        if status < 400:
            found[str(status)] = {"description": _PROBLEMS[status], "content": content}
        else:
            schema = {"$ref": _REF.format(name="ProblemDocument")}
            problem = {MEDIA_TYPE: {"schema": schema, "example": msgspec.to_builtins(_PROBLEM)}}
            found[str(status)] = {"description": _PROBLEMS[status], "content": problem}
    return found
