"""The machine gives less than it should, or lies: the daemon survives, says so once, recovers, and disturbs no other program."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from supervisord_async.system import tags
from tests.counting import COUNTER_COMMAND, PROGRAMS, QUICK, counted, counter_log, goes_on, said, up
from tests.daemons import LiveDaemon, alive, unbroken
from tests.mounting import mounted, small_disk
from tests.waiting import wait_until_sync

Make = Callable[..., LiveDaemon]
pytestmark = pytest.mark.real


@contextmanager
def limited(pid: int, what: int, soft: int) -> Iterator[None]:
    """The soft limit of a living process is lower meanwhile."""
    before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (soft, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, what, before)


@contextmanager
def limited_as(prefix: tuple[str, ...], pid: int) -> Iterator[None]:
    """The daemon may have no further process or thread meanwhile; set by its own user, since another's may take a capability."""
    for value in ("1:", "10000:"):
        subprocess.run([*prefix, "prlimit", f"--pid={pid}", f"--nproc={value}"], check=True)
        if value == "1:":
            try:
                yield
            except BaseException:
                subprocess.run([*prefix, "prlimit", f"--pid={pid}", "--nproc=10000:"], check=True)
                raise


@pytest.fixture
def small_run_dir(tmp_path: Path) -> Iterator[Path]:
    """The run_dir is a file system of 1 MiB."""
    with small_disk(tmp_path / ".asupd") as disk:
        yield disk


@pytest.fixture
def small_blocks(tmp_path: Path) -> Iterator[Path]:
    """The run_dir is a file system of 3 MiB that gives a page's room in four parts."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("NOT TESTED: a full ext4; there is no mkfs.ext4 here")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(3 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-b", "1024", str(image)], check=True)
    with mounted(tmp_path / ".asupd", "-o", "loop", str(image)) as disk:
        yield disk


def fill(folder: Path) -> Path:
    """A file that takes all the room that is left."""
    path = folder / "filling"
    with path.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(b"x" * 4096)
        except OSError:
            return path


# Starved of processes, descriptors, room


def test_refused_forks_are_backoff_and_recover(daemon: Make, tmp_path: Path) -> None:
    """RLIMIT_NPROC binds no root: the daemon runs as a user of its own, who owns nothing else. Threads are refused too."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("NOT TESTED: a refused fork; needs root and setpriv")
    os.chmod(tmp_path, 0o777)
    may = "+dac_override,+dac_read_search"
    as_user = ("setpriv", "--reuid=61234", "--regid=61234", "--clear-groups", f"--inh-caps={may}", f"--ambient-caps={may}")
    live = daemon(PROGRAMS, prefix=as_user)
    pids = up(live, "counter", "victim")
    with limited_as(as_user, live.pid):
        os.kill(pids["victim"], signal.SIGKILL)
        live.wait_until(lambda: "Resource temporarily unavailable" in live.text(), "the refused fork is told")
        assert live.process_of("victim")["cause"] == "spawn_failed"
        goes_on(live)
    assert live.wait_for("victim", "RUNNING")["pid"] != pids["victim"]
    assert live.process_of("counter")["pid"] == pids["counter"]
    said(live, "Resource temporarily unavailable", at_most=20)
    assert counted(live) == list(range(len(counted(live))))


def test_exhausted_descriptors_are_survived(daemon: Make) -> None:
    live = daemon(PROGRAMS)
    pids = up(live, "counter", "victim")
    with limited(live.pid, resource.RLIMIT_NOFILE, 3):
        os.kill(pids["victim"], signal.SIGKILL)
        live.wait_until(lambda: "Too many open files" in live.text(), "the refused descriptor is told")
        live.send(signal.SIGHUP)
        goes_on(live, 500)
    live.wait_until(lambda: live.ctl("status").returncode == 0, "the daemon answers and everything runs")
    assert live.process_of("victim")["pid"] != pids["victim"]
    assert live.process_of("counter")["pid"] == pids["counter"]
    assert counted(live) == list(range(len(counted(live))))
    said(live, "Too many open files", at_most=20)


FEW_DESCRIPTORS = ("/bin/sh", "-c", 'ulimit -n 64; exec "$@"', "sh")
FORTY = "programs: {v: {command: [sleep, '1000'], replicas: 40, start_seconds: 0, restart: {backoff: {initial: 100ms, max: 300ms}}}}"


