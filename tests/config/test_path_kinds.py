"""What is at the paths of a file is told in a bounded time; a disk that hangs is a warning, and costs the others nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisord_async.config import path_kinds
from supervisord_async.config.check import check
from supervisord_async.config.load import load
from supervisord_async.config.path_kinds import PathKind, kinds_of
from tests.hanging_disk import HangingDisk, can_hang

needs_a_disk = pytest.mark.skipif(not can_hang(), reason="only root can mount a FUSE")


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HangingDisk]:
    """It hangs."""
    monkeypatch.setattr(path_kinds.kinds_of, "__defaults__", (0.2,))
    with HangingDisk(tmp_path / "away", "app", b"#!/bin/sh\n") as disk:
        disk.hang()
        yield disk


def test_kinds(tmp_path: Path) -> None:
    script, text = tmp_path / "script", tmp_path / "text"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    text.write_text("")
    (tmp_path / "dangling").symlink_to("nowhere")
    expected = {
        str(tmp_path): PathKind.FOLDER,
        str(script): PathKind.EXECUTABLE,
        str(text): PathKind.OTHER,
        str(tmp_path / "dangling"): PathKind.MISSING,
        f"{tmp_path}/\0": PathKind.MISSING,
    }
    assert kinds_of(expected) == expected


def test_without_a_thread_it_is_looked_at_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert kinds_of([str(tmp_path)]) == {str(tmp_path): PathKind.FOLDER}


@needs_a_disk
def test_a_disk_that_hangs_is_silent_and_the_others_tell(tmp_path: Path, disk: HangingDisk) -> None:
    (tmp_path / "away.txt").write_text("")  # beside it, not on it
    found = kinds_of([str(disk.folder), str(disk.path), str(tmp_path), str(tmp_path / "away.txt")])
    assert list(found.values()) == [PathKind.SILENT, PathKind.SILENT, PathKind.FOLDER, PathKind.OTHER]


@needs_a_disk
def test_a_file_loads_beside_a_disk_that_hangs(tmp_path: Path, disk: HangingDisk) -> None:
    file = tmp_path / "programs.yaml"
    file.write_text(f"""
programs:
  in: {{command: sleep 1, directory: {disk.folder}}}
  beats: {{command: sleep 1, heartbeat: {{file: {disk.path}}}}}
  watches: {{command: sleep 1, watch: [{disk.folder}]}}
  logs: {{command: sleep 1, logs: {{stdout: {disk.folder}/log}}}}
  runs: {{command: {disk.path}}}
""")
    loaded = load(str(file))
    words = [str(problem) for problem in (*loaded.warnings, *check(loaded))]
    places = ("in.directory", "beats.heartbeat.file", "watches.watch[0]", "logs.logs.stdout", "runs.command")
    for place in places:
        (found,) = [each for each in words if f"programs.{place}: " in each]
        assert f"cannot look at {disk.folder}" in found
    assert len(words) == len(places), words
