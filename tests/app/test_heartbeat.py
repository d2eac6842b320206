"""Heartbeats by hand, by a thread, by a task, to files and to sd_notify sockets."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisord_async.app import Heartbeat
from tests.waiting import wait_until, wait_until_sync


def test_each_beat_changes_the_file(tmp_path: Path) -> None:
    heartbeat = Heartbeat(tmp_path / "missing" / "beat")
    seen = set()
    for _ in range(50):
        assert heartbeat.beat()
        seen.add((tmp_path / "missing" / "beat").read_text())
    assert len(seen) == 50
    assert heartbeat.beats == 50


def test_a_beat_that_fails_warns_once_and_never_raises(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    heartbeat = Heartbeat(tmp_path / "file" / "beat")
    assert [heartbeat.beat() for _ in range(5)] == [False] * 5
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    (tmp_path / "file").unlink()
    assert heartbeat.beat()
    assert "again" in caplog.records[-1].message


def test_a_fifo_without_reader_does_not_hang_a_beat(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "beat")
    assert Heartbeat(tmp_path / "beat").beat() is False


@pytest.mark.real
def test_a_thread_beats_until_stopped(tmp_path: Path) -> None:
    with Heartbeat(tmp_path / "beat", interval=0.01) as heartbeat:
        assert (tmp_path / "beat").exists()
        wait_until_sync(lambda: heartbeat.beats > 5)
        assert heartbeat.start() is heartbeat  # a second start is no second thread
        assert sum(thread.name == "heartbeat" for thread in threading.enumerate()) == 1
    beats = heartbeat.beats
    assert not any(thread.name == "heartbeat" for thread in threading.enumerate())
    assert heartbeat.beats == beats
    heartbeat.start()
    wait_until_sync(lambda: heartbeat.beats > beats + 1)
    heartbeat.stop()


@pytest.mark.real
@pytest.mark.anyio
async def test_a_task_beats_while_the_loop_turns(tmp_path: Path) -> None:
    async with Heartbeat(tmp_path / "beat", interval=0.01) as heartbeat:
        await wait_until(lambda: heartbeat.beats > 3)
        beats = heartbeat.beats
        time.sleep(0.1)  # the loop is stuck, so is the heart
        assert heartbeat.beats == beats
        await wait_until(lambda: heartbeat.beats > beats)


@pytest.mark.anyio
async def test_the_body_of_an_async_heartbeat_raises_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with Heartbeat(tmp_path / "beat"):
            raise KeyError("mine")


@pytest.fixture
def notified(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(20)
        yield receiver


def test_environment_asks_for_a_file_a_watchdog_or_nothing(tmp_path: Path, notified: socket.socket) -> None:
    file = str(tmp_path / "beat")
    address = str(notified.getsockname())
    assert Heartbeat.from_environment({}).enabled is False
    assert Heartbeat.from_environment({}).beat() is True
    with Heartbeat.from_environment({}):  # the same program without a supervisor
        pass
    assert Heartbeat.from_environment({}, path=file).path == Path(file)
    assert Heartbeat.from_environment({"ASUP_HEARTBEAT_FILE": file}).path == Path(file)
    watchdog = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "600000"}
    heartbeat = Heartbeat.from_environment(watchdog)
    assert heartbeat.interval == pytest.approx(0.2)
    assert heartbeat.beat()
    assert notified.recv(100) == b"WATCHDOG=1"
    assert heartbeat.notify("READY=1")
    assert notified.recv(100) == b"READY=1"
    assert Heartbeat.from_environment(watchdog | {"WATCHDOG_PID": "1"}).enabled is False
    assert Heartbeat.from_environment(watchdog | {"WATCHDOG_PID": str(os.getpid())}).enabled is True
    assert Heartbeat.from_environment(watchdog | {"WATCHDOG_USEC": "soon"}).enabled is False


def test_abstract_notify_sockets_are_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(b"\0asup-test-%d" % os.getpid())
        receiver.settimeout(20)
        assert Heartbeat(notify_socket=f"@asup-test-{os.getpid()}").beat()
        assert receiver.recv(100) == b"WATCHDOG=1"


def test_beats_of_many_threads_are_all_counted(tmp_path: Path) -> None:
    heartbeat = Heartbeat(tmp_path / "beat")
    threads = [threading.Thread(target=lambda: [heartbeat.beat() for _ in range(100)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heartbeat.beats == 400
    assert (tmp_path / "beat").read_text().split()[1] == "400"


def test_intervals_must_be_positive() -> None:
    with pytest.raises(ValueError, match="above 0"):
        Heartbeat("x", interval=0)
