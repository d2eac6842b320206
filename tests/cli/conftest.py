"""A fake daemon on a unix socket, and asupctl in this process or as one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from supervisord_async.cli.asupctl import run
from tests.cli.fake_daemon import FakeDaemon, process
from tests.leaks import end_processes_in

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from supervisord_async.cli.asupctl import main; main()"]


class Ended(NamedTuple):
    """How a call of asupctl ended."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def own_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's daemons, records and terminal settings is seen, none is written."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("ASUP_SOCKET", "NO_COLOR", "_ASUPCTL_COMPLETE", "PYTHONUNBUFFERED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TERM", "xterm")


@pytest.fixture
def leaves_no_process(tmp_path: Path) -> Iterator[None]:
    """A command outlives an asup-run that had to be killed: it is nobody's child, and is found where it runs."""
    yield
    if killed := end_processes_in(tmp_path):
        pytest.fail("left behind, and killed:\n  " + "\n  ".join(killed), pytrace=False)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    """A running fake daemon with ``web`` up and ``db`` stopped by the operator."""
    fake = FakeDaemon(tmp_path / "d.sock")
    fake.add(process("web"), process("db", "STOPPED", cause="operator"))
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture
def ctl(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """``ctl("status", "--json")`` in this process, on the fake daemon's socket."""

    def call(*arguments: str, socket: Path | None = daemon.socket_path) -> Ended:
        capsys.readouterr()
        code = run([*(["-s", str(socket)] if socket else []), *arguments])
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return call


@pytest.fixture
def spawn_ctl(daemon: FakeDaemon) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """``spawn_ctl("logs", "-f", "web")`` as a process of its own; it is gone after the test."""
    children: list[subprocess.Popen[bytes]] = []

    def spawn(*arguments: str, **how: object) -> subprocess.Popen[bytes]:
        given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": dict(os.environ), **how}
        child = subprocess.Popen([*COMMAND, "-s", str(daemon.socket_path), *arguments], **given)  # type: ignore[call-overload]
        children.append(child)
        return child

    yield spawn
    for child in children:
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream:
                stream.close()
