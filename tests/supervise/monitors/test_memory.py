"""The memory watcher alone: who is measured, who is blamed, under a virtual clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from supervisord_async.config.model import Backoff, Limits, Restart
from supervisord_async.core.inputs import StartRequested, StopRequested
from supervisord_async.core.state import Cause, State
from supervisord_async.supervise.monitors.memory import INTERVAL_SECONDS, MemoryWatch
from supervisord_async.supervise.process import Process
from supervisord_async.supervise.records.bus import Bus
from supervisord_async.supervise.records.figures import Figures
from tests.fake_host import FakeHost, program, shared_context
from tests.virtual_clock import run_virtually

MIB = 1024 * 1024


class FakeSampler:
    """Says what the test says; ``looks`` has the names of each look."""

    def __init__(self) -> None:
        self.bytes: dict[str, int] = {}
        self.looks: list[list[str]] = []
        self.error: Exception | None = None
        self.held: dict[str, int | None] = {}  # where a closer look finds something else

    async def held_bytes(self, process: Any) -> int | None:
        return self.held.get(process.name, self.bytes.get(process.name))

    async def sample(self, processes: Any, *, detailed: bool = False) -> dict[str, Figures]:
        names = [process.name for process in processes]
        self.looks.append(names)
        if self.error is not None:
            raise self.error
        return {
            name: Figures(cpu_percent=0.0, cpu_seconds=0.0, memory_bytes=self.bytes[name], processes=2, threads=2)
            for name in names
            if name in self.bytes
        }


def play(scene: Callable[[dict[str, Process], FakeSampler], Awaitable[None]], **limits: int | None) -> None:
    """Processes of these names, each with its limit in MiB or without one."""

    async def main() -> None:
        shared = shared_context(FakeHost())
        restart = Restart(backoff=Backoff(initial_seconds=1.0, jitter=0.0))
        processes = {
            name: Process(
                name, 0, program(name, start_seconds=0.0, restart=restart, limits=Limits(memory_bytes=limit and limit * MIB)), shared
            )
            for name, limit in limits.items()
        }
        sampler: Any = FakeSampler()
        async with anyio.create_task_group() as tasks:
            for process in processes.values():
                process.begin(tasks)
            tasks.start_soon(MemoryWatch(shared.bus, processes.values, sampler).run)
            await scene(processes, sampler)
            tasks.cancel_scope.cancel()

    run_virtually(main)


async def state(process: Process, wanted: State) -> None:
    with anyio.fail_after(60):
        while process.snapshot.state is not wanted:
            await anyio.sleep(0.01)


def test_who_is_above_the_limit_is_restarted_and_counted() -> None:
    async def scene(processes: dict[str, Process], sampler: FakeSampler) -> None:
        sampler.bytes = {"hog": 100 * MIB + 1, "fine": 100 * MIB}
        for process in processes.values():
            process.post(StartRequested())
        await state(processes["hog"], State.BACKOFF)
        snapshot = processes["hog"].snapshot
        assert (snapshot.cause, snapshot.restarts) == (Cause.MEMORY_LIMIT, 1)
        assert snapshot.detail == "2 processes hold 100.0 MiB, more than limits.memory (100.0 MiB)"
        assert processes["fine"].snapshot.state is State.RUNNING

    play(scene, hog=100, fine=100)


def test_nobody_is_ended_by_an_estimate() -> None:
    async def scene(processes: dict[str, Process], sampler: FakeSampler) -> None:
        sampler.bytes, sampler.held = {"web": 200 * MIB}, {"web": 90 * MIB}
        processes["web"].post(StartRequested())
        await anyio.sleep(10 * INTERVAL_SECONDS)
        assert processes["web"].snapshot.state is State.RUNNING
        sampler.held = {"web": 150 * MIB}
        await state(processes["web"], State.BACKOFF)
        assert processes["web"].snapshot.detail == "2 processes hold 150.0 MiB, more than limits.memory (100.0 MiB)"

    play(scene, web=100)


def test_only_running_processes_with_a_limit_are_measured() -> None:
    async def scene(processes: dict[str, Process], sampler: FakeSampler) -> None:
        await anyio.sleep(1000)
        assert sampler.looks == []
        processes["free"].post(StartRequested())
        await anyio.sleep(1000)
        assert sampler.looks == []
        processes["limited"].post(StartRequested())
        await anyio.sleep(10 * INTERVAL_SECONDS)
        assert 9 <= len(sampler.looks) <= 12 and all(look == ["limited"] for look in sampler.looks)
        processes["limited"].post(StopRequested())
        await state(processes["limited"], State.STOPPED)
        await anyio.sleep(INTERVAL_SECONDS)
        before = len(sampler.looks)
        await anyio.sleep(1000)
        assert len(sampler.looks) == before

    play(scene, free=None, limited=100)


def test_not_all_processes_are_looked_at_each_time_one_starts() -> None:
    """Where nothing has a limit, each start of each program went through all of them."""

    async def main() -> None:
        bus, looks = Bus(), 0

        def processes() -> tuple[Process, ...]:
            nonlocal looks
            looks += 1
            return ()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(MemoryWatch(bus, processes).run)
            for run in range(200):
                await anyio.sleep(0.1)
                bus.publish("state", name="web", to=State.STARTING, run=run)
            tasks.cancel_scope.cancel()
        assert 5 < looks < 15

    run_virtually(main)


def test_who_ended_before_the_closer_look_is_not_blamed(caplog: pytest.LogCaptureFixture) -> None:
    async def scene(processes: dict[str, Process], sampler: FakeSampler) -> None:
        sampler.bytes, sampler.held = {"gone": 200 * MIB, "hog": 200 * MIB}, {"gone": None}
        for process in processes.values():
            process.post(StartRequested())
        await state(processes["hog"], State.BACKOFF)
        assert processes["gone"].snapshot.state is State.RUNNING

    play(scene, gone=100, hog=100)
    assert not caplog.records


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), BlockingIOError(11, "can't start new thread")], ids=str)
def test_a_look_that_fails_is_said_and_the_next_one_counts(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    async def scene(processes: dict[str, Process], sampler: FakeSampler) -> None:
        sampler.error, sampler.bytes = error, {"hog": 200 * MIB}
        processes["hog"].post(StartRequested())
        await anyio.sleep(3 * INTERVAL_SECONDS)
        assert processes["hog"].snapshot.state is State.RUNNING
        sampler.error = None
        await state(processes["hog"], State.BACKOFF)

    play(scene, hog=100)
    assert f"cannot measure memory: {error.args[-1]}" in caplog.text
