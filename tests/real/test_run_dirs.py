"""Run_dirs that are moved, copied, shared with another file, or left by others: nobody's programs are doubled or ended."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from supervisord_async.core.state import Snapshot, State
from supervisord_async.supervise.recovery import persist
from tests.daemons import LiveDaemon, alive
from tests.real.settled import PROGRAMS, SLEEPER, settle

Make = Callable[..., LiveDaemon]
pytestmark = pytest.mark.real


def test_a_stale_lock_and_socket_block_no_start(daemon: Make) -> None:
    live = daemon("programs: {a: {command: [sleep, '1000'], start_seconds: 0}}", start=False)
    run_dir = live.folder / ".asupd"
    run_dir.mkdir()
    (run_dir / "asupd.lock").write_text(f"{os.getpid()} 1 some-boot\n")  # names a living process that is no daemon
    (run_dir / "asupd.sock").write_text("")
    live.start()
    live.wait_for("a", "RUNNING")
    assert alive(os.getpid())


def test_a_file_that_moved_its_run_dir_begins_no_second_copies(daemon: Make, tmp_path: Path) -> None:
    live = daemon(SLEEPER)
    pid = live.wait_for("a", "RUNNING")["pid"]
    live.kill()
    live.write("daemon: {run_dir: elsewhere}\n" + SLEEPER)
    live.start(wait=False)
    assert live.wait() == 1
    assert f"programs of an earlier daemon of this file still run from {tmp_path}/.asupd (a): " in live.text()
    assert not (tmp_path / "elsewhere").exists()
    live.write(SLEEPER)
    live.start()
    assert live.wait_for("a", "RUNNING", run=1)["pid"] == pid


def test_another_file_of_the_folder_is_not_held_up_by_what_lives_on_there(daemon: Make, tmp_path: Path) -> None:
    live = daemon(SLEEPER)
    live.wait_for("a", "RUNNING")
    live.kill()
    (tmp_path / "other").mkdir()
    file = tmp_path / "other.yaml"
    file.write_text("daemon: {run_dir: other/run}\n" + SLEEPER)
    command = [sys.executable, "-m", "supervisord_async.cli.asupd", "-c", str(file)]
    with subprocess.Popen(command, env=live.environment, stderr=subprocess.PIPE, text=True) as other:
        assert other.stderr is not None
        words = next((line for line in other.stderr if "everything" in line or "RUNNING" in line or "cannot begin" in line), "")
        other.terminate()
        other.stderr.read()
    assert "RUNNING" in words
    assert other.returncode == 0


def test_a_daemon_in_a_copied_folder_leaves_the_programs_of_the_first_alone(daemon: Make, tmp_path: Path) -> None:
    first = daemon(PROGRAMS)
    pids = settle(first)
    state = first.folder / ".asupd" / "state.json"
    first.wait_until(lambda: all(str(pid) in state.read_text() for pid in pids.values()), "all are saved")
    folder = tmp_path / "copy"
    (folder / ".asupd").mkdir(parents=True)
    for name in ("state.json", "state.json.previous"):
        shutil.copy(state.with_name(name), folder / ".asupd")
    with LiveDaemon(folder, "programs: {web: {command: [sleep, '1000']}}") as second:
        second.wait_for("web", "RUNNING", cause="autostart", run=1)
        assert f"it is a copy of what is in {first.folder}/.asupd" in second.text()
        assert second.end() == 0
    assert all(map(alive, pids.values())) and {name: entry["pid"] for name, entry in first.status().items() if name in pids} == pids


def test_a_run_that_was_not_saved_yet_is_found_after_the_run_dir_was_moved(tmp_path: Path) -> None:
    """By the tag of the place where it began: a second copy would run beside it."""
    programs = "programs: {a: {command: [sleep, '1000'], directory: /, start_seconds: 0}}"
    (tmp_path / "before").mkdir()
    with LiveDaemon(tmp_path / "before", programs) as first:
        pid = first.wait_for("a", "RUNNING")["pid"]
        state = first.folder / ".asupd" / "state.json"
        first.wait_until(lambda: f'"pid":{pid}' in state.read_text(), "the state is saved")
        first.kill()
        content = persist.decode(state.read_bytes())
        unborn = replace(content.processes[0], snapshot=Snapshot(state=State.STARTING, wanted=True, run=1))
        state.write_bytes(persist.encode(replace(content, processes=(unborn,))))
        first.folder.rename(tmp_path / "after")
        with LiveDaemon(tmp_path / "after") as second:
            assert second.wait_for("a", "RUNNING")["pid"] == pid
            assert second.end() == 0
        assert not alive(pid) and first.tagged() == []
