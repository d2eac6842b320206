"""Plain command lines are read without click, and mean the same as by click."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from supervisord_async import __version__
from supervisord_async.cli.asupd_options import asupd
from supervisord_async.cli.plain import DaemonArguments, plain_daemon, plain_status


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("status", (None, None, False, [])),
        ("-c a.yaml status web db:*", ("a.yaml", None, False, ["web", "db:*"])),
        ("status --json --socket /s web", (None, "/s", True, ["web"])),
    ],
)
def test_plain_status_is_read_without_click(words: str, meant: tuple[str | None, str | None, bool, list[str]]) -> None:
    plain = plain_status(words.split())
    assert plain is not None
    session, selectors = plain
    assert (session.file, session.socket, session.json, selectors) == meant


@pytest.mark.parametrize(
    "words",
    ["", "start web", "status --tree", "status -h", "status -- -x", "status -c", "-c --json status", "--config=a status", "stop status"],
)
def test_what_is_not_plain_is_left_to_click(words: str) -> None:
    assert plain_status(words.split()) is None


@pytest.mark.parametrize(
    "words",
    [
        "",
        "-c a.yaml",
        "--config a.yaml -d --echo --check",
        "--detach --run-dir /r --log-level debug --log-format json --log-file l",
        "--trial -c a.yaml -c b.yaml",
    ],
)
def test_plain_daemon_means_what_click_reads(words: str) -> None:
    seen: list[DaemonArguments] = []

    def run(arguments: DaemonArguments) -> int:
        seen.append(arguments)
        return 0

    assert CliRunner().invoke(asupd, words.split(), obj=run).exit_code == 0
    assert seen == [plain_daemon(words.split())]


@pytest.mark.parametrize(
    "words",
    ["-h", "--version", "-ca.yaml", "--config=a.yaml", "-c", "-c --check", "--log-level much", "--log-format xml", "a.yaml", "-dc a"],
)
def test_what_is_not_plain_for_the_daemon_is_left_to_click(words: str) -> None:
    assert plain_daemon(words.split()) is None


@pytest.mark.parametrize("module", ["asupd", "asupctl", "asup_run"])
def test_each_command_says_its_version_alike(module: str) -> None:
    command = [sys.executable, "-m", f"supervisord_async.cli.{module}", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == (f"{module.replace('_', '-')} {__version__}\n", "")


def test_daemon_that_is_told_plainly_loads_no_click(tmp_path: Path) -> None:
    file = tmp_path / "programs.yaml"
    file.write_text("version: 1\nprograms: {web: {command: [sleep, '1000']}}\n")
    command = [sys.executable, "-X", "importtime", "-m", "supervisord_async.cli.asupd", "--check", "-c", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "supervisord_async.config.load" in loaded
    assert not {"click", "difflib", "zoneinfo"} & loaded


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("shop.yaml", "A file is named by -c: asupd -c shop.yaml"),
        ("start", "Without a word the daemon starts, with -d in the background"),
        ("reload", "a running one is told by asupctl: `asupctl reload`."),
    ],
)
def test_a_word_that_is_no_option_is_told_what_to_write(word: str, meant: str) -> None:
    ended = CliRunner().invoke(asupd, [word, "--check"], obj=lambda _: 0)
    assert ended.exit_code == 2
    assert f"unexpected extra argument ({word})" in ended.output
    assert meant in ended.output


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["-n"], "No such option '-n'. It stays in the foreground unless -d is given."),
        (["--daemonize", "-c", "shop.yaml"], "No such option '--daemonize'. -d goes to the background."),
        (["-t"], "--check says what is wrong with the file, and starts nothing."),
        (["--chek"], "No such option '--chek'"),
    ],
)
def test_options_of_other_daemons_are_told_ours(words: list[str], meant: str) -> None:
    ended = CliRunner().invoke(asupd, words, obj=lambda _: 0)
    assert ended.exit_code == 2
    assert meant in ended.output


def test_the_daemons_help_names_its_exit_codes() -> None:
    ended = CliRunner().invoke(asupd, ["--help"], obj=lambda _: 0)
    assert ended.exit_code == 0
    assert all(f" {code}: " in " ".join(ended.output.split()) for code in (0, 1, 2, 4))
