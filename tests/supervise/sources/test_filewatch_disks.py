"""Watched paths on several disks: one that hangs holds up its own, and nothing that changes is lost on the way between two watchers."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest

from supervisord_async.config.model import Watch
from supervisord_async.supervise.sources.filewatch import watcher, watcher_thread, watching
from supervisord_async.supervise.sources.filewatch.view import View, WatchedPath
from supervisord_async.supervise.sources.filewatch.watcher import Pace, Watcher
from supervisord_async.system.mounts import Mount, MountTable
from tests.hanging_disk import HangingDisk, can_hang
from tests.supervise.filebench import bench, watch_threads
from tests.waiting import wait_until

real = pytest.mark.real
fuse = pytest.mark.skipif(not can_hang(), reason="only root can mount a FUSE")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[HangingDisk]:
    with HangingDisk(tmp_path / "away", "app", b"1") as disk:
        disk.answer()
        yield disk


def hang(disk: HangingDisk) -> None:
    """The disk hangs, and somebody waits for it."""
    disk.hang()
    assert disk.waiting.wait(30)


# A disk that hangs


@real
@fuse
@pytest.mark.anyio
@pytest.mark.parametrize("linked", [False, True])
async def test_a_disk_that_hangs_holds_up_its_own_paths_alone(source: Path, disk: HangingDisk, linked: bool) -> None:
    away = disk.folder
    if linked:
        away = source.parent / "current"
        away.symlink_to(disk.folder)
    async with bench() as b:
        await b.monitor(source)
        assert len(watch_threads()) == 1
        await b.monitor(away, name="far")
        await wait_until(lambda: len(watch_threads()) == 2)
        disk.save(b"22")
        assert await b.next_detail() == f"{away.name}/app changed"
        await anyio.to_thread.run_sync(hang, disk)
        disk.save(b"333")
        for text in ("22", "333"):
            (source / "app.py").write_text(text)
            assert await b.next_detail() == "src/app.py changed"
        disk.answer()
        assert await b.next_detail() == f"{away.name}/app changed"
        assert len(watch_threads()) == 2


@real
@fuse
@pytest.mark.anyio
async def test_a_watch_that_begins_on_a_disk_that_hangs_follows_its_other_paths(source: Path, disk: HangingDisk) -> None:
    disk.hang()
    async with bench() as b:
        b.tasks.start_soon(b.monitor, source, disk.folder, source.parent / "missing")
        await anyio.to_thread.run_sync(disk.waiting.wait, 30)
        await b.monitor(source, name="other", post=lambda _: None)
        (source / "app.py").write_text("22")
        assert await b.next_detail() == "src/app.py changed"
        assert not b.said("missing")
        disk.answer()
        await wait_until(lambda: b.said("missing"))


@real
@fuse
@pytest.mark.anyio
async def test_no_second_thread_waits_for_a_disk_whose_first_one_hangs(
    source: Path, disk: HangingDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher_thread, "LINGER_SECONDS", 0.0)
    watch = Watch(paths=(str(disk.folder),))
    async with bench() as b:
        await b.monitor(source)
        with b.watching.subscribe(watch, ignored_paths=()) as changes:
            await changes.wait_armed()
            await anyio.to_thread.run_sync(hang, disk)
        with b.watching.subscribe(watch, ignored_paths=()) as changes:
            (source / "app.py").write_text("22")
            assert await b.next_detail() == "src/app.py changed"
            assert len(watch_threads()) == 2
            disk.answer()
            await changes.wait_armed()
        await wait_until(lambda: len(watch_threads()) == 1)


@real
@pytest.mark.usefixtures("no_collections")
@pytest.mark.anyio
async def test_what_was_known_of_files_goes_with_their_thread(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waited for a full collection of garbage, which a daemon at rest makes once in days: 40 MiB for each 50,000 files."""
    monkeypatch.setattr(watcher_thread, "LINGER_SECONDS", 0.0)
    async with bench() as b:
        with b.watching.subscribe(Watch(paths=(str(source),)), ignored_paths=()) as changes:
            await changes.wait_armed()
            [thread] = b.watching._threads.values()
            assert thread._watcher is not None
            known = [weakref.ref(view) for view in thread._watcher._views.values()]
        await wait_until(lambda: not b.watching._threads)
        assert [view() for view in known] == [None]


