"""Threads for work that may hang: no more than the limit, none for ever, and nobody waits for one."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from pathlib import Path

import pytest

from supervisord_async.system import threads
from supervisord_async.system.threads import DaemonThreads
from tests.hanging_disk import HangingDisk, can_hang
from tests.waiting import wait_until_sync


def test_an_idle_thread_ends_and_work_finds_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0.02)
    pool = DaemonThreads(2, "idle")
    for _ in range(3):
        assert pool.submit(threading.current_thread).result(10).name == "idle-1"
        wait_until_sync(lambda: not any(thread.name.startswith("idle-") for thread in threading.enumerate()))


def test_work_that_comes_when_a_thread_is_about_to_end_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0.0)
    pool = DaemonThreads(1, "brief")
    assert [pool.submit(int, number).result(10) for number in range(2000)] == list(range(2000))


def test_work_that_had_to_wait_for_a_thread_leaves_none_expected_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once more than the threads could take at once was counted as threads that were free, and later work waited for them for ever."""
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0.02)
    pool, go = DaemonThreads(2, "waited"), threading.Event()
    early = [pool.submit(go.wait, 30) for _ in range(6)]
    go.set()
    assert all(each.result(10) for each in early)
    wait_until_sync(lambda: not any(thread.name.startswith("waited-") for thread in threading.enumerate()))
    assert [pool.submit(int, number).result(10) for number in range(6)] == list(range(6))


def test_no_more_than_the_limit_hang_and_the_rest_is_done_when_one_is_free() -> None:
    pool, go = DaemonThreads(2, "few"), threading.Event()
    hanging = [pool.submit(go.wait, 30) for _ in range(2)]
    after = pool.submit(lambda: "done")
    assert not after.done()
    go.set()
    assert after.result(10) == "done"
    assert all(each.result(10) for each in hanging)


def test_who_is_cancelled_does_not_wait_for_the_thread() -> None:
    pool, go = DaemonThreads(1, "left"), threading.Event()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pool.run(go.wait, 30), 0.02)

    asyncio.run(main())
    assert not go.is_set()
    go.set()
    assert pool.submit(lambda: "free").result(10) == "free"


def test_an_error_comes_out() -> None:
    with pytest.raises(ZeroDivisionError):
        asyncio.run(DaemonThreads(1, "error").run(lambda: 1 // 0))


@pytest.mark.skipif(not can_hang(), reason="only root can mount a FUSE")
def test_a_thread_that_a_disk_holds_up_is_known(tmp_path: Path) -> None:
    """Here one whose child was born and is not executed yet. With a ``cwd`` no Python uses posix_spawn, for which all threads wait."""
    with HangingDisk(tmp_path / "away", "app", b"#!/bin/sh\n") as disk:
        thread = threading.Thread(target=subprocess.call, args=([disk.path],), kwargs={"cwd": "/"})
        thread.start()
        wait_until_sync(lambda: threads.held_up() == {thread.native_id})
        disk.answer()
        thread.join()
    assert threads.held_up() == set()
