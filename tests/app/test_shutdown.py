"""Orderly shutdown: order, bounds, components that misbehave, signals, threads and loops."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supervisord_async.app import GracefulShutdownManager, Outcome
from tests.app.conftest import Launch
from tests.waiting import wait_until_sync


def test_components_stop_in_reverse_order_and_are_joined() -> None:
    manager = GracefulShutdownManager()
    told: list[str] = []
    manager.register_component("database", lambda: told.append("database"))
    manager.register_component("web", lambda: told.append("web"), lambda: told.append("web joined"))
    assert manager.initiate_shutdown() is True
    assert told == ["web", "web joined", "database"]
    assert [(report.name, report.outcome) for report in manager.reports] == [("web", "stopped"), ("database", "stopped")]


def test_the_seeds_thread_component_is_stopped_and_joined() -> None:
    manager = GracefulShutdownManager(shutdown_timeout=10.0)
    running = threading.Event()
    running.set()

    def loop() -> None:
        while running.is_set():
            time.sleep(0.005)

    thread = threading.Thread(target=loop)
    thread.start()
    manager.register_component(component_name="runtime_loop", shutdown_func=running.clear, join_func=thread.join, timeout=5.0)
    assert manager.initiate_shutdown()
    assert not thread.is_alive()


def test_raising_and_overrunning_components_are_reported_and_passed_over(stuck: threading.Event, caplog: pytest.LogCaptureFixture) -> None:
    manager = GracefulShutdownManager(shutdown_timeout=100.0)
    told: list[str] = []

    def leave() -> None:
        raise SystemExit(3)

    manager.register_component("last", lambda: told.append("last"))
    manager.register_component("raising", lambda: 1 / 0)
    manager.register_component("leaving", leave)
    manager.register_component("alive", lambda: None, lambda: False)
    manager.register_component("overrunning", lambda: told.append("overrunning"), stuck.wait, timeout=0.05)
    began = time.monotonic()
    assert manager.initiate_shutdown() is False
    assert time.monotonic() - began < 100
    assert told == ["overrunning", "last"]
    assert {report.name: report.outcome for report in manager.reports} == {
        "overrunning": Outcome.TIMED_OUT,
        "alive": Outcome.FAILED,
        "leaving": Outcome.FAILED,
        "raising": Outcome.FAILED,
        "last": Outcome.STOPPED,
    }
    assert "component overrunning timed out" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_the_whole_bound_holds_and_the_rest_is_told_all_the_same(stuck: threading.Event) -> None:
    manager = GracefulShutdownManager(shutdown_timeout=0.2)
    told = threading.Event()
    manager.register_component("told late", told.set)
    for number in range(5):
        manager.register_component(f"stuck {number}", stuck.wait, timeout=100.0)
    assert manager.initiate_shutdown() is False
    assert sum(report.seconds for report in manager.reports) < 100
    wait_until_sync(told.is_set)


def test_a_second_shutdown_waits_for_the_first_and_does_nothing() -> None:
    manager = GracefulShutdownManager()
    calls: list[int] = []
    gate = threading.Event()
    manager.register_component("once", lambda: (gate.wait(60), calls.append(1)))
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(manager.initiate_shutdown())) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert manager.wait(0.01) is False
    gate.set()
    for thread in threads:
        thread.join()
    assert results == [True, True, True]
    assert calls == [1]
    assert manager.initiate_shutdown() is True
    assert manager.wait(0)
    with pytest.raises(RuntimeError, match="has begun"):
        manager.register_component("late", lambda: None)


def test_a_component_that_initiates_the_shutdown_does_not_wait_for_itself() -> None:
    manager = GracefulShutdownManager()
    manager.register_component("eager", manager.initiate_shutdown, timeout=100.0)
    assert manager.initiate_shutdown() is True
    assert manager.reports[0].seconds < 100


def test_a_name_registered_twice_means_the_later_one(caplog: pytest.LogCaptureFixture) -> None:
    manager = GracefulShutdownManager()
    told: list[str] = []
    manager.register_component("x", lambda: told.append("first"))
    manager.register_component("y", lambda: told.append("y"))
    manager.register_component("x", lambda: told.append("second"))
    manager.initiate_shutdown()
    assert told == ["second", "y"]
    assert "second time" in caplog.text


def test_leaving_a_with_block_shuts_down_also_by_an_exception() -> None:
    told: list[str] = []
    with pytest.raises(KeyError), GracefulShutdownManager() as manager:
        manager.register_component("x", lambda: told.append("x"))
        raise KeyError
    assert told == ["x"]
    assert manager.shutdown_requested


def test_async_components_run_without_a_loop_of_their_own() -> None:
    manager = GracefulShutdownManager()
    told: list[str] = []

    async def stop() -> None:
        await asyncio.sleep(0)
        told.append("async")

    manager.register_component("x", stop, stop)
    assert manager.initiate_shutdown()
    assert told == ["async", "async"]


@pytest.mark.real
@pytest.mark.anyio
async def test_on_a_loop_async_components_run_on_it_and_others_beside_it(stuck: threading.Event) -> None:
    told: list[object] = []
    loop = asyncio.get_running_loop()

    async def stop() -> None:
        told.append(asyncio.get_running_loop() is loop)

    async def hang() -> None:
        await asyncio.sleep(60)

    async with GracefulShutdownManager() as manager:
        manager.register_component("thread", lambda: told.append(threading.current_thread() is threading.main_thread()))
        manager.register_component("raising", lambda: 1 / 0)
        manager.register_component("async", stop, stop)
        manager.register_component("hanging", hang, timeout=0.05)
        manager.register_component("stuck", stuck.wait, timeout=0.05)
        waiter = asyncio.ensure_future(manager.wait_async())
    assert await waiter is False
    assert told == [True, True, False]
    assert [report.outcome for report in manager.reports] == ["timed_out", "timed_out", "stopped", "failed", "stopped"]
    assert await manager.initiate_shutdown_async() is False
    stuck.set()


@pytest.mark.anyio
async def test_a_thread_shuts_async_components_down_on_their_loop() -> None:
    manager = GracefulShutdownManager()
    loop, seen = asyncio.get_running_loop(), []

    async def stop() -> None:
        seen.append(asyncio.get_running_loop() is loop)

    manager.register_component("x", stop)
    assert await asyncio.to_thread(manager.initiate_shutdown) is True
    assert seen == [True]


@pytest.mark.anyio
async def test_a_cancelled_body_still_shuts_down() -> None:
    told: list[str] = []
    inside = asyncio.Event()

    async def stop() -> None:
        await asyncio.sleep(0.01)
        told.append("stopped")

    async def body() -> None:
        async with GracefulShutdownManager() as manager:
            manager.register_component("x", stop)
            inside.set()
            await asyncio.sleep(60)

    task = asyncio.ensure_future(body())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told == ["stopped"]


@pytest.mark.anyio
async def test_a_cancellation_while_the_components_stop_lets_them() -> None:
    told: list[str] = []
    stopping, may_stop = asyncio.Event(), asyncio.Event()

    async def stop() -> None:
        stopping.set()
        await may_stop.wait()
        told.append("stopped")

    async def body() -> None:
        async with GracefulShutdownManager() as manager:
            manager.register_component("x", stop)

    task = asyncio.ensure_future(body())
    await stopping.wait()
    task.cancel()
    asyncio.get_running_loop().call_soon(may_stop.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told == ["stopped"]


def test_impossible_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        GracefulShutdownManager(0)
    with pytest.raises(ValueError, match="timeout of x"):
        GracefulShutdownManager().register_component("x", lambda: None, timeout=0)


@pytest.mark.parametrize("steps", [(None,), (lambda: None, True)])
def test_what_was_called_where_it_should_have_been_named_is_refused(steps: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError, match=f"x needs a function to call at the shutdown, not {steps[-1]}"):
        GracefulShutdownManager().register_component("x", *steps)


SIGNALLED = """
import os, threading, time
from supervisord_async.app import GracefulShutdownManager
manager = GracefulShutdownManager(shutdown_timeout=8)
stopping = threading.Event()
def work():
    stopping.wait()
    print("worker stopped", flush=True)
