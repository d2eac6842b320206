"""asup-run as users start it: real commands, signals, a real terminal."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.asup_running import ASUP_RUN, ROOT, SECONDS, default_signals
from tests.waiting import wait_until_sync

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("leaves_no_process")]

EXAMPLES = ROOT / "config" / "examples"
QUICK = ("--backoff-factor", "0.01")

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """``run("--max-restarts", "1", "false")`` in a directory of its own, to the end."""

    def call(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*ASUP_RUN, *words], cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS, check=False, **more)

    return call


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """As ``run``, left running; its output goes to ``out`` and ``err`` there."""
    started: list[subprocess.Popen[str]] = []

    def call(*words: str, preexec_fn: Callable[[], None] = default_signals) -> subprocess.Popen[str]:
        with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
            process = subprocess.Popen(
                [*ASUP_RUN, *words],
                cwd=tmp_path,
                stdout=out,
                stderr=err,
                stdin=subprocess.DEVNULL,
                text=True,
                preexec_fn=preexec_fn,  # noqa: PLW1509
            )
        started.append(process)
        return process

    yield call
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()


def wait_said(path: Path, words: str, count: int = 1) -> str:
    wait_until_sync(lambda: path.read_text().count(words) >= count, SECONDS, every=0.02, what=f"{words!r} in {path.name}")
    return path.read_text()


# Ends


def test_a_command_that_succeeds_ends_with_zero_and_keeps_its_streams(run: Run) -> None:
    done = run("sh", "-c", "cat; echo to-stderr >&2", input="from stdin\n")
    assert done.returncode == 0
    assert done.stdout == "from stdin\n"
    assert "to-stderr\n" in done.stderr
    assert done.stderr.splitlines()[-1].endswith("asup-run  exited with 0; 0 restarts; ending with 0")


def test_never_ends_with_the_commands_code(run: Run) -> None:
    assert run("--restart-on", "never", "sh", "-c", "exit 42").returncode == 42


def test_a_command_that_was_killed_counts_as_128_and_the_signal(run: Run) -> None:
    assert run("--restart-on", "never", "sh", "-c", "kill -SEGV $$").returncode == 128 + signal.SIGSEGV


def test_the_limit_ends_with_the_last_code_and_says_the_delays(run: Run) -> None:
    done = run(*QUICK, "--max-restarts", "2", "sh", "-c", "exit 7")
    assert done.returncode == 7
    assert done.stderr.count("→ STARTING") == 3
    assert "restart 1 in 0.0 s" in done.stderr
    assert "restart 2 in 0.0 s" in done.stderr
    last = done.stderr.splitlines()[-1]
    assert "giving up: restart limit of 2 reached" in last
    assert last.endswith("; last: exited with 7; 2 restarts; ending with 7")
    assert " error " in last


def test_delays_double_from_the_factor_on(run: Run) -> None:
    done = run("--backoff-factor", "0.1", "--max-restarts", "3", "false")
    delays = [line.rpartition(" in ")[2] for line in done.stderr.splitlines() if "→ BACKOFF" in line]
    assert delays == ["0.1 s", "0.2 s", "0.4 s"]


@pytest.mark.parametrize("policy", ["on-failure", "always"])
def test_a_pipeline_whose_reader_has_gone_ends(tmp_path: Path, policy: str) -> None:
    """``asup-run yes | head -1``: the next run would write to the same pipe."""
    words = ["bash", "-c", '"$@" | head -n 1; echo "${PIPESTATUS[0]}"', "bash", *ASUP_RUN, "--restart-on", policy, "yes"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS, check=True)
    assert done.stdout == "y\n141\n"
    assert "nobody reads what it writes any more" in done.stderr
    assert "killed by SIGPIPE; 0 restarts; ending with 141" in done.stderr


def test_one_that_dies_of_a_pipe_of_its_own_is_restarted(run: Run) -> None:
    done = run(*QUICK, "--max-restarts", "1", "sh", "-c", "kill -PIPE $$")
    assert done.returncode == 141
    assert "1 restart; ending with 141" in done.stderr


def test_always_restarts_a_success_too(run: Run, tmp_path: Path) -> None:
    script = "echo x >> count; [ $(wc -l < count) -lt 3 ] && exit 0; exit 5"
    done = run(*QUICK, "--restart-on", "always", "--max-restarts", "2", "sh", "-c", script)
    assert done.returncode == 5
    assert (tmp_path / "count").read_text() == "x\n" * 3


@pytest.mark.parametrize(("command", "code"), [("no-such-command-anywhere", 127), ("./text", 126)])
@pytest.mark.parametrize("options", [[], ["--max-restarts", "3"], ["--restart-on", "always"]])
def test_a_command_that_cannot_be_executed_ends_at_once_as_in_a_shell(
    run: Run, tmp_path: Path, command: str, code: int, options: list[str]
) -> None:
    (tmp_path / "text").write_text("no program")
    done = run(*options, command)
    assert done.returncode == code
    assert f"giving up: exec: {command}" in done.stderr.splitlines()[-1]
    assert " error " in done.stderr.splitlines()[-1]
    assert done.stderr.count("→ STARTING") == 1
    assert "BACKOFF" not in done.stderr


def test_a_command_that_is_gone_after_it_ran_is_tried_again(run: Run, tmp_path: Path) -> None:
    command = tmp_path / "command"
    command.write_text(f"#!/bin/sh\nmv {command} {command}.away\nexit 3\n")
    command.chmod(0o755)
    done = run(*QUICK, "--max-restarts", "2", str(command))
    assert done.returncode == 127
    assert done.stderr.count("→ STARTING") == 3


def test_what_a_run_leaves_behind_is_gone_before_the_next(run: Run, tmp_path: Path) -> None:
    script = "[ -f left ] && { kill -0 $(cat left) 2>/dev/null && exit 9; exit 0; }; setsid sleep 300 & echo $! > left; exit 1"
    assert run(*QUICK, "--max-restarts", "1", "sh", "-c", script).returncode == 0


@pytest.mark.parametrize(
    "words",
    [[], ["--timeout", "0", "true"], ["--timeout", "x", "true"], ["--max-restarts", "-2", "true"], ["--nonsense", "true"],
     ["--restart-on", "x", "true"], ["--no-heartbeat", "--timeout", "3", "true"], ["--ignore", "!", "true"]],
)  # fmt: skip
def test_wrong_words_are_usage_errors(run: Run, words: list[str]) -> None:
    assert run(*words).returncode == 2


def test_options_after_the_command_are_the_commands(run: Run) -> None:
    done = run("echo", "--timeout", "-h", "--", "x")
    assert done.stdout == "--timeout -h -- x\n"


# Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_go_it_passes_the_signal_on_and_ends_with_128_plus_it(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    process = start("sh", "-c", f"trap 'echo got {name}; exit 0' {name}; echo ready; while :; do sleep 0.05; done")
    wait_said(tmp_path / "out", "ready")
    process.send_signal(number)
    assert process.wait(SECONDS) == 128 + number
    assert (tmp_path / "out").read_text() == f"ready\ngot {name}\n"


def test_told_to_go_the_rest_hears_of_it_when_the_main_process_has_gone(start: Start, tmp_path: Path) -> None:
    rest = "trap 'echo rest >> order; exit' TERM; echo ready; while :; do sleep 0.05; done"
    main = f"trap 'sleep 0.3; echo main >> order; exit 0' TERM; sh -c {shlex.quote(rest)} & while :; do sleep 0.05; done"
    process = start("--stop-scope", "mixed", "--grace-period", "600", "sh", "-c", main)
    wait_said(tmp_path / "out", "ready")
    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS) == 128 + signal.SIGTERM
    assert (tmp_path / "order").read_text().split() == ["main", "rest"]


def test_a_command_that_ignores_term_is_killed_after_the_grace_period(start: Start, tmp_path: Path) -> None:
    process = start("--grace-period", "0.2", "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done")
    wait_said(tmp_path / "out", "ready")
    process.terminate()
    assert process.wait(SECONDS) == 143
    assert "killed by SIGKILL" in (tmp_path / "err").read_text()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_signals_with_the_commands_own_meaning_reach_it(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    process = start("sh", "-c", f"trap 'echo got {name}' {name}; echo ready; while :; do sleep 0.05; done")
    wait_said(tmp_path / "out", "ready")
    process.send_signal(number)
    wait_said(tmp_path / "out", f"got {name}")
    assert process.poll() is None


def test_a_signal_that_comes_before_we_know_that_the_command_lives_reaches_it(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has our streams, and can be heard before the spawn is answered."""
    source = """
import anyio, os
from supervisord_async.cli import asup_run
from supervisord_async.supervise.single import _Host
spawn = _Host.spawn
async def slowly(self, spec):
    child = await spawn(self, spec)
    while not os.path.exists("go"):
        await anyio.sleep(0.01)
    return child
_Host.spawn = slowly
asup_run.main()
"""
    monkeypatch.setattr(sys.modules[__name__], "ASUP_RUN", [sys.executable, "-c", source])
    process = start("sh", "-c", "trap 'echo got HUP' HUP; trap 'echo got USR1' USR1; echo ready; while :; do sleep 0.05; done")
    wait_said(tmp_path / "out", "ready")
    for number in (signal.SIGHUP, signal.SIGUSR1):
        process.send_signal(number)
    wait_said(tmp_path / "err", "passed on", 2)
    (tmp_path / "go").touch()
    wait_said(tmp_path / "out", "got HUP")
    wait_said(tmp_path / "out", "got USR1")
    assert process.poll() is None


