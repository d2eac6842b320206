"""The file-change watcher on real files, on both loops; nothing stays open afterwards."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from supervisord_async.config.model import Watch
from supervisord_async.core.inputs import Input, RestartRequested, SignalRequested
from supervisord_async.core.record import Record
from supervisord_async.core.state import Cause
from supervisord_async.supervise.bus import Bus
from supervisord_async.supervise.filewatch import lookout, watching
from supervisord_async.supervise.filewatch.ignore import IgnoreRules
from supervisord_async.supervise.filewatch.lookout import Pace
from supervisord_async.supervise.filewatch.view import Sighting, Territory, View
from supervisord_async.supervise.monitors import files
from supervisord_async.supervise.monitors.files import FileWatching, LoopGuard, describe_changes, monitor_files
from tests.waiting import wait_until

QUICK = Pace(idle=0.02, warm=0.01, warm_for=0.3, gather=0.0, fallback_poll=0.03, retry=0.2, retry_max=0.2)
real = pytest.mark.real


def inotify_instances() -> int:
    links = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))
    return sum(os.path.lexists(link) and "inotify" in os.readlink(link) for link in links)


def watch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "asup-files"]


class Bench:
    """A watcher, what its monitors posted, what it published."""

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self.bus = Bus()
        self.records: list[Record] = []
        self.posts: list[Input] = []
        self.bus.listen(self.records.append)
        self.watching = FileWatching(self.bus, pace=QUICK)
        self.tasks = tasks

    def said(self, what: str) -> list[Record]:
        return [record for record in self.records if record.type == "watch" and record.data["what"] == what]

    def details(self) -> list[str]:
        return [post.detail for post in self.posts if isinstance(post, RestartRequested)]

    async def monitor(
        self,
        *paths: Path,
        ignored: tuple[Path, ...] = (),
        post: Callable[[Input], None] | None = None,
        name: str = "web",
        **settings: object,
    ) -> None:
        watch = Watch(paths=tuple(map(str, paths)), **{"debounce_seconds": 0.05, **settings})  # type: ignore[arg-type]
        own = tuple(map(str, ignored))

        async def run() -> None:
            await monitor_files(self.watching, name=name, watch=watch, ignored_paths=own, post=post or self.posts.append, bus=self.bus)

        self.tasks.start_soon(run)
        with self.watching.subscribe(watch, ignored_paths=own) as later:
            await anyio.lowlevel.checkpoint()  # the monitor has subscribed, and is armed no later than what comes after it
            await later.wait_armed()

    async def next_detail(self) -> str:
        """Waits for one more restart than there were."""
        before = len(self.posts)
        await wait_until(lambda: len(self.posts) > before)
        return self.details()[-1]


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    async with anyio.create_task_group() as tasks:
        it = Bench(tasks)
        tasks.start_soon(it.watching.run)
        yield it
        tasks.cancel_scope.cancel()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "app" / "src"
    source.mkdir(parents=True)
    (source / "app.py").write_text("1")
    return source


async def only(b: Bench, act: Callable[[], object], sentinel: Path) -> str:
    """What is posted for ``act`` and a change of ``sentinel`` right after it: that of the sentinel alone, or not."""
    before = len(b.posts)
    act()
    sentinel.write_text(sentinel.read_text() + "x")
    await wait_until(lambda: len(b.posts) > before)
    return b.details()[-1]


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
async def test_touch_counts_and_permissions_reading_and_transient_files_do_not(source: Path) -> None:
    (source / "sentinel").write_text("")
    app = source / "app.py"

    def harmless() -> None:
        app.chmod(0o600)
        app.read_text()
        (source / "transient").write_text("x")
        (source / "transient").unlink()
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
        await b.monitor(app)
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
        await b.monitor(source, debounce_seconds=0.4)
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
        shutil.rmtree(source / "a")
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


# When


@real
@pytest.mark.anyio
async def test_debounce_waits_for_quiet(source: Path) -> None:
    async with bench() as b:
        watch = Watch(paths=(str(source),), debounce_seconds=0.5)
        with b.watching.subscribe(watch, ignored_paths=()) as changes:
            await changes.wait_armed()
            for number in range(5):
                (source / f"{number}.py").write_text("x")
                await wait_until(lambda number=number: str(source / f"{number}.py") in changes._paths)
            last = changes._last_at
            with anyio.fail_after(20):
                assert await anext(changes) == {str(source / f"{number}.py") for number in range(5)}
            assert anyio.current_time() - last >= 0.5


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
        await b.monitor(source, debounce_seconds=0.3)
        for number in range(100):
            (source / f"{number:03}.py").write_text("x")
        assert "more changed" in await b.next_detail()
        (source / "app.py").write_text("22")
        assert await b.next_detail() == "src/app.py changed"
    assert int(b.details()[0].split(" and ")[1].split()[0]) <= 19


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


def test_scan_stopped_midway_and_unreadable_directories_change_nothing(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source / "sub").mkdir()
    (source / "sub" / "mod.py").write_text("1")
    view = View(Territory(str(source)))
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
    assert view.look(str(source / "sub")) is Sighting.STALE
    assert view.scan(lambda: False) == {str(source / "sub"), str(source / "sub" / "mod.py")}


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
    monkeypatch.setattr(files, "SUSPECT_SECONDS", 0.25)
    monkeypatch.setattr(files, "WINDOW_FACTOR", 100.0)
    async with bench() as b:
        starts = 0
        writes = True

        def post(input_: Input) -> None:
            nonlocal starts
            starts += 1
            b.posts.append(input_)
            b.bus.publish("state", name="web", from_="STOPPING", to="STARTING")
            if writes:
                (source / "version.py").write_text("x" * starts)

        await b.monitor(source, post=post)
        (source / "app.py").write_text("22")
        await wait_until(lambda: b.said("suspended"))
        assert starts == files.SUSPECTS
        record = b.said("suspended")[0]
        assert (record.name, record.data["key"], record.data["paths"]) == ("web", "watch.ignore", [str(source / "version.py")])
        assert "src/version.py" in record.message
        assert "watch.ignore" in record.message
        writes = False
        await wait_until(lambda: b.said("resumed"))
        assert starts == files.SUSPECTS
        (source / "app.py").write_text("333")
        await wait_until(lambda: starts > files.SUSPECTS)
        assert b.details()[-1] == "src/app.py changed"


@real
@pytest.mark.anyio
async def test_edit_while_suspended_is_followed_on_resume(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SUSPECT_SECONDS", 0.05)
    pauses: list[float | None] = [1.0]
    monkeypatch.setattr(LoopGuard, "pause_after", lambda *_: pauses.pop() if pauses else None)
    discard, discarded = watching.Subscription.discard, anyio.Event()

    def note(self: watching.Subscription) -> None:
        discard(self)
        discarded.set()

    monkeypatch.setattr(watching.Subscription, "discard", note)
    async with bench() as b:
        await b.monitor(source)
        (source / "version.py").write_text("x")
        await wait_until(lambda: b.said("suspended"))
        await discarded.wait()  # its own last writes are forgotten by now
        (source / "app.py").write_text("333")
        await wait_until(lambda: b.posts)
        assert b.said("resumed")
        assert b.details() == ["src/app.py changed"]


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
    def refuse(directories: list[str]) -> lookout.Notifier:
        raise error

    original = lookout.open_notifier
    monkeypatch.setattr(lookout, "open_notifier", refuse)
    async with bench() as b:
        await b.monitor(source)
        await wait_until(lambda: b.said("degraded"))
        assert "fs.inotify.max_user_watches" in b.said("degraded")[0].message
        (source / "app.py").write_text("22")
        assert await b.next_detail() == "src/app.py changed"
        assert inotify_instances() == 0
        monkeypatch.setattr(lookout, "open_notifier", original)
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
async def test_lost_notifications_of_a_burst_are_made_up_for(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue: list[set[tuple[int, str]]] = []
    monkeypatch.setattr(lookout, "drain", lambda _: queue.pop() if queue else set())
    async with bench() as b:
        await b.monitor(source)
        (source / "app.py").write_text("22")  # nobody is told
        queue.append({(1, f"/elsewhere/{number}") for number in range(lookout.BURST_HINTS)})
        assert await b.next_detail() == "src/app.py changed"


@real
@pytest.mark.anyio
async def test_name_that_is_no_utf8_breaks_nothing(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SUSPECTS", 100)
    async with bench() as b:
        await b.monitor(source)
        for number in range(3):  # the second one in short time has it polled
            with open(os.fsencode(source) + b"/\xff%d" % number, "w") as file:
                file.write("x")
            await b.next_detail()
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
    original = lookout.open_notifier
    monkeypatch.setattr(lookout, "open_notifier", lambda paths: (opened.append(paths), original(paths))[1])
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
    monkeypatch.setattr(watching, "LINGER_SECONDS", 0.05)
    async with bench() as b:
        watch = Watch(paths=(str(source),), debounce_seconds=0.05)
        for text in ("22", "333"):
            assert not watch_threads()
            with b.watching.subscribe(watch, ignored_paths=()) as changes:
                await changes.wait_armed()
                assert len(watch_threads()) == 1
                (source / "app.py").write_text(text)
                with anyio.fail_after(20):
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
            with anyio.fail_after(20):
                assert await anext(changes) == {str(source / "app.py")}
            assert watch_threads() == thread


@real
@pytest.mark.anyio
async def test_cancellation_ends_thread_and_instance_at_once(source: Path) -> None:
    slow = Pace(idle=60.0)
    watch = Watch(paths=(str(source),))
    with anyio.fail_after(20):  # far less than a look's pause
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
    original, broken = lookout.Lookout._look, [True]

    def look(self: lookout.Lookout, *arguments: object) -> None:
        if broken:
            broken.pop()
            raise ZeroDivisionError
        original(self, *arguments)

    monkeypatch.setattr(lookout.Lookout, "_look", look)
    async with bench() as b:
        await b.monitor(source)
        assert "ZeroDivisionError" in b.said("failed")[0].message
        (source / "app.py").write_text("22")
        assert await b.next_detail() == "src/app.py changed"


def test_changes_are_described_as_people_name_them() -> None:
    watch = Watch(paths=("/srv/src", "/srv/settings.yaml", "/"))
    assert describe_changes(watch, frozenset({"/srv/src/a/b.py"})) == "src/a/b.py changed"
    assert describe_changes(watch, frozenset({"/srv/settings.yaml"})) == "settings.yaml changed"
    assert describe_changes(watch, frozenset({"/srv/src/a", "/srv/src/b"})) == "src/a and 1 more changed"
    assert describe_changes(watch, frozenset({"/etc/hosts"})) == "etc/hosts changed"


@real
@pytest.mark.anyio
async def test_cancellation_while_changes_are_reported_never_hangs(source: Path) -> None:
    for number in range(40):
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                file_watching = FileWatching(Bus(), pace=Pace(idle=0.001, warm=0.001, gather=0.0))
                tasks.start_soon(file_watching.run)
                with file_watching.subscribe(Watch(paths=(str(source),)), ignored_paths=()) as changes:
                    await changes.wait_armed()
                    for size in range(number):  # another moment of the thread's round each time
                        (source / "app.py").write_text("x" * size)
                    tasks.cancel_scope.cancel()
        assert not watch_threads()


def test_no_more_threads_means_polling_and_no_abort(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="new thread"):
        lookout.open_notifier([str(source)])