def test_programs_leave_the_daemon_the_descriptors_by_which_it_is_asked_and_ends_them(daemon: Make) -> None:
    live = daemon(FORTY, prefix=FEW_DESCRIPTORS)
    live.wait_until(lambda: "BACKOFF" in (states := {each["state"] for each in live.status().values()}) and "RUNNING" in states, "some run")
    assert "Too many open files" in next(each["description"] for each in live.status().values() if each["state"] == "BACKOFF")
    assert live.end() == 0
    assert not live.tagged()
    unbroken(live)


@pytest.mark.parametrize("logs", ["", "logs: {stdout: none}, "], ids=["logs", "no logs"])
def test_silent_programs_leave_the_daemon_the_descriptors_by_which_it_answers(daemon: Make, logs: str) -> None:
    """They take theirs all at once, and no log: the last that each takes is the one by which its end is noticed."""
    many = f"programs: {{v: {{command: [sleep, '1000'], replicas: 130, start_seconds: 0, {logs}restart: {{backoff: {{initial: 100ms, max: 300ms}}}}}}}}"
    live = daemon(many, prefix=("/bin/sh", "-c", 'ulimit -n 128; exec "$@"', "sh"))
    live.wait_until(lambda: "flapping" in live.text(), "those that get none try again and again")
    for _ in range(5):  # status opens files in /proc
        states = [each["state"] for each in live.status().values()]
        assert states.count("RUNNING") > 20
    assert live.end() == 0
    assert not live.tagged()
    unbroken(live)


def test_more_programs_than_descriptors_are_taken_over_and_ended(daemon: Make) -> None:
    live = daemon(FORTY)
    state = live.folder / ".asupd" / "state.json"
    live.wait_until(lambda: state.read_text().count("RUNNING") == 40, "a successor will know that all run")
    live.kill()
    live.prefix = FEW_DESCRIPTORS
    live.start()
    assert all(each["state"] == "RUNNING" for each in live.status().values()) and len(live.tagged()) == 40
    live.wait_until(lambda: "cannot read what run 1 of v:39 says" in live.text(), "what is not heard is told")
    assert live.end() == 0
    assert not live.tagged()
    unbroken(live)


SOON = {"supervisord_async.supervise.daemon.CONTROL_RETRY_SECONDS": 0.5}


def test_a_control_socket_that_cannot_be_had_is_tried_again(daemon: Make) -> None:
    live = daemon("daemon: {socket: elsewhere/asupd.sock}\n" + FORTY.replace("40", "1"), start=False, constants=SOON)
    (live.folder / "elsewhere" / "asupd.sock").mkdir(parents=True)
    live.start(wait=False)
    live.wait_until(lambda: "no control socket" in live.text(), "it is told")
    (live.folder / "elsewhere" / "asupd.sock").rmdir()
    live.wait_until(lambda: live.ctl("status").returncode == 0, "it answers")
    said(live, "no control socket", at_most=1)
    assert live.end() == 0


def test_programs_that_end_while_descriptors_are_exhausted_are_noticed(daemon: Make) -> None:
    live = daemon("programs: {v: {command: [sleep, '1000'], replicas: 10, " + QUICK + "}}")
    pids = up(live, *[f"v:{n}" for n in range(10)])
    with limited(live.pid, resource.RLIMIT_NOFILE, 3):
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)
        live.wait_until(lambda: live.text().count("→ STOPPING") >= 10, "all deaths are noticed")
    live.wait_until(lambda: live.ctl("status").returncode == 0, "everything runs again")
    assert len(live.tagged()) == 10
    unbroken(live)


def test_a_stop_without_a_descriptor_reaches_the_main_processes_and_their_groups(daemon: Make, tmp_path: Path) -> None:
    told = tmp_path / "told"
    deaf = f"trap 'echo TERM >> {told}' TERM; touch {told}; while :; do sleep 0.05; done"
    live = daemon(
        "programs: {v: {command: [sleep, '1000'], replicas: 3, start_seconds: 0}, "
        f"deaf: {{command: {json.dumps(deaf)}, shell: true, start_seconds: 0, stop: {{grace_period: 2s}}}}}}"
    )
    pids = up(live, "v:0", "v:1", "v:2", "deaf")
    live.wait_until(told.exists, "it is deaf")
    with limited(live.pid, resource.RLIMIT_NOFILE, 3):
        live.send(signal.SIGTERM)
        live.wait_until(lambda: not any(map(alive, pids.values())), "all are told to end, and who does not is killed")
    assert live.wait() == 0, "it sees now that nothing is left"
    assert told.read_text() == "TERM\n", "the stop signal comes once, however often the rest is looked for"
    assert not live.tagged()
    unbroken(live)