BEFORE_ITS_COMMAND = """
import os, sys
from supervisord_async.cli import asup_run
from supervisord_async.supervise.single import Single
presume, number = Single._presume, int(sys.argv.pop(1))
async def told(self):
    os.kill(os.getpid(), number)
    return await presume(self)
Single._presume = told
asup_run.main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_go_before_the_command_is_begun_it_begins_none(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """It may wait for the disk of its heartbeat file first."""
    monkeypatch.setattr(sys.modules[__name__], "ASUP_RUN", [sys.executable, "-c", BEFORE_ITS_COMMAND, str(int(number))])
    process = start("sh", "-c", "touch begun; exec sleep 1000")
    assert process.wait(SECONDS) == 128 + number
    assert not (tmp_path / "begun").exists()
    assert f"stopped by {number.name}; 0 restarts; ending with {128 + number}" in (tmp_path / "err").read_text()


def test_a_signal_that_comes_before_the_command_is_begun_reaches_it(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ASUP_RUN", [sys.executable, "-c", BEFORE_ITS_COMMAND, str(int(signal.SIGUSR1))])
    assert start("sleep", "1000").wait(SECONDS) == 128 + signal.SIGUSR1


INTERRUPTED = """
import os, signal
from supervisord_async.cli import asup_run
def hit(*_, **__):
    os.kill(os.getpid(), signal.SIGINT)