@real
@fuse
@pytest.mark.anyio
async def test_the_end_does_not_wait_for_a_disk_that_hangs(disk: HangingDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher_thread, "JOIN_MAX_SECONDS", 0.05)
    async with bench() as b:
        await b.monitor(disk.folder)
        await anyio.to_thread.run_sync(hang, disk)
    assert len(watch_threads()) == 1
    disk.answer()
    await wait_until(lambda: not watch_threads())


@real
@fuse
@pytest.mark.anyio
async def test_a_link_to_a_disk_that_hangs_from_the_beginning_is_followed_by_its_own_watcher(source: Path, disk: HangingDisk) -> None:
    current = source.parent / "current"
    current.symlink_to("newest")
    (source.parent / "newest").symlink_to(source)
    async with bench() as b:
        await b.monitor(current)
        disk.hang()
        (source.parent / "next").symlink_to(disk.folder)
        (source.parent / "next").replace(source.parent / "newest")
        b.tasks.start_soon(b.monitor, current / "app")
        await anyio.to_thread.run_sync(disk.waiting.wait, 30)
        await b.monitor(source)
        (source / "app.py").write_text("22")
        assert await b.next_detail() == "src/app.py changed"
        disk.answer()
        await wait_until(lambda: "current/app and 1 more changed" in b.details())


@real
@fuse
@pytest.mark.anyio
async def test_a_link_that_leads_to_a_disk_that_hangs_before_that_is_noticed_holds_nobody_up(
    source: Path, disk: HangingDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    current, other = source.parent / "current", source.parent / "other"
    current.symlink_to(source)
    other.mkdir()
    async with bench() as b:
        await b.monitor(current)
        monkeypatch.setattr(watcher, "drain", lambda _: set())  # no notification has come yet
        disk.hang()
        (source.parent / "next").symlink_to(disk.folder)
        (source.parent / "next").replace(current)
        with anyio.fail_after(30):
            await b.monitor(other, name="other")
        monkeypatch.undo()
        disk.answer()
        await wait_until(lambda: any("current" in detail for detail in b.details()))


# Many disks, and ways that lead elsewhere


@real
@pytest.mark.anyio
async def test_of_many_disks_some_share_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "THREADS", 2)
    monkeypatch.setattr(MountTable, "devices_at", lambda _, path: frozenset({1, hash(path)}))
    monkeypatch.setattr(watcher, "mounts", list)
    async with bench() as b:
        for number in range(5):
            folder = tmp_path / str(number)
            folder.mkdir()
            await b.monitor(folder)
            (folder / "app").write_text("1")
            assert await b.next_detail() == f"{number}/app changed"
        assert len(watch_threads()) == 3


@real
def test_what_changes_while_a_path_is_handed_to_another_watcher_is_found(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = source.stat().st_dev
    monkeypatch.setattr(watcher, "mounts", lambda: [Mount("/", "/", "ext4", here)])
    watched_path, handed, told = WatchedPath(str(source)), list[View](), list[watcher.Changes]()
    (source / "gone.py").write_text("1")

    def strayed(views: list[View]) -> None:
        handed.extend(views)
        first.stop()

    first = Watcher(SimpleNamespace(strayed=strayed), Pace(), frozenset({here + 1}))
    first.want(1, {watched_path: time.time_ns()})
    first.serve()
    (source / "gone.py").unlink()
    (source / "app.py").write_text("22")
    os.utime(source / "app.py", ns=(0, 0))
    second = Watcher(SimpleNamespace(changed=told.append, armed=lambda *_: second.stop()), Pace(), frozenset({here, here + 1}))
    second.want(2, {watched_path: time.time_ns()}, handed=handed)
    second.serve()
    assert told == [{watched_path: {str(source / "app.py"), str(source / "gone.py")}}]


@real
def test_a_part_of_a_disk_that_has_a_number_of_its_own_is_no_other_disk(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As btrfs gives one to each subvolume: no mount is known by it."""
    monkeypatch.setattr(watcher, "mounts", lambda: [Mount("/", "/", "btrfs", 1), Mount("/other", "/", "btrfs", 2)])
    armed = list[frozenset[WatchedPath]]()

    def arm(_: int, watched_paths: frozenset[WatchedPath], missing: frozenset[str]) -> None:
        armed.append(watched_paths)
        looking.stop()

    looking = Watcher(SimpleNamespace(armed=arm), Pace(), frozenset({1}))
    watched_path = WatchedPath(str(source))
    looking.want(1, {watched_path: time.time_ns()})
    looking.serve()
    assert armed == [{watched_path}]
