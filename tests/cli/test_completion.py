"""The shell's completion: verbs, options, live names; silence where no daemon is."""

from __future__ import annotations

import os
import pty
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from supervisord_async.cli.asupctl import run
from tests.cli.fake_daemon import FakeDaemon, process
from tests.waiting import wait_until_sync

Complete = Callable[..., list[str]]


@pytest.fixture
def complete(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Complete:
    """``complete("start", "w")``: what bash would be offered for the last word."""
    monkeypatch.setenv("ASUP_SOCKET", str(daemon.socket_path))

    def call(*words: str) -> list[str]:
        monkeypatch.setenv("COMP_WORDS", " ".join(["asupctl", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        monkeypatch.setenv("_ASUPCTL_COMPLETE", "bash_complete")
        capsys.readouterr()
        assert run([]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        return [line.partition(",")[2] for line in captured.out.splitlines() if line]

    return call


def test_completion_offers_verbs(complete: Complete) -> None:
    assert complete("re") == ["restart", "reload", "reexec"]


def test_completion_offers_options(complete: Complete) -> None:
    assert "--no-wait" in complete("start", "--no")


def test_completion_offers_live_names_and_groups(daemon: FakeDaemon, complete: Complete) -> None:
    daemon.add(process("api:0", group="back"), process("api:1", group="back"))
    assert complete("start", "") == ["all", "web", "db", "api", "api:0", "back:*", "api:1"]
    assert complete("stop", "we") == ["web"]
    assert complete("stop", "web", "") == ["all", "db", "api", "api:0", "back:*", "api:1"]
    assert complete("why", "d") == ["db"]


def test_completion_offers_signals_before_names(complete: Complete) -> None:
    assert complete("signal", "u") == ["USR1", "USR2"]
    assert complete("signal", "HUP", "w") == ["web"]


def test_completion_asks_the_daemon_that_the_options_name(daemon: FakeDaemon, complete: Complete, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASUP_SOCKET", "/nowhere")
    assert complete("-s", str(daemon.socket_path), "start", "w") == ["web"]


def test_completion_is_silent_without_a_daemon(daemon: FakeDaemon, complete: Complete) -> None:
    daemon.stop()
    assert complete("start", "") == []


def test_completion_does_not_wait_for_a_daemon_that_hangs(tmp_path: Path, complete: Complete, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "mute.sock"))
        mute.listen()
        monkeypatch.setenv("ASUP_SOCKET", str(tmp_path / "mute.sock"))
        began = time.monotonic()
        assert complete("start", "") == []
        assert time.monotonic() - began < 15  # a bound, not a measure: the patience is one second


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert f"_ASUPCTL_COMPLETE={shell}_complete" in capsys.readouterr().out


def test_completion_of_an_unknown_shell_is_a_usage_error() -> None:
    assert run(["completion", "cmd"]) == 2


@pytest.fixture
def environment(daemon: FakeDaemon, tmp_path: Path) -> dict[str, str]:
    """An ``asupctl`` on the PATH that reaches the fake daemon, and a home without anybody's settings."""
    command = tmp_path / "bin" / "asupctl"
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable}\nfrom supervisord_async.cli.asupctl import main\nmain()\n")
    command.chmod(0o755)
    path = f"{command.parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "ASUP_SOCKET": str(daemon.socket_path), "HOME": str(tmp_path), "TERM": "dumb"}


def test_completion_script_works_in_bash(daemon: FakeDaemon, environment: dict[str, str]) -> None:
    daemon.add(process("web:0"), process("web:1"))
    script = """
        eval "$(asupctl completion bash)"
        [[ $COMP_WORDBREAKS != *:* ]] && echo whole
        COMP_WORDS=(asupctl start web:); COMP_CWORD=2
        _asupctl_completion asupctl web: start
        echo "${COMPREPLY[@]}"
    """
    done = subprocess.run(["bash", "--norc", "-ic", script], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "whole\nweb:0 web:1\n", done


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish here")
def test_completion_script_works_in_fish(daemon: FakeDaemon, environment: dict[str, str], tmp_path: Path) -> None:
    daemon.add(process("web:0"), process("it's [odd]", description="odd: it is"))
    (tmp_path / "shop.yaml").touch()
    asked = ("asupctl rel", "asupctl start web:", "asupctl stop it", "asupctl start --no", f"asupctl -c {tmp_path}/sh")
    script = "asupctl completion fish | source; " + "".join(f'complete -C "{line}"; echo; ' for line in asked)
    done = subprocess.run(["fish", "--no-config", "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False)
    offered = [block.partition("\t")[0] for block in done.stdout.strip().split("\n\n")]
    assert offered == ["reload", "web:0", "it's [odd]", "--no-wait", f"{tmp_path}/shop.yaml"], done


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh here")
@pytest.mark.parametrize(
    ("typed", "program"),
    [("asupctl stop web:", "web:0"), ("asupctl stop d", "db"), ("asupctl sto\td", "db"), ("asupctl stop it", "it's [odd]")],
)
def test_completion_script_works_in_zsh(daemon: FakeDaemon, environment: dict[str, str], typed: str, program: str) -> None:
    daemon.add(process("web:0"), process("it's [odd]", description="odd: it is"))
    terminal, slave = pty.openpty()
    opened = f"exec zsh -f -i <>{os.ttyname(slave)} >&0 2>&1"  # whoever leads a session and opens a terminal controls it
    with subprocess.Popen(["sh", "-c", opened], env=environment, start_new_session=True) as shell:
        try:
            os.write(terminal, b"autoload -U compinit; compinit -u -D; eval \"$(asupctl completion zsh)\"; print rea''dy\n")
            said = b""
            while b"ready" not in said:  # not the echo of what was typed
                assert select.select([terminal], [], [], 30)[0], said
                said += os.read(terminal, 4096)
            os.write(terminal, f"{typed}\t\n".encode())  # the line is run as the tab completed it
            target = f"/v1/processes/{quote(program, safe=':')}/stop"
            wait_until_sync(lambda: bool(daemon.asked("POST", target)), what="the command was run")
        finally:
            shell.kill()
            os.close(slave)
            os.close(terminal)