asup_run._supervise = hit
asup_run.main()
"""


def test_interrupted_while_it_is_loaded_it_ends_without_a_traceback(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ASUP_RUN", [sys.executable, "-c", INTERRUPTED])
    assert start("true").wait(SECONDS) == -signal.SIGINT
    assert (tmp_path / "err").read_text() == ""


def test_a_command_that_dies_of_a_signal_passed_on_is_not_restarted(start: Start, tmp_path: Path) -> None:
    process = start("sleep", "300")
    wait_said(tmp_path / "err", "→ RUNNING")
    process.send_signal(signal.SIGUSR1)
    assert process.wait(SECONDS) == 128 + signal.SIGUSR1


def test_told_to_go_while_it_waits_to_restart_it_goes_at_once(start: Start, tmp_path: Path) -> None:
    process = start("--backoff-factor", "300", "false")
    wait_said(tmp_path / "err", "restart 1 in 300.0 s")
    process.terminate()
    assert process.wait(SECONDS) == 143


def test_nohup_keeps_its_meaning(start: Start, tmp_path: Path) -> None:
    def ignore_hangups() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = start("sh", "-c", "echo ready; while :; do sleep 0.05; done", preexec_fn=ignore_hangups)
    wait_said(tmp_path / "out", "ready")
    process.send_signal(signal.SIGHUP)
    process.terminate()  # heard after the hang-up would have been
    assert process.wait(SECONDS) == 143
    assert "SIGHUP" not in (tmp_path / "err").read_text()


def test_the_command_inherits_no_blocked_or_ignored_signal(run: Run) -> None:
    done = run("grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status", preexec_fn=default_signals)
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["0" * 16] * 2


def test_descriptors_of_the_caller_reach_the_command(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"by descriptor\n")
    os.close(writing)
    try:
        done = subprocess.run(
            [*ASUP_RUN, "cat", f"/dev/fd/{reading}"], pass_fds=[reading], cwd=tmp_path, capture_output=True, timeout=SECONDS, check=False
        )
    finally:
        os.close(reading)
    assert done.stdout == b"by descriptor\n"


# Heartbeats


def beating(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "ASUP_EXAMPLE_INTERVAL": "0.05"}


def test_a_missed_heartbeat_restarts_and_the_limit_then_ends_with_one(run: Run, tmp_path: Path) -> None:
    done = run(
        *(*QUICK, "--timeout", "1.5", "--max-restarts", "1", "--heartbeat-file", "beat"),
        *(sys.executable, str(EXAMPLES / "scenario_client.py"), "hang"),
        env=beating(tmp_path),
    )
    assert done.returncode == 1
    assert done.stderr.count("no heartbeat for") >= 2
    assert "health: healthy" in done.stderr
    assert (tmp_path / "beat").exists(), "the client takes the path from ASUP_HEARTBEAT_FILE"


def test_a_client_that_beats_is_left_alone(run: Run, tmp_path: Path) -> None:
    client = [sys.executable, str(EXAMPLES / "scenario_client.py"), "normal", "2.5"]
    done = run("--timeout", "2", *client, env=beating(tmp_path))
    assert done.returncode == 0
    assert "0 restarts" in done.stderr.splitlines()[-1]


def test_several_at_once_have_heartbeats_of_their_own(start: Start, tmp_path: Path) -> None:
    client = [sys.executable, str(EXAMPLES / "scenario_client.py")]
    env = ["env", "ASUP_EXAMPLE_INTERVAL=0.05"]
    steady = start("--timeout", "10", "--heartbeat-file", "one", *env, *client, "sigterm_test")
    hanging = start("--timeout", "0.7", "--max-restarts", "0", "--heartbeat-file", "two", *env, *client, "hang")
    assert hanging.wait(SECONDS) == 1
    assert steady.poll() is None
    steady.terminate()
    assert steady.wait(SECONDS) == 143


def test_nobody_asked_for_a_heartbeat_so_none_is_no_fault(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from supervisord_async.cli import asup_run

    source = (
        "from supervisord_async.cli import asup_run as a; "
        "[setattr(p, 'default', 0.4) for p in a.cli.params if p.name == 'timeout']; a.main()"
    )
    assert asup_run.HEARTBEAT_OPTIONS[0] == "timeout"
    monkeypatch.setattr(sys.modules[__name__], "ASUP_RUN", [sys.executable, "-c", source])
    (tmp_path / "heartbeat.txt").write_text("of an earlier life")
    process = start("sh", "-c", "while :; do if [ -f go ]; then echo >> heartbeat.txt; rm go; fi; sleep 0.05; done")
    said = wait_said(tmp_path / "err", "not watched unless one appears")
    assert "STOPPING" not in said
    (tmp_path / "go").touch()
    wait_said(tmp_path / "err", "heartbeat seen in")
    wait_said(tmp_path / "err", "stopping (no heartbeat for")  # from now on it is demanded
    assert (tmp_path / "err").read_text().count("not watched unless one appears") == 1
    process.terminate()
    assert process.wait(SECONDS) == 143


# Watching, JSON


def test_a_change_restarts_without_delay_or_count_but_a_heartbeat_is_no_change(start: Start, tmp_path: Path) -> None:
    (tmp_path / "app.conf").write_text("1")
    script = "echo run; while :; do echo >> heartbeat.txt; sleep 0.05; done"
    process = start("--backoff-factor", "300", "--watch", ".", "--ignore", "out", "--ignore", "err", "sh", "-c", script)
    wait_said(tmp_path / "err", "→ RUNNING")
    for number in range(2, 4):

        def changed(content: str = str(number)) -> bool:
            (tmp_path / "app.conf").write_text(content + str(time.monotonic()))
            return (tmp_path / "out").read_text().count("run\n") >= int(content)

        wait_until_sync(changed, SECONDS, every=0.7, what="a restart by a change")
    process.terminate()
    assert process.wait(SECONDS) == 143
    text = (tmp_path / "err").read_text()
    assert "app.conf changed" in text
    assert "heartbeat.txt changed" not in text


def test_events_as_json_are_one_object_a_line(run: Run) -> None:
    done = run(*QUICK, "--json", "--max-restarts", "1", "sh", "-c", "exit 3")
    events = [json.loads(line) for line in done.stderr.splitlines()]
    states = [event["to"] for event in events if event["type"] == "state"]
    assert states == ["STARTING", "RUNNING", "BACKOFF", "STARTING", "RUNNING", "FATAL"]
    assert [event["id"] for event in events] == sorted(event["id"] for event in events)
    assert events[-1]["data"]["code"] == 3


# PID 1


def may_unshare() -> bool:
    done = subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"], capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.skipif(not shutil.which("unshare") or not may_unshare(), reason="no PID namespace is to be had here")
def test_as_pid_1_it_hears_signals_and_reaps_orphans(tmp_path: Path) -> None:
    script = """
    trap 'echo got TERM; exit 0' TERM
    (setsid sh -c 'sleep 0.1; echo orphan' &)
    echo parent $PPID
    while :; do sleep 0.05; done
    """
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *ASUP_RUN, "sh", "-c", script]
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        outside = subprocess.Popen(command, cwd=tmp_path, stdout=out, stderr=err, preexec_fn=default_signals)  # noqa: PLW1509
    try:
        assert "parent 1\n" in wait_said(tmp_path / "out", "orphan\n")
        (pid_1,) = map(int, Path(f"/proc/{outside.pid}/task/{outside.pid}/children").read_text().split())
        children = Path(f"/proc/{pid_1}/task/{pid_1}/children")
        wait_until_sync(lambda: len(children.read_text().split()) == 1, SECONDS, what="the orphan is reaped")
        os.kill(pid_1, signal.SIGTERM)
        assert outside.wait(SECONDS) == 143
        assert "got TERM" in (tmp_path / "out").read_text()
    finally:
        outside.kill()
        outside.wait()