def test_a_full_disk_stops_nothing_and_everything_is_written_again(daemon: Make, small_run_dir: Path, tmp_path: Path) -> None:
    """Log, state and history lie on it. The loud program must not be held up by its full pipe either."""
    loud = f"import itertools,time\nfor n in itertools.count():\n  print('x' * 4000, flush=True)\n  open({str(tmp_path / 'progress')!r}, 'w').write(str(n))\n"
    live = daemon(
        PROGRAMS
        + f"  loud: {{command: [{sys.executable}, -c, {json.dumps(loud)}], start_seconds: 0, autostart: false, logs: {{max_size: 100KiB, backups: 1}}}}\n"
    )
    pids = up(live, "counter", "victim")
    filling = fill(small_run_dir)
    live.do("start", "loud")
    os.kill(pids["victim"], signal.SIGKILL)
    live.wait_until(lambda: "history: cannot write" in live.text(), "the history that is not written is told")
    victim = live.wait_for("victim", "RUNNING", run=2)["pid"]
    said_before = wait_until_sync(lambda: int((tmp_path / "progress").read_text() or 0), what="the loud program speaks")
    live.wait_until(lambda: int((tmp_path / "progress").read_text() or 0) > said_before + 1000, "the loud program is not held up")
    filling.unlink()
    live.do("stop", "loud")
    live.wait_until(lambda: "is written again" in live.text(), "the history is written again")
    said(live, "history: cannot write", at_most=2)
    goes_on(live)
    live.kill()
    live.start()
    assert live.wait_for("victim", "RUNNING")["pid"] == victim
    assert live.wait_for("counter", "RUNNING")["pid"] == pids["counter"]
    assert "spawn_failed" not in live.text()


def test_what_is_ordered_on_a_full_disk_outlives_the_daemon(daemon: Make, small_run_dir: Path) -> None:
    live = daemon(PROGRAMS)
    pids = up(live, "counter", "victim")
    live.do("restart", "counter")
    counter = up(live, "counter")["counter"]
    fill(small_run_dir)
    live.do("stop", "victim")
    for _ in range(2):
        live.kill()
        live.start()
        assert live.process_of("victim")["state"] == "STOPPED"
        assert live.wait_for("counter", "RUNNING", run=2)["pid"] == counter
    assert not alive(pids["victim"])
    assert "cannot save the state" not in live.text()


def test_a_full_disk_that_gives_less_than_a_page_ends_nobody_by_the_historys_index(daemon: Make, small_blocks: Path) -> None:
    live = daemon("programs: {web: {command: [sleep, '1000'], start_seconds: 0}}")
    pid = live.wait_for("web", "RUNNING")["pid"]
    live.kill()
    (small_blocks / "history.db-shm").unlink(missing_ok=True)
    filling = fill(small_blocks)
    os.truncate(filling, filling.stat().st_size - 12 * 1024)  # the index has 8 pages: a byte in each is granted, and no more
    live.start()
    assert live.wait_for("web", "RUNNING")["pid"] == pid
    live.do("restart", "web")
    filling.unlink()
    live.wait_until(lambda: live.ctl("history", "web").returncode == 0, "the history can be read")
    unbroken(live)


def test_a_state_that_has_no_room_is_told_and_kept_when_there_is(daemon: Make, small_run_dir: Path) -> None:
    """It has grown by more than what it keeps in reserve."""
    live = daemon(PROGRAMS)
    up(live, "counter", "victim")
    filling = fill(small_run_dir)
    live.write(PROGRAMS + "  more: {command: [sleep, '1000'], replicas: 30, start_seconds: 0}\n")
    live.do("reload")
    live.wait_until(lambda: "cannot save the state" in live.text(), "the state that is not saved is told")
    filling.unlink()
    live.wait_until(lambda: "the state is saved again" in live.text(), "the state is saved again")
    said(live, "cannot save the state", at_most=2)
    live.kill()
    live.start()
    assert live.wait_for("more:29", "RUNNING", run=1)


