"""The one watcher for all programs: paths that come and go, no inotify, one thread; nothing stays open afterwards."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from supervisord_async.config.model import Watch
from supervisord_async.supervise import keep_running
from supervisord_async.supervise.monitors import files
from supervisord_async.supervise.monitors.files import monitor_files
from supervisord_async.supervise.records.bus import Bus
from supervisord_async.supervise.sources.filewatch import watcher, watcher_thread, watching
from supervisord_async.supervise.sources.filewatch.view import LookResult, View, WatchedPath
from supervisord_async.supervise.sources.filewatch.watcher import Pace
from supervisord_async.supervise.sources.filewatch.watching import FileWatching
from tests.supervise.filebench import Bench, bench, inotify_instances, watch_threads
from tests.waiting import wait_until

real = pytest.mark.real


# Paths that come and go


@real
@pytest.mark.anyio
async def test_missing_path_is_reported_once_and_watched_from_its_creation(tmp_path: Path) -> None:
    missing = tmp_path / "not" / "yet" / "src"
    async with bench() as b:
        await b.monitor(missing)
        await wait_until(lambda: b.said("missing"))
        (tmp_path / "not").mkdir()
        (tmp_path / "not" / "yet").mkdir()
        missing.mkdir()
        (missing / "app.py").write_text("1")
        assert await b.next_detail() == "src/app.py changed"
        (missing / "app.py").write_text("22")
        assert await b.next_detail() == "src/app.py changed"
    assert [(record.name, record.data["path"]) for record in b.said("missing")] == [("web", str(missing))]


@real
@pytest.mark.anyio
async def test_watched_directory_deleted_and_recreated_goes_on(source: Path) -> None:
    async with bench() as b:
        await b.monitor(source)
        for text in ("a", "bb", "ccc"):
            shutil.rmtree(source.parent)  # up to above the watched path
            source.mkdir(parents=True)
            (source / "app.py").write_text(text)
            assert await b.next_detail() == "src/app.py changed"
        shutil.rmtree(source)
        assert await b.next_detail() == "src/app.py changed"
        source.mkdir()
        (source / "other.py").write_text("x")
        assert await b.next_detail() == "src/other.py changed"


@real
@pytest.mark.anyio
async def test_deployment_by_rename_of_a_parent_is_seen(source: Path) -> None:
    app = source.parent
    fresh = app.with_name("app.new")
    (fresh / "src").mkdir(parents=True)
    (fresh / "src" / "app.py").write_text("new")
    async with bench() as b:
        await b.monitor(source)
        app.rename(app.with_name("app.old"))
        fresh.rename(app)
        await b.next_detail()
        (source / "app.py").write_text("newer")
        assert await b.next_detail() == "src/app.py changed"


@real
@pytest.mark.anyio
async def test_links_are_followed_noticed_and_end(source: Path) -> None:
    base = source.parent.parent
    other, shared, current = base / "other", base / "shared", base / "current"
    for folder in (other, shared):
        folder.mkdir()
        (folder / "app.py").write_text("other")
    (source / "shared").symlink_to(shared)
    (source / "circle").symlink_to(source)
    current.symlink_to(source)
    async with bench() as b:
        await b.monitor(current)
        (shared / "app.py").write_text("through the link")
        assert await b.next_detail() == "current/shared/app.py changed"
        (source / "app.py").write_text("22")
        assert await b.next_detail() == "current/app.py changed"
        (base / "next").symlink_to(other)
        (base / "next").replace(current)
        assert "changed" in await b.next_detail()
        (other / "app.py").write_text("after the switch")
        assert await b.next_detail() == "current/app.py changed"


@real
@pytest.mark.anyio
async def test_file_behind_a_chain_of_links_is_seen_when_the_chain_is_switched(tmp_path: Path) -> None:
    for version in ("v1", "v2"):  # as Kubernetes mounts its configuration
        (tmp_path / version).mkdir()
        (tmp_path / version / "settings.yaml").write_text(version)
    (tmp_path / "data").symlink_to("v1")
    (tmp_path / "settings.yaml").symlink_to("data/settings.yaml")
    async with bench() as b:
        await b.monitor(tmp_path / "settings.yaml")
        (tmp_path / "data.tmp").symlink_to("v2")
        (tmp_path / "data.tmp").replace(tmp_path / "data")
        assert await b.next_detail() == "settings.yaml changed"
        (tmp_path / "v2" / "settings.yaml").write_text("edited")
        assert await b.next_detail() == "settings.yaml changed"


@real
@pytest.mark.anyio
async def test_one_programs_earlier_beginning_is_not_anothers(source: Path) -> None:
    """After a re-exec: the other one has been restarted for its save, or waits in its backoff."""
    hour = 3600 * 10**9
    for name in ("unread", "read"):
        (source / name).write_text("1")
        os.utime(source / name, ns=(time.time_ns() - hour, time.time_ns() - hour))
    unread, read = (Watch(paths=(str(source / name),), debounce_seconds=0.05) for name in ("unread", "read"))
    async with bench() as b:
        with (
            b.watching.subscribe(unread, ignored_paths=(), since_ns=time.time_ns() - 2 * hour) as early,
            b.watching.subscribe(read, ignored_paths=()) as late,
        ):
            assert await early.__anext__() == {str(source / "unread")}
            await late.wait_armed()  # what had changed before is told first
            assert late._paths == set()


def test_what_is_modified_between_the_begin_of_a_watch_and_the_first_look_has_changed(source: Path, tmp_path: Path) -> None:
    before, begin, hour = time.time_ns() - 10**9, time.time_ns(), 3600 * 10**9
    for name, modified in (("old", before), ("just", begin), ("new", begin + 1), ("future", begin + hour)):
        (source / name).write_text("1")
        os.utime(source / name, ns=(modified, modified))
    (source / "link").symlink_to(source / "new")
    os.utime(source / "link", ns=(before, before), follow_symlinks=False)
    (source / "app.py").unlink()
    view = View(WatchedPath(str(source)), begin)
    assert view.scan(lambda: False) == {str(source / "new"), str(source / "link")}
    assert view.scan(lambda: False) == set()
    assert View(WatchedPath(str(source)), time.time_ns() + hour).scan(lambda: False) == set(), "the clock was set back"
    assert View(WatchedPath(str(source))).scan(lambda: False) == set()


@real
def test_a_file_that_is_saved_before_the_first_look_is_seen(source: Path) -> None:
    watched_path, told = WatchedPath(str(source)), list[watcher.Changes]()

    class Reports(SimpleNamespace):
        def changed(self, changes: watcher.Changes) -> None:
            told.append(changes)

        def armed(self, generation: int, watched_paths: frozenset[WatchedPath], missing: frozenset[str]) -> None:
            looking.stop()

    looking = watcher.Watcher(Reports(degraded=None, recovered=None), Pace())
    looking.want(1, {watched_path: time.time_ns()})
    (source / "app.py").write_text("saved while the watch begins")
    os.utime(source / "app.py")  # by the finer clock: the coarse one may not have ticked yet
    looking.serve()
    assert told == [{watched_path: {str(source / "app.py")}}]


def test_scan_stopped_midway_and_unreadable_directories_change_nothing(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source / "sub").mkdir()
    (source / "sub" / "mod.py").write_text("1")
    view = View(WatchedPath(str(source)))
    assert view.scan(lambda: False) == set()
    (source / "app.py").write_text("22")
    assert view.scan(lambda: True) == set()
    scandir = os.scandir

    def exhausted(path: str) -> object:
        if path.endswith("sub"):
            raise OSError(errno.EMFILE, "too many open files")
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", exhausted)
        assert view.scan(lambda: False) == {str(source / "app.py")}
    assert view.scan(lambda: False) == set()
    shutil.rmtree(source / "sub")
    (source / "sub").write_text("a file now")
    assert view.look(str(source / "sub")) is LookResult.STALE
    assert view.scan(lambda: False) == {str(source / "sub"), str(source / "sub" / "mod.py")}


# Without inotify


@real
@pytest.mark.anyio
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "OS file watch limit reached"),
        RuntimeError("Error creating recommended watcher: Too many open files (os error 24)"),
        PermissionError(errno.EACCES, "refused"),
    ],
)
async def test_exhausted_inotify_falls_back_to_polling_and_recovers(
    source: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(directories: list[str]) -> watcher.Notifier:
        raise error

    original = watcher.open_notifier
    monkeypatch.setattr(watcher, "open_notifier", refuse)
    async with bench() as b:
        await b.monitor(source)
        await wait_until(lambda: b.said("degraded"))
        assert "fs.inotify.max_user_watches" in b.said("degraded")[0].message
        (source / "app.py").write_text("22")
        assert await b.next_detail() == "src/app.py changed"
        assert inotify_instances() == 0
        monkeypatch.setattr(watcher, "open_notifier", original)
        await wait_until(lambda: b.said("recovered"))
        (source / "app.py").write_text("333")
        assert await b.next_detail() == "src/app.py changed"
        assert inotify_instances() == 1
    assert len(b.said("degraded")) == len(b.said("recovered")) == 1


@real
@pytest.mark.anyio
async def test_poll_seconds_looks_without_inotify(source: Path) -> None:
    async with bench() as b:
        await b.monitor(source, poll_seconds=0.05)
        (source / "app.py").write_text("22")
        assert await b.next_detail() == "src/app.py changed"
        (source / "sub").mkdir()
        (source / "sub" / "app.py").write_text("22")
        assert await b.next_detail() == "src/sub/app.py changed"
        assert inotify_instances() == 0


@real
@pytest.mark.anyio
async def test_what_is_added_beside_a_path_that_is_seldom_polled_is_watched_at_once(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    async with bench() as b:
        await b.monitor(source, poll_seconds=3600.0)
        with anyio.fail_after(60):
            await b.monitor(other)
        (other / "app.py").write_text("1")
        assert await b.next_detail() == "other/app.py changed"


@real
@pytest.mark.anyio
async def test_what_nobody_watches_any_more_is_taken_from_the_notifier(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    opened: list[list[str]] = []
    original = watcher.open_notifier
    monkeypatch.setattr(watcher, "open_notifier", lambda paths: (opened.append(paths), original(paths))[1])
    async with bench() as b:
        await b.monitor(source)
        with b.watching.subscribe(Watch(paths=(str(other),)), ignored_paths=()) as changes:
            await changes.wait_armed()
            assert {str(source), str(other)} <= set(opened[-1])
        await wait_until(lambda: str(other) not in opened[-1])
        assert str(source) in opened[-1]


@real
@pytest.mark.anyio
async def test_lost_notifications_of_a_burst_are_made_up_for(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue: list[set[tuple[int, str]]] = []
    monkeypatch.setattr(watcher, "drain", lambda _: queue.pop() if queue else set())
    async with bench() as b:
        await b.monitor(source)
        (source / "app.py").write_text("22")  # nobody is told
        queue.append({(1, f"/elsewhere/{number}") for number in range(watcher.BURST_HINTS)})
        assert await b.next_detail() == "src/app.py changed"


@real
@pytest.mark.anyio
@pytest.mark.parametrize("ignore", [(), ("*.log",)])
async def test_name_that_is_no_utf8_breaks_nothing(source: Path, monkeypatch: pytest.MonkeyPatch, ignore: tuple[str, ...]) -> None:
    monkeypatch.setattr(files, "SUSPECTS", 100)
    async with bench() as b:
        await b.monitor(source, ignore=ignore)
        for number in range(3):  # the second one in short time has it polled
            with open(os.fsencode(source) + b"/\xff%d" % number, "w") as file:
                file.write("x")
            await b.next_detail()
            if ignore:
                with open(os.fsencode(source) + b"/\xff%d.log" % number, "w") as file:
                    file.write("x")
            (source / "app.py").write_text("x" * (10 + number))
            assert await b.next_detail() == "src/app.py changed"


# One for all


@real
@pytest.mark.anyio
async def test_two_hundred_programs_share_one_thread_and_one_instance(source: Path, tmp_path: Path) -> None:
    async with bench() as b:
        posted: set[str] = set()
        for number in range(199):
            name = f"p{number}"
            folder = source if number % 2 else tmp_path / name
            folder.mkdir(exist_ok=True)
            watch = Watch(paths=(str(folder),), debounce_seconds=0.05)
            b.tasks.start_soon(
                lambda name=name, watch=watch: monitor_files(
                    b.watching, name=name, watch=watch, ignored_paths=(), post=lambda _: posted.add(name), bus=b.bus
                )
            )
        await b.monitor(source, name="p199", post=lambda _: posted.add("p199"))
        await wait_until(lambda: inotify_instances() == 1)
        assert len(watch_threads()) == 1
        (source / "app.py").write_text("22")
        await wait_until(lambda: len(posted) == 100)
        (tmp_path / "p4" / "x").write_text("x")
        await wait_until(lambda: "p4" in posted)
        assert len(posted) == 101
        assert len(watch_threads()) == 1
        await wait_until(lambda: inotify_instances() == 1)


@real
@pytest.mark.anyio
async def test_busy_directories_on_the_way_are_not_listened_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = tmp_path / "shared"
    root = shared / "app" / "src"
    root.mkdir(parents=True)
    shared.chmod(0o1777)
    opened: list[list[str]] = []
    original = watcher.open_notifier
    monkeypatch.setattr(watcher, "open_notifier", lambda paths: (opened.append(paths), original(paths))[1])
    async with bench() as b:
        await b.monitor(root)
        assert {str(shared.parent), str(root.parent), str(root)} <= set(opened[-1])
        assert str(shared) not in opened[-1]
        shutil.rmtree(root.parent)
        await wait_until(lambda: str(shared) in opened[-1])
        root.mkdir(parents=True)
        (root / "app.py").write_text("1")
        assert await b.next_detail() == "src/app.py changed"


@real
@pytest.mark.anyio
async def test_no_thread_while_nobody_subscribes(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher_thread, "LINGER_SECONDS", 0.05)
    async with bench() as b:
        watch = Watch(paths=(str(source),), debounce_seconds=0.05)
        for text in ("22", "333"):
            assert not watch_threads()
            with b.watching.subscribe(watch, ignored_paths=()) as changes:
                await changes.wait_armed()
                assert len(watch_threads()) == 1
                (source / "app.py").write_text(text)
                with anyio.fail_after(60):
                    assert await anext(changes) == {str(source / "app.py")}
            await wait_until(lambda: not watch_threads() and not inotify_instances())


@real
@pytest.mark.anyio
async def test_reload_that_renews_a_subscription_keeps_what_is_known(source: Path) -> None:
    async with bench() as b:
        watch = Watch(paths=(str(source),), debounce_seconds=0.05)
        with b.watching.subscribe(watch, ignored_paths=()) as changes:
            await changes.wait_armed()
            thread = watch_threads()
        with b.watching.subscribe(watch, ignored_paths=()) as changes:
            (source / "app.py").write_text("22")  # before it is armed anew
            with anyio.fail_after(60):
                assert await anext(changes) == {str(source / "app.py")}
            assert watch_threads() == thread


@real
@pytest.mark.anyio
async def test_cancellation_ends_thread_and_instance_at_once(source: Path) -> None:
    slow = Pace(idle=3600.0)
    watch = Watch(paths=(str(source),))
    with anyio.fail_after(60):  # far less than a look's pause
        async with anyio.create_task_group() as tasks:
            file_watching = FileWatching(Bus(), pace=slow)
            tasks.start_soon(file_watching.run)
            with file_watching.subscribe(watch, ignored_paths=()) as changes:
                await changes.wait_armed()
                assert len(watch_threads()) == 1
                tasks.cancel_scope.cancel()
    assert not watch_threads()


@real
@pytest.mark.anyio
async def test_bug_in_the_thread_is_reported_and_it_is_started_again(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "RETRY_SECONDS", 0.05)
    original, broken = watcher.Watcher._look, [True]

    def look(self: watcher.Watcher, *arguments: object) -> None:
        if broken:
            broken.pop()
            raise ZeroDivisionError
        original(self, *arguments)

    monkeypatch.setattr(watcher.Watcher, "_look", look)
    async with bench() as b:
        await b.monitor(source)
        assert "ZeroDivisionError" in b.said("failed")[0].message
        (source / "app.py").write_text("22")
        assert await b.next_detail() == "src/app.py changed"


@real
@pytest.mark.anyio
async def test_bug_on_the_loop_ends_the_watching_of_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep_running, "FIRST_PAUSE_SECONDS", 0.05)
    original, broken = watching.FileWatching._distribute, list[bool]()

    def distribute(self: watching.FileWatching, *arguments: Any) -> None:
        if broken:
            broken.pop()
            raise ZeroDivisionError
        original(self, *arguments)

    monkeypatch.setattr(watching.FileWatching, "_distribute", distribute)
    other = tmp_path / "other"
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            b = Bench(tasks)
            tasks.start_soon(keep_running.keep_running, "file watching", b.watching.run)
            await b.monitor(source)
            broken.append(True)
            await b.monitor(other)
            (source / "app.py").write_text("22")
            assert await b.next_detail() == "src/app.py changed"
            other.write_text("1")
            assert await b.next_detail() == "other changed"
            tasks.cancel_scope.cancel()


@real
@pytest.mark.anyio
@pytest.mark.parametrize("look", ["scan", "look"])
async def test_bug_that_one_path_brings_out_leaves_the_others_watched(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: str
) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    original, healed = getattr(View, look), list[bool]()

    def fails(self: View, *arguments: object) -> object:
        if self.watched_path.root == str(bad) and not healed:
            raise ZeroDivisionError
        return original(self, *arguments)

    monkeypatch.setattr(View, look, fails)
    async with bench() as b:
        await b.monitor(bad)
        await b.monitor(source)
        (bad / "app.py").write_text("1")
        await wait_until(lambda: b.said("broken"))
        (source / "app.py").write_text("22")
        await wait_until(lambda: "src/app.py changed" in b.details())
        assert not b.said("failed")
        assert len(watch_threads()) == 1
        healed.append(True)
        (bad / "other.py").write_text("2")
        await wait_until(lambda: any(detail.startswith("bad/") for detail in b.details()), what="it is polled")
    assert [record.data["path"] for record in b.said("broken")] == [str(bad)], "once"


@real
@pytest.mark.anyio
async def test_cancellation_while_changes_are_reported_never_hangs(source: Path) -> None:
    for number in range(40):
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                file_watching = FileWatching(Bus(), pace=Pace(idle=0.001, warm=0.001, gather=0.0))
                tasks.start_soon(file_watching.run)
                with file_watching.subscribe(Watch(paths=(str(source),)), ignored_paths=()) as changes:
                    await changes.wait_armed()
                    for size in range(number):  # another moment of the thread's round each time
                        (source / "app.py").write_text("x" * size)
                    tasks.cancel_scope.cancel()
        assert not watch_threads()


@real
@pytest.mark.anyio
async def test_without_a_thread_that_is_said_in_words_and_tried_again(
    source: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start, refuses = threading.Thread.start, [True]

    def refuse(thread: threading.Thread) -> None:
        if refuses and thread.name == "asup-files":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    async with bench() as b:
        b.tasks.start_soon(b.monitor, source)
        await wait_until(lambda: b.said("failed"))
        refuses.clear()
        await wait_until(watch_threads)
        (source / "app.py").write_text("changed")
        await wait_until(b.details)
    assert b.said("failed")[0].message == "watching files failed (can't start new thread); trying again in 1 s"
    assert "Traceback" not in caplog.text


def test_no_more_threads_means_polling_and_no_abort(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="new thread"):
        watcher.open_notifier([str(source)])


def test_a_stop_in_any_moment_is_heard() -> None:
    """Also one whose wake is taken for that of a wish, which is looked at just then."""

    class LateWake(threading.Event):
        def clear(self) -> None:
            look.stop()
            super().clear()

    reports = SimpleNamespace(changed=lambda *_: None, armed=lambda *_: None, stop=lambda: None)
    look = watcher.Watcher(reports, Pace())
    look._wake = LateWake()
    look.want(1, {})
    thread = threading.Thread(target=look.serve, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
