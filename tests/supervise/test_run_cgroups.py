"""Runs are given cgroups without holding the loop, and without ever failing for want of one."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import anyio
import anyio.from_thread
import anyio.lowlevel
import pytest

from supervisord_async.supervise import retry
from supervisord_async.supervise.run_cgroups import RunCgroups
from supervisord_async.system import cgroups, procfs
from supervisord_async.system.cgroups import Cgroup, UnusableError
from supervisord_async.system.process_table import ProcessTable
from supervisord_async.system.turn_limiter import SPAWNS_A_TURN

pytestmark = pytest.mark.anyio


@pytest.fixture
def warmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A kernel that is a directory; who warmed it up."""
    threads: list[str] = []

    def warm_up(own: Cgroup | None = None) -> Cgroup:
        threads.append(threading.current_thread().name)
        return Cgroup(str(tmp_path))

    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "cgroup.procs").touch()
    monkeypatch.setattr(cgroups, "make_home", lambda instance: str(home))
    monkeypatch.setattr(cgroups, "folder_of", lambda pid="self": str(tmp_path))
    monkeypatch.setattr(cgroups, "homes_of", lambda instance: [str(home)] if home.exists() else [])
    monkeypatch.setattr(cgroups, "warm_up", warm_up)
    return threads


def held_up(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """From now on the thread that moves us sets the first event, and then waits for the second one."""
    waiting, go = threading.Event(), threading.Event()
    real = cgroups.warm_up

    def slow(own: Cgroup | None = None) -> Cgroup:
        waiting.set()
        assert go.wait(20)
        return real(own)

    monkeypatch.setattr(cgroups, "warm_up", slow)
    return waiting, go


async def opened() -> RunCgroups:
    runs = RunCgroups("i")
    await runs.open()
    assert runs.missing is None
    return runs


async def test_one_thread_waits_for_all_and_the_loop_does_not(warmed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    runs = await opened()
    waiting, go = held_up(monkeypatch)
    monkeypatch.setattr(cgroups, "WARM_SECONDS", 1000.0)
    made: list[Cgroup | None] = []

    async def make(number: int) -> None:
        made.append(await runs.make(f"i/w/{number}"))

    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(make, number)
        while not waiting.is_set():
            await anyio.lowlevel.checkpoint()
        assert made == []  # and we are here
        go.set()
    assert len({cgroup.path for cgroup in made if cgroup is not None}) == 50
    assert len(warmed) == 1
    assert warmed[0] != threading.current_thread().name


async def test_those_that_waited_together_go_on_a_few_at_a_turn(warmed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each forks at once: in a start of 1,000 programs, a hundred forks at a time held the loop."""
    runs = await opened()
    waiting, go = held_up(monkeypatch)
    monkeypatch.setattr(cgroups, "WARM_SECONDS", 1000.0)
    made: list[int] = []

    async def make(number: int) -> None:
        assert await runs.make(f"i/w/{number}") is not None
        made.append(number)

    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(make, number)
        while not waiting.is_set():
            await anyio.lowlevel.checkpoint()
        go.set()
        while len(made) < 100:
            before = len(made)
            await anyio.lowlevel.checkpoint()
            assert len(made) - before <= SPAWNS_A_TURN + 1  # the one that warmed the kernel up has not waited for the others
    assert made == list(range(100))


async def test_no_run_is_made_while_a_thread_moves_us(warmed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread would find the daemon in the cgroup of the run that is being forked, and leave it there."""
    runs = await opened()
    waiting, go, made = anyio.Event(), threading.Event(), []
    real = cgroups.warm_up

    def slow(own: Cgroup | None = None) -> Cgroup:
        anyio.from_thread.run_sync(waiting.set)
        assert go.wait(20)
        return real(own)

    async def make(*numbers: int) -> None:
        for number in numbers:
            made.append((number, await runs.make(f"i/w/{number}")))
            go.clear()

    monkeypatch.setattr(cgroups, "warm_up", slow)
    monkeypatch.setattr(cgroups, "WARM_SECONDS", 0.0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(make, 1, 3)
        await waiting.wait()
        tasks.start_soon(make, 2)
        await anyio.wait_all_tasks_blocked()
        waiting = anyio.Event()
        go.set()
        await waiting.wait()  # the third one's move has begun before the second one could go on
        await anyio.wait_all_tasks_blocked()
        assert [number for number, _ in made] == [1]
        monkeypatch.setattr(cgroups, "WARM_SECONDS", 1000.0)
        go.set()
    assert sorted(number for number, _ in made) == [1, 2, 3]


async def test_a_takeover_without_a_free_descriptor_waits_for_one(warmed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended the daemon's start, with all programs left alone."""
    runs = await opened()
    refusals = [OSError(errno.EMFILE, "Too many open files")]
    real = ProcessTable.everything

    def everything(table: ProcessTable) -> dict[int, procfs.Stat]:
        if refusals:
            raise refusals.pop()
        return real(table)

    monkeypatch.setattr(ProcessTable, "everything", everything)
    monkeypatch.setattr(retry, "PAUSES_SECONDS", (0.0,))
    await runs.take_in({"i/w/1": []})
    assert runs.of("i/w/1") is not None


async def test_who_waits_while_we_are_stranded_does_without(warmed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its start is no bug, and no failure."""
    runs = await opened()
    waiting, go = held_up(monkeypatch)
    made: list[Cgroup | None] = []

    async def make() -> None:
        made.append(await runs.make("i/w/1"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(make)
        while not waiting.is_set():
            await anyio.lowlevel.checkpoint()
        runs._stranded(OSError(errno.EBUSY, os.strerror(errno.EBUSY)))
        go.set()
    assert made == [None]


async def test_who_comes_in_a_row_does_not_wait(warmed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = await opened()
    monkeypatch.setattr(cgroups, "WARM_SECONDS", 1000.0)
    cgroup = await runs.make("i/w/1")
    assert cgroup is not None
    Path(cgroup.path, "cgroup.procs").touch()
    with runs.forking_into(cgroup):
        assert Path(cgroup.path, "cgroup.procs").read_text() == "0"
        assert not (tmp_path / "cgroup.procs").read_text()
    assert (tmp_path / "cgroup.procs").read_text() == "0"
    assert await runs.make("i/w/2") is not None
    assert len(warmed) == 1
    monkeypatch.setattr(cgroups, "WARM_SECONDS", 0.0)
    assert await runs.make("i/w/3") is not None
    assert len(warmed) == 2


async def test_who_is_expected_is_made_after_the_kernel_was_waited_for_and_asked_again(
    warmed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = await opened()
    waiting, go = threading.Event(), threading.Event()
    real, order = cgroups.warm_up, []

    def slow(own: Cgroup | None = None) -> Cgroup:
        waiting.set()
        assert go.wait(20)
        order.append("waited")
        return real(own)

    async def make() -> None:
        assert await runs.make("i/w/1") is not None
        order.append("made")

    monkeypatch.setattr(cgroups, "warm_up", slow)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runs.prepare)
        while not waiting.is_set():
            await anyio.lowlevel.checkpoint()
        tasks.start_soon(runs.prepare)  # there is one who waits
        tasks.start_soon(make)
        await anyio.wait_all_tasks_blocked()
        assert order == []
        go.set()
    assert order == ["waited", "waited", "made"]


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), UnusableError("gone"), BlockingIOError(11, "can't start new thread")]
)
async def test_nobody_hears_of_what_could_not_be_prepared(
    warmed: list[str], error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runs = await opened()

    def refuse(own: object = None) -> Cgroup:
        raise error

    working = cgroups.warm_up
    monkeypatch.setattr(cgroups, "warm_up", refuse)
    await runs.prepare()
    monkeypatch.setattr(cgroups, "warm_up", working)
    assert await runs.make("i/w/1") is not None
    assert caplog.messages == []


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(30, "Read-only file system"), UnusableError("gone")])
async def test_what_fails_later_is_said_once_and_stops_nothing(
    warmed: list[str], error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cgroups, "WARM_SECONDS", 0.0)
    runs = await opened()

    def refuse(own: object = None) -> Cgroup:
        raise error

    working, births = cgroups.warm_up, []
    monkeypatch.setattr(cgroups, "warm_up", refuse)
    assert await runs.make("i/w/1") is None
    assert await runs.make("i/w/2") is None
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("degraded: cannot put a run into a cgroup: ")
    monkeypatch.setattr(cgroups, "warm_up", working)
    cgroup = await runs.make("i/w/3")
    assert cgroup is not None
    with runs.forking_into(cgroup):  # there is no file to write to
        births.append(cgroup)
    assert len(caplog.messages) == 2
    Path(cgroup.path, "cgroup.procs").touch()
    with runs.forking_into(cgroup):
        births.append(cgroup)
    assert len(births) == 2
    monkeypatch.setattr(cgroups, "warm_up", refuse)
    assert await runs.make("i/w/4") is None
    assert len(caplog.messages) == 3, "it had worked meanwhile"


async def test_without_a_thread_the_loop_waits_for_once(warmed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    runs = await opened()

    def refuse(own: object = None) -> Cgroup:
        raise BlockingIOError(11, "can't start new thread")

    monkeypatch.setattr(cgroups, "warm_up", refuse)
    assert await runs.make("i/w/1") is not None


async def test_where_there_are_none_it_says_why_and_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(instance: str) -> str:
        raise UnusableError("no room at the inn")

    monkeypatch.setattr(cgroups, "make_home", refuse)
    runs = RunCgroups("no-such-instance")
    await runs.open()
    assert runs.missing == "no room at the inn"
    assert await runs.make("i/w/1") is None
    assert runs.of("i/w/1") is None
    runs.leave("i/w/1")
    await runs.close()


async def test_the_folder_of_a_process_that_is_just_dying_is_waited_for_at_the_end(
    warmed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the processors are busy, the kernel needs up to a second for that after its parent has reaped it."""
    runs = await opened()
    assert await runs.make("i/w/1") is not None
    real, until = Cgroup.remove, time.monotonic() + 1.0
    monkeypatch.setattr(Cgroup, "remove", lambda cgroup: time.monotonic() >= until and real(cgroup))
    await runs.close()
    assert cgroups.homes_of("i") == []


async def test_folders_of_runs_that_are_over_are_removed_when_nothing_lives_in_them(warmed: list[str]) -> None:
    runs = await opened()
    busy, idle = await runs.make("i/w/1"), await runs.make("i/w:0/2")
    assert busy is not None
    assert idle is not None
    assert os.path.basename(idle.path) == "w~0.2"
    Path(busy.path, "something").touch()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runs.run)
        runs.leave("i/w/1")
        runs.leave("i/w:0/2")
        assert runs.of("i/w/1") is None
        with anyio.fail_after(20):
            while os.path.exists(idle.path):
                await anyio.sleep(0.01)
        assert os.path.exists(busy.path)
        Path(busy.path, "something").unlink()
        await runs.make("i/w/3")
        runs.leave("i/w/3")  # the next occasion
        with anyio.fail_after(20):
            while os.path.exists(busy.path):
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    await runs.close()
    assert cgroups.homes_of("i") == []