def test_a_removed_run_dir_comes_back_with_everything_in_it(daemon: Make) -> None:
    live = daemon(PROGRAMS, constants={"supervisord_async.supervise.run_dir_repair.POLL_SECONDS": 0.5})
    pids = up(live, "counter", "victim")
    run_dir = live.folder / ".asupd"
    shutil.rmtree(run_dir.rename(live.folder / "gone"))  # from where it is restored at this moment
    os.kill(pids["victim"], signal.SIGKILL)
    live.wait_until((run_dir / "state.json").exists, "the state is there again")
    live.wait_until(lambda: counter_log(live).exists(), "the log is there again")
    live.wait_until(live.answers, "the control socket is there again")
    live.wait_until((run_dir / "history.db").exists, "the history is there again")
    assert live.wait_for("victim", "RUNNING", run=2)
    assert live.process_of("counter")["pid"] == pids["counter"]
    goes_on(live)
    second = subprocess.run(
        [sys.executable, "-m", "supervisord_async.cli.asupd", "-c", str(live.file)],
        capture_output=True,
        text=True,
        timeout=60,
        env=live.environment,
        check=False,
    )
    assert second.returncode != 0 and str(live.pid) in second.stderr
    unbroken(live)
    assert live.end() == 0
    assert live.tagged() == []


def test_a_daemon_with_nothing_to_do_sleeps(daemon: Make) -> None:
    """The kernel tells it if its lock or socket is removed: it need not look."""
    live = daemon(PROGRAMS, constants={"supervisord_async.supervise.run_dir_repair.POLL_SECONDS": 0.2})
    live.do("stop", "all")

    def switches() -> int:
        found = (path.read_text() for path in Path(f"/proc/{live.pid}/task").glob("*/status"))
        return sum(int(line.split()[1]) for text in found for line in text.splitlines() if line.startswith("voluntary_ctxt_switches"))

    def sleeps() -> bool:
        before = switches()
        time.sleep(2.0)  # ten times as long as it would take to look again
        return switches() == before

    live.wait_until(sleeps, "two seconds without a wakeup")
    (live.folder / ".asupd" / "asupd.sock").unlink()
    live.wait_until(live.answers, "the control socket is there again")


def test_the_state_of_a_removed_run_dir_comes_back_although_nothing_changes(daemon: Make) -> None:
    live = daemon(PROGRAMS)
    pids = up(live, "counter", "victim")
    live.do("stop", "victim")
    shutil.rmtree((live.folder / ".asupd").rename(live.folder / "gone"))  # from where it is restored at this moment
    live.wait_until((live.folder / ".asupd" / "state.json").exists, "the state is there again")
    live.wait_until(live.answers, "the control socket is there again")
    live.kill()
    live.start()
    assert live.process_of("victim")["state"] == "STOPPED", "an order survives"
    assert live.wait_for("counter", "RUNNING", run=1)["pid"] == pids["counter"]


def test_without_inotify_files_are_polled_and_it_is_said(daemon: Make, tmp_path: Path) -> None:
    """The limit is that of a user namespace of the daemon's own: nobody else is starved."""
    command = ("unshare", "--user", "--map-root-user", "sh", "-c", 'echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"', "sh")
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("NOT TESTED: exhausted inotify; no user namespace is to be had")
    source = tmp_path / "src"
    source.mkdir()
    (source / "app.py").write_text("1")
    live = daemon(
        f"programs: {{web: {{command: [sleep, '1000'], start_seconds: 0, watch: [{source}]}}, other: {{command: [sleep, '1000'], start_seconds: 0}}}}",
        prefix=command,
    )
    pids = up(live, "web", "other")
    live.wait_until(lambda: "poll" in live.text(), "the fallback is told")
    (source / "app.py").write_text("22")
    assert live.wait_for("web", "RUNNING", run=2, cause="file_changed")
    assert live.process_of("other")["pid"] == pids["other"]
    unbroken(live)


# Stopped


