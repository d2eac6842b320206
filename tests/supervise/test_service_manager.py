"""The daemon's word to the service manager that started it: ready, and then a beat, as systemd hears it."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from supervisord_async.supervise.service_manager import BEATS, beat_interval_seconds
from tests.daemons import LiveDaemon


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "7"}, 3.0 / BEATS),
        ({"WATCHDOG_USEC": "3000000"}, 3.0 / BEATS),
    ],
)
def test_beats_are_owed_only_to_who_expects_them_of_us(environment: dict[str, str], expected: float | None) -> None:
    assert beat_interval_seconds(environment, 7) == expected


@pytest.mark.real
def test_manager_hears_ready_and_beats_that_cease_with_a_stopped_daemon(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "600000"}
        command = "command: 'env > seeing; mv seeing seen; exec sleep 1000', shell: true"
        programs = f"programs:\n  shower: {{{command}, stop: {{grace_period: 1s}}}}\n"
        with LiveDaemon(tmp_path, programs, environment=environment) as daemon:
            heard: list[str] = []
            while heard.count("WATCHDOG=1") < 3 or not any(message.startswith("READY=1") for message in heard):
                heard.append(manager.recv(4096).decode())
            assert f"READY=1\nMAINPID={daemon.pid}" in heard
            daemon.wait_for("shower", "RUNNING")
            daemon.wait_until((tmp_path / "seen").exists, "the program wrote what it sees")
            seen = (tmp_path / "seen").read_text()
            assert "WATCHDOG" not in seen, "the manager's wish is not for programs"
            assert "NOTIFY_SOCKET" not in seen
            daemon.send(signal.SIGSTOP)
            manager.settimeout(2.0)
            until = time.monotonic() + 60
            with pytest.raises(TimeoutError):
                while time.monotonic() < until:
                    manager.recv(4096)
            os.kill(daemon.pid, signal.SIGCONT)
            manager.settimeout(60)
            assert manager.recv(4096).startswith(b"WATCHDOG=1")


@pytest.mark.real
def test_manager_hears_how_programs_stand_and_how_long_their_stop_may_take(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        heard: list[str] = []

        def hear(words: str) -> str:
            while not any(words in message for message in heard):
                heard.append(manager.recv(4096).decode())
            return next(message for message in heard if words in message)

        good = "daemon: {stop_timeout: 200s}\nprograms:\n  sleeper: {command: sleep 1000, stop: {grace_period: 1s}}\n"
        bad = "  broken: {command: [no-such-command], restart: never}\n"
        with LiveDaemon(tmp_path, good + bad, environment={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as daemon:
            hear("STATUS=1 RUNNING, 1 FATAL (broken)")
            (tmp_path / "programs.yaml").write_text(good + "  third: {comand: [x]}\n")
            daemon.send(signal.SIGHUP)
            hear("STATUS=1 RUNNING, 1 FATAL (broken); the file on disk was refused")
            daemon.send(signal.SIGTERM)
            assert hear("STOPPING=1").splitlines()[2] == "EXTEND_TIMEOUT_USEC=215000000", "more than stop_timeout, whatever the unit says"
            assert daemon.wait() == 0
