"""What programs say, on disk and on the screen, by real daemons."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisord_async.client.api import Client
from supervisord_async.errors import NotFoundError
from tests.daemons import LiveDaemon

Make = Callable[..., LiveDaemon]
pytestmark = pytest.mark.real


def test_stdout_and_stderr_go_where_the_file_says(daemon: Make, tmp_path: Path) -> None:
    live = daemon("""
programs:
  both: {command: "echo out; echo err >&2", shell: true}
  apart: {command: "echo out; echo err >&2", shell: true, logs: {stdout: logs/apart.out, stderr: logs/apart.err}}
  silent: {command: "echo out; echo err >&2", shell: true, logs: {stdout: none, stderr: none}}
  replicas: {command: "echo $ASUP_REPLICA", shell: true, replicas: 2}
""")
    for name in ("both", "apart", "silent", "replicas:0", "replicas:1"):
        live.wait_for(name, "EXITED")
    assert live.end() == 0
    logs = tmp_path / ".asupd" / "logs"
    assert sorted((logs / "both.log").read_text().split()) == ["err", "out"]
    assert (tmp_path / "logs/apart.out").read_text() == "out\n" and (tmp_path / "logs/apart.err").read_text() == "err\n"
    assert [(logs / f"replicas-{number}.log").read_text() for number in (0, 1)] == ["0\n", "1\n"]
    assert not (logs / "silent.log").exists()


def test_rotation_keeps_the_youngest_whole(daemon: Make, tmp_path: Path) -> None:
    script = "import sys\nfor n in range(20000): print(f'{n:06d} ' + 'x' * 40)"
    live = daemon(
        f"programs: {{w: {{command: [{sys.executable}, -c, {json.dumps(script)}], logs: {{stdout: w.log, max_size: 200KiB, backups: 50}}}}}}"
    )
    live.wait_for("w", "EXITED")
    assert live.end() == 0
    parts = sorted(tmp_path.glob("w.log.*"), key=lambda path: -int(path.suffix[1:]))
    assert len(parts) >= 4
    lines = b"".join(path.read_bytes() for path in [*parts, tmp_path / "w.log"]).splitlines()
    assert [int(line.split()[0]) for line in lines] == list(range(20000))


def test_backups_are_as_many_and_as_small_as_the_file_says(daemon: Make, tmp_path: Path) -> None:
    script = "for n in range(20000): print(f'{n:06d} ' + 'x' * 40)"
    logs = "max_size: 100KiB, backups: 2, compress: true"
    live = daemon(f"programs: {{w: {{command: [{sys.executable}, -c, {json.dumps(script)}], logs: {{stdout: w.log, {logs}}}}}}}")
    live.wait_for("w", "EXITED")
    wanted = ["w.log", "w.log.1.gz", "w.log.2.gz"]
    live.wait_until(lambda: sorted(path.name for path in tmp_path.glob("w.log*")) == wanted, "two backups, compressed")
    live.write(live.file.read_text().replace("backups: 2", "backups: 1"))
    live.do("reload")
    live.wait_until(lambda: sorted(path.name for path in tmp_path.glob("w.log*")) == wanted[:2], "one is enough now")


LOUD = """
import itertools,pathlib,sys,time
for n in itertools.count():
  print(n, 'x' * 400, flush=True)
  print(n, 'x' * 400, file=sys.stderr, flush=True)
  pathlib.Path('progress').write_text(str(n))
  time.sleep(0.001)
