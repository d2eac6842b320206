"""A bell on real directories."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from supervisord_async.system.inotify import DirectoryBell

pytestmark = pytest.mark.real


def heard(bell: DirectoryBell) -> bool:
    """Whether something has happened: what a system call did is told before it returns."""
    bell.wait(0)
    return bell.silence()


def test_every_kind_of_change_rings_once(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    bell = DirectoryBell([str(one), str(other)])
    assert not heard(bell)
    for change in (
        lambda: (one / "a").write_text("1"),
        lambda: (one / "a").rename(other / "b"),
        lambda: (other / "b").chmod(0o600),
        lambda: (other / "b").unlink(),
        lambda: other.rmdir(),
    ):
        change()
        assert heard(bell)
        assert not heard(bell)
    bell.close()


def test_another_thread_may_ring(tmp_path: Path) -> None:
    bell = DirectoryBell([str(tmp_path)])
    waiting = threading.Thread(target=bell.wait, args=(None,))
    waiting.start()
    bell.ring()
    waiting.join(20)
    assert not waiting.is_alive()
    assert not bell.silence()
    bell.close()


def test_directory_that_is_not_there_is_refused_and_nothing_stays_open(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FileNotFoundError):
        DirectoryBell([str(tmp_path), str(tmp_path / "gone")])
    assert os.listdir("/proc/self/fd") == before
