"""The daemon executes itself anew under living programs, clients and signals: nobody notices but by its PID staying."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisord_async.client import Client
from supervisord_async.system.lock import InstanceLock
from tests.daemons import LiveDaemon, alive
from tests.real.settled import PROGRAMS, SLEEPER, check_log, check_nothing_lost, settle

Make = Callable[..., LiveDaemon]
pytestmark = pytest.mark.real

#: A sitecustomize of the new self: the victim dies between its birth and its first look.
DYING_MEANWHILE = """
import os, signal, sys
from pathlib import Path
if "ASUPD_STATE_FD" in os.environ and "--trial" not in sys.orig_argv and os.path.exists("victim"):
    pid = Path("victim").read_text()
    os.remove("victim")
    os.kill(int(pid), signal.SIGTERM)
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        pass
"""

#: A sitecustomize of the new self: a file is saved while nobody looks.
SAVED_MEANWHILE = """
import os, sys
if "ASUPD_STATE_FD" in os.environ and "--trial" not in sys.orig_argv and os.path.exists("save"):
    os.remove("save")
    with open("saved", "w") as file:
        file.write("in the middle")
"""

#: A sitecustomize of the trial: it has loaded the file, and goes on in a moment.
HELD = """
import atexit, os, sys, time
def wait():
    open("loaded", "w").close()
    while os.path.exists("hold"):
        time.sleep(0.01)
if "--trial" in sys.orig_argv and os.path.exists("hold"):
    atexit.register(wait)
"""

#: A sitecustomize of the new self: what the trial could read it cannot.
UNREADABLE = """
import os, sys
if "ASUPD_STATE_FD" in os.environ and "--trial" not in sys.orig_argv:
    os.ftruncate(int(os.environ["ASUPD_STATE_FD"]), 300)
"""

#: A sitecustomize of the new self: the machine has no descriptor for it, where the trial and the successor of a killed one find some.
STARVED = """
import errno, os, sys
if "ASUPD_STATE_FD" in os.environ and "--trial" not in sys.orig_argv:
    def none_left(path):
        if path.endswith("{folder}"):
            raise OSError(errno.ENFILE, os.strerror(errno.ENFILE), path)
        return listdir(path)
    listdir, os.listdir = os.listdir, none_left
