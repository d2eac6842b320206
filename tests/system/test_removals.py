"""The kernel tells of the removal of what is watched, and of nothing else."""

from __future__ import annotations

import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisord_async.system.removals import Removals


@pytest.fixture
def removals(tmp_path: Path) -> Iterator[Removals]:
    """``lock`` and ``state`` of the folder ``run`` are watched; the latter is renamed by ourselves."""
    (tmp_path / "run").mkdir()
    for name in ("lock", "state", "other"):
        (tmp_path / "run" / name).touch()
    removals = Removals()
    watch(removals, tmp_path / "run")
    yield removals
    removals.close()


def watch(removals: Removals, folder: Path) -> None:
    removals.watch((f"{folder}/lock", f"{folder}/state"), renamed=(f"{folder}/state",))


def is_told(removals: Removals) -> bool:
    """Events are there as soon as the call that made them returns."""
    return bool(select.select([removals.fd], [], [], 0)[0]) and removals.read()


@pytest.mark.parametrize("name", ["lock", "state"])
def test_a_file_that_is_removed_is_told_once(removals: Removals, tmp_path: Path, name: str) -> None:
    assert not is_told(removals)
    (tmp_path / "run" / name).unlink()
    assert is_told(removals)
    assert not is_told(removals)


def test_one_that_is_moved_away_is_told_unless_we_do_that_ourselves(removals: Removals, tmp_path: Path) -> None:
    (tmp_path / "run" / "state").rename(tmp_path / "run" / "state.previous")
    assert not is_told(removals)
    (tmp_path / "run" / "lock").rename(tmp_path / "lock")
    assert is_told(removals)


def test_others_are_not_told(removals: Removals, tmp_path: Path) -> None:
    (tmp_path / "run" / "other").unlink()
    (tmp_path / "run" / "new").touch()
    (tmp_path / "run" / "new").replace(tmp_path / "run" / "lock")
    assert not is_told(removals)


def test_a_folder_that_is_removed_or_moved_is_told_and_can_be_watched_anew(removals: Removals, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.rename(tmp_path / "moved")
    assert is_told(removals)
    run.mkdir()
    (run / "lock").touch()
    watch(removals, run)
    (tmp_path / "moved" / "lock").unlink()
    assert not is_told(removals), "the former folder is not watched any more"
    (run / "lock").unlink()
    assert is_told(removals)
    run.rmdir()
    assert is_told(removals)
    run.mkdir()
    watch(removals, run)
    assert not is_told(removals)


def test_a_folder_that_is_not_there_is_refused(removals: Removals, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        removals.watch((f"{tmp_path}/absent/lock",))