"""


def loud(logs: str) -> str:
    return f"programs: {{w: {{command: [{sys.executable}, -c, {json.dumps(LOUD)}], start_seconds: 0, logs: {logs}}}}}"


def goes_on(live: LiveDaemon) -> None:
    """The program is not held up: it says more than pipes hold."""
    before = int((live.folder / "progress").read_text() or 0)
    live.wait_until(lambda: int((live.folder / "progress").read_text() or 0) > before + 400, "the program goes on")


def numbers(*paths: Path) -> list[int]:
    return [int(line.split()[0]) for path in paths for line in path.read_bytes().split(b"\n")[:-1]]


def test_a_reload_leads_the_output_of_a_living_run_elsewhere(daemon: Make, tmp_path: Path) -> None:
    live = daemon(loud("{stdout: one.log, stderr: err.log}"))
    pid = live.wait_for("w", "RUNNING")["pid"]
    one, two, err, lost = (tmp_path / name for name in ("one.log", "two.log", "err.log", "lost.log"))
    live.wait_until(lambda: one.exists() and one.stat().st_size > 1000, "it speaks")
    live.write(loud("{stdout: two.log, stderr: none}"))
    assert live.do("reload").startswith("~ w in place: logs.stdout, logs.stderr")
    goes_on(live)
    silent = err.stat().st_size
    live.write(loud("{stdout: two.log, stderr: stdout}"))
    live.do("reload", "--plan")
    goes_on(live)
    assert err.stat().st_size == silent
    live.write(loud("{stdout: lost.log, stderr: none}"))
    live.do("reload")
    live.wait_until(lambda: lost.exists() and lost.stat().st_size > 1000, "it speaks there")
    live.do("reexec")
    live.wait_until(lambda: "re-executed" in live.text(), "the new code is there")
    goes_on(live)
    assert live.process_of("w")["pid"] == pid
    found = numbers(one, two, lost)
    assert found == list(range(len(found)))


@pytest.mark.parametrize("logs", ["{stdout: none, stderr: none}", "{stdout: two.log}"])
def test_output_that_another_file_does_not_keep_holds_nobody_up(daemon: Make, logs: str) -> None:
    """The file was changed while there was no daemon."""
    live = daemon(loud("{stdout: one.log, stderr: err.log}"))
    pid = live.wait_for("w", "RUNNING")["pid"]
    live.wait_until(lambda: (live.folder / ".asupd/state.json").read_text().count('"inode"') >= 2, "a successor will know its pipes")
    live.kill()
    live.write(loud(logs))
    live.start()
    assert live.wait_for("w", "RUNNING")["pid"] == pid
    goes_on(live)


def test_a_stderr_that_another_file_sets_apart_is_apart_from_the_next_run_on(daemon: Make, tmp_path: Path) -> None:
    live = daemon(loud("{stdout: one.log}"))
    live.wait_for("w", "RUNNING")
    live.wait_until(lambda: (tmp_path / "progress").exists(), "it speaks")
    live.kill()
    live.write(loud("{stdout: two.log, stderr: err.log}"))
    live.start()
    live.wait_for("w", "RUNNING", run=2, cause="config_changed")
    goes_on(live)
    assert live.end() == 0
    found = numbers(tmp_path / "err.log")
    assert found == list(range(len(found))), "nothing of the run before"


def test_lines_as_json(daemon: Make, tmp_path: Path) -> None:
    live = daemon("programs: {w: {command: \"printf 'one\\\\ntwo'\", shell: true, logs: {stdout: w.log, format: json}}}")
    live.wait_for("w", "EXITED")
    assert live.end() == 0
    lines = [json.loads(line) for line in (tmp_path / "w.log").read_text().splitlines()]
    assert [(line["name"], line["stream"], line["run"], line["line"]) for line in lines] == [
        ("w", "stdout", 1, "one"),
        ("w", "stdout", 1, "two"),
    ]


def test_a_program_can_reopen_its_stdout_by_name(daemon: Make) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may start programs as somebody else")
    live = daemon('programs: {w: {command: "echo again > /dev/stdout", shell: true, user: nobody, directory: /}}')
    live.wait_for("w", "EXITED", exit_status={"code": 0})


def test_usr1_reopens_a_log_that_was_moved_away(daemon: Make, tmp_path: Path) -> None:
    live = daemon(
        'programs: {w: {command: "while :; do echo tick; sleep 0.05; done", shell: true, start_seconds: 0, logs: {stdout: w.log}}}'
    )
    live.wait_until(lambda: (tmp_path / "w.log").stat().st_size, "it says something")
    (tmp_path / "w.log").rename(tmp_path / "w.old")
    live.send(signal.SIGUSR1)
    live.wait_until(lambda: (tmp_path / "w.log").stat().st_size, "a new file is written")


def test_echo_shows_prefixed_output(daemon: Make) -> None:
    live = daemon('programs: {w: {command: "echo hello there", shell: true}}', options=("--echo",))
    live.wait_for("w", "EXITED")
    live.wait_until(lambda: any(line.startswith("w") and line.endswith("hello there") for line in live.text().splitlines()), "it is echoed")


def test_a_removed_log_directory_comes_back(daemon: Make, tmp_path: Path) -> None:
    live = daemon(
        "programs: {w: {command: \"while :; do echo tick; sleep 0.05; done\", shell: true, start_seconds: 0, logs: {stdout: deep/er/w.log}}, other: {command: [sleep, '1000'], start_seconds: 0}}"
    )
    log = tmp_path / "deep" / "er" / "w.log"
    live.wait_until(lambda: log.stat().st_size, "it says something")
    pid = live.wait_for("other", "RUNNING")["pid"]
    shutil.rmtree(tmp_path / "deep")
    live.wait_until(lambda: log.stat().st_size, "the log is there again")
    assert live.process_of("other")["pid"] == pid


def test_logs_shows_and_follows(daemon: Make) -> None:
    live = daemon('programs: {a: {command: "echo first; echo second", shell: true}, b: {command: "echo other", shell: true}}')
    for name in ("a", "b"):
        live.wait_for(name, "EXITED")
    live.wait_until(lambda: "second" in live.do("logs", "a"), "the log is written")
    assert live.do("logs", "-n", "1", "a").strip().endswith("second")
    both = live.do("logs", "a", "b")
    assert "first" in both and "other" in both and "a" in both.splitlines()[0]


def test_who_follows_a_log_follows_it_to_another_path_and_is_told_when_it_is_gone(daemon: Make) -> None:
    live = daemon("""
