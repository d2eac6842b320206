"""A daemon that begins in bad surroundings: hostile signals and descriptors, closed streams, optional parts that are missing."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.counting import PROGRAMS, QUICK, counted, said, up
from tests.daemons import LiveDaemon, unbroken
from tests.leaks import descriptors_of

Make = Callable[..., LiveDaemon]
pytestmark = pytest.mark.real


HOSTILE = """
import os, signal, sys
os.umask(0)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD])
for _ in range(50):
    os.set_inheritable(os.open("/dev/null", os.O_RDONLY), True)
os.environ.pop("HOME", None)
os.execvp(sys.argv[1], sys.argv[1:])
"""


SLATE = """
import os, sys, time
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines() if ":" in line)
fds = sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}"))
open("slate", "w").write(repr((fds, status["SigIgn"].strip(), status["SigBlk"].strip(), "HOME" in os.environ)))
time.sleep(1000)
"""


#: A sitecustomize of a machine that has no descriptor left by the time at which the daemon looks for what it has inherited.
STARVED = """
import errno, os
def none_left(path):
    if path == "/proc/self/fd":
        raise OSError(errno.ENFILE, os.strerror(errno.ENFILE), path)
    return listdir(path)
listdir, os.listdir = os.listdir, none_left
"""


def test_a_hostile_launch_changes_nothing(daemon: Make, tmp_path: Path) -> None:
    live = daemon(
        f"programs: {{slate: {{command: [{sys.executable}, -c, {json.dumps(SLATE)}], start_seconds: 0}}, victim: {{command: [sleep, '1000'], {QUICK}}}, once: {{command: [sh, -c, 'exit 7'], restart: never}}}}",
        prefix=(sys.executable, "-c", HOSTILE),
    )
    pids = up(live, "slate", "victim")
    live.wait_until((tmp_path / "slate").exists, "the child wrote what it sees")
    live.wait_until(lambda: (tmp_path / "slate").read_text() != "", "all of it")
    fds, ignored, blocked, home = eval((tmp_path / "slate").read_text())
    assert fds == [0, 1, 2]
    assert (
        int(blocked, 16) == 0 and int(ignored, 16) & ~(1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)) == 0
    )  # Python ignores these two itself
    assert not home
    assert live.wait_for("once", "EXITED")["exit_status"] == {"code": 7}
    os.kill(pids["victim"], signal.SIGKILL)
    assert live.wait_for("victim", "RUNNING", run=2)["exit_status"] == {"signal": "SIGKILL", "core": False}
    assert list(descriptors_of(live.pid).values()).count(os.devnull) < 10
    for path in (live.folder / ".asupd").rglob("*"):
        if not path.is_symlink():
            assert not stat.S_IMODE(path.stat().st_mode) & 0o022, f"{path} can be written by others"
    live.write(live.file.read_text().replace("exit 7", "exit 8"))
    live.send(signal.SIGHUP)
    live.wait_until(lambda: live.process_of("once")["exit_status"] == {"code": 8}, "HUP is heard")
    assert live.end(signal.SIGTERM) == 0
    assert live.tagged() == []


def test_closed_standard_streams_are_nobodys_file(daemon: Make) -> None:
    """Without 0, 1 and 2 the next files opened would have these numbers, and receive what is meant for a terminal."""
    live = daemon(PROGRAMS, prefix=("sh", "-c", 'exec 0<&- 1>&- 2>&-; exec "$@"', "sh"))
    pids = up(live, "counter", "victim")
    for number in (0, 1, 2):
        assert os.readlink(f"/proc/{live.pid}/fd/{number}") == os.devnull
    os.kill(pids["victim"], signal.SIGKILL)
    live.wait_for("victim", "RUNNING", run=2)
    live.kill()
    live.start()
    assert live.wait_for("counter", "RUNNING")["pid"] == pids["counter"]
    assert counted(live) == list(range(len(counted(live))))
    assert live.end() == 0


MISSING = """
import sys
class _Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, _Missing())
"""


@pytest.mark.parametrize(
    ("names", "lost"),
    [(("watchfiles",), "poll"), (("prometheus_client",), "metrics"), (("_sqlite3",), "no history"), (("uvloop",), "uvloop")],
)
def test_what_is_optional_and_missing_is_named_at_the_start_with_what_is_lost(
    daemon: Make, tmp_path: Path, names: tuple[str, ...], lost: str
) -> None:
    (tmp_path / "missing").mkdir()
    (tmp_path / "missing" / "sitecustomize.py").write_text(MISSING.format(names=names))
    (tmp_path / "src").mkdir()
    programs = (
        "programs: {a: {command: [sleep, '1000'], start_seconds: 0, watch: [src], inherit_environment: false}, victim: {command: [sleep, '1000'], "
        + QUICK
        + "}}"
    )
    live = daemon(programs, environment={"PYTHONPATH": str(tmp_path / "missing")})
    pids = up(live, "a", "victim")
    os.kill(pids["victim"], signal.SIGKILL)
    live.wait_for("victim", "RUNNING", run=2)
    live.wait_until(
        lambda: any(lost in line and ("degraded" in line or "poll" in line) for line in live.text().splitlines()),
        f"the loss of {lost} is told",
    )
    live.do("reexec")
    assert live.wait_for("a", "RUNNING")["pid"] == pids["a"]
    unbroken(live)
    assert live.end() == 0


def test_a_history_that_cannot_be_opened_is_told_and_done_without(daemon: Make, tmp_path: Path) -> None:
    (tmp_path / ".asupd" / "history.db").mkdir(parents=True)
    live = daemon("programs: {victim: {command: [sleep, '1000'], " + QUICK + "}}")
    os.kill(up(live, "victim")["victim"], signal.SIGKILL)
    live.wait_for("victim", "RUNNING", run=2)
    said(live, "history: cannot open", at_most=1)
    told = live.ctl("history", "victim")
    assert (told.returncode, told.stdout) == (1, "") and "the history cannot be read: cannot open" in told.stderr
    (tmp_path / ".asupd" / "history.db").rmdir()
    live.wait_until(lambda: "is written again" in live.text(), "the history is written")
    assert live.ctl("history", "victim").returncode == 0
    assert live.end() == 0


def test_a_start_for_which_the_machine_has_nothing_left_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(STARVED)
    live = LiveDaemon(tmp_path, "programs: {a: {command: [sleep, '1000']}}", environment={"PYTHONPATH": str(tmp_path)})
    assert live.start(wait=False).wait() == 1
    assert live.text().startswith("asupd: critical: cannot start: Too many open files in system (")
    assert live.text().count("\n") == 1
