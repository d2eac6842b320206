"""README.md is true: its files are written, its commands run, and what they print looks as it shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PATIENCE_SECONDS = 20.0

SHOWN_FILE = re.compile(r"<!-- file: (?P<name>\S+) -->\n```\w*\n(?P<text>.*?)```", re.DOTALL)
NUMBER = re.compile(r"\d[\d.]*")
RUN = re.compile(r"<!-- run -->\n```console\n(?P<text>.*?)```\n<!-- end run -->", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Command:
    """A line after ``$``, and the lines that the page shows as its output."""

    line: str
    shown: tuple[str, ...]


def commands(text: str) -> list[Command]:
    """The commands of a console block."""
    found: list[Command] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append(Command(line[2:], ()))
        elif line.strip():
            found[-1] = Command(found[-1].line, (*found[-1].shown, line))
    return found


def looks_like(shown: str, printed: str) -> bool:
    """The same words in the same order; numbers may differ, ``…`` stands for anything."""
    words = [re.escape(NUMBER.sub("0", word)).replace("…", ".*") for word in shown.split()]
    return re.fullmatch(r"\s+".join(words), NUMBER.sub("0", printed.strip())) is not None


def all_shown(command: Command, printed: str) -> bool:
    """Whether the lines that the page shows are printed, in their order; others may stand between them."""
    lines = iter(printed.splitlines())
    return all(any(looks_like(shown, line) for line in lines) for shown in command.shown)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment in which the three commands are those of this checkout, wherever they are installed or not."""
    bin_path = tmp_path / "bin"
    bin_path.mkdir()
    for command, module in {"asupd": "asupd", "asupctl": "asupctl", "asup-run": "asup_run"}.items():
        script = bin_path / command
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m supervisord_async.cli.{module} "$@"\n')
        script.chmod(0o755)
    path = os.pathsep.join([str(bin_path), str(Path(sys.executable).parent), os.environ["PATH"]])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ASUP_")}
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "120", "NO_COLOR": "1"}


def write_files(text: str, directory: Path) -> None:
    """The files that the page shows."""
    for match in SHOWN_FILE.finditer(text):
        (directory / match["name"]).write_text(match["text"])


@pytest.mark.real
@pytest.mark.slow
def test_readme_commands_do_what_the_page_shows(tmp_path: Path, environment: dict[str, str], free_port: int) -> None:
    text = README.read_text(encoding="utf-8").replace("8123", str(free_port))
    directory = tmp_path / "shop"
    directory.mkdir()
    write_files(text, directory)
    blocks = RUN.findall(text)
    assert blocks, "nothing in README.md is marked to be run"
    try:
        for command in (command for block in blocks for command in commands(block)):
            _run_until_it_looks_as_shown(command, directory, environment)
    finally:  # whatever failed, the daemon goes; where it is gone already this answers "no daemon"
        subprocess.run(["asupctl", "shutdown"], cwd=directory, env=environment, capture_output=True, timeout=60, check=False)


def _run_until_it_looks_as_shown(command: Command, directory: Path, environment: dict[str, str]) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        done = subprocess.run(
            ["bash", "-c", command.line], cwd=directory, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode == 0 and all_shown(command, done.stdout):
            return
        printed = f"{done.stdout}{done.stderr}(exit code {done.returncode})"
        assert time.monotonic() < until, f"$ {command.line}\nprinted:\n{printed}\nwhere README.md shows:\n" + "\n".join(command.shown)
        time.sleep(0.2)


def test_readme_links_lead_somewhere() -> None:
    for page in (README, *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


def test_readme_first_screen_has_ten_lines_of_yaml() -> None:
    text = README.read_text(encoding="utf-8")
    match = SHOWN_FILE.search(text)
    assert match is not None
    assert len(match["text"].splitlines()) <= 10
    assert text[: match.end()].count("\n") < 40


def test_shown_output_is_compared_by_its_words() -> None:
    command = commands("$ asupctl status\nweb  RUNNING  pid 12, up 3 s\nworker BACKOFF …\n")[0]
    assert all_shown(command, "NAME STATE\nweb RUNNING    pid 4711, up 12 s\nworker BACKOFF next in 0.5 s\n")
    assert not all_shown(command, "web FATAL pid 1, up 3 s\nworker BACKOFF x\n")
    assert not all_shown(command, "web RUNNING pid 4711, up 12 s\n")