programs:
  other: {command: [sleep, "1000"], start_seconds: 0}
  w: {command: "echo run $ASUP_RUN; exec sleep 1000", shell: true, start_seconds: 0, logs: {stdout: one.log}}
""")
    lines = Client(live.folder / ".asupd" / "asupd.sock").follow_logs("w")
    assert next(lines) == "run 1"
    live.write(live.file.read_text().replace("one.log", "two.log"))
    live.do("reload")
    live.do("restart", "w")
    assert next(lines) == "run 2"
    live.write(live.file.read_text().replace("  w: ", "  x-w: "))
    live.do("reload")
    with pytest.raises(NotFoundError, match="no program 'w'"):
        next(lines)


SPEAKER = """
import os, signal, sys, time
def bye(*_):
    os.write(1, b"bye")  # a print may be what it interrupts
    sys.exit()
signal.signal(signal.SIGTERM, bye)
for n in range(20):
    print("line", n, flush=True)
    time.sleep(0.01)
print("ready", flush=True)
while True:
    time.sleep(1)  # a signal that comes just before it does not interrupt it
"""


@pytest.mark.parametrize("format_", ["raw", "json"])
def test_last_words_are_in_the_log_when_the_process_is_down(daemon: Make, tmp_path: Path, format_: str) -> None:
    """Of one that was stopped and of its descendant, of one that ends by itself, and of its hook."""
    (tmp_path / "speaker.py").write_text(SPEAKER)
    (tmp_path / "both.py").write_text("import subprocess, sys\nsubprocess.Popen([sys.executable, 'speaker.py'])\n" + SPEAKER)
    live = daemon(f"""
defaults: {{autostart: false, start_seconds: 0, logs: {{format: {format_}}}, restart: never}}
programs:
  one: {{command: [{sys.executable}, speaker.py]}}
  both: {{command: [{sys.executable}, both.py]}}
  ends: {{command: "for n in 1 2 3 4 5; do echo $n; sleep 0.05; done; echo bye", shell: true, start_seconds: 0}}
  hook: {{command: "echo one; sleep 0.2; echo two", shell: true, start_seconds: 0, hooks: {{after_exit: [echo, bye]}}}}
""")
    logs = tmp_path / ".asupd" / "logs"

    def count(name: str, word: bytes) -> int:
        log = logs / f"{name}.log"
        return log.read_bytes().count(word) if log.exists() else 0

    for number in range(1, 4):
        for name, said in (("one", 1), ("both", 2)):
            live.do("start", name)
            live.wait_until(lambda name=name, times=number * said: count(name, b"ready") == times, "it speaks")  # type: ignore[misc]
            live.do("stop", name)
            assert count(name, b"bye") == number * said
        for name in ("ends", "hook"):
            live.do("start", name)
            live.do("wait", name, "--for", "exited")
            assert count(name, b"bye") == number


def test_what_a_run_left_behind_is_heard_after_a_reexec_too(daemon: Make, tmp_path: Path) -> None:
    script = "(while [ ! -e go ]; do sleep 0.05; done; echo late) & echo early"
    live = daemon(f"programs: {{w: {{command: {json.dumps(['sh', '-c', script])}, restart: never, stop: {{scope: main}}}}}}")
    live.wait_for("w", "EXITED")
    live.do("reexec")
    live.wait_until(lambda: "re-executed" in live.text(), "the new code is there")
    (tmp_path / "go").touch()
    live.wait_until(lambda: live.do("logs", "w") == "early\nlate\n", "both are in the log")
