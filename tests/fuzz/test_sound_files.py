"""What ``asupd --check`` calls sound is supervised: whatever its programs are given, nothing of the daemon's own fails by it."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supervisord_async.config.load import load
from supervisord_async.errors import ConfigError
from tests.daemons import LiveDaemon, unbroken

pytestmark = pytest.mark.real

PROGRAMS = 16
WORDS = [
    "",
    "a",
    "☃",
    "é",
    "\0",
    "x" * 300,
    "../..",
    "/",
    "~",
    "$",
    "${",
    "$$",
    "${HOME}",
    "%(x)s",
    "\n",
    "{}",
    "[",
    "(?=x)",
    "(",
    "*",
    "!",
]
WORDS += [
    "?",
    "\\",
    "-1",
    "0",
    "1e9",
    "\u202e",
    "a b",
    "'\"",
    "#",
    "a/b",
    "/dev/null",
    "/dev/full",
    "/proc/self/stat",
    "/nonexistent/x",
    "pipe",
]
DURATIONS: list[Any] = ["0", "1ms", "50ms", "1s", "1m30s", "11574d", 0.001, 5, -1]
HOSTS = ["127.0.0.1:1", "[::1]:1", "☃.x:1", "x:0", "a..b:1", f"{'a' * 70}:1", "localhost:65535", ":1"]
PATTERNS = ["hi", "h.", "(a", "[[:alpha:]]+", r"\x{263a}", "(?i)HI", "a{1001}", "^$", r"\C", r"\pL", "(?P<x>y)", "(?<=x)y"]
IGNORED = ["*.log", "**/", "a[", "!", "\\", "[!a]", "***", "a/**/b", "\n"]


class Imagination:
    """Programs that nobody would write, from a seed; in ``folder`` is what they name."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.random = random.Random(seed)
        self.pick = self.random.choice
        self.folder = folder

    def program(self, number: int) -> dict[str, Any]:
        """Settings of which each may be unsound, or odd, or usual."""
        given = {key: make() for key, make in self._makers(number).items() if self.random.random() < 0.27}
        return {"command": self._command(), **given}

    def _makers(self, number: int) -> dict[str, Callable[[], Any]]:
        here, pick = str(self.folder), self.pick
        return {
            "replicas": lambda: pick([1, 2, 3]),
            "directory": lambda: pick([here, "/", "/nonexistent", self._word()]),
            "environment": lambda: {pick(["A", "LC_ALL", "PATH", "ASUP_X", self._word()]): self._word()},
            "user": lambda: pick(["root", "nobody", "99999", self._word()]),
            "umask": lambda: pick(["022", 0, "999"]),
            "start_seconds": self._duration,
            "depends_on": lambda: [f"p{self.random.randrange(number)}"] if number else [],
            "restart": lambda: {
                "policy": pick(["always", "on-failure", "never"]),
                "backoff": {"initial": pick(["10ms", self._duration()]), "factor": pick([1, 2, 1e308]), "jitter": pick([0, 1])},
                "max_restarts": pick([-1, 0, 2]),
                "within": self._duration(),
            },
            "stop": lambda: {"signal": pick(["KILL", "RTMIN", 34, self._word()]), "command": pick([["true"], [self._word()]])},
            "heartbeat": lambda: {"timeout": self._duration(), "file": pick([f"{here}/beat{number}", self._word()])},
            "readiness": self._probe,
            "liveness": self._probe,
            "notify": lambda: pick([True, {"access": "all"}]),
            "watch": lambda: {"paths": [pick([here, f"{here}/src", self._word()])], "ignore": [pick(IGNORED), self._word()]},
            "logs": lambda: {
                "stdout": pick(["none", f"{here}/log{number}", f"{here}/{self._word()}"]),
                "format": pick(["json", "timestamp"]),
            },
            "limits": lambda: {pick(["open_files", "processes", "memory", "nice", "cpu_affinity"]): pick([0, 100, "1G", [0], [99], -20])},
            "schedule": lambda: pick(["@every 1s", "* * * * *", "0 0 30 2 *", {"at": "@daily", "timezone": self._word()}]),
            "sockets": lambda: {
                pick(["web", self._word()]): pick([f"tcp://{pick(HOSTS)}", f"unix:s{number}", f"unix:{here}", "unix:pipe"])
            },
            "hooks": lambda: {pick(["before_start", "after_exit"]): pick([["true"], ["false"], [self._word()]])},
        }

    def _word(self) -> str:
        return self.pick(WORDS)

    def _duration(self) -> Any:
        return self.pick(DURATIONS)

    def _command(self) -> Any:
        return self.pick([["sleep", "1000"], ["sh", "-c", "echo hi; exec sleep 1000"], ["true"], ["./nope"], [self._word()], "echo hi"])

    def _probe(self) -> dict[str, Any]:
        probe: dict[str, Any] = self.pick(
            [
                {"http": f"http://{self.pick(HOSTS)}/é?%"},
                {"tcp": self.pick(HOSTS)},
                {"command": [self.pick(["true", self._word()])]},
                {"log": self.pick([*PATTERNS, self._word()])},
            ]
        )
        return {**probe, "interval": self.pick(["0.1s", "1s", "11574d", -1])}


def write(file: Path, programs: dict[str, Any]) -> bool:
    """They are in the file; whether it is sound."""
    file.write_text(json.dumps({"daemon": {"stop_timeout": "1s"}, "programs": programs}, ensure_ascii=False))
    try:
        load(file, environ=os.environ)
    except ConfigError:
        return False
    return True


def sound_programs(seed: int, file: Path) -> dict[str, Any]:
    """So many that the file of all of them is sound: an unsound setting is left out, or else its program."""
    imagination, programs = Imagination(seed, file.parent), dict[str, Any]()
    while len(programs) < PROGRAMS:
        name, program = f"p{len(programs)}", imagination.program(len(programs))
        for key in [*program]:
            if key != "command" and not write(file, {**programs, name: {"command": ["true"], key: program[key]}}):
                del program[key]
        if write(file, {**programs, name: program}):
            programs[name] = program
    return programs


def at_once(live: LiveDaemon, programs: dict[str, Any]) -> list[dict[str, Any]]:
    """The processes that do not begin by a schedule."""
    return [one for one in live.status().values() if "schedule" not in programs[one["program"]]]


@pytest.mark.parametrize("seed", range(4))
def test_what_is_sound_breaks_nothing_of_the_daemon(tmp_path: Path, seed: int) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "src").mkdir()
    Path(os.fsdecode(bytes(tmp_path) + b"/src/no\xffutf8.log")).touch()
    live = LiveDaemon(tmp_path)
    programs = sound_programs(seed, live.file)
    write(live.file, programs)
    with live:
        live.wait_until(lambda: all(one["state"] != "STOPPED" or one["run"] for one in at_once(live, programs)), "all were started")
        unbroken(live)
        live.do("restart", "--no-wait", "all")
        write(live.file, {name: {**program, "environment": {"B": "2"}} for name, program in programs.items()})
        live.send(signal.SIGHUP)
        live.wait_until(lambda: "reloaded: " in live.text(), "the file is applied")
        live.do("restart", "--no-wait", "all")
        assert "UNKNOWN" not in live.text()
        unbroken(live)
        assert live.end() == 0
