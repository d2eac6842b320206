from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisord_async.errors import DaemonError, LockHeldError
from supervisord_async.system import identity
from supervisord_async.system.identity import identify
from supervisord_async.system.lock import InstanceLock
from tests.mounting import read_only, small_disk

pytestmark = pytest.mark.real


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    with small_disk(tmp_path / "disk") as folder:
        yield folder


HOLD = """
import sys
from supervisord_async.system.lock import InstanceLock
InstanceLock(sys.argv[1]).acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_disk_that_has_become_read_only_is_locked_and_one_without_a_lock_file_says_that_it_is(disk: Path) -> None:
    with InstanceLock(disk / "lock"):
        pass
    with read_only(disk):
        with InstanceLock(disk / "lock"), pytest.raises(LockHeldError):
            InstanceLock(disk / "lock").acquire()
        with pytest.raises(DaemonError, match=r"cannot open the lock .*: Read-only file system"):
            InstanceLock(disk / "other").acquire()


def test_the_holder_is_found_where_the_disk_has_become_read_only(disk: Path) -> None:
    with InstanceLock(disk / "lock"), read_only(disk):
        assert InstanceLock(disk / "lock").holder() == os.getpid()


def test_second_daemon_is_refused_with_the_first_ones_pid_until_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        first.stdout.readline()
        with pytest.raises(LockHeldError) as caught:
            InstanceLock(path).acquire()
        assert caught.value.pid == first.pid == InstanceLock(path).holder()
        first.kill()
        first.wait()
    assert InstanceLock(path).holder() is None
    with InstanceLock(path) as lock:
        assert lock.fd >= 0


def test_who_only_looks_keeps_no_daemon_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock"
    path.touch()
    glance = os.open(path, os.O_RDWR)
    fcntl.flock(glance, fcntl.LOCK_SH)
    monkeypatch.setattr(time, "sleep", lambda _: fcntl.flock(glance, fcntl.LOCK_UN))
    with InstanceLock(path) as lock:
        assert lock.holder() == os.getpid()
    os.close(glance)


def test_a_newcomer_that_has_not_signed_yet_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newcomer = InstanceLock(tmp_path / "lock")
    newcomer.acquire()
    (tmp_path / "lock").write_text("")
    monkeypatch.setattr(time, "sleep", lambda _: newcomer.sign())
    with pytest.raises(LockHeldError) as caught:
        InstanceLock(tmp_path / "lock").acquire()
    assert caught.value.pid == os.getpid()
    newcomer.release()


@pytest.mark.parametrize(
    "content", ["1\n", "garbage", "", f"{os.getpid()} 1 boot\n", "\0" * 300], ids=["init", "garbage", "empty", "ours", "NUL"]
)
def test_stale_file_never_blocks(tmp_path: Path, content: str) -> None:
    (tmp_path / "lock").write_text(content)
    with InstanceLock(tmp_path / "lock"):
        assert (tmp_path / "lock").read_text().startswith(f"{os.getpid()} ")
    assert (tmp_path / "lock").exists()


def test_holder_that_was_not_told_truly_is_not_named(tmp_path: Path) -> None:
    with InstanceLock(tmp_path / "lock"):
        (tmp_path / "lock").write_text("1 12345 another-boot\n")
        with pytest.raises(LockHeldError) as caught:
            InstanceLock(tmp_path / "lock").acquire()
        assert caught.value.pid is None


def test_a_process_that_has_not_opened_the_lock_does_not_hold_it(tmp_path: Path) -> None:
    with InstanceLock(tmp_path / "lock") as lock:
        identity = identify(os.getppid())  # it lives, and is not meant
        assert identity is not None
        (tmp_path / "lock").write_text(f"{identity.pid} {identity.start_ticks} {identity.boot_id}\n")
        with pytest.raises(LockHeldError) as caught:
            InstanceLock(tmp_path / "lock").acquire()
        assert caught.value.pid is None and lock.holder() is None
        lock.sign()
        (tmp_path / "lock").rename(tmp_path / "moved")
        assert InstanceLock(tmp_path / "moved").holder() == os.getpid()


@pytest.mark.parametrize("hidden", [("holder",), ("asker",), ("holder", "asker")])
def test_the_holder_is_named_where_a_sandbox_hides_the_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: tuple[str]) -> None:
    def see_as(who: str) -> None:
        monkeypatch.setattr(identity, "boot_id", lambda: "" if who in hidden else "this")

    see_as("holder")
    with InstanceLock(tmp_path / "lock") as lock:
        see_as("asker")
        assert lock.holder() == os.getpid()
        with pytest.raises(LockHeldError) as caught:
            InstanceLock(tmp_path / "lock").acquire()
        assert caught.value.pid == os.getpid()


def test_lock_survives_into_a_successor_that_is_given_the_descriptor(tmp_path: Path) -> None:
    first = InstanceLock(tmp_path / "lock")
    first.acquire()
    later = InstanceLock(tmp_path / "lock")
    later.inherit(os.dup(first.fd))
    first.release()
    with pytest.raises(LockHeldError):
        InstanceLock(tmp_path / "lock").acquire()
    later.release()
    assert InstanceLock(tmp_path / "lock").holder() is None


def test_lock_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path in (tmp_path / "no" / "lock", tmp_path / "link"):
        with pytest.raises(DaemonError, match="cannot open the lock"):
            InstanceLock(path).acquire()


def test_of_an_earlier_holder_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("4194304 99999999999 boot and more than anybody writes there\n" * 3)
    with InstanceLock(tmp_path / "lock"):
        (line,) = (tmp_path / "lock").read_text().splitlines()
    assert line.split()[0] == str(os.getpid())
