"""``asupctl cleanup`` and the hard side of ``shutdown``: dead daemons, hanging ones, and no harm to anybody else."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisord_async.supervise.runs.run_spec import instance_of
from supervisord_async.system import cgroups
from tests.daemons import LiveDaemon, alive
from tests.hanging_disk import HangingDisk, can_hang
from tests.waiting import wait_until_sync

pytestmark = pytest.mark.real

COMMAND = [sys.executable, "-m", "supervisord_async.cli.asupctl"]
PROGRAMS = """
defaults: {start_seconds: 0}
programs:
  sleeper: {command: [sleep, "1000"]}
  stubborn: {command: "trap '' TERM; while :; do sleep 0.1; done", shell: true, stop: {grace_period: 200ms}}
"""


@pytest.fixture
def orphaned(tmp_path: Path) -> Iterator[LiveDaemon]:
    """A daemon that was killed, whose programs run on."""
    daemon = LiveDaemon(tmp_path, PROGRAMS)
    with daemon:
        daemon.wait_for("sleeper", "RUNNING")
        daemon.wait_for("stubborn", "RUNNING")
        daemon.kill()
        yield daemon


def test_without_apply_it_shows_and_does_nothing(orphaned: LiveDaemon) -> None:
    before = {each.identity for each in orphaned.tagged()}
    text = orphaned.do("cleanup")
    assert "sleep 1000" in text
    assert "nothing was done" in text
    assert {each.identity for each in orphaned.tagged()} >= {each for each in before if alive(each.pid)}
    assert (orphaned.folder / ".asupd" / "asupd.sock").exists()


def test_apply_ends_what_carries_the_tag_and_nothing_else(orphaned: LiveDaemon) -> None:
    other_tag = f"{instance_of('/somewhere/else')}/sleeper/1"
    stranger = subprocess.Popen(["sleep", "1000"], env={**os.environ, "ASUP_TAG": other_tag})
    try:
        document = json.loads(orphaned.do("cleanup", "--apply", "--grace", "300ms", "--json"))
        assert {"sleeper", "stubborn"} <= {entry["name"] for entry in document["processes"]}
        assert all(entry["gone"] for entry in document["processes"])
        assert document["remaining"] == []
        assert orphaned.tagged() == []
        assert cgroups.homes_of(orphaned.instance) == []
        assert stranger.poll() is None
        assert not (orphaned.folder / ".asupd" / "asupd.sock").exists()
        assert "nothing is left" in orphaned.do("cleanup")
    finally:
        stranger.kill()
        stranger.wait()


def test_it_refuses_while_a_daemon_holds_the_lock(tmp_path: Path) -> None:
    with LiveDaemon(tmp_path, PROGRAMS) as daemon:
        daemon.wait_for("sleeper", "RUNNING")
        done = daemon.ctl("cleanup", "--apply")
        assert done.returncode == 1
        assert f"its daemon lives (PID {daemon.pid})" in done.stderr
        assert daemon.process_of("sleeper")["run"] == 1


def test_it_refuses_while_a_daemon_lives_whose_run_dir_was_moved_and_removed(tmp_path: Path) -> None:
    with LiveDaemon(tmp_path, PROGRAMS) as daemon:
        pid = daemon.wait_for("sleeper", "RUNNING")["pid"]
        shutil.rmtree((tmp_path / ".asupd").rename(tmp_path / "gone"))  # from where it saves at this moment
        done = daemon.ctl("cleanup", "--apply", "--run-dir", ".asupd")
        assert done.returncode == 1
        assert f"PID {daemon.pid}" in done.stderr
        assert alive(pid)


def test_a_file_that_is_broken_by_now_still_leads_to_the_leftovers(orphaned: LiveDaemon) -> None:
    orphaned.write("programs: {sleeper: {comand: [")
    orphaned.do("cleanup", "--apply", "--grace", "300ms")
    assert orphaned.tagged() == []


@pytest.mark.skipif(not can_hang(), reason="needs root and /dev/fuse")
@pytest.mark.parametrize(("verb", "code"), [("cleanup", 0), ("shutdown", 4)])
def test_an_included_file_on_a_disk_that_hangs_keeps_nobody_from_the_run_dir(tmp_path: Path, verb: str, code: int) -> None:
    (tmp_path / "programs.yaml").write_text("include: [away/more.yaml]\ndaemon: {run_dir: here}\nprograms: {}")
    with HangingDisk(tmp_path / "away", "more.yaml", b"programs: {}") as disk:
        disk.hang()
        command = [*COMMAND, "-c", str(tmp_path / "programs.yaml"), verb]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, f"{tmp_path}/here" in done.stdout + done.stderr) == (code, True), done.stdout + done.stderr


def test_another_file_of_the_same_folder_leads_neither_to_the_daemon_nor_to_what_it_left(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("daemon: {run_dir: elsewhere}\nprograms: {}")

    def other(*verb: str) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, "-c", str(tmp_path / "other.yaml"), *verb]
        return subprocess.run(command, env=daemon.environment, capture_output=True, text=True, timeout=60, check=False)

    with LiveDaemon(tmp_path, PROGRAMS) as daemon:
        pid = daemon.wait_for("sleeper", "RUNNING")["pid"]
        assert other("shutdown").returncode == 4
        daemon.do("version")
        daemon.kill()
        assert json.loads(other("cleanup", "--apply", "--json").stdout)["processes"] == []
        for text in ("daemon: {run_dir: [}", "programs: {}"):
            (tmp_path / "other.yaml").write_text(text)
            done = other("cleanup", "--apply")
            assert done.returncode == 2
            assert f"{tmp_path}/.asupd is of {daemon.file}" in done.stderr
        assert alive(pid)
        daemon.do("cleanup", "--apply", "--grace", "300ms")


def test_nothing_names_a_run_dir_is_a_usage_error(tmp_path: Path) -> None:
    daemon = LiveDaemon(tmp_path)
    done = subprocess.run(
        ["env", "-u", "ASUP_SOCKET", *COMMAND, "cleanup"], cwd=tmp_path, env=daemon.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "--run-dir" in done.stderr


# shutdown


def test_a_hanging_daemon_is_named_and_ended_only_on_request(tmp_path: Path) -> None:
    with LiveDaemon(tmp_path, PROGRAMS) as daemon:
        pid = daemon.wait_for("sleeper", "RUNNING")["pid"]
        daemon.send(signal.SIGSTOP)
        done = daemon.ctl("shutdown", "--timeout", "500ms")
        assert done.returncode == 6
        assert f"PID {daemon.pid}" in done.stderr
        assert daemon.process is not None
        assert daemon.process.poll() is None
        text = daemon.do("shutdown", "--timeout", "500ms", "--kill")
        assert f"killed PID {daemon.pid}" in text
        assert daemon.wait() == -signal.SIGKILL
        assert alive(pid), "its programs are left to the next daemon, or to cleanup"
        daemon.do("cleanup", "--apply", "--grace", "300ms")


def test_a_daemon_without_its_socket_is_stopped_from_the_run_dir_alone(tmp_path: Path) -> None:
    with LiveDaemon(tmp_path, PROGRAMS) as daemon:
        pid = daemon.wait_for("sleeper", "RUNNING")["pid"]
        (tmp_path / ".asupd" / "asupd.sock").unlink()
        command = [*COMMAND, "shutdown", "--run-dir", str(tmp_path / ".asupd")]
        done = subprocess.run(command, cwd="/", env=daemon.environment, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (0, "stopped\n"), done.stderr
        assert daemon.wait() == 0
        wait_until_sync(lambda: not alive(pid), what="the program is gone")


def test_a_daemon_of_a_container_is_not_taken_for_who_has_its_pid_outside(tmp_path: Path) -> None:
    """The daemon is PID 1 of its PID namespace; PID 1 of ours lives on."""
    inside = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("NOT TESTED: a daemon of a container; needs root")
    daemon = LiveDaemon(tmp_path, PROGRAMS, prefix=inside)
    with daemon.start(wait=False):
        wait_until_sync(lambda: daemon.ctl("wait", "sleeper", "--for", "ready").returncode == 0, what="the program runs")
        assert "stopped" in daemon.do("shutdown", "--timeout", "30s")
        assert daemon.wait() == 0


def test_nobody_there_is_exit_code_4(tmp_path: Path) -> None:
    daemon = LiveDaemon(tmp_path, PROGRAMS)
    assert daemon.ctl("shutdown").returncode == 4
    assert daemon.ctl("shutdown", "--run-dir", ".asupd", "--kill").returncode == 4
    assert daemon.ctl("shutdown", "--kill", "--no-wait").returncode == 2