thread = threading.Thread(target=work)
thread.start()
manager.register_component("worker", stopping.set, thread.join)
manager.register_component("slow", lambda: time.sleep({slow}), timeout=8)
manager.install_signal_handlers()
os.write(1, b"ready\\n")  # takes no lock, which the signal's handler could find taken
try:
    while True:
        time.sleep(1)  # a signal that comes just before it does not interrupt it
finally:
    print("main unwound", flush=True)
"""


@pytest.mark.real
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_shuts_down_and_ends_the_process(tmp_path: Path, launch: Launch, output: Callable[[], str], number: int) -> None:
    (tmp_path / "program.py").write_text(SIGNALLED.format(slow=0))
    process = launch("program.py")
    wait_until_sync(lambda: "ready" in output())
    process.send_signal(number)
    assert process.wait(60) == 0
    assert "worker stopped" in output()
    assert "main unwound" in output()


@pytest.mark.real
def test_a_second_signal_ends_the_process_at_once(tmp_path: Path, launch: Launch, output: Callable[[], str]) -> None:
    (tmp_path / "program.py").write_text(SIGNALLED.format(slow=60))
    process = launch("program.py")
    wait_until_sync(lambda: "ready" in output())
    process.send_signal(signal.SIGTERM)
    wait_until_sync(lambda: "main unwound" in output())
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == -signal.SIGTERM


REFUSE_THREADS = """
def refuse(_):
    raise RuntimeError("can't start new thread")
