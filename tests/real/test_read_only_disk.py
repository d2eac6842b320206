"""The file system of the run_dir has become read-only, as ext4's does after an error: what lives is not lost to its owner."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisord_async.supervise.recovery import guardian
from tests.daemons import LiveDaemon, alive
from tests.mounting import mounted

Make = Callable[..., LiveDaemon]
pytestmark = pytest.mark.real

SLEEPER = "programs: {a: {command: [sleep, '1000'], start_seconds: 0}}"


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,bind,{how}", str(folder)], check=True)


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[Path]:
    """A run_dir that can be remounted."""
    folder = tmp_path / ".asupd"
    with mounted(folder, "-t", "tmpfs", "tmpfs"), mounted(folder, "-o", "bind", str(folder)):
        yield folder


@pytest.fixture
def dead(daemon: Make, run_dir: Path) -> tuple[LiveDaemon, int]:
    """A daemon that was killed, after which its disk became read-only; and the PID of its program."""
    live = daemon(SLEEPER)
    pid = live.wait_for("a", "RUNNING")["pid"]
    live.kill()
    remount(run_dir, "ro")
    return live, pid


def asupd(live: LiveDaemon, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "supervisord_async.cli.asupd", "-c", str(live.file), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=live.environment, check=False)


def test_a_daemon_takes_its_programs_back_and_answers_once_it_can_write(dead: tuple[LiveDaemon, int], run_dir: Path) -> None:
    live, pid = dead
    detached = asupd(live, "-d")
    assert detached.returncode == 1
    assert "cannot go to the background: cannot write in the run_dir" in detached.stderr
    live.start(wait=False)
    live.wait_until(lambda: f"run 1 was found alive, pid {pid}, and taken over" in live.text(), "it took its program back")
    live.wait_until(lambda: "degraded: no control socket" in live.text(), "it cannot answer")
    second = asupd(live)
    assert second.returncode == 4 and "a daemon is already running there" in second.stderr
    assert guardian.has_holder(str(run_dir / "asupd.lock"))
    assert "a process holds" in live.ctl("doctor").stdout
    refused = live.ctl("cleanup", "--apply")
    assert refused.returncode == 1 and "its daemon lives" in refused.stderr
    remount(run_dir, "rw")
    live.wait_until(live.answers, "it answers")
    assert live.process_of("a")["pid"] == pid
    assert live.end() == 0 and not alive(pid)


def test_cleanup_ends_what_a_dead_daemon_left(dead: tuple[LiveDaemon, int]) -> None:
    live, pid = dead
    shown = live.ctl("cleanup")
    assert shown.returncode == 0 and str(pid) in shown.stdout and alive(pid)
    done = live.ctl("cleanup", "--apply")
    assert done.returncode == 0 and "ended 1 process\n" in done.stdout and not alive(pid)
    assert f"cannot remove the stale socket {os.path.realpath(live.folder)}/.asupd/asupd.sock: Read-only file system" in done.stderr
