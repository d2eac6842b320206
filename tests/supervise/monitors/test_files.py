"""The file-change watcher of a process: what counts, when, and what becomes of it; on real files."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from supervisord_async.config.model import Watch
from supervisord_async.core.inputs import Input, RestartRequested, SignalRequested, StartRequested
from supervisord_async.core.state import Cause
from supervisord_async.supervise.monitors import files
from supervisord_async.supervise.monitors.files import LoopGuard, describe_changes, monitor_files
from supervisord_async.supervise.process import Process
from supervisord_async.supervise.records.bus import Bus
from supervisord_async.supervise.sources.filewatch import watching
from supervisord_async.supervise.sources.filewatch.ignore import IgnoreRules
from supervisord_async.supervise.sources.filewatch.view import LookResult, View, WatchedPath
from supervisord_async.supervise.sources.filewatch.watcher import Pace
from supervisord_async.supervise.sources.filewatch.watching import FileWatching
from supervisord_async.system.loop import new_event_loop
from tests.fake_host import FakeHost, program, shared_context
from tests.supervise.filebench import bench, only
from tests.virtual_clock import run_virtually
from tests.waiting import wait_until

real = pytest.mark.real


@pytest.fixture
def anyio_backend() -> Any:
    """The daemon's own loop: who looks is a thread, and how it tells a loop is tried on both by the tests of filewatch."""
    new_event_loop().close()  # libuv opens a pipe for signals with its first loop and keeps it: no test's leak
    return "asyncio", {"loop_factory": new_event_loop}


# What counts


@real
@pytest.mark.anyio
async def test_edit_becomes_one_restart_that_names_the_file(source: Path) -> None:
    async with bench() as b:
        await b.monitor(source)
        (source / "app.py").write_text("22")
        await wait_until(lambda: b.posts)
    assert b.posts == [RestartRequested(Cause.FILE_CHANGED, "src/app.py changed")]


@real
@pytest.mark.anyio
async def test_signal_action_posts_the_signal(source: Path) -> None:
    async with bench() as b:
        await b.monitor(source, signal=int(signal.SIGHUP))
        (source / "app.py").write_text("22")
        await wait_until(lambda: b.posts)
    assert b.posts == [SignalRequested(int(signal.SIGHUP), Cause.FILE_CHANGED)]


@real
@pytest.mark.anyio
async def test_touch_counts_and_permissions_reading_and_what_is_no_file_do_not(source: Path) -> None:
    (source / "sentinel").write_text("")
    app = source / "app.py"

    def harmless() -> None:
        app.chmod(0o600)
        app.read_text()
        (source / "empty").mkdir()
        os.mkfifo(source / "fifo")

    async with bench() as b:
        await b.monitor(source)
        assert await only(b, harmless, source / "sentinel") == "src/sentinel changed"
        app.touch()
        assert await b.next_detail() == "src/app.py changed"


