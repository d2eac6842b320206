"""Names that the locale has no letters for, and paths that are no UTF-8: every command says what it has to say."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.asup_running import ASUP_RUN, SECONDS
from tests.daemons import LiveDaemon, unbroken

pytestmark = pytest.mark.real

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
UTF8 = {"LC_ALL": "C.UTF-8"}
PROGRAMS = """
version: 1
defaults: {start_seconds: 100ms}
programs:
  web: {command: "echo grün; exec sleep 600", shell: true, logs: {stdout: "ü.log"}, sockets: {http: "unix:./ö.sock"}}
  bad: {command: ["./nü"], restart: {max_restarts: 0}}
  worse: {command: ["true"], directory: "./nö"}
"""
QUESTIONS = (
    "status",
    "why web",
    "why bad",
    "why worse",
    "logs web",
    "history bad",
    "events",
    "config",
    "config web",
    "reload --plan",
    "version",
)


@pytest.mark.parametrize("environment", [ASCII, UTF8], ids=["ascii", "utf8"])
@pytest.mark.parametrize("name", [b"\xc3\xbc", b"\xff"], ids=["umlaut", "no UTF-8"])
def test_every_command_answers_whatever_the_paths_and_the_locale_are(tmp_path: Path, environment: dict[str, str], name: bytes) -> None:
    folder = tmp_path / os.fsdecode(name)
    folder.mkdir()
    live = LiveDaemon(folder, environment=environment)
    live.file.write_text(PROGRAMS, encoding="utf-8")
    with live.start():
        live.wait_for("web", "RUNNING")
        live.wait_for("bad", "FATAL")
        live.wait_until(lambda: (folder / "ü.log").read_bytes() == "grün\n".encode(), "the log with its name")
        for verb in QUESTIONS:
            for words in (verb.split(), [*verb.split(), "--json"]):
                done = live.ctl(*words)
                assert done.returncode in (0, 3), (words, done.stdout, done.stderr)
        told = json.loads(live.do("why", "bad", "--json"))["headline"]
        assert "./nü: No such file" in told
        shown = "./n\\xfc: No such file" if environment is ASCII else "./nü: No such file"
        assert shown in live.ctl("status").stdout
        live.do("reexec")
        pid = live.process_of("web")["pid"]
        live.kill()
        live.start()
        assert live.process_of("web")["pid"] == pid, "taken over, as the same program of the same run_dir"
        unbroken(live)


@pytest.mark.parametrize("given", [{}, {"LC_CTYPE": "C"}, {"LC_CTYPE": "C.UTF-8"}, {"LANG": "C"}], ids=["none", "C", "C.UTF-8", "LANG"])
def test_programs_have_the_locale_that_was_given(tmp_path: Path, given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if _speaks_of_locale(name)]:
        monkeypatch.delenv(name)
    inherited = "{command: [env], restart: never"
    live = LiveDaemon(tmp_path, f"programs:\n  one: {inherited}}}\n  limited: {inherited}, limits: {{nice: 19}}}}\n", environment=given)
    with live.start():
        for name in ("one", "limited"):
            live.wait_for(name, "EXITED")
            assert _locale(live.do("logs", name)) == given
    done = subprocess.run([*ASUP_RUN, "env"], env=live.environment, capture_output=True, text=True, timeout=SECONDS, check=True)
    assert _locale(done.stdout) == given


def _speaks_of_locale(name: str) -> bool:
    return name.startswith(("LANG", "LC_", "PYTHONUTF8", "PYTHONCOERCE"))


def _locale(environment: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in environment.splitlines() if _speaks_of_locale(line))
