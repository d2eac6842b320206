"""Commands whose caller closed standard streams, or gave one that takes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, Ended
from tests.cli.fake_daemon import FakeDaemon

RUN = [sys.executable, "-m", "supervisord_async.cli.asup_run", "--max-restarts", "0"]


def call(redirections: str, command: Sequence[str]) -> Ended:
    shell = ["sh", "-c", f'exec "$@" {redirections}', "sh", *command]
    done = subprocess.run(shell, capture_output=True, text=True, timeout=60, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def ctl(daemon: FakeDaemon) -> Callable[..., Ended]:
    return lambda redirections, *words: call(redirections, [*COMMAND, "-s", str(daemon.socket_path), *words])


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_no_exit_code(ctl: Callable[..., Ended], closed: str) -> None:
    assert ctl(closed, "status").code == 0
    assert ctl(closed, "start").code == 2
    assert ctl(closed, "-s", "/nowhere/asupd.sock", "status").code == 4
    assert call(closed, [*RUN, "sh", "-c", "exit 4"]).code == 4


def test_no_program_gets_a_file_of_ours_for_a_stream_that_was_closed() -> None:
    look = ["readlink", "/proc/self/fd/0", "/proc/self/fd/2"]
    assert call("<&- 2>&-", [*RUN, *look]) == Ended(0, "/dev/null\n/dev/null\n", "")


@pytest.mark.parametrize("words", [("status",), ("status", "--json"), ("stop", "web")])
def test_output_that_cannot_be_written_is_told(ctl: Callable[..., Ended], words: tuple[str, ...]) -> None:
    assert ctl(">/dev/full", *words) == Ended(1, "", "asupctl: cannot print: No space left on device\n")


def test_a_complaint_that_cannot_be_written_keeps_its_exit_code(ctl: Callable[..., Ended]) -> None:
    assert ctl("2>/dev/full", "-s", "/nowhere/asupd.sock", "status").code == 4


@pytest.mark.parametrize("command", ["asupd", "asup-run", "asupctl"])
def test_a_usage_error_that_cannot_be_written_keeps_its_exit_code(command: str) -> None:
    module = f"supervisord_async.cli.{command.replace('-', '_')}"
    assert call("2>/dev/full", [sys.executable, "-m", module, "--no-such-option"]).code == 2


def test_the_check_of_a_file_tells_that_its_answer_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "programs.yaml").write_text("programs: {a: {command: 'true'}}")
    check = [sys.executable, "-m", "supervisord_async.cli.asupd", "--check", "-c", str(tmp_path / "programs.yaml")]
    assert call(">/dev/full", check) == Ended(1, "", "asupd: cannot print: No space left on device\n")


def test_what_is_wrong_with_a_file_keeps_its_exit_code_where_it_cannot_be_written(tmp_path: Path) -> None:
    check = [sys.executable, "-m", "supervisord_async.cli.asupd", "--check", "-c", str(tmp_path / "programs.yaml")]
    for text, code in (("programs: {a: {command: /no/such}}", 0), ("programs: {a: {comand: x}}", 2)):
        (tmp_path / "programs.yaml").write_text(text)
        assert call("2>/dev/full", check).code == code


@pytest.mark.parametrize("option", ["--help", "--version"])
@pytest.mark.parametrize("command", ["asupd", "asup-run", "asupctl"])
def test_a_help_that_cannot_be_written_is_told(command: str, option: str) -> None:
    module = f"supervisord_async.cli.{command.replace('-', '_')}"
    printing = [sys.executable, "-m", module, option]
    assert call(">/dev/full", printing) == Ended(1, "", f"{command}: cannot print: No space left on device\n")
    assert call("| :", printing).err == ""


def test_the_check_of_a_file_ends_quietly_when_nobody_reads_its_answer(tmp_path: Path) -> None:
    (tmp_path / "programs.yaml").write_text("programs: {a: {command: 'true'}}")
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "supervisord_async.cli.asupd", "--check", "-c", str(tmp_path / "programs.yaml")]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