threading.Thread.start = refuse
"""


@pytest.mark.real
def test_a_signal_shuts_down_a_program_that_can_start_no_thread(tmp_path: Path, launch: Launch, output: Callable[[], str]) -> None:
    (tmp_path / "program.py").write_text(SIGNALLED.format(slow=0).replace("os.write", REFUSE_THREADS + "os.write"))
    process = launch("program.py")
    wait_until_sync(lambda: "ready" in output())
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert "worker stopped" in output()
    assert "main unwound" in output()


@pytest.mark.anyio
async def test_a_signal_shuts_down_a_loop_beside_which_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    manager = GracefulShutdownManager()
    told: list[str] = []

    async def stop() -> None:
        told.append("on the loop")
        assert await manager.initiate_shutdown_async() is False  # by a component of its own

    manager.register_component("ordinary", lambda: told.append("ordinary"))
    manager.register_component("async", stop)
    manager.install_signal_handlers([signal.SIGUSR1])
    try:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            os.kill(os.getpid(), signal.SIGUSR1)
            assert await asyncio.wait_for(manager.wait_async(), 60)
            assert await manager.initiate_shutdown_async()
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR1)
    assert told == ["on the loop", "ordinary"]


ON_LOOP = """
import asyncio
from supervisord_async.app import GracefulShutdownManager

async def main():
    async def stop():
        print("stopped on the loop", flush=True)
    async with GracefulShutdownManager() as manager:
        manager.register_component("x", stop)
        manager.install_signal_handlers()
        print("ready", flush=True)
        print("clean", await manager.wait_async(), flush=True)

asyncio.run(main())
"""


OF_A_LOOP = """
import asyncio, threading
from supervisord_async.app import GracefulShutdownManager

manager, loops = GracefulShutdownManager(), []

async def stop():
    loops.append(asyncio.get_running_loop())

manager.register_component("x", stop)

async def main():
    manager.install_signal_handlers()
    print("ready", flush=True)
    await manager.wait_async()
    print("on its loop", loops == [asyncio.get_running_loop()], flush=True)

asyncio.run(main())
"""


@pytest.mark.real
def test_components_from_before_the_loop_stop_on_the_loop_that_hears_the_signal(
    tmp_path: Path, launch: Launch, output: Callable[[], str]
) -> None:
    (tmp_path / "program.py").write_text(OF_A_LOOP)
    process = launch("program.py")
    wait_until_sync(lambda: "ready" in output())
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert output() == "ready\non its loop True\n"


@pytest.mark.real
def test_a_signal_shuts_a_loop_down(tmp_path: Path, launch: Launch, output: Callable[[], str]) -> None:
    (tmp_path / "program.py").write_text(ON_LOOP)
    process = launch("program.py")
    wait_until_sync(lambda: "ready" in output())
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert output() == "ready\nstopped on the loop\nclean True\n"
