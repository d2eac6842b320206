"""The protected main loop on an event loop: the same rules, its jobs as tasks, and who may end it."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from supervisord_async.app import Heartbeat, WorkerLoop
from tests.waiting import wait_until

SILENT = Heartbeat()


@pytest.mark.real
@pytest.mark.anyio
async def test_the_loop_form_survives_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    heartbeat, done, closed = Heartbeat(tmp_path / "beat", interval=0.01), [], []
    here = threading.get_ident()

    async def get_tasks() -> list[Any]:
        if loop.statistics.rounds + loop.statistics.get_tasks_errors == 1:
            raise OSError("gone")
        if loop.statistics.rounds == 2:
            loop.stop()
        return [1, ValueError("broken"), asyncio.CancelledError(), 2]

    async def process(task: Any) -> None:
        await asyncio.sleep(0)
        assert threading.get_ident() == here
        if isinstance(task, BaseException):
            raise task
        done.append(task)

    async def close() -> None:
        closed.append(threading.get_ident() == here)

    loop: WorkerLoop[Any] = WorkerLoop(get_tasks, process, 0, heartbeat=heartbeat)
    loop.resource("x", close)
    await loop.run_async()
    assert done == [1, 2] * 2
    assert loop.statistics.failed == 4
    assert loop.statistics.get_tasks_errors == 1
    assert closed == [True]
    assert heartbeat.beats > 8


@pytest.mark.real
@pytest.mark.anyio
async def test_ordinary_functions_do_not_block_the_loop_form(stuck: threading.Event) -> None:
    begun = asyncio.Event()
    here = asyncio.get_running_loop()

    def process(_: int) -> None:
        here.call_soon_threadsafe(begun.set)
        stuck.wait(60)

    loop: WorkerLoop[int] = WorkerLoop(lambda: [1], process, 0, heartbeat=SILENT)
    running = asyncio.ensure_future(loop.run_async())
    await asyncio.wait_for(begun.wait(), 20)  # this loop turns while the function hangs
    loop.stop()
    stuck.set()
    await asyncio.wait_for(running, 20)
    assert loop.statistics.processed == 1


@pytest.mark.real
@pytest.mark.anyio
async def test_async_background_jobs_are_tasks_of_the_loop() -> None:
    here, ran, gate = threading.get_ident(), [], asyncio.Event()

    async def job(name: str) -> None:
        ran.append((name, threading.get_ident() == here))
        if name == "failing":
            raise ValueError("no")
        await gate.wait()

    def process(task: int) -> None:  # in a worker thread
        assert loop.background("threaded", job, "threaded")
        assert not loop.background("threaded", job, "threaded")

    loop: WorkerLoop[int] = WorkerLoop(lambda: [] if loop.statistics.processed else [1], process, 0.01, heartbeat=SILENT)
    running = asyncio.ensure_future(loop.run_async())
    await wait_until(lambda: loop.statistics.processed == 1)
    assert loop.background("failing", job, "failing")
    assert loop.background("direct", job, "direct")
    await wait_until(lambda: len(ran) == 3 and loop.statistics.background_errors == 1)
    assert all(on_loop for _, on_loop in ran)
    threading.Thread(target=loop.stop).start()
    gate.set()
    await asyncio.wait_for(running, 20)
    assert loop.statistics.background == 0


@pytest.mark.anyio
async def test_who_cancels_the_loop_is_not_taken_for_a_task_that_failed() -> None:
    begun: list[int] = []

    async def forever(task: int) -> None:
        begun.append(task)
        await asyncio.sleep(600)

    loop: WorkerLoop[int] = WorkerLoop(lambda: [1], forever, heartbeat=SILENT)
    running = asyncio.ensure_future(loop.run_async())
    await wait_until(lambda: begun)
    running.cancel()
    await asyncio.wait({running}, timeout=20)
    assert running.cancelled() and loop.statistics.failed == 0


@pytest.mark.anyio
async def test_a_task_that_hangs_in_its_thread_keeps_nobody_from_cancelling_the_loop(stuck: threading.Event) -> None:
    done: list[str] = []
    begun = threading.Event()

    def hang(_: int) -> None:
        begun.set()
        stuck.wait(60)
        done.append("the task")

    loop: WorkerLoop[int] = WorkerLoop(lambda: [1], hang, heartbeat=SILENT)
    loop.resource("connection", lambda: done.append("the connection"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(loop.run_async)
        await wait_until(begun.is_set)
        tasks.cancel_scope.cancel()
    assert done == ["the connection"]


@pytest.mark.real
@pytest.mark.anyio
async def test_jobs_that_overrun_the_end_are_cancelled_and_named(caplog: pytest.LogCaptureFixture) -> None:
    cancelled: list[bool] = []

    async def forever() -> None:
        try:
            await asyncio.sleep(600)
        finally:
            cancelled.append(True)

    loop: WorkerLoop[int] = WorkerLoop(list, print, 0.01, heartbeat=SILENT, shutdown_timeout=0.05)
    running = asyncio.ensure_future(loop.run_async())
    await wait_until(lambda: loop.statistics.rounds > 0)
    assert loop.background("forever", forever)
    loop.stop()
    await asyncio.wait_for(running, 20)
    assert cancelled == [True]
    assert "left behind: 'forever'" in caplog.text


@pytest.mark.real
@pytest.mark.anyio
async def test_cancelling_the_loop_form_closes_its_resources() -> None:
    closed: list[str] = []

    async def close() -> None:
        await asyncio.sleep(0)
        closed.append("x")

    loop: WorkerLoop[int] = WorkerLoop(list, print, 60, heartbeat=SILENT)
    loop.resource("x", close)
    running = asyncio.ensure_future(loop.run_async())
    await wait_until(lambda: loop.statistics.rounds > 0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert closed == ["x"]


def test_system_exit_passes_the_loop_form_as_itself() -> None:
    closed: list[str] = []

    async def leave(_: int) -> None:
        raise SystemExit(4)

    loop: WorkerLoop[int] = WorkerLoop(lambda: [1], leave, heartbeat=SILENT)
    loop.resource("x", lambda: closed.append("x"))
    with pytest.raises(SystemExit) as caught:
        asyncio.run(loop.run_async())
    assert caught.value.code == 4
    assert closed == ["x"]