"""


def waits_for_an_answer(live: LiveDaemon, pid: int) -> bool:
    """Whether ``pid`` sleeps with a socket open, and is not woken while the daemon answers others: what it asked is no short question."""

    def sleeps() -> tuple[bool, str, list[str]]:
        status = Path(f"/proc/{pid}/status").read_text()
        try:
            files = [os.readlink(one) for one in Path(f"/proc/{pid}/fd").iterdir()]
        except FileNotFoundError:  # closed at this moment: it is awake
            files = []
        return "State:\tS" in status, status.partition("voluntary_ctxt_switches:")[2], [one for one in files if one.startswith("socket:")]

    before = sleeps()
    for _ in range(3):
        live.status()
    return before[0] and bool(before[2]) and sleeps() == before


@pytest.mark.parametrize("misfortune", ["re-exec", "death"])
def test_who_waits_for_a_program_waits_on_with_the_next_daemon(daemon: Make, misfortune: str) -> None:
    live = daemon("programs: {web: {command: [sleep, '1000'], readiness: {command: [test, -e, ready], interval: 50ms}}}")
    live.wait_for("web", "STARTING")
    command = [sys.executable, "-m", "supervisord_async.cli.asupctl", "-c", str(live.file), "wait", "web", "--for", "ready"]
    waiting = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=live.environment, cwd=live.folder)
    try:
        live.wait_until(lambda: waits_for_an_answer(live, waiting.pid), "it asks")
        if misfortune == "death":
            live.kill()
            live.start()
        else:
            live.do("reexec")
        (live.folder / "ready").touch()
        said, complaint = waiting.communicate(timeout=60)
        assert (waiting.returncode, complaint) == (0, "") and said.startswith("web: ready")
    finally:
        waiting.kill()
        waiting.wait()


def test_a_reexec_keeps_everything_and_its_pid(daemon: Make) -> None:
    live = daemon(PROGRAMS)
    pids = settle(live)
    before = live.pid
    for _ in range(2):
        live.do("reexec")
        live.wait_until(live.answers, "it answers again")
        check_nothing_lost(live, pids, "autostart")
        check_log(live)
    live.send(signal.SIGUSR2)
    live.wait_until(lambda: live.text().count("re-executed") == 3, "the third re-exec")
    live.wait_until(live.answers, "it answers again")
    check_nothing_lost(live, pids)
    assert before == live.pid and alive(before)
    os.kill(pids["quiet"], signal.SIGTERM)  # still our child: how it ended is known
    live.wait_until(lambda: live.process_of("quiet")["exit_status"] == {"signal": "SIGTERM", "core": False}, "its end is told")
    assert live.end() == 0
    assert live.tagged() == []


def test_programs_have_the_same_limit_of_open_files_after_reexecs(daemon: Make, tmp_path: Path) -> None:
    programs = "programs: {w: {command: 'ulimit -Sn; ulimit -Hn; exec sleep 1000', shell: true, start_seconds: 0, logs: {stdout: w.log}}}"
    live = daemon(programs, prefix=("prlimit", "--nofile=500:2000"))
    for _ in range(2):
        live.do("reexec")
        live.wait_until(live.answers, "it answers again")
        live.do("restart", "w")
    assert live.end() == 0
    assert (tmp_path / "w.log").read_text() == "500\n2000\n" * 3


def test_a_run_that_ends_in_the_middle_of_a_reexec_ended_as_it_did(daemon: Make, tmp_path: Path) -> None:
    """It was a success: with ``on-failure`` it is not run again."""
    (tmp_path / "sitecustomize.py").write_text(DYING_MEANWHILE)
    job = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\nprint('waits', flush=True)\nwhile True: time.sleep(1)"
    programs = f"programs: {{job: {{command: [{sys.executable}, -c, {json.dumps(job)}], restart: on-failure, start_seconds: 0}}}}"
    live = daemon(programs, environment={"PYTHONPATH": str(tmp_path)})
    live.wait_until(lambda: "waits" in (live.folder / ".asupd" / "logs" / "job.log").read_text(), "it can be told")
    (live.folder / "victim").write_text(str(live.process_of("job")["pid"]))
    live.do("reexec")
    live.wait_for("job", "EXITED", run=1, exit_status={"code": 0})
    assert not (live.folder / "victim").exists()


def test_new_code_that_cannot_read_the_state_goes_on_as_after_a_kill(daemon: Make, tmp_path: Path) -> None:
    """It is past the point of no return: were it to end, nobody would supervise what lives."""
    (tmp_path / "sitecustomize.py").write_text(UNREADABLE)
    live = daemon(PROGRAMS, environment={"PYTHONPATH": str(tmp_path)})
    pids = settle(live)
    live.do("reexec")
    live.wait_until(live.answers, "it answers again")
    check_nothing_lost(live, pids)
    check_log(live)
    assert "degraded: cannot take over the state from before the re-exec: it is damaged" in live.text()
    os.kill(pids["quiet"], signal.SIGTERM)  # still our child: how it ended is known
    live.wait_until(lambda: live.process_of("quiet")["exit_status"] == {"signal": "SIGTERM", "core": False}, "its end is told")
    assert live.end() == 0
    assert live.tagged() == []


@pytest.mark.parametrize("folder", ["/task", "/proc/self/fd"])  # when it looks for its children, then for what it has inherited
def test_new_code_that_cannot_have_what_it_needs_goes_on_as_after_a_kill(daemon: Make, tmp_path: Path, folder: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(STARVED.format(folder=folder))
    live = daemon(PROGRAMS, environment={"PYTHONPATH": str(tmp_path)})
    pids = settle(live)
    live.do("reexec")
    live.wait_until(lambda: "it goes on as after a kill" in live.text(), "the takeover fails")
    live.wait_until(live.answers, "it answers again")
    check_nothing_lost(live, pids)
    check_log(live)
    assert "degraded: cannot take over after the re-exec: [Errno 23] Too many open files in system: " in live.text()
    assert "Traceback" not in live.text()
    assert live.end() == 0
    assert live.tagged() == []


def test_autostart_that_is_new_in_the_file_starts_what_nobody_has_stopped(daemon: Make) -> None:
    programs = "programs: {{a: {{command: [sleep, '1000'], autostart: {0}}}, b: {{command: [sleep, '1000'], autostart: {0}}}}}"
    live = daemon(programs.format("false"))
    live.do("stop", "b")
    live.write(programs.format("true"))
    live.do("reexec")
    live.wait_for("a", "RUNNING", cause="autostart")
    assert live.process_of("b")["run"] == 0


@pytest.mark.parametrize(("when", "debounce"), [("before", "1s"), ("meanwhile", "50ms")])
def test_a_file_saved_at_a_reexec_restarts_its_program_once(daemon: Make, tmp_path: Path, when: str, debounce: str) -> None:
    """Before it, and not yet quiet for the debounce time; or in the middle of it. A file that is older than the run restarts nothing."""
    (tmp_path / "sitecustomize.py").write_text(SAVED_MEANWHILE if when == "meanwhile" else "")
    for name in ("saved", "old"):
        (tmp_path / name).write_text("first")
    programs = (
        "defaults: {command: [sleep, '1000'], start_seconds: 0}\n"
        f"programs: {{web: {{watch: {{paths: [saved], debounce: {debounce}}}}}, calm: {{watch: {{paths: [old], debounce: 50ms}}}}}}"
    )
    live = daemon(programs, environment={"PYTHONPATH": str(tmp_path)})
    calm = live.wait_for("calm", "RUNNING")["pid"]
    live.wait_watching()
    (live.folder / ("saved" if when == "before" else "save")).write_text("second")
    live.do("reexec")
    live.wait_for("web", "RUNNING", run=2, cause="file_changed")
    live.do("reexec")  # what it was restarted for does not count again
    live.wait_watching()
    (live.folder / "saved").write_text("the third")
    live.wait_for("web", "RUNNING", run=3, cause="file_changed")
    assert live.process_of("calm")["pid"] == calm


def test_a_reload_in_the_middle_of_a_reexec_holds(daemon: Make, tmp_path: Path) -> None:
    """The new code went on with the file as it was before, as the trial had loaded it."""
    (tmp_path / "sitecustomize.py").write_text(HELD)
    live = daemon("programs: {a: {command: [sleep, '1000']}, b: {command: [sleep, '1000']}}", environment={"PYTHONPATH": str(tmp_path)})
    (live.folder / "hold").touch()
    live.send(signal.SIGUSR2)
    live.wait_until((live.folder / "loaded").exists, "the trial has loaded the file")
    live.write("programs: {a: {command: [sleep, '1000']}, c: {command: [sleep, '1000']}}")
    live.do("reload")
    (live.folder / "hold").unlink()
    live.wait_until(lambda: live.text().count("re-executed") == 1 and live.answers(), "the re-exec")
    assert list(live.status()) == ["a", "c"]
    assert live.do("reload", "--plan").splitlines() == ["= 2 unchanged"]


def test_events_that_no_history_could_take_are_not_lost_by_a_reexec(daemon: Make, tmp_path: Path) -> None:
    """As on a full disk. Who follows them resumes where it was, and their numbers have no gap."""
    (tmp_path / ".asupd" / "history.db").mkdir(parents=True)
    live = daemon(SLEEPER)
    live.wait_for("a", "RUNNING")
    before = live.events()
    live.do("reexec")
    live.wait_until(lambda: live.answers() and live.text().count("re-executed") == 1, "it answers again")
    live.do("restart", "a")
    after = live.events()
    assert after[: len(before)] == before
    assert [event["id"] for event in after] == list(range(before[0]["id"], before[0]["id"] + len(after)))
    followed = Client(str(live.folder / ".asupd" / "asupd.sock")).follow_events(after=before[0]["id"])
    assert [next(followed).id for _ in after[1:]] == [event["id"] for event in after[1:]]
    followed.close()


def test_a_reexec_needs_no_run_dir(daemon: Make) -> None:
    """Its disk may have become read-only: one that lives is not ended for that."""
    live = daemon(PROGRAMS)
    pids = settle(live)
    run_dir = live.folder / ".asupd"
    aside = run_dir.rename(live.folder / "aside")
    run_dir.write_text("in its place")
    live.send(signal.SIGUSR2)
    live.wait_until(lambda: "re-executed" in live.text(), "it is re-executed")
    assert f"degraded: no run_dir: cannot make the run_dir {run_dir}: File exists" in live.text()
    run_dir.unlink()
    aside.rename(run_dir)
    live.wait_until(live.answers, "it answers again")
    check_nothing_lost(live, pids)
    assert live.end() == 0
    assert live.tagged() == []


def test_a_reexec_refuses_nobody_and_misses_no_signal(daemon: Make) -> None:
    live = daemon(SLEEPER)
    pid = live.wait_for("a", "RUNNING")["pid"]
    refused: list[OSError] = []
    knocks = unlocked = 0
    over = threading.Event()
    lock = InstanceLock(live.folder / ".asupd" / "asupd.lock")

    def knock() -> None:
        nonlocal knocks, unlocked
        while not over.is_set():
            unlocked += lock.holder() is None
            with socket.socket(socket.AF_UNIX) as client:
                try:
                    client.connect(str(live.folder / ".asupd" / "asupd.sock"))
                    client.sendall(b"GET /v1/health HTTP/1.1\r\nHost: asupd\r\n\r\n")
                    if client.recv(12) != b"HTTP/1.1 200":
                        raise ConnectionError("no answer")
                    knocks += 1
                except OSError as error:
                    refused.append(error)

    knocking = [threading.Thread(target=knock) for _ in range(3)]
    for thread in knocking:
        thread.start()
    try:
        for time in range(1, 4):
            live.send(signal.SIGUSR2)

            def done(time: int = time) -> bool:
                live.send(signal.SIGHUP)  # one that comes while nobody has a handler would end it
                return live.text().count("re-executed") == time

            live.wait_until(done, "it is re-executed", every=0.002)
            live.wait_until(live.answers, "it answers")
    finally:
        over.set()
        for thread in knocking:
            thread.join()
    assert (refused, unlocked) == ([], 0) and knocks > 10
    live.write(SLEEPER.replace("a:", "b:"))
    live.send(signal.SIGHUP)
    live.wait_for("b", "RUNNING")
    assert not alive(pid)
    live.send(signal.SIGUSR2)
    live.wait_until(lambda: live.text().count("re-executed") == 4, "once more")
    assert live.end() == 0


def test_a_stop_wins_over_a_reexec(daemon: Make) -> None:
    """Also over one that is being tried while a program takes its time to end."""
    live = daemon("programs: {a: {command: \"sh -c 'trap : TERM; sleep 2; sleep 1000'\", start_seconds: 0.2, stop: {grace_period: 3s}}}")
    live.wait_for("a", "RUNNING")
    live.send(signal.SIGUSR2)

    def trying() -> bool:
        children = Path(f"/proc/{live.pid}/task/{live.pid}/children").read_text().split()
        return any("--trial" in Path(f"/proc/{child}/cmdline").read_text() for child in children)

    live.wait_until(trying, "the new code is tried", every=0.002)
    assert live.end() == 0 and live.tagged() == []


def test_a_second_daemon_is_refused_also_after_a_reexec(daemon: Make) -> None:
    live = daemon(SLEEPER)
    live.do("reexec")
    command = [sys.executable, "-m", "supervisord_async.cli.asupd", "-c", str(live.file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=live.environment, check=False)
    assert done.returncode == 4 and f"PID {live.pid}" in done.stderr
    assert len(live.tagged()) == 1


def test_a_reexec_that_cannot_succeed_leaves_the_old_code_in_service(daemon: Make) -> None:
    live = daemon("programs: {a: {command: [sleep, '1000'], start_seconds: 0}}")
    pid = live.wait_for("a", "RUNNING")["pid"]
    good = live.file.read_text()
    live.write("programs: {a: {comand: [sleep]}}")
    refused = live.ctl("reexec")
    assert refused.returncode == 1 and "stays in service" in refused.stderr and "comand" in refused.stderr
    assert live.process_of("a")["pid"] == pid
    live.send(signal.SIGUSR2)
    live.wait_until(lambda: "cannot re-exec" in live.text() and "comand" in live.text(), "who asked by a signal is told too")
    live.write(good)
    live.do("reexec")
    assert live.wait_for("a", "RUNNING")["pid"] == pid
