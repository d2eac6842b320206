"""asupctl and the client against the real daemon, from its start to its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisord_async.client import Client
from supervisord_async.errors import SupervisordError
from tests.cli.conftest import COMMAND
from tests.waiting import wait_until_sync

pytestmark = pytest.mark.real

SOUND = """
version: 1
programs:
  web:
    command: "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done"
    shell: true
    start_seconds: 100ms
  stubborn:
    command: "trap '' TERM; while :; do sleep 0.1; done"
    shell: true
    start_seconds: 100ms
    stop: {grace_period: 300ms}
  broken:
    command: "echo no such luck >&2; exit 3"
    shell: true
    autostart: false
    restart: {policy: on-failure, max_restarts: 1, backoff: {initial: 10ms}}
  job: {command: "true", autostart: false}
"""

Call = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "programs.yaml"
    path.write_text(SOUND)
    return path


@pytest.fixture
def asupctl(file: Path) -> Call:
    """``asupctl("status")`` in the file's directory."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*COMMAND, *arguments], cwd=file.parent, capture_output=True, text=True, timeout=60, check=False)

    return call


@pytest.fixture
def asupd(file: Path, asupctl: Call) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon that answers; it is gone after the test."""
    command = [sys.executable, "-m", "supervisord_async.cli.asupd", "-c", str(file)]
    with (file.parent / "asupd.out").open("wb") as out:
        child = subprocess.Popen(command, stdout=out, stderr=out, env=dict(os.environ))
    try:
        wait_until_sync(lambda: asupctl("wait", "web", "stubborn", "--for", "ready", "--timeout", "15s").returncode == 0)
        yield child
    finally:
        if child.poll() is None:
            child.terminate()
        try:
            child.wait(60)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def test_a_day_with_the_real_daemon(file: Path, asupd: subprocess.Popen[bytes], asupctl: Call) -> None:
    status = asupctl("status", "--json")
    assert status.returncode == 0, status
    before = {one["name"]: one for one in json.loads(status.stdout)}
    assert [one["state"] for one in before.values()] == ["RUNNING", "RUNNING", "STOPPED", "STOPPED"]

    restarted = asupctl("restart", "web", "stubborn")
    assert (restarted.returncode, len(restarted.stdout.splitlines())) == (0, 2), restarted
    after = {one["name"]: one for one in json.loads(asupctl("status", "--json").stdout)}
    assert after["web"]["run"] == before["web"]["run"] + 1
    assert after["web"]["pid"] != before["web"]["pid"]

    assert asupctl("start", "job").returncode == 0
    failed = asupctl("start", "broken")
    assert failed.returncode == 1
    assert "exited with 3" in failed.stderr
    assert asupctl("wait", "broken", "--for", "ready", "--timeout", "20s").returncode == 1
    table = asupctl("status")
    assert table.returncode == 3
    assert "FATAL" in table.stdout
    why = asupctl("why", "broken")
    assert "no such luck" in why.stdout
    assert asupctl("history", "broken", "--json").returncode == 0

    assert asupctl("stop", "st*", "broken").returncode == 0
    assert asupctl("status").returncode == 0
    assert asupctl("stop", "stubborn").stdout == "stubborn: already stopped\n"
    assert asupctl("wait", "web", "--for", "stopped", "--timeout", "100ms").returncode == 6
    assert asupctl("start", "wbe").stderr == "asupctl: no program 'wbe': did you mean 'web'?\n"

    told = json.loads(asupctl("events", "job", "st*", "-n", "50", "--json").stdout)
    assert {event["name"] for event in told} == {"job", "stubborn"}
    assert (asupctl("events").returncode, asupctl("events", "nobody").returncode) == (0, 1)
    assert asupctl("logs", "-n", "2", "web").stdout.count("line ") == 2
    assert "sleep" in asupctl("config", "web").stdout

    file.write_text(SOUND + "  new: {comand: x}\n")
    refused = asupctl("reload")
    assert refused.returncode == 2
    assert "did you mean 'command'" in refused.stderr
    assert "the file on disk was refused" in asupctl("status").stdout
    file.write_text(SOUND + "  new: [\n")
    assert asupctl("status", "web").returncode == 0
    file.write_text(SOUND + "  new: {command: [sleep, '60'], start_seconds: 0}\n")
    assert "new" in asupctl("reload", "--plan").stdout
    assert asupctl("status", "new").returncode == 1
    assert asupctl("reload").returncode == 0
    assert asupctl("wait", "new", "--for", "ready", "--timeout", "20s").returncode == 0
    assert "the file on disk was refused" not in asupctl("status").stdout

    assert asupctl("shutdown").returncode == 0
    assert asupd.wait(60) == 0
    gone = asupctl("status")
    assert gone.returncode == 4
    assert "start one with `asupd -c programs.yaml`" in gone.stderr
    gone = asupctl("logs", "web")
    assert gone.returncode == 4
    assert f", the logs of the last one are in {file.parent}/.asupd/logs: start one with" in gone.stderr


def test_reexec_to_another_control_socket_is_found_there(file: Path, asupd: subprocess.Popen[bytes], asupctl: Call) -> None:
    file.write_text(f"daemon: {{socket: other.sock}}\n{SOUND}")
    done = asupctl("reexec", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pid"] == asupd.pid
    assert (file.parent / "other.sock").is_socket()


def test_followed_log_misses_and_repeats_nothing_across_a_reexec(file: Path, asupd: subprocess.Popen[bytes], asupctl: Call) -> None:
    with Client(file.parent / ".asupd" / "asupd.sock") as client:
        lines = client.follow_logs("web", lines=1, give_up_seconds=30)
        first = int(next(lines).removeprefix("line "))
        seen = [first]
        try:
            pid = client.process("web").pid
            done = asupctl("reexec")
            assert done.returncode == 0, done
            assert client.process("web").pid == pid
            while len(seen) < 30:
                seen.append(int(next(lines).removeprefix("line ")))
        except SupervisordError as error:
            pytest.fail(f"{error}\n{(file.parent / 'asupd.out').read_text()}")
        finally:
            lines.close()
    assert seen == list(range(first, first + 30))
    assert asupd.poll() is None


def test_daemon_elsewhere_is_found_by_its_broken_file(file: Path, tmp_path: Path, asupctl: Call) -> None:
    file.write_text("daemon: {run_dir: elsewhere}\n" + SOUND)
    command = [sys.executable, "-m", "supervisord_async.cli.asupd", "-c", str(file)]
    with (tmp_path / "asupd.out").open("wb") as out:
        child = subprocess.Popen(command, stdout=out, stderr=out, cwd=tmp_path)
    try:
        wait_until_sync(lambda: asupctl("status", "web").returncode == 0)
        file.write_text("daemon: {run_dir: [\n")
        assert asupctl("status", "web").returncode == 0
        assert (tmp_path / "elsewhere" / "asupd.sock").exists()
        assert asupctl("shutdown").returncode == 0
        assert child.wait(60) == 0
    finally:
        child.kill()
        child.wait()


LOADING = """
import sys, threading
from supervisord_async.cli import asupd_run
if sys.argv[1] == "gone":
    sys.modules["supervisord_async.config.diff"] = None  # as if an upgrade had just taken it away
asupd_run.AT_REST_SECONDS = 0.0
asupd_run._load_later()
for thread in threading.enumerate():
    if thread is not threading.main_thread():
        thread.join()
print(sys.modules.get("supervisord_async.config.diff") is not None)
"""


@pytest.mark.parametrize(("case", "loaded"), [("there", "True"), ("gone", "False")])
def test_what_a_reload_needs_is_loaded_when_nobody_waits_and_its_lack_is_told(case: str, loaded: str) -> None:
    done = subprocess.run([sys.executable, "-c", LOADING, case], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == loaded
    assert ("degraded: supervisord_async.config.diff cannot be imported" in done.stderr) is (case == "gone")