@real
@pytest.mark.anyio
async def test_single_file_survives_editors_and_its_neighbours_do_not_count(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SUSPECTS", 100)  # these edits come as fast as a loop's
    app = source / "app.py"

    def vim() -> None:  # probes whether it may write, renames the old away, writes the new
        (source / "4913").write_text("")
        (source / "4913").unlink()
        app.rename(source / "app.py~")
        app.write_text("vim")
        (source / "app.py~").unlink()

    def replace() -> None:
        (source / ".app.py.tmp").write_text("replaced")
        (source / ".app.py.tmp").replace(app)

    async with bench() as b:
        await b.monitor(app, debounce_seconds=0.5)
        for act in (vim, replace, vim, lambda: app.write_text("in place"), replace):
            (source / "neighbour").write_text("x")
            act()
            assert await b.next_detail() == "app.py changed"
        app.unlink()
        assert await b.next_detail() == "app.py changed"
        app.write_text("back")
        assert await b.next_detail() == "app.py changed"
    assert len(b.posts) == 7


@real
@pytest.mark.anyio
async def test_checkout_of_many_files_is_one_restart(source: Path) -> None:
    for number in range(100):
        (source / f"old{number}.py").write_text("old")
    async with bench() as b:
        await b.monitor(source, debounce_seconds=2.0)  # longer than a loaded machine rests in the middle
        for number in range(100):
            (source / f"old{number}.py").unlink()
            (source / f"pkg{number % 10}" / "deep").mkdir(parents=True, exist_ok=True)
            (source / f"pkg{number % 10}" / "deep" / f"new{number}.py").write_text("new")
        assert await b.next_detail() == "src/old0.py and 199 more changed"
        (source / "pkg3" / "deep" / "new3.py").write_text("newer")
        assert await b.next_detail() == "src/pkg3/deep/new3.py changed"
    assert len(b.posts) == 2


@real
@pytest.mark.anyio
async def test_new_directories_are_watched_with_what_came_in_them(source: Path) -> None:
    async with bench() as b:
        await b.monitor(source)
        (source / "a" / "b" / "c").mkdir(parents=True)
        (source / "a" / "b" / "c" / "at_once.py").write_text("x")
        assert await b.next_detail() == "src/a/b/c/at_once.py changed"
        (source / "a" / "b" / "later.py").write_text("x")
        assert await b.next_detail() == "src/a/b/later.py changed"
        (source / "a").rename(source.parent / "away")  # all of it at once
        await b.next_detail()
    assert b.details()[-1] == "src/a/b/c/at_once.py and 1 more changed"


@real
@pytest.mark.anyio
async def test_ignored_are_junk_patterns_and_own_logs_with_their_backups(source: Path) -> None:
    (source / "sentinel").write_text("")
    logs = source / "logs"
    for folder in (logs, source / ".git", source / "__pycache__", source / "build", source / "node_modules", source / "run"):
        folder.mkdir()
    junk = [".git/index", "__pycache__/a.cpython-311.pyc", "a.pyc", ".app.py.swp", "app.py~", ".#app.py", "4913", ".DS_Store"]
    junk += ["node_modules/x.js", "logs/web.log", "logs/web.log.1", "logs/web.log.2.gz", "run/asupd.sock", "run/deep.db"]
    junk += ["build/out.o", "notes.tmp", "deep.tmp"]

    def litter() -> None:
        for name in junk:
            (source / name).write_text("x")

    async with bench() as b:
        await b.monitor(source, ignored=(logs / "web.log", source / "run"), ignore=("build/", "*.tmp", "!keep.tmp", "!kept.swp"))
        assert await only(b, litter, source / "sentinel") == "src/sentinel changed"
        for name in ("keep.tmp", "kept.swp", "logs/worker.log"):
            (source / name).write_text("x")
            assert await b.next_detail() == f"src/{name} changed"


def test_ignore_patterns_are_relative_to_the_watched_path() -> None:
    rules = IgnoreRules("/srv/src", ("/top.txt", "sub/*.txt"), ("/srv/src/x.log",))
    assert rules.ignores("/srv/src/top.txt", directory=False)
    assert not rules.ignores("/srv/src/deep/top.txt", directory=False)
    assert rules.ignores("/srv/src/sub/a.txt", directory=False)
    assert rules.ignores("/srv/src/x.log.3.gz", directory=False)
    assert not rules.ignores("/srv/src/x.logic", directory=False)


def test_a_file_that_comes_and_goes_between_two_looks_is_no_change(source: Path) -> None:
    """The view alone: whoever looks in between has seen it, and says so."""
    view, transient = View(WatchedPath(str(source))), source / "transient"
    assert view.scan(lambda: False) == set()
    transient.write_text("x")
    transient.unlink()
    assert view.look(str(transient)) is LookResult.NOTHING
    assert view.scan(lambda: False) == set()
    transient.write_text("x")
    assert view.look(str(transient)) is LookResult.CHANGED
    transient.unlink()
    assert view.look(str(transient)) is LookResult.CHANGED
    assert view.scan(lambda: False) == set()


# When


def test_from_a_save_to_a_new_process_it_takes_less_than_a_second(source: Path) -> None:
    """By the pauses that are ours: the longest between two looks, the default debounce, stop and start; under a virtual clock."""
    host = FakeHost()

    async def main() -> float:
        shared = shared_context(host)
        process = Process("web", 0, program(watch=(Watch(paths=(str(source),)),), start_seconds=0.0), shared)
        async with anyio.create_task_group() as tasks:
            process.begin(tasks)
            process.post(StartRequested())
            while not shared.files._subscriptions or not host.children:
                await anyio.sleep(0.01)
            (changes,) = shared.files._subscriptions
            changes._arm(changes._generation, changes.watched_paths, frozenset())  # nobody looks here: the test tells what was seen
            await anyio.sleep(1.0)
            began = anyio.current_time()
            changes._add({str(source / "app.py")})
            with anyio.fail_after(60):
                while len(host.children) < 2:
                    await anyio.sleep(0.001)
            took = anyio.current_time() - began
            assert (process.snapshot.run, process.snapshot.cause) == (2, Cause.FILE_CHANGED)
            tasks.cancel_scope.cancel()
        return took

    took = run_virtually(main)
    assert Watch(paths=()).debounce_seconds <= took
    assert Pace().idle + took < 1.0


@real
@pytest.mark.anyio
async def test_debounce_waits_for_quiet(source: Path) -> None:
    async with bench() as b:
        watch = Watch(paths=(str(source),), debounce_seconds=2.0)
        with b.watching.subscribe(watch, ignored_paths=()) as changes:
            await changes.wait_armed()
            for number in range(5):
                (source / f"{number}.py").write_text("x")
                await wait_until(lambda number=number: str(source / f"{number}.py") in changes._paths)
            last = changes.last_at
            with anyio.fail_after(60):
                assert await anext(changes) == {str(source / f"{number}.py") for number in range(5)}
            assert anyio.current_time() - last >= 2.0


@real
@pytest.mark.anyio
async def test_endless_trickle_still_triggers(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "BOUND_SECONDS", 0.3)
    monkeypatch.setattr(watching, "BOUND_FACTOR", 0.1)
    async with bench() as b:
        await b.monitor(source, debounce_seconds=1.0)
        for number in range(4000):
            (source / "trickle").write_text("x" * number)
            await anyio.sleep(0.005)
            if len(b.posts) >= 2:
                break
        assert b.details()[:2] == ["src/trickle changed"] * 2


@real
@pytest.mark.anyio
async def test_change_during_the_restart_is_not_lost(source: Path) -> None:
    async with bench() as b:
        posts: list[Input] = []

        def post(input_: Input) -> None:
            posts.append(input_)
            if len(posts) == 1:  # while the old run is still stopping
                (source / "late.py").write_text("x")

        await b.monitor(source, post=post)
        (source / "app.py").write_text("22")
        await wait_until(lambda: len(posts) == 2)
    assert posts[1] == RestartRequested(Cause.FILE_CHANGED, "src/late.py changed")


@real
@pytest.mark.anyio
async def test_huge_burst_is_bounded_in_memory(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "PATHS_MAX", 10)
    async with bench() as b:
        await b.monitor(source, debounce_seconds=2.0)
        for number in range(100):
            (source / f"{number:03}.py").write_text("x")
        assert "more changed" in await b.next_detail()
        (source / "app.py").write_text("22")
        assert await b.next_detail() == "src/app.py changed"
    assert int(b.details()[0].split(" and ")[1].split()[0]) <= 19


# A program that restarts itself


def test_guard_suspends_what_changes_soon_after_each_start_for_growing_times() -> None:
    guard, now = LoopGuard(0.3), 100.0
    assert guard.pause_after(now, None) is None  # somebody's edit; the restarts that follow are the program's own doing

    def rounds() -> tuple[int, float]:
        nonlocal now
        for count in range(1, 20):
            now += 1.5
            if (pause := guard.pause_after(now, now - 1.0)) is not None:
                now += pause
                return count, pause
        pytest.fail("never suspended")

    assert [rounds() for _ in range(6)] == [(5, 30.0), (2, 60.0), (2, 120.0), (2, 240.0), (2, 300.0), (2, 300.0)]
    now += 60.0  # calm
    assert guard.pause_after(now, now - 50.0) is None
    assert rounds() == (5, 30.0)


def test_guard_lets_an_editing_person_be() -> None:
    guard = LoopGuard(0.3)
    assert all(guard.pause_after(now, now - 4.0) is None for now in range(0, 400, 5))
    # four quick ones, a slow one, four quick ones
    gaps = [1, 1, 1, 1, 3, 1, 1, 1, 1, 3]
    assert all(guard.pause_after(1000.0 + 2 * n, 1000.0 + 2 * n - gap) is None for n, gap in enumerate(gaps))
    # quick ones, too far apart to be a loop
    assert all(guard.pause_after(2000.0 + 10 * n, 2000.0 + 10 * n - 1) is None for n in range(50))


@real
@pytest.mark.anyio
async def test_program_that_writes_what_it_watches_is_suspended_and_resumed(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PAUSE_SECONDS", 0.5)
    monkeypatch.setattr(files, "SUSPECT_SECONDS", 30.0)
    monkeypatch.setattr(files, "WINDOW_FACTOR", 100.0)
    async with bench() as b:
        starts = 0

        def post(input_: Input) -> None:
            nonlocal starts
            starts += 1
            b.posts.append(input_)
            b.bus.publish("state", name="web", from_="STOPPING", to="STARTING")
            if not b.said("suspended"):
                (source / "version.py").write_text("x" * starts)

        await b.monitor(source, post=post)
        (source / "app.py").write_text("22")
        await wait_until(lambda: b.said("suspended"))
        record = b.said("suspended")[0]
        assert (record.name, record.data["key"], record.data["paths"]) == ("web", "watch.ignore", [str(source / "version.py")])
        assert "src/version.py" in record.message
        assert "watch.ignore" in record.message
        await wait_until(lambda: b.said("resumed"))
        assert starts == files.SUSPECTS + 1
        assert b.details()[-1] == "src/version.py changed"


def acted_on(edits: Sequence[float], *, writes_at_start: bool = False, restarts: Sequence[float] = ()) -> list[float]:
    """When changes were acted on, in seconds; the program's file was saved, and it was restarted by somebody, at those times."""

    async def main() -> list[float]:
        bus, began, posts = Bus(), anyio.current_time(), list[float]()
        watching = FileWatching(bus)

        def start() -> None:
            bus.publish("state", name="web", from_="STOPPING", to="STARTING")
            if writes_at_start:
                tasks.start_soon(save, 0.5)

        def post(_: Input) -> None:
            posts.append(round(anyio.current_time() - began, 1))
            start()

        async def save(after: float) -> None:
            await anyio.sleep(after)
            for changes in watching._subscriptions:
                changes._add({"/srv/app.py"})

        async def restart(after: float) -> None:
            await anyio.sleep(after)
            start()

        async with anyio.create_task_group() as tasks:
            watch = Watch(paths=("/srv",), debounce_seconds=0.3)
            tasks.start_soon(partial(monitor_files, watching, name="web", watch=watch, ignored_paths=(), post=post, bus=bus))
            for at in edits:
                tasks.start_soon(save, at)
            for at in restarts:
                tasks.start_soon(restart, at)
            await anyio.sleep(2000)
            tasks.cancel_scope.cancel()
        return posts

    return run_virtually(main)


def test_quick_saves_that_suspend_the_watch_are_made_up_for_at_its_end() -> None:
    assert acted_on([1, 2, 3, 4, 5]) == [1.3, 2.3, 3.3, 4.3, 5.3]  # nobody had asked for the run that the first one changed
    assert acted_on([1, 2, 3, 4, 5, 6]) == [1.3, 2.3, 3.3, 4.3, 5.3, 36.3]
    assert acted_on([1, 2, 3, 4, 5, 6, 7, 8, 20, 60]) == [1.3, 2.3, 3.3, 4.3, 5.3, 36.3, 60.3]
    assert acted_on([1, 2, 3, 4, 5, 6], restarts=[20]) == [1.3, 2.3, 3.3, 4.3, 5.3], "it has a newer run already"


def test_a_program_that_writes_what_it_watches_is_restarted_once_more_when_the_watch_resumes() -> None:
    assert acted_on([1], writes_at_start=True) == [1.3, 2.1, 2.9, 3.7, 4.5, 35.3]
    assert acted_on([1, 40], writes_at_start=True) == [1.3, 2.1, 2.9, 3.7, 4.5, 35.3, 40.3, 41.1, 101.9]


def test_changes_are_described_as_people_name_them() -> None:
    watch = Watch(paths=("/srv/src", "/srv/settings.yaml", "/"))
    assert describe_changes(watch, frozenset({"/srv/src/a/b.py"})) == "src/a/b.py changed"
    assert describe_changes(watch, frozenset({"/srv/settings.yaml"})) == "settings.yaml changed"
    assert describe_changes(watch, frozenset({"/srv/src/a", "/srv/src/b"})) == "src/a and 1 more changed"
    assert describe_changes(watch, frozenset({"/etc/hosts"})) == "etc/hosts changed"
