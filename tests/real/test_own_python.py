"""A daemon, and its commands, whose own Python cannot be run again: one sentence says what, where, why, and what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.daemons import LiveDaemon, unbroken

pytestmark = pytest.mark.real

PROGRAMS = """
version: 1
daemon: {on_death: stop}
programs:
  plain: {command: [sleep, "600"], start_seconds: 0s}
  limited: {command: [sleep, "600"], limits: {nice: 5}, restart: {max_restarts: 0}}
"""
WITHOUT = """
import os, sys
sys.executable = {python!r}
from supervisord_async.cli.asupd import main
main()
"""


@pytest.fixture(params=["gone", "closed"])
def python(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A place where Python is not, or not for us."""
    if request.param == "gone":
        return str(tmp_path / "venv" / "bin" / "python")
    closed = tmp_path / "python"
    closed.write_text("")
    return str(closed)  # not executable, whoever we are


def test_detach_says_in_one_sentence_that_its_python_cannot_be_executed(tmp_path: Path, python: str) -> None:
    (tmp_path / "programs.yaml").write_text(PROGRAMS)
    command = [sys.executable, "-c", WITHOUT.format(python=python), "-c", str(tmp_path / "programs.yaml"), "-d"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env={**os.environ, "HOME": str(tmp_path)})
    assert done.returncode == 1
    assert done.stderr.startswith(f"asupd: critical: cannot go to the background: cannot execute its own Python {python}: "), done.stderr
    assert done.stderr.endswith("; without -d it runs as it is\n")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / ".asupd" / "asupd.stderr").exists()


def test_a_daemon_without_its_python_says_what_it_cannot_do_and_does_the_rest(tmp_path: Path, python: str) -> None:
    live = LiveDaemon(tmp_path, PROGRAMS)
    shim = tmp_path / "shim.py"
    shim.write_text(WITHOUT.format(python=python))
    live.prefix = ("/bin/sh", "-c", f'shift 3; exec {sys.executable} {shim} "$@"', "sh")
    with live.start():
        live.wait_for("plain", "RUNNING")
        why = live.wait_for("limited", "FATAL")["description"]
        assert f"exec: its limits or sockets cannot be set: cannot execute its own Python {python}: " in why
        live.wait_until(lambda: "degraded: no guardian" in live.text(), "the guardian's absence is told")
        done = live.ctl("reexec")
        assert done.returncode == 1
        assert f"cannot re-exec: the new code cannot be tried: cannot execute its own Python {python}: " in done.stderr
        assert live.process_of("plain")["state"] == "RUNNING"
        unbroken(live)


def test_modules_of_the_folder_that_it_is_in_are_not_taken_for_its_own(tmp_path: Path) -> None:
    """A project may well have a ``logging.py``; whoever can write there must not be able to give a daemon of root's its code."""
    for name in ("yaml", "logging", "anyio", "queue"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(f'{__name__} of the project was imported')")
    live = LiveDaemon(tmp_path, PROGRAMS)
    asupd = [str(Path(sys.executable).with_name("asupd")), "-c", str(live.file)]
    done = subprocess.run([*asupd, "-d"], capture_output=True, text=True, check=False, timeout=60, env=live.environment, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    asupctl = [str(Path(sys.executable).with_name("asupctl")), "-c", str(live.file)]
    for words in (["reexec"], ["reexec"], ["status", "plain"], ["shutdown"]):  # the new code's own re-exec is another matter
        done = subprocess.run(
            [*asupctl, *words], capture_output=True, text=True, check=False, timeout=60, env=live.environment, cwd=tmp_path
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
