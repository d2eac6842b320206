"""The protected main loop: what tasks, jobs and resources may do to it; on an event loop, see test_worker_on_loop."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supervisord_async.app import Heartbeat, WorkerLoop
from supervisord_async.app.failures import Failures, key_of
from tests.app.conftest import Launch
from tests.waiting import wait_until_sync

SILENT = Heartbeat()


class Rounds:
    """Gives the same tasks each round, and stops the loop after some rounds."""

    def __init__(self, tasks: list[Any], rounds: int = 3) -> None:
        self.tasks, self.left = tasks, rounds
        self.loop: WorkerLoop[Any] | None = None
        self.done: list[Any] = []

    def __call__(self) -> list[Any]:
        self.left -= 1
        if self.left < 0:
            assert self.loop is not None
            self.loop.stop()
            return []
        return self.tasks

    def process(self, task: Any) -> None:
        if isinstance(task, BaseException):
            raise task
        self.done.append(task)

    def make(self, **options: Any) -> WorkerLoop[Any]:
        self.loop = WorkerLoop(self, self.process, options.pop("check_interval", 0), heartbeat=SILENT, **options)
        return self.loop


def test_one_failing_task_stops_neither_the_others_nor_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    rounds = Rounds([1, ValueError("broken"), asyncio.CancelledError(), MemoryError(), 2])
    loop = rounds.make()
    loop.run()
    assert rounds.done == [1, 2] * 3
    assert (loop.statistics.processed, loop.statistics.failed, loop.statistics.rounds) == (6, 9, 4)
    assert "Traceback" in caplog.text
    assert "ValueError: broken" in caplog.text


def test_an_error_in_get_tasks_is_survived_with_a_pause(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []

    def get_tasks() -> list[int]:
        calls.append(1)
        if len(calls) < 3:
            raise OSError("database is gone")
        loop.stop()
        return [1]

    loop: WorkerLoop[int] = WorkerLoop(get_tasks, lambda _: None, 0, heartbeat=SILENT)
    pauses: list[float] = []
    monkeypatch.setattr(loop, "_sleep", pauses.append)
    loop.run()
    assert pauses == [0.1, 0.1, 0]
    assert loop.statistics.get_tasks_errors == 2
    assert "database is gone" in caplog.text


def test_tasks_may_come_as_none_or_as_a_generator_that_fails_midway() -> None:
    given: list[Any] = [None, (1 / (2 - number) for number in range(4)), iter("ab")]
    done: list[str] = []

    def get_tasks() -> Any:
        if len(given) == 1:
            loop.stop()
        return given.pop(0) if given else None

    loop: WorkerLoop[str] = WorkerLoop(get_tasks, done.append, 0.001, heartbeat=SILENT)
    loop.run()
    assert loop.statistics.get_tasks_errors == 1
    assert done == []  # told to stop while getting them


def test_a_task_is_set_aside_after_so_many_failures_and_released() -> None:
    told: list[Any] = []
    rounds = Rounds([{"id": 7}], rounds=5)

    def process(task: dict[str, int]) -> None:
        rounds.done.append(task["id"])
        raise ValueError("always")

    rounds.process = process  # type: ignore[method-assign]
    loop = rounds.make(max_failures=3, on_set_aside=lambda task, error: (told.append((task, str(error))), 1 / 0))
    loop.run()
    assert rounds.done == [7] * 3
    assert told == [({"id": 7}, "always")]
    assert loop.set_aside[7].failures == 3
    assert loop.set_aside[7].error == "ValueError: always"
    assert loop.statistics.set_aside == 1
    assert loop.release(7) is True
    assert loop.release(7) is False
    assert loop.statistics.set_aside == 0


def test_a_failed_task_is_kept_and_retried_with_growing_pauses() -> None:
    failures: Failures[str] = Failures(key_of, backoff=1.0, backoff_max=3.0, max_failures=None, on_set_aside=None)
    now, pauses = 100.0, []
    for _ in range(4):
        failures.failed("job", ValueError(), now)
        assert failures.due([], now) == []
        assert failures.due(["job", "other"], now) == ["other"]
        due_at = failures.next_due()
        assert due_at is not None
        pauses.append(due_at - now)
        assert failures.due([], due_at) == ["job"]
        assert failures.due(["job"], due_at) == ["job"]
        now = due_at
    assert pauses == [1.0, 2.0, 3.0, 3.0]
    failures.succeeded("job")
    assert failures.next_due() is None
    assert failures.due(["job"], now) == ["job"]


def test_a_task_that_its_source_gives_only_once_is_retried_until_it_succeeds() -> None:
    offered, attempts = [["once"]], []

    def process(task: str) -> None:
        attempts.append(task)
        if len(attempts) < 3:
            raise ConnectionError
        loop.stop()

    loop: WorkerLoop[str] = WorkerLoop(lambda: offered.pop() if offered else [], process, 60, heartbeat=SILENT, retry_backoff=0.001)
    loop.run()
    assert attempts == ["once"] * 3


def test_tasks_without_a_usable_key_are_told_apart() -> None:
    failures: Failures[Any] = Failures(key_of, None, 60, 2, None)
    one, other = [1], {"name": "no id"}
    failures.failed(one, ValueError(), 0)
    failures.failed(other, ValueError(), 0)
    assert failures.due([one, other], 0) == [one, other]
    failures.failed(one, ValueError(), 0)
    assert failures.due([one, other], 0) == [other]


def test_impossible_numbers_are_refused() -> None:
    for options in ({"retry_backoff": 0}, {"max_failures": 0}, {"check_interval": -1}):
        with pytest.raises(ValueError, match="must"):
            WorkerLoop(list, print, **options)  # type: ignore[arg-type]


@pytest.mark.real
def test_background_jobs_run_apart_never_two_of_one_key(stuck: threading.Event) -> None:
    loop: WorkerLoop[int] = WorkerLoop(list, print, 0.01, heartbeat=SILENT, max_background=2)
    ran: list[str] = []
    assert loop.background("reauth", stuck.wait, 20)
    assert not loop.background("reauth", ran.append, "never")
    assert loop.background("other", ran.append, "other")
    wait_until_sync(lambda: ran == ["other"] and loop.statistics.background == 1)
    assert loop.background("third", stuck.wait, 20)
    assert not loop.background("fourth", ran.append, "too many")
    stuck.set()
    wait_until_sync(lambda: loop.statistics.background == 0)
    assert loop.background("reauth", ran.append, "again")
    wait_until_sync(lambda: ran == ["other", "again"])


@pytest.mark.real
def test_a_loop_in_the_main_thread_leaves_term_as_it_was() -> None:
    handled: list[object] = []
    loop: WorkerLoop[int] = WorkerLoop(lambda: handled.append(signal.getsignal(signal.SIGTERM)) or loop.stop(), print, heartbeat=SILENT)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        loop.run()
        assert callable(handled[0])
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_resources_are_closed_when_the_jobs_are_over() -> None:
    done: list[str] = []
    loop: WorkerLoop[int] = WorkerLoop(list, print, 60, heartbeat=SILENT)

    def job() -> None:
        wait_until_sync(lambda: loop.stopping)
        closed.wait(0.2)  # the connection has this long to be closed too early
        done.append("the job")

    closed = threading.Event()
    loop.resource("connection", lambda: (done.append("the connection"), closed.set()))
    assert loop.background("job", job)
    loop.start()
    loop.stop()
    assert loop.join(60)
    assert done == ["the job", "the connection"]


def test_a_job_that_begins_while_the_loop_ends_keeps_no_resource_open(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = threading.Event()
    loop: WorkerLoop[int] = WorkerLoop(list, print, 60, heartbeat=SILENT)
    loop.resource("connection", closed.set)
    loop.start()
    begin = threading.Thread.start

    def begin_late(thread: threading.Thread) -> None:
        if thread.name == "worker-job":
            loop.stop()
            loop.join(0.2)  # it has this long to trip over what has not begun
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", begin_late)
    assert loop.background("job", print)
    assert loop.join(60)
    assert closed.is_set()


@pytest.mark.real
@pytest.mark.parametrize("error", [ValueError("bad token"), SystemExit(3), KeyboardInterrupt()])
def test_errors_of_background_jobs_are_contained_and_free_the_key(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    loop: WorkerLoop[int] = WorkerLoop(list, print, heartbeat=SILENT)

    def fail() -> None:
        raise error

    assert loop.background("reauth", fail)
    wait_until_sync(lambda: loop.statistics.background_errors == 1 and loop.statistics.background == 0)
    assert loop.background("reauth", lambda: None)
    wait_until_sync(lambda: loop.statistics.background == 0)
    assert "background job 'reauth' failed" in caplog.text


def test_a_job_without_a_thread_to_run_in_is_refused_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    loop: WorkerLoop[int] = WorkerLoop(list, print, heartbeat=SILENT)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert loop.background("x", print) is False
    assert loop.statistics.background == 0


@pytest.mark.real
def test_resources_close_in_reverse_order_guarded_and_bounded(stuck: threading.Event, caplog: pytest.LogCaptureFixture) -> None:
    rounds, closed = Rounds([1]), []
    loop = rounds.make(shutdown_timeout=5)
    loop.resource("playwright", lambda: closed.append("playwright"))
    loop.resource("browser", lambda: 1 / 0)
    loop.resource("context", stuck.wait, timeout=0.05)
    loop.resource("page", lambda: closed.append("page"))
    loop.run()
    assert closed == ["page", "playwright"]
    assert "component browser failed" in caplog.text
    assert "component context timed out" in caplog.text


def test_interrupt_ends_the_loop_cleanly_and_system_exit_passes() -> None:
    for error in (KeyboardInterrupt(), SystemExit(5), BaseExceptionGroup("several", [SystemExit(6), ValueError()])):
        closed: list[str] = []
        loop = Rounds([error, 2]).make()
        loop.resource("x", lambda closed=closed: closed.append("x"))  # type: ignore[misc]
        if isinstance(error, KeyboardInterrupt):
            loop.run()
        else:
            with pytest.raises(type(error)):
                loop.run()
        assert closed == ["x"]
        assert loop.stopping


@pytest.mark.real
def test_the_thread_form_starts_stops_and_waits() -> None:
    done: list[int] = []
    loop: WorkerLoop[int] = WorkerLoop(lambda: [1], done.append, 60, heartbeat=SILENT)
    loop.start()
    loop.start()
    wait_until_sync(lambda: done == [1])
    assert loop.join(0.01) is False
    loop.stop()
    assert loop.join(60) is True
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.real
def test_each_round_each_task_and_each_pause_beats(tmp_path: Path) -> None:
    heartbeat = Heartbeat(tmp_path / "beat", interval=0.01)
    beats: list[int] = []
    loop: WorkerLoop[int] = WorkerLoop(lambda: [1, 2], lambda _: beats.append(heartbeat.beats), 60, heartbeat=heartbeat)
    loop.start()
    wait_until_sync(lambda: heartbeat.beats > 8)  # while pausing for a minute
    loop.stop()
    loop.join(60)
    assert beats == [2, 3]


PROGRAM = """
import logging, sys, time, threading
from supervisord_async.app import WorkerLoop
def process(task):
    print("task", flush=True)
    time.sleep(0.05)
loop = WorkerLoop(lambda: [1, 2, 3], process, check_interval=60)
loop.resource("browser", lambda: print("browser closed", flush=True))
loop.%s
print("after", flush=True)
"""
ASYNC_PROGRAM = """
import asyncio
from supervisord_async.app import WorkerLoop
async def process(task):
    print("task", flush=True)
async def close():
    print("browser closed", flush=True)
async def main():
    loop = WorkerLoop(lambda: [1, 2, 3], process, check_interval=60)
    loop.resource("browser", close)
    await loop.run_async()
    print("after", flush=True)
asyncio.run(main())
"""


@pytest.mark.real
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("program", [PROGRAM % "run()", ASYNC_PROGRAM], ids=["thread", "loop"])
def test_term_and_interrupt_end_a_worker_process_cleanly(
    tmp_path: Path, launch: Launch, output: Callable[[], str], number: int, program: str
) -> None:
    (tmp_path / "program.py").write_text(program)
    process = launch("program.py")
    wait_until_sync(lambda: output().count("task") == 3)
    process.send_signal(number)
    assert process.wait(60) == 0
    assert output().endswith("browser closed\nafter\n")
