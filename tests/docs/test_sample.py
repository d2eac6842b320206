"""config/programs.yaml, what a newcomer runs first: sound, complete, and it shows the point."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from supervisord_async.config.load import load
from tests.waiting import wait_until_sync

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "config" / "programs.yaml"
PATIENCE_SECONDS = 60.0


def test_sample_is_sound() -> None:
    assert load(SAMPLE).warnings == ()


def test_sample_names_its_schema_first() -> None:
    first = SAMPLE.read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=programs.schema.json"
    assert (SAMPLE.parent / "programs.schema.json").is_file()


def test_sample_has_one_program_of_each_kind() -> None:
    programs = load(SAMPLE, environ={**os.environ, "PORT": "9000"}).configuration.programs
    assert programs["web"].environment["PORT"] == "9000"
    assert programs["worker"].heartbeat is not None
    assert programs["edited"].watch
    assert programs["flaky"].restart.backoff.factor > 1
    assert "prepare" in programs


class Sample:
    """The sample, running in a directory of its own."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.config = directory / "config" / "programs.yaml"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ASUP_")}
        self.environment = {**kept, "PYTHONPATH": str(ROOT), "PORT": str(port)}
        with (directory / "daemon.log").open("wb") as log:
            self.daemon = subprocess.Popen(
                [sys.executable, "-m", "supervisord_async.cli.asupd", "-c", self.config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
            )

    def status(self) -> dict[str, dict[str, Any]]:
        """``asupctl status --json`` by name; empty while nobody answers."""
        done = subprocess.run(
            [sys.executable, "-m", "supervisord_async.cli.asupctl", "-c", self.config, "status", "--json"],
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=60,
            check=False,
        )
        return {process["name"]: process for process in json.loads(done.stdout)} if done.stdout.startswith("[") else {}

    def until(self, what: str, holds: Callable[[dict[str, dict[str, Any]]], bool]) -> dict[str, dict[str, Any]]:
        """The first status for which it holds."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            assert self.daemon.poll() is None, f"the daemon ended: {(self.directory / 'daemon.log').read_text()}"
            status = self.status()
            if status and holds(status):
                return status
            assert time.monotonic() < deadline, (
                f"never {what}: {json.dumps(status, indent=1)}\n{(self.directory / 'daemon.log').read_text()}"
            )
            time.sleep(0.2)


@pytest.fixture
def sample(tmp_path: Path, free_port: int) -> Iterator[Sample]:
    shutil.copytree(ROOT / "config", tmp_path / "config", ignore=shutil.ignore_patterns(".asupd", "__pycache__"))
    copy = tmp_path / "config" / "programs.yaml"
    copy.write_text(copy.read_text().replace('hang_sometimes, "8"', 'hang_sometimes, "1"'))  # seconds that a reader has, and a test has not
    running = Sample(tmp_path, free_port)
    try:
        yield running
    finally:
        if running.daemon.poll() is None:
            running.daemon.send_signal(signal.SIGTERM)
        try:
            running.daemon.wait(60)
        finally:
            running.daemon.kill()
            running.daemon.wait()


def page(port: int) -> bytes:
    """What is served at ``port``; empty where nobody listens yet."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
            return bytes(answer.read())
    except urllib.error.URLError:
        return b""


@pytest.mark.real
@pytest.mark.slow
def test_sample_shows_the_point(sample: Sample, free_port: int) -> None:
    sample.until("web is RUNNING", lambda status: status["web"]["state"] == "RUNNING")
    assert b"Hello from web" in wait_until_sync(partial(page, free_port), what="web's page")  # RUNNING is not yet listening

    before = sample.until("edited is RUNNING", lambda status: status["edited"]["state"] == "RUNNING")
    source = sample.directory / "config" / "examples" / "edited.py"
    source.write_text(source.read_text().replace('"hello"', '"good morning"'))
    after = sample.until("edited is restarted", lambda status: status["edited"]["run"] > before["edited"]["run"])
    assert (after["edited"]["cause"], after["edited"]["restarts"]) == ("file_changed", 0)

    done = sample.until("the job is done", lambda status: status["prepare"]["state"] == "EXITED")
    assert done["prepare"]["exit_status"] == {"code": 0}
    sample.until("flaky backs off", lambda status: status["flaky"]["state"] == "BACKOFF" and status["flaky"]["restarts"] >= 2)
    hung = sample.until("the worker is replaced", lambda status: status["worker"]["run"] >= 2 and status["worker"]["state"] == "RUNNING")
    assert hung["worker"]["cause"] == "heartbeat_missed"

    pids = [process["pid"] for process in sample.status().values() if process["pid"]]
    sample.daemon.send_signal(signal.SIGTERM)
    assert sample.daemon.wait(60) == 0
    assert not [pid for pid in pids if Path(f"/proc/{pid}/cmdline").exists() and b"examples" in Path(f"/proc/{pid}/cmdline").read_bytes()]