def test_a_stopped_daemon_finds_everything_that_happened_meanwhile(daemon: Make) -> None:
    live = daemon(PROGRAMS)
    pids = up(live, "counter", "victim")
    live.send(signal.SIGSTOP)
    os.kill(pids["victim"], signal.SIGKILL)
    live.wait_until(lambda: not alive(pids["victim"]), "the victim is dead")
    live.send(signal.SIGCONT)
    status = live.wait_for("victim", "RUNNING", run=2)
    assert status["exit_status"] == {"signal": "SIGKILL", "core": False}
    assert live.process_of("counter")["pid"] == pids["counter"]
    goes_on(live)
    assert counted(live) == list(range(len(counted(live))))


# Floods


@pytest.mark.parametrize("format_", ["raw", "timestamp"])
def test_a_hundred_megabytes_without_a_line_end_pass_in_bounded_memory(daemon: Make, format_: str) -> None:
    size = 100 * 1024 * 1024
    logs = f"logs: {{format: {format_}, max_size: 1GiB}}"
    live = daemon(
        f"programs: {{flood: {{command: 'head -c {size} /dev/zero | tr \"\\\\0\" x', shell: true, autostart: false, {logs}}}, counter: {{command: {COUNTER_COMMAND}, start_seconds: 0}}}}"
    )
    up(live, "counter")
    before = resident(live.pid)
    live.do("start", "flood", "--no-wait")
    log = live.folder / ".asupd" / "logs" / "flood.log"
    live.wait_for("flood", "EXITED")
    live.wait_until(lambda: log.stat().st_size >= size, "everything is written")
    assert peak(live.pid) - before < 40 * 1024 * 1024
    with log.open("rb") as stream:
        assert sum(block.count(b"x") for block in iter(lambda: stream.read(1 << 20), b"")) == size
    assert counted(live) == list(range(len(counted(live))))
    unbroken(live)


def resident(pid: int) -> int:
    return _memory(pid, "VmRSS")


def peak(pid: int) -> int:
    return _memory(pid, "VmHWM")


def _memory(pid: int, key: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def test_two_hundred_deaths_in_one_moment(daemon: Make) -> None:
    live = daemon(
        "programs: {v: {command: [sleep, '1000'], replicas: 200, " + QUICK + "}, other: {command: [sleep, '1000'], start_seconds: 0}}"
    )
    live.wait_until(lambda: live.ctl("status").returncode == 0, "all run")
    before = {name: status["pid"] for name, status in live.status().items()}
    live.send(signal.SIGSTOP)  # so that it is one moment
    for name, pid in before.items():
        if name != "other":
            os.kill(pid, signal.SIGKILL)
    live.send(signal.SIGCONT)
    live.wait_until(
        lambda: sum(status["run"] == 2 and status["state"] == "RUNNING" for status in live.status().values()) == 200,
        "all run again",
        every=0.3,
    )
    now = live.status()
    assert all(status["restarts"] == 1 for name, status in now.items() if name != "other")
    assert now["other"]["pid"] == before["other"]
    assert len(tags.living(live.instance)) == 201, "each once; and the daemon has left the cgroups into which it forked"
    unbroken(live)


def test_a_daemon_whose_stderr_is_on_a_full_disk_starts_although_it_has_to_warn(daemon: Make) -> None:
    live = daemon(
        "programs: {lacks: {command: 'true', directory: nowhere, autostart: false}, a: {command: [sleep, '1000'], start_seconds: 0}}",
        start=False,
    )
    with open("/dev/full", "wb") as full:
        live.start(output=full.fileno())
    assert live.wait_for("a", "RUNNING")
    assert live.end() == 0


def test_a_daemon_whose_log_is_read_by_nobody_goes_on(daemon: Make) -> None:
    """Its stderr is a pipe that is full for good."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    live = daemon(
        "programs: {crash: {command: ['false'], restart: {backoff: {initial: 1ms, max: 1ms}}}, a: {command: [sleep, '1000'], start_seconds: 0}}",
        start=False,
    )
    try:
        live.start(output=writing)
    finally:
        os.close(writing)
    try:
        pid = live.wait_for("a", "RUNNING")["pid"]
        live.wait_until(lambda: live.process_of("crash")["run"] > 100, "many times more than the pipe holds was said", every=0.3)
        assert live.process_of("a")["pid"] == pid
        assert live.end() == 0
    finally:
        os.close(reading)
    assert live.tagged() == []
