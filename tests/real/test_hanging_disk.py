"""A disk that hangs, as a network's does when its server is away, holds up who needs it and nobody else."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisord_async.client import Client
from tests.daemons import LiveDaemon
from tests.hanging_disk import HangingDisk, can_hang

Make = Callable[..., LiveDaemon]
pytestmark = [pytest.mark.real, pytest.mark.skipif(not can_hang(), reason="only root can mount a FUSE")]

SLEEPER = b"#!/bin/sh\nexec sleep 1000\n"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[HangingDisk]:
    """What is executed from it hangs."""
    with HangingDisk(tmp_path / "away", "app", SLEEPER) as disk:
        yield disk


def test_a_program_whose_disk_hangs_holds_nobody_up(daemon: Make, disk: HangingDisk) -> None:
    with daemon(f"programs: {{away: {{command: {disk.path}}}, here: {{command: sleep 1000}}}}") as live:
        assert disk.waiting.wait(30)
        live.wait_for("here", "RUNNING")
        assert live.process_of("away")["state"] == "STARTING"
        assert live.do("restart", "here").startswith("here: running")
        assert live.do("stop", "away").startswith("away: stopped")
        live.do("start", "--no-wait", "away")
        disk.answer()
        live.wait_for("away", "RUNNING")
        assert live.end() == 0


def test_a_disk_that_hangs_later_keeps_nobody_from_anything(daemon: Make, tmp_path: Path, disk: HangingDisk) -> None:
    """Not from orders, from a reload, or from the end; and a daemon that begins just then takes over what lives."""
    programs = f"""
programs:
  in: {{command: sleep 1000, directory: {disk.folder}}}
  beats: {{command: sleep 1000, heartbeat: {{file: {disk.path}, timeout: 1h}}}}
  watches: {{command: sleep 1000, watch: {{paths: [{disk.folder}]}}}}
  here: {{command: sleep 1000}}
"""
    disk.answer()
    with daemon(programs) as live:
        for name in ("in", "beats", "watches", "here"):
            live.wait_for(name, "RUNNING")
        disk.hang()
        live.do("restart", "--no-wait", "in", "beats", "watches")
        live.wait_for("watches", "RUNNING", run=2)
        assert disk.waiting.wait(30)
        live.do("stop", "in", "beats")
        live.write(programs + "  too: {command: sleep 1000}\n")
        assert "+ too" in live.do("reload")
        live.kill()
        live.start()
        assert f"cannot look at {disk.folder}: its disk does not answer" in live.text()
        live.wait_for("too", "RUNNING")
        live.wait_for("watches", "RUNNING", run=2)
        assert live.process_of("in")["state"] == "STOPPED"
        assert live.end() == 0


def test_a_watched_path_on_a_disk_that_hangs_holds_up_no_other(daemon: Make, tmp_path: Path, disk: HangingDisk) -> None:
    here = tmp_path / "src"
    here.mkdir()
    disk.answer()
    programs = f"""
programs:
  away: {{command: sleep 1000, watch: [{disk.folder}]}}
  here: {{command: sleep 1000, watch: [{here}]}}
