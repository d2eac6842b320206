"""The description: made from the table, sound, and true, as schemathesis finds by trying it."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import jsonschema
import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings, strategies
from schemathesis import GenerationMode, checks

from supervisord_async.config.model import Daemon
from supervisord_async.control.counters import Counters
from supervisord_async.control.listener import listening
from supervisord_async.control.openapi import KINDS, describe
from supervisord_async.control.operation import Api, Operation
from supervisord_async.control.operations import OPERATIONS
from supervisord_async.supervise.records.history import History
from tests.control.conftest import playing, swift


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


def test_every_operation_is_described_once_with_known_parameters() -> None:
    description = describe(OPERATIONS)
    assert sum(len(methods) for methods in description["paths"].values()) == len(OPERATIONS)
    assert len({operation.name for operation in OPERATIONS}) == len(OPERATIONS)
    for operation in OPERATIONS:
        assert all(parameter.kind in KINDS for parameter in operation.parameters)
        for parameter in operation.parameters:
            schema, example = KINDS[parameter.kind]
            assert re.search(schema.get("pattern", ""), str(example))


def test_all_references_lead_somewhere() -> None:
    description = describe(OPERATIONS)
    text = msgspec.json.encode(description).decode()
    for name in set(re.findall(r'"#/components/schemas/([^"]+)"', text)):
        assert name in description["components"]["schemas"]


def test_examples_are_what_their_schemas_say() -> None:
    description = describe(OPERATIONS)
    checked = 0
    for methods in description["paths"].values():
        for operation in methods.values():
            for response in operation["responses"].values():
                for content in response["content"].values():
                    if "example" in content:
                        jsonschema.validate(content["example"], {**content["schema"], "components": description["components"]})
                        checked += 1
    assert checked > 50


def test_the_page_of_the_api_names_every_route() -> None:
    page = (Path(__file__).parents[2] / "docs" / "http-api.md").read_text()
    for operation in OPERATIONS:
        tail = operation.path.rpartition("/")[2]
        assert tail in page, operation.path


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A whole API over TCP in a thread of its own: its address and token."""
    folder = tmp_path_factory.mktemp("api")
    found: list[tuple[str, str]] = []
    ready, over = threading.Event(), threading.Event()

    async def main() -> None:
        history = History(folder / "history.db")
        await history.open()
        daemon = Daemon(name="shop", run_dir=str(folder), socket=str(folder / "asupd.sock"), http=("127.0.0.1", 0))
        async with playing(swift("web"), swift("down", autostart=False), daemon=daemon, load=_same, history=history) as scene:
            scene.bus.listen(history.take)
            scene.commands.shutdown = lambda by: None  # type: ignore[method-assign]
            scene.commands.reexec = _nothing  # type: ignore[method-assign]
            async with anyio.create_task_group() as tasks, listening(daemon, Api(scene.commands, Counters())) as listeners:
                tasks.start_soon(history.run)
                found.append((f"http://127.0.0.1:{listeners.sockets[1].getsockname()[1]}", (folder / "http.token").read_text().strip()))
                ready.set()
                await anyio.to_thread.run_sync(over.wait)
                tasks.cancel_scope.cancel()
        await history.aclose()

    thread = threading.Thread(target=anyio.run, args=(main,))
    thread.start()
    assert ready.wait(60)
    yield found[0]
    over.set()
    thread.join(60)


async def _nothing() -> None:
    return


async def _same() -> Any:
    from supervisord_async.errors import ConfigError, Problem

    raise ConfigError([Problem("programs.yaml", 1, 1, "unsound, for the test")])


DESCRIPTION = schemathesis.openapi.from_dict(describe(OPERATIONS))
BODIES = (checks.not_a_server_error, checks.status_code_conformance, checks.content_type_conformance, checks.response_schema_conformance)


@pytest.mark.timeout(400)  # examples scale to a thousand replicas
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_the_description_is_true(operation: Operation, address: tuple[str, str]) -> None:
    """Whatever is sent, the answer is one that the description has: status, media type and schema."""
    url, token = address
    described = DESCRIPTION[operation.path][operation.method]
    names = {parameter.name for parameter in operation.parameters}
    bounded = {name: value for name, value in (("follow", "false"), ("timeout", "10ms")) if name in names}

    valid, invalid = (described.as_strategy(generation_mode=mode) for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE))

    @given(case=strategies.one_of(valid, invalid), real=strategies.booleans())
    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    def check(case: Any, real: bool) -> None:
        case.query = {**(case.query or {}), **bounded}  # a stream has no end to check, and nobody waits
        for name in case.path_parameters or {}:
            if real:
                case.path_parameters[name] = "web"
        response = case.call(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=120)
        late = response.status_code in (503, 504)  # not ready, too late: said by 5xx, and no error of the server's
        case.validate_response(response, checks=list(BODIES[1:] if late else BODIES))

    check()


def test_wrong_methods_and_missing_tokens_are_refused_everywhere(address: tuple[str, str]) -> None:
    import requests

    url, token = address
    bearer = {"Authorization": f"Bearer {token}"}
    for operation in OPERATIONS:
        target = url + operation.path.replace("{name}", "web").replace("{selector}", "web")
        wrong = requests.request("DELETE" if operation.method == "GET" else "GET", target, headers=bearer, timeout=120)
        assert wrong.status_code == 405, target
        assert wrong.json()["kind"] == "method_not_allowed"
        assert requests.request(operation.method, target, timeout=120).status_code == 401
