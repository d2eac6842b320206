"""Hooks around runs, on a fake machine under a virtual clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from supervisord_async.config.model import Backoff, Hooks, Restart
from supervisord_async.core.inputs import StartRequested, StopRequested
from supervisord_async.core.state import Cause, State
from supervisord_async.supervise.process import Process
from supervisord_async.supervise.runs.hooks import HOOK_SECONDS
from tests.fake_host import FakeHost, program, shared_context
from tests.virtual_clock import run_virtually, until

BOTH = Hooks(before_start=("before",), after_exit=("after",))


class HookedHost(FakeHost):
    """Its commands take ``seconds`` and end with ``code``; ``ran`` has each that ended, ``given_up`` each that was cancelled."""

    def __init__(self, *, code: int | None = 0, seconds: float = 0.0) -> None:
        super().__init__()
        self.code, self.seconds = code, seconds
        self.ran: list[Any] = []
        self.given_up = 0

    async def run_command(self, spec: Any, timeout_seconds: float) -> int | None:
        with anyio.move_on_after(timeout_seconds):
            try:
                await anyio.sleep(self.seconds)
            except anyio.get_cancelled_exc_class():
                self.given_up += 1
                raise
            self.ran.append(spec)
            return self.code
        return None


def play(scene: Callable[[Process, HookedHost], Awaitable[None]], host: HookedHost, **settings: Any) -> None:
    async def main() -> None:
        process = Process("web", 0, program(**({"hooks": BOTH} | settings)), shared_context(host))
        async with anyio.create_task_group() as tasks:
            process.begin(tasks)
            await scene(process, host)
            tasks.cancel_scope.cancel()

    run_virtually(main)


def test_before_start_comes_before_and_after_exit_after_with_the_code() -> None:
    async def scene(process: Process, host: HookedHost) -> None:
        process.post(StartRequested())
        await until(lambda: process.snapshot.state is State.RUNNING)
        assert [spec.argv for spec in host.ran] == [("before",)]
        host.child.end(code=7)
        await until(lambda: process.snapshot.state is State.EXITED)
        after = host.ran[1]
        assert after.argv == ("after",)
        assert (after.environment["ASUP_EXIT_CODE"], after.environment["ASUP_CAUSE"]) == ("7", "exited")
        assert "ASUP_EXIT_SIGNAL" not in after.environment
        assert after.environment["ASUP_TAG"] != host.child.spec.environment["ASUP_TAG"]

    play(scene, HookedHost(), restart=Restart(success_exit_codes=(0, 7)))


def test_after_a_stop_the_signal_and_the_cause_are_told() -> None:
    async def scene(process: Process, host: HookedHost) -> None:
        process.post(StartRequested())
        await until(lambda: process.snapshot.state is State.RUNNING)
        process.post(StopRequested())
        await until(lambda: process.snapshot.state is State.STOPPED)
        environment = host.ran[1].environment
        assert (environment["ASUP_EXIT_SIGNAL"], environment["ASUP_CAUSE"]) == ("SIGTERM", "operator")
        assert "ASUP_EXIT_CODE" not in environment

    play(scene, HookedHost())


def test_a_failing_before_start_is_a_failure_to_spawn() -> None:
    async def scene(process: Process, host: HookedHost) -> None:
        process.post(StartRequested())
        await until(lambda: process.snapshot.state is State.FATAL)
        assert host.children == [] and len(host.ran) == 2
        assert process.snapshot.cause is Cause.RESTART_LIMIT
        assert "hook: before_start exited with 3" in process.snapshot.detail

    play(scene, HookedHost(code=3), restart=Restart(max_restarts=1, backoff=Backoff(initial_seconds=1, jitter=0)))


@pytest.mark.parametrize(
    ("code", "seconds", "words"), [(None, 1.0, "was ended by a signal"), (0, HOOK_SECONDS + 1, "did not end within 60 s")]
)
def test_a_before_start_that_is_killed_or_hangs_has_failed(code: int | None, seconds: float, words: str) -> None:
    async def scene(process: Process, host: HookedHost) -> None:
        process.post(StartRequested())
        await until(lambda: process.snapshot.state is State.FATAL)
        assert words in process.snapshot.detail

    play(scene, HookedHost(code=code, seconds=seconds), restart=Restart(max_restarts=0))


def test_a_stop_does_not_wait_for_before_start() -> None:
    async def scene(process: Process, host: HookedHost) -> None:
        process.post(StartRequested())
        await anyio.sleep(1)
        process.post(StopRequested())
        began = anyio.current_time()
        await until(lambda: process.snapshot.state is State.STOPPED)
        assert anyio.current_time() - began < 1
        assert host.given_up == 1 and host.children == []

    play(scene, HookedHost(seconds=50))


def test_the_next_run_waits_for_the_hook_of_the_last() -> None:
    async def scene(process: Process, host: HookedHost) -> None:
        process.post(StartRequested())
        await until(lambda: process.snapshot.state is State.RUNNING)
        host.seconds = 20
        host.child.end(code=1)
        await anyio.sleep(19)
        assert process.snapshot.state is State.STOPPING and len(host.children) == 1
        await until(lambda: len(host.children) == 2)
        assert [spec.argv for spec in host.ran] == [("before",), ("after",), ("before",)]
        assert process.snapshot.restarts == 1 and process.snapshot.cause is Cause.EXITED

    play(scene, HookedHost(), restart=Restart(backoff=Backoff(initial_seconds=1, jitter=0)))


def test_an_after_exit_that_hangs_is_bounded() -> None:
    async def scene(process: Process, host: HookedHost) -> None:
        process.post(StartRequested())
        await until(lambda: process.snapshot.state is State.RUNNING)
        host.seconds = 100_000
        process.post(StopRequested())
        await until(lambda: process.snapshot.state is State.STOPPED, HOOK_SECONDS + 1)

    play(scene, HookedHost())
