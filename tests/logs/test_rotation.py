"""Backups move up whole, whatever interrupted the last rotation or compression."""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from supervisord_async.logs import rotation


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes() for path in folder.iterdir()}


def test_the_youngest_backup_is_number_one_and_the_oldest_goes(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    for number in range(5):
        log.write_bytes(b"%d" % number)
        rotation.shift(str(log), 3)
    assert contents(tmp_path) == {"x.log.1": b"4", "x.log.2": b"3", "x.log.3": b"2"}


def test_a_rotation_takes_away_what_is_more_than_is_wanted_by_now(tmp_path: Path) -> None:
    for number in range(1, 6):
        (tmp_path / f"x.log.{number}").write_bytes(b"%d" % number)
    (tmp_path / "x.log").write_bytes(b"0")
    rotation.shift(str(tmp_path / "x.log"), 2)
    assert contents(tmp_path) == {"x.log.1": b"0", "x.log.2": b"1"}


@pytest.mark.parametrize("stop_at", range(8))
def test_a_rotation_killed_between_any_two_steps_loses_and_doubles_nothing(
    tmp_path: Path, stop_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "x.log"
    for number in range(4):
        log.write_bytes(b"%d" % number)
        rotation.shift(str(log), 9)
    log.write_bytes(b"4")
    rename, calls = os.rename, 0

    def killed(source: str, target: str) -> None:
        nonlocal calls
        if calls == stop_at:
            raise KeyboardInterrupt
        calls += 1
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", killed)
        with contextlib.suppress(KeyboardInterrupt):
            rotation.shift(str(log), 9)
    if not log.exists():
        log.write_bytes(b"")
    rotation.shift(str(log), 9)
    order = [Path(path).read_bytes() for _, path in reversed(rotation.backups_of(str(log)))]
    assert [data for data in order if data] == [b"0", b"1", b"2", b"3", b"4"]


def test_compression_follows_a_backup_that_moves_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, lock = tmp_path / "x.log", threading.Lock()
    log.write_bytes(b"first")
    rotation.shift(str(log), 5)
    copy = shutil.copyfileobj

    def rotate_meanwhile(source: Any, target: Any, size: int) -> None:
        copy(source, target, size)
        if not log.exists():
            log.write_bytes(b"second")
            rotation.shift(str(log), 5)
            log.write_bytes(b"third")

    monkeypatch.setattr(shutil, "copyfileobj", rotate_meanwhile)
    rotation.compress_backups(str(log), lock)
    assert contents(tmp_path) == {"x.log": b"third", "x.log.1.gz": b"second", "x.log.2.gz": b"first"}


@pytest.mark.parametrize("at", [-1, 2**32])  # before 1970, and in 2106: a clock that was wrong when the log was written
def test_a_backup_of_any_time_is_compressed_and_keeps_it(tmp_path: Path, at: int) -> None:
    log = tmp_path / "x.log"
    for number in (1, 2):
        log.with_name(f"x.log.{number}").write_bytes(b"old")
    os.utime(tmp_path / "x.log.2", (at, at))
    rotation.compress_backups(str(log), threading.Lock())
    assert contents(tmp_path) == {"x.log.1.gz": b"old", "x.log.2.gz": b"old"}
    assert (tmp_path / "x.log.2.gz").stat().st_mtime == at


def test_a_log_without_a_folder_has_no_backups_to_compress(tmp_path: Path) -> None:
    rotation.compress_backups(str(tmp_path / "logs/x.log"), threading.Lock())
    assert list(tmp_path.iterdir()) == []


def test_what_an_interrupted_compression_left_is_cleared(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(b"now")
    (tmp_path / "x.log.1").write_bytes(b"old")
    (tmp_path / "x.log.1.gz").write_bytes(gzip.compress(b"old"))
    (tmp_path / "x.log.4711.gz.part").write_bytes(b"half")
    (tmp_path / "x.log.txt").write_bytes(b"not ours")
    rotation.compress_backups(str(log), threading.Lock())
    assert contents(tmp_path) == {"x.log": b"now", "x.log.1.gz": b"old", "x.log.txt": b"not ours"}