"""
    with daemon(programs) as live:
        live.wait_for("away", "RUNNING")
        live.wait_for("here", "RUNNING")
        disk.save(SLEEPER + b"# saved by another machine")
        live.wait_for("away", "RUNNING", run=2)
        disk.hang()
        assert disk.waiting.wait(30)
        (here / "app.py").write_text("saved here")
        live.wait_for("here", "RUNNING", run=2)
        disk.save(SLEEPER)
        disk.answer()
        live.wait_for("away", "RUNNING", run=3)
        disk.hang()
        assert live.end() == 0


def test_a_heartbeat_on_a_disk_that_hangs_is_not_called_missed(daemon: Make, disk: HangingDisk) -> None:
    disk.answer()
    with daemon(
        f"programs: {{web: {{command: sleep 1000, heartbeat: {{file: {disk.path}, timeout: 5s}}}}}}",
        constants={"supervisord_async.system.disks.ANSWER_SECONDS": 1.0},
    ) as live:
        live.wait_for("web", "RUNNING")
        disk.save(SLEEPER + b"# beat")
        live.wait_for("web", "RUNNING", health="healthy")
        disk.hang()
        status = live.wait_for("web", "RUNNING", health="unhealthy")
        words = f"cannot tell whether it beats: the disk of {disk.path} has not answered for 1 s"
        assert status["description"] == f"unhealthy: {words}"
        live.wait_until(lambda: f"health: unhealthy ({words})" in live.text(), "the log says so")
        assert "heartbeat: unhealthy: cannot tell" in live.ctl("why", "web").stdout
        disk.save(SLEEPER)
        disk.answer()
        assert live.wait_for("web", "RUNNING", health="healthy")["run"] == 1
        assert live.wait_for("web", "RUNNING", run=2)["cause"] == "heartbeat_missed"
        assert live.end() == 0


def test_why_answers_without_the_last_output_where_the_logs_disk_hangs(daemon: Make, tmp_path: Path, disk: HangingDisk) -> None:
    disk.answer()
    here, name = tmp_path / "here", tmp_path / "name"
    here.mkdir()
    name.symlink_to(here)
    entry = f"{{command: 'echo bye; exit 3', shell: true, restart: never, logs: {{stdout: {name}/web.log}}}}"
    with daemon(f"programs: {{web: {entry}}}", constants={"supervisord_async.control.last_output.TIMEOUT_SECONDS": 0.5}) as live:
        live.wait_for("web", "EXITED")
        assert "bye" in live.do("why", "web")
        disk.hang()
        (tmp_path / "other").symlink_to(disk.folder)
        (tmp_path / "other").rename(name)
        why = live.do("why", "web")
        assert "exited with 3" in why and "bye" not in why
        assert live.end() == 0


def test_a_control_socket_whose_disk_hangs_keeps_the_daemon_from_nothing(daemon: Make, tmp_path: Path, disk: HangingDisk) -> None:
    """Its name cannot be looked at any more; who is connected is answered, programs are restarted, and the end comes."""
    disk.answer()
    here, name = tmp_path / "here", tmp_path / "name"
    here.mkdir()
    name.symlink_to(here)
    live = daemon(
        f"daemon: {{socket: {name}/asupd.sock}}\nprograms: {{web: {{command: sleep 1000, start_seconds: 0, restart: always}}}}",
        start=False,
        constants=dict.fromkeys((f"supervisord_async.supervise.run_dir_repair.{name}_SECONDS" for name in ("POLL", "TOLD")), 0.2),
    )
    live.start(wait=False)
    live.wait_until((here / "asupd.sock").exists, "the control socket is there")
    with Client(here / "asupd.sock") as client:
        live.wait_until(lambda: client.process_documents()[0]["state"] == "RUNNING", "web is RUNNING")
        disk.hang()
        (tmp_path / "other").symlink_to(disk.folder)
        (tmp_path / "other").rename(name)
        assert disk.waiting.wait(30)
        os.kill(client.process_documents()[0]["pid"], signal.SIGKILL)
        live.wait_until(lambda: client.process_documents()[0]["run"] == 2, "web is restarted")
    assert live.end() == 0


def test_a_home_whose_disk_hangs_keeps_no_daemon_from_its_start_or_its_re_exec(daemon: Make, tmp_path: Path, disk: HangingDisk) -> None:
    """Where the record of the daemon is kept is of use to commands whose file is broken, and to nobody else."""
    disk.answer()
    here, name = tmp_path / "here", tmp_path / "name"
    here.mkdir()
    name.symlink_to(here)
    with daemon("programs: {web: {command: sleep 1000}}", environment={"XDG_STATE_HOME": str(name)}) as live:
        pid = live.wait_for("web", "RUNNING")["pid"]
        disk.hang()
        (tmp_path / "other").symlink_to(disk.folder)
        (tmp_path / "other").rename(name)
        live.send(signal.SIGUSR2)
        live.wait_until(lambda: "re-executed" in live.text(), "the re-exec")
        live.kill()
        live.start()
        assert live.wait_for("web", "RUNNING")["pid"] == pid
        assert live.text().count("the disk of the record does not answer") == 2
        assert live.end() == 0


def test_a_control_socket_whose_disk_hangs_keeps_no_next_daemon_from_supervising(daemon: Make, tmp_path: Path, disk: HangingDisk) -> None:
    disk.answer()
    here, name = tmp_path / "here", tmp_path / "name"
    here.mkdir()
    name.symlink_to(here)
    live = daemon(
        f"daemon: {{socket: {name}/d.sock}}\nprograms: {{web: {{command: sleep 1000, start_seconds: 0}}}}",
        start=False,
        constants={"supervisord_async.config.path_kinds.TIMEOUT_SECONDS": 0.3, "supervisord_async.cli.asupd_run.RECORD_SECONDS": 0.3},
    )
    live.start(wait=False)
    live.wait_until(lambda: "→ RUNNING" in live.text(), "web runs")
    pid = next(each.identity.pid for each in live.tagged() if each.name == "web")
    disk.hang()
    (tmp_path / "other").symlink_to(disk.folder)
    (tmp_path / "other").rename(name)
    live.kill()
    live.start(wait=False)
    live.wait_until(lambda: live.text().count(" started, pid") == 2, "the next daemon")
    os.kill(pid, signal.SIGKILL)
    live.wait_until(lambda: live.text().count("→ RUNNING") == 2, "the restart")
    assert live.end() == 0
