"""Noticing changed files: by notification and by polling, through replacement, removal and ignoring."""

from __future__ import annotations

import io
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisord_async.app import FileChangeWatcher, watcher
from tests.waiting import wait_until, wait_until_sync


class Told:
    """What a watcher has told, since it was made or cleared."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def __call__(self, changed: list[str]) -> None:
        self.paths.extend(changed)

    def wait_for(self, *paths: Path) -> None:
        wait_until_sync(lambda: {str(path) for path in paths} <= set(self.paths), what=f"{paths} in {self.paths}")
        self.paths.clear()


Watch = Callable[..., Told]


@pytest.fixture(params=[False, True], ids=["notified", "polling"])
def watch(request: pytest.FixtureRequest) -> Iterator[Watch]:
    """Start a watcher, either way, and have what it tells."""
    watchers: list[FileChangeWatcher] = []

    def start(*paths: Any, **options: Any) -> Told:
        mine, told = FileChangeWatcher(paths, poll_interval=0.05, force_polling=request.param, **options), Told()
        mine.set_change_callback(told)
        mine.start()
        watchers.append(mine)
        wait_until_sync(lambda: mine.polling is request.param)
        return told

    yield start
    for each in watchers:
        each.stop()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "src"
    (directory / "package").mkdir(parents=True)
    (directory / "package" / "module.py").write_text("x = 1\n")
    return directory


@pytest.mark.real
def test_changed_new_and_vanished_files_are_told(watch: Watch, source: Path) -> None:
    told = watch(source)
    (source / "package" / "module.py").write_text("x = 22\n")
    told.wait_for(source / "package" / "module.py")
    (source / "new.py").touch()
    told.wait_for(source / "new.py")
    (source / "deep" / "er").mkdir(parents=True)
    (source / "deep" / "er" / "file.txt").touch()
    told.wait_for(source / "deep" / "er" / "file.txt")
    (source / "new.py").unlink()
    told.wait_for(source / "new.py")


@pytest.mark.real
def test_a_file_replaced_by_rename_is_told(watch: Watch, source: Path) -> None:
    module = source / "package" / "module.py"
    told = watch(module)
    for number in range(3):
        (source / "written").write_text(f"x = {number}00\n")
        os.rename(source / "written", module)
        told.wait_for(module)


@pytest.mark.real
def test_ignored_files_are_not_told(watch: Watch, source: Path) -> None:
    told = watch(source, ignore_patterns=["*.log", "data/*", "package/generated/", "build"])
    for ignored in (
        "x.log",
        "a.pyc",
        "__pycache__/m.py",
        "data/deep/x.py",
        "package/generated/y.py",
        "build/z.py",
        ".m.py.swp",
        ".git/HEAD",
    ):
        (source / ignored).parent.mkdir(exist_ok=True, parents=True)
        (source / ignored).write_text("1")
    (source / "generated").mkdir()
    (source / "generated" / "counts.py").touch()
    wait_until_sync(lambda: told.paths)
    assert set(told.paths) == {str(source / "generated" / "counts.py")}


@pytest.mark.real
def test_only_included_names_count_where_asked(watch: Watch, source: Path) -> None:
    told = watch(source, include_patterns=["*.py"])
    (source / "notes.txt").touch()
    (source / "new.py").touch()
    wait_until_sync(lambda: told.paths)
    assert told.paths == [str(source / "new.py")]


@pytest.mark.real
def test_a_path_that_appears_later_is_watched(watch: Watch, tmp_path: Path) -> None:
    told = watch(tmp_path / "later" / "config.json")
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "config.json").touch()
    told.wait_for(tmp_path / "later" / "config.json")


@pytest.mark.real
def test_a_directory_that_is_replaced_goes_on_being_watched(watch: Watch, source: Path) -> None:
    told = watch(source)
    shutil.move(source, source.with_name("old"))
    shutil.copytree(source.with_name("old"), source, copy_function=shutil.copy)
    told.wait_for(source / "package" / "module.py")
    (source / "after.py").touch()
    told.wait_for(source / "after.py")


@pytest.mark.real
def test_files_and_directories_are_watched_together(watch: Watch, source: Path, tmp_path: Path) -> None:
    told = watch(source, tmp_path / "config.json")
    (tmp_path / "config.json").touch()
    told.wait_for(tmp_path / "config.json")
    (source / "a.py").touch()
    told.wait_for(source / "a.py")


@pytest.mark.real
def test_a_raising_callback_does_not_end_the_watching(source: Path, caplog: pytest.LogCaptureFixture) -> None:
    mine, calls = FileChangeWatcher([source]), []

    def fail(changed: list[str]) -> None:
        calls.append(changed)
        raise ValueError("no")

    mine.set_change_callback(fail)
    with mine:
        (source / "a.py").touch()
        wait_until_sync(lambda: len(calls) == 1)
        (source / "b.py").touch()
        wait_until_sync(lambda: len(calls) == 2)
    assert "ValueError: no" in caplog.text


@pytest.mark.real
def test_stopping_from_the_callback_and_starting_again(source: Path) -> None:
    mine, told = FileChangeWatcher([source]), Told()
    mine.set_change_callback(lambda changed: (told(changed), mine.stop()))
    mine.start()
    (source / "a.py").touch()
    told.wait_for(source / "a.py")
    wait_until_sync(lambda: not any(thread.name == "file-watcher" for thread in threading.enumerate()))
    (source / "unseen.py").touch()
    mine.set_change_callback(told)
    mine.start()
    mine.start()
    (source / "b.py").touch()
    told.wait_for(source / "b.py")
    mine.stop()


@pytest.mark.real
def test_without_notifications_it_falls_back_to_polling(
    source: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from watchfiles import _rust_notify

    def refuse(*_: Any) -> Any:
        raise OSError(28, "No space left on device: no inotify watches left")

    monkeypatch.setattr(_rust_notify, "RustNotify", refuse)
    mine, told = FileChangeWatcher([source], poll_interval=0.05), Told()
    mine.set_change_callback(told)
    with mine:
        (source / "a.py").touch()
        told.wait_for(source / "a.py")
        assert mine.polling is True
    assert "looking every 0.05 s instead" in caplog.text


@pytest.mark.real
def test_without_watchfiles_it_polls(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    mine, told = FileChangeWatcher([source], poll_interval=0.05), Told()
    mine.set_change_callback(told)
    with mine:
        (source / "a.py").touch()
        told.wait_for(source / "a.py")
    assert mine.polling is True


def test_network_file_systems_are_polled(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert watcher._lacks_notifications(str(source)) is False
    monkeypatch.setattr(watcher, "_lacks_notifications", lambda path: True)
    assert FileChangeWatcher([source])._can_notify() is False


@pytest.mark.real
@pytest.mark.parametrize(
    ("mounts", "polled"),
    [
        ("/ ext4", False),
        ("/ ext4, /srv nfs4", True),
        ("/ ext4, /srv fuse.sshfs", True),
        ("/ nfs4, /srv ext4", False),  # the nearest mount is the path's
        ("/ ext4, /srv/app2 nfs4", False),
        ("/ ext4, nonsense, /srv nfs4", True),
    ],
)
def test_it_is_the_nearest_mount_that_says_whether_a_path_is_polled(mounts: str, polled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"server:/export {mount} rw 0 0\n" if " " in mount else f"{mount}\n" for mount in mounts.split(", ")]
    monkeypatch.setattr(watcher, "open", lambda *_, **__: io.StringIO("".join(lines)), raising=False)
    assert watcher._lacks_notifications("/srv/app/main.py") is polled


def test_what_is_covered_is_included_and_not_ignored(tmp_path: Path) -> None:
    one = FileChangeWatcher([tmp_path], ["*.gen.py", "data/raw"], include_patterns=["*.py"])
    covered = [name for name in ("a.py", "sub/b.py", "a.txt", "x.gen.py", "data/raw/c.py", "data/d.py") if one.covers(tmp_path / name)]
    assert covered == ["a.py", "sub/b.py", "data/d.py"]


@pytest.mark.anyio
async def test_changes_can_be_iterated_over(source: Path) -> None:
    mine = FileChangeWatcher([source])
    seen: set[str] = set()
    changes = aiter(mine)  # watches from here on
    (source / "first.py").touch()
    async for changed in changes:
        seen.update(changed)
        if str(source / "second.py") in seen:
            mine.stop()
        else:
            (source / "second.py").touch()
    assert seen >= {str(source / "first.py"), str(source / "second.py")}


@pytest.mark.real
@pytest.mark.anyio
async def test_leaving_the_iteration_ends_the_watching(source: Path) -> None:
    changes = aiter(FileChangeWatcher([source]))
    (source / "a.py").touch()
    assert await anext(changes) == [str(source / "a.py")]
    await changes.aclose()  # type: ignore[attr-defined]
    await wait_until(lambda: not any(thread.name == "file-watcher" for thread in threading.enumerate()))


@pytest.mark.real
@pytest.mark.slow
def test_an_idle_watcher_costs_next_to_nothing(source: Path) -> None:
    with FileChangeWatcher([source]):
        began = time.process_time()
        time.sleep(2)
        assert (time.process_time() - began) / 2 < 0.1  # a busy loop would be near 1


def test_impossible_watchers_are_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        FileChangeWatcher([])
    with pytest.raises(ValueError, match="poll_interval"):
        FileChangeWatcher(["x"], poll_interval=0)
    assert FileChangeWatcher("src").watch_paths == (os.path.abspath("src"),)  # type: ignore[arg-type]
