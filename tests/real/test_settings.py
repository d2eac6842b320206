"""What the command line and the ``daemon`` section say of the daemon itself holds for it, at its start and over reloads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemons import LiveDaemon

Make = Callable[..., LiveDaemon]
pytestmark = pytest.mark.real

PROGRAMS = "programs: {a: {command: [sleep, '1000'], start_seconds: 0}}\n"


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    """``asupd --check`` on the file in ``folder``, to its end."""
    command = [sys.executable, "-m", "supervisord_async.cli.asupd", "-c", "programs.yaml", "--check"]
    environment = {**os.environ, "XDG_STATE_HOME": str(folder / "xdg"), "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=folder, env=environment, check=False)


def test_check_says_what_it_finds_and_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "programs.yaml").write_text("programs: {a: {command: [touch, started], user: no-such-user}}")
    sound = check(tmp_path)
    assert (sound.returncode, sound.stdout) == (0, "programs.yaml: sound: 1 program, 1 warning\n")
    assert "there is no user 'no-such-user' here" in sound.stderr
    (tmp_path / "programs.yaml").write_text("programs: {a: {comand: [touch, started]}}")
    assert check(tmp_path).returncode == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["programs.yaml"]


def test_settings_of_the_own_log_hold_and_follow_a_reload(daemon: Make) -> None:
    live = daemon("daemon: {log: {level: error}}\n" + PROGRAMS)
    live.wait_for("a", "RUNNING")
    assert live.text() == ""
    live.write("daemon: {log: {format: json}}\n" + PROGRAMS)
    live.do("reload")
    live.wait_until(lambda: live.text(), "the reload is told")
    live.do("restart", "a")
    live.wait_until(lambda: live.text().count("STARTING → RUNNING") == 1, "the restart is told")
    assert {json.loads(line)["level"] for line in live.text().splitlines()} == {"info"}
    live.write("daemon: {log: {file: own.log}}\n" + PROGRAMS)
    live.do("reload")
    live.do("restart", "a")
    own = live.folder / "own.log"
    live.wait_until(lambda: " info " in own.read_text() and "STARTING → RUNNING" in own.read_text(), "the file has it")


def test_options_of_the_command_line_beat_the_file_also_after_a_reload(daemon: Make, tmp_path: Path) -> None:
    live = daemon(
        "daemon: {run_dir: .asupd}\nprograms: {}",
        start=False,
        options=("--log-level", "info", "--log-format", "json", "--run-dir", "elsewhere"),
    )
    live.start(wait=False)
    try:
        live.file.write_text("daemon: {log: {level: error, format: text}}\nprograms: {a: {command: 'echo said', shell: true}}\n")
        live.wait_until(lambda: (tmp_path / "elsewhere/asupd.sock").exists(), "it answers")
        live.send(signal.SIGHUP)
        log = tmp_path / "elsewhere/logs/a.log"
        live.wait_until(lambda: log.read_text() == "said\n", "what a reload brought goes where the option says")
        live.wait_until(lambda: "→ EXITED" in live.text(), "it is told")
        assert {json.loads(line)["level"] for line in live.text().splitlines()} <= {"info", "warning"}
    finally:
        assert live.end() == 0
    assert not (tmp_path / ".asupd").exists()


def test_usr1_opens_logs_anew_the_daemons_own_too(daemon: Make, tmp_path: Path) -> None:
    """Of a program that says nothing more: what is noticed with the next output would not be noticed."""
    live = daemon(
        "daemon: {log: {file: own.log}}\nprograms: {quiet: {command: 'echo said; exec sleep 1000', shell: true, start_seconds: 0, logs: {stdout: q.log}}}"
    )
    live.wait_until(lambda: (tmp_path / "q.log").read_text() == "said\n", "it is logged")
    for name in ("q", "own"):
        (tmp_path / f"{name}.log").rename(tmp_path / f"{name}.old")
    live.send(signal.SIGUSR1)
    live.wait_until(lambda: (tmp_path / "q.log").exists() and (tmp_path / "own.log").exists(), "both are made anew")
    live.do("restart", "quiet")
    live.wait_until(lambda: (tmp_path / "q.log").read_text() == "said\n", "the new file is written")
    live.wait_until(lambda: "STARTING → RUNNING" in (tmp_path / "own.log").read_text(), "the new file is written")
    assert (tmp_path / "q.old").read_text() == "said\n"


def test_output_may_be_the_daemons_own(daemon: Make) -> None:
    live = daemon("programs: {w: {command: 'echo hello there', shell: true, logs: {stdout: inherit}}}")
    live.wait_for("w", "EXITED")
    assert "hello there\n" in live.text()
    assert not (live.folder / ".asupd/logs/w.log").exists()


def told_of_starts(live: LiveDaemon) -> int:
    """How many starts the history remembers."""
    return sum(event["type"] == "daemon" and event["data"].get("what") == "started" for event in live.events())


@pytest.mark.parametrize("bound", ["max_age: 1ms", "max_size: 1"])
def test_bounds_of_the_history_hold_and_follow_a_reload(daemon: Make, bound: str) -> None:
    bounded = f"daemon: {{history: {{{bound}}}}}\n" + PROGRAMS
    live = daemon(PROGRAMS)
    assert live.end() == 0
    live.start()
    assert told_of_starts(live) == 2
    assert live.end() == 0
    live.write(bounded)
    live.start()
    live.wait_until(lambda: told_of_starts(live) == 1, "an earlier daemon's records are gone")
    live.write(PROGRAMS)
    live.do("reload")
    live.do("restart", "a")
    live.wait_until(lambda: len(json.loads(live.do("history", "a", "--json"))["runs"]) > 1, "two runs are remembered")
    live.write(bounded)
    live.do("reload")
    live.wait_until(lambda: len(json.loads(live.do("history", "a", "--json"))["runs"]) <= 1, "what is more than the bound is gone")
