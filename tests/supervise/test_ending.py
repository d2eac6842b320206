"""The end of the daemon: all are down, and nothing waits for what is down already."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from supervisord_async.config.model import Configuration, Daemon
from supervisord_async.core.inputs import StartRequested
from supervisord_async.core.state import Cause, State
from supervisord_async.supervise.runs.output import Output
from supervisord_async.supervise.supervisor import Supervisor
from tests.fake_host import FakeChild, FakeHost, program, shared_context
from tests.virtual_clock import run_virtually, until


def supervisor_of(host: FakeHost, replicas: int = 1) -> Supervisor:
    """Of one program that is not started by itself."""
    configuration = Configuration(
        file="/nowhere/programs.yaml",
        daemon=Daemon(name="shop", run_dir="/nowhere", socket="/nowhere/asupd.sock"),
        programs={"web": program("web", autostart=False, start_seconds=0.0, replicas=replicas)},
    )
    return Supervisor(configuration, never, lambda made: shared_context(host, waits_for=made.dependencies.waits_for), never)


async def never() -> Any:
    raise AssertionError("nobody asks for it here")


def test_a_shutdown_waits_for_nothing_where_all_are_down_already() -> None:
    async def main() -> None:
        supervisor = supervisor_of(FakeHost())
        supervisor.request_shutdown()
        began = anyio.current_time()
        assert await supervisor.run() == 0
        assert anyio.current_time() == began, "what is STOPPED has no record to tell that it was asked to stop"

    run_virtually(main)


def test_logs_that_hang_are_waited_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other each took its ten seconds."""

    async def hang(output: Output) -> None:
        await anyio.sleep(10.0)

    monkeypatch.setattr(Output, "settled", False)
    monkeypatch.setattr(Output, "aclose", hang)

    async def main() -> None:
        supervisor = supervisor_of(FakeHost(), replicas=20)
        supervisor.request_shutdown()
        began = anyio.current_time()
        assert await supervisor.run() == 0
        assert anyio.current_time() - began < 11.0

    run_virtually(main)


def test_a_start_that_was_asked_for_just_before_a_shutdown_leaves_nobody_behind() -> None:
    async def main() -> None:
        host = FakeHost()
        supervisor = supervisor_of(host)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(supervisor.run)
            await until(lambda: "web" in supervisor.processes)
            web = supervisor.processes["web"]
            web.post(StartRequested(Cause.OPERATOR))
            supervisor.request_shutdown()
        assert web.snapshot.state is State.STOPPED
        assert not any(child.alive for child in host.children)

    run_virtually(main)


def test_what_the_kernel_does_not_end_is_named_and_the_exit_code_is_not_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its log said "everything is down; ending with 0"."""
    monkeypatch.setattr(FakeChild, "signal", lambda *_: None)

    async def hang(_child: FakeChild) -> None:
        await anyio.sleep_forever()

    monkeypatch.setattr(FakeChild, "kill", hang)

    async def main() -> None:
        supervisor, codes = supervisor_of(FakeHost()), list[int]()

        async def run() -> None:
            codes.append(await supervisor.run())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await until(lambda: "web" in supervisor.processes)
            supervisor.processes["web"].post(StartRequested(Cause.OPERATOR))
            await until(lambda: supervisor.processes["web"].snapshot.state is State.RUNNING)
            supervisor.request_shutdown()
        assert codes == [1]
        assert supervisor.still_up == ("web",)

    run_virtually(main)
