"""Devices that break, words that mean nothing, notifications that were dropped: the daemon is lied to, and finds the truth again."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisord_async.supervise.recovery import persist
from tests.daemons import LiveDaemon, unbroken

Make = Callable[..., LiveDaemon]
pytestmark = pytest.mark.real

COUNTER = "import itertools,time\nfor n in itertools.count():\n  print(n, flush=True)\n  time.sleep(0.002)"
COUNTER_COMMAND = f"[{sys.executable}, -c, {json.dumps(COUNTER)}]"


def numbers(log: Path) -> list[int]:
    """The whole lines in a counter's log."""
    return [int(line) for line in log.read_bytes().split(b"\n")[:-1]]


# Descriptors, for programs of an earlier daemon


def test_adopted_programs_that_end_while_descriptors_are_exhausted_are_noticed(daemon: Make) -> None:
    """They are nobody's children: how they ended is in a file of /proc, which cannot be opened just then."""
    live = daemon(
        "programs: {v: {command: [sleep, '1000'], replicas: 10, start_seconds: 0, restart: {backoff: {initial: 100ms, max: 1s}, reset_after: 1m}}}"
    )
    live.wait_until(lambda: live.ctl("status").returncode == 0, "all run")
    live.kill()
    live.start()
    before = {name: status["pid"] for name, status in live.status().items()}
    soft, hard = resource.prlimit(live.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(live.pid, resource.RLIMIT_NOFILE, (3, hard))
    try:
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        live.wait_until(lambda: "Too many open files" in live.text(), "the want is told")
    finally:
        resource.prlimit(live.pid, resource.RLIMIT_NOFILE, (soft, hard))
    live.wait_until(
        lambda: all(status["state"] == "RUNNING" and status["run"] == 2 for status in live.status().values()), "all run again", every=0.3
    )
    assert len(live.tagged()) == 10
    unbroken(live)


# A log on a device


def test_a_log_whose_terminal_went_away_is_told_once_and_written_again_when_the_path_works(daemon: Make, tmp_path: Path) -> None:
    """Writing to a terminal whose other side was closed is EIO."""
    master, slave = os.openpty()
    path, log = tmp_path / "device", tmp_path / ".asupd" / "logs" / "other.log"
    path.symlink_to(os.ttyname(slave))  # open to the end: the kernel would give its number to the next who wants a terminal
    live = daemon(
        f"programs: {{counter: {{command: {COUNTER_COMMAND}, start_seconds: 0, logs: {{stdout: device}}}}, other: {{command: {COUNTER_COMMAND}, start_seconds: 0}}}}"
    )
    before = {name: live.wait_for(name, "RUNNING")["pid"] for name in ("counter", "other")}
    seen = b""
    while seen.count(b"\n") < 200:
        assert select.select([master], [], [], 20)[0], "nothing arrives at the terminal"
        seen += os.read(master, 65536)
    os.close(master)
    live.wait_until(lambda: "cannot write" in live.text(), "the loss of the terminal is told")
    assert "Input/output error" in live.text()
    count = len(numbers(log))
    live.wait_until(lambda: len(numbers(log)) > count + 500, "the other's output arrives")
    assert live.text().count("cannot write") == 1
    _points_to(path, tmp_path / "new.log")
    live.wait_until(lambda: (tmp_path / "new.log").exists() and len(numbers(tmp_path / "new.log")) > 200, "it is written again")
    _nothing_is_missing(live, tmp_path / "new.log")
    os.close(slave)
    assert {name: live.process_of(name)["pid"] for name in before} == before
    assert numbers(log) == list(range(len(numbers(log))))
    unbroken(live)


def test_a_log_that_is_a_fifo_is_not_read_by_who_asks_for_it(daemon: Make, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    live = daemon("programs: {a: {command: [sleep, '1000'], start_seconds: 0, logs: {stdout: log}}}")
    asked = live.ctl("logs", "a")
    assert (asked.returncode, asked.stderr) == (1, f"asupctl: cannot read {tmp_path / 'log'}: not a regular file\n")
    assert live.end() == 0


def test_a_log_on_a_device_that_is_always_full_is_told_once_and_moves_to_another_without_a_loss(daemon: Make, tmp_path: Path) -> None:
    path = tmp_path / "device"
    path.symlink_to("/dev/full")
    live = daemon(f"programs: {{counter: {{command: {COUNTER_COMMAND}, start_seconds: 0, logs: {{stdout: device}}}}}}")
    pid = live.wait_for("counter", "RUNNING")["pid"]
    live.wait_until(lambda: "No space left on device" in live.text(), "it is told")
    assert live.process_of("counter")["description"] == "its log cannot be written: No space left on device"
    assert "its log cannot be written: No space left" in live.do("status")
    _points_to(path, tmp_path / "new.log")
    live.do("reload")
    live.send(signal.SIGUSR1)
    live.wait_until(lambda: (tmp_path / "new.log").exists() and len(numbers(tmp_path / "new.log")) > 200, "it is written")
    assert numbers(tmp_path / "new.log")[0] == 0
    live.wait_until(lambda: live.process_of("counter")["description"] == "run 1", "it is told no longer")
    _nothing_is_missing(live, tmp_path / "new.log")
    assert live.process_of("counter")["pid"] == pid
    unbroken(live)


def _points_to(path: Path, target: Path) -> None:
    """The link is another one at once."""
    draft = path.with_name("draft")
    draft.symlink_to(target)
    draft.replace(path)


def _nothing_is_missing(live: LiveDaemon, log: Path) -> None:
    """What the log has is without a gap, and the daemon says the same."""
    written = numbers(log)
    assert written == list(range(written[0], written[0] + len(written)))
    live.wait_until(lambda: "is written again; nothing was lost" in live.text(), "the recovery is told, without a loss")
    assert live.text().count("cannot write") == live.text().count("is written again") == 1


# A state file that is older than all that is known


def test_a_reexec_leaves_to_the_disk_what_it_took_over_by_memory(daemon: Make) -> None:
    """The last save may be older than the re-exec; nothing need happen after it before a death."""
    live = daemon("programs: {a: {command: [sleep, '1000'], start_seconds: 0}}")
    live.wait_for("a", "RUNNING")
    saved = live.folder / ".asupd" / persist.FILE_NAME
    live.wait_until(saved.exists, "it is saved")
    saved.write_bytes(b"older than all that is known\n")
    live.do("reexec")
    live.wait_until(lambda: persist.MAGIC.encode() in saved.read_bytes(), "it is saved")
    assert live.end() == 0


# Words that mean nothing

BABBLER = """
import array, os, random, socket, time
chance = random.Random(4)
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.connect(os.environ["NOTIFY_SOCKET"].replace("@", "\\0", 1))
s.send(b"READY=1\\nSTATUS=babbling")
keys = [b"", b"READY=", b"MAINPID=", b"STATUS=", b"EXTEND_TIMEOUT_USEC=", b"FDSTORE=", b"FDNAME=", b"BARRIER=", b"ERRNO=", b"RELOADING="]
began, sent = time.monotonic(), 0
while sent < 20_000:
    for _ in range(100):
        words = b"\\n".join(chance.choice(keys) + chance.randbytes(chance.choice([0, 1, 20, 200])) for _ in range(chance.randrange(4)))
        if chance.random() < 0.01:
            words += chance.randbytes(8000)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * chance.randrange(1, 20)))] if chance.random() < 0.02 else []
        s.sendmsg([words], rights)
        sent += 1
    time.sleep(max(0.0, sent / 10_000 - (time.monotonic() - began)))
s.send(b"STATUS=said everything")
time.sleep(1000)
"""


def test_twenty_thousand_random_datagrams_change_nothing(daemon: Make) -> None:
    """Ten thousand a second, as fast as the daemon takes them, from the main process itself; descriptors come with some of them.

    WATCHDOG_USEC is not among the keys: 2, which chance finds soon, is a wish that is granted.
    """
    live = daemon(
        f"programs: {{babbler: {{command: [{sys.executable}, -c, {json.dumps(BABBLER)}], notify: true}}, other: {{command: {COUNTER_COMMAND}, start_seconds: 0}}}}"
    )
    other = live.wait_for("other", "RUNNING")["pid"]
    before = live.wait_for("babbler", "RUNNING")
    asked = 0

    def is_done() -> bool:
        nonlocal asked
        assert live.answers()
        asked += 1
        return bool(live.process_of("babbler")["description"] == "said everything")

    live.wait_until(is_done, "the daemon heard the last word")
    after = live.process_of("babbler")
    assert asked > 1
    assert (after["state"], after["pid"], after["run"]) == ("RUNNING", before["pid"], 1)
    assert live.process_of("other")["pid"] == other
    live.wait_until(lambda: len(os.listdir(f"/proc/{live.pid}/fd")) < 100, "the descriptors that came are closed")
    assert len(live.text()) < 100_000, "it says so, and not a thousand times"
    unbroken(live)
    assert live.end() == 0


# Notifications that were dropped

IN_MODIFY, IN_Q_OVERFLOW = 0x2, 0x4000


class Witness:
    """An inotify queue like the daemon's, that nobody reads until the end: it tells whether there was more than a queue holds."""

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        assert self.fd >= 0 and libc.inotify_add_watch(self.fd, os.fsencode(folder), IN_MODIFY) > 0

    def overflowed(self) -> bool:
        """Its last event says that others were dropped."""
        try:
            while True:
                block, at = os.read(self.fd, 1 << 16), 0
                while at < len(block):
                    _, mask, _, length = struct.unpack_from("iIII", block, at)
                    if mask & IN_Q_OVERFLOW:
                        return True
                    at += 16 + length
        except BlockingIOError:
            return False
        finally:
            os.close(self.fd)


def test_a_change_whose_notification_was_dropped_is_found(daemon: Make, tmp_path: Path) -> None:
    """The daemon is stopped while ignored files fill its queue; the file that counts changes when there is no room any more."""
    source = tmp_path / "src"
    source.mkdir()
    (source / "app.py").write_text("1")
    live = daemon(
        "programs: {web: {command: [sleep, '1000'], start_seconds: 0, watch: {paths: [src], ignore: ['*.noise'], debounce: 50ms}},"
        " other: {command: [sleep, '1000'], start_seconds: 0}}",
        constants={"supervisord_async.supervise.sources.filewatch.watcher.DOUBT_SECONDS": 1.0},
    )
    other = live.wait_for("other", "RUNNING")["pid"]
    live.wait_for("web", "RUNNING")
    live.wait_watching()
    (source / "app.py").write_text("22")
    live.wait_for("web", "RUNNING", run=2, cause="file_changed")
    witness = Witness(source)
    live.send(signal.SIGSTOP)
    room = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    with (source / "a.noise").open("wb", buffering=0) as a, (source / "b.noise").open("wb", buffering=0) as b:
        for _ in range(room // 2 + 1000):  # by turns: two of the same are one
            a.write(b"x")
            b.write(b"x")
    (source / "app.py").write_text("333")
    live.send(signal.SIGCONT)
    assert witness.overflowed()
    live.wait_for("web", "RUNNING", run=3, cause="file_changed")
    (source / "app.py").write_text("4444")
    live.wait_for("web", "RUNNING", run=4, cause="file_changed")
    assert live.process_of("other")["pid"] == other
    unbroken(live)


def test_thousands_of_files_changed_at_once_restart_the_program_and_it_is_watched_on(daemon: Make, tmp_path: Path) -> None:
    for folder in range(20):
        (tmp_path / "src" / str(folder)).mkdir(parents=True)
        for number in range(150):
            (tmp_path / "src" / str(folder) / f"{number}.py").write_text("1")
    live = daemon("programs: {web: {command: [sleep, '1000'], start_seconds: 0, watch: {paths: [src], debounce: 50ms}}}")
    run = live.wait_for("web", "RUNNING")["run"]
    live.wait_watching()
    for path in (tmp_path / "src").rglob("*.py"):
        path.write_text("22")
    live.wait_until(lambda: live.process_of("web")["run"] > run, "it is restarted")
    calm = live.process_of("web")["run"]

    def changed_again() -> bool:
        (tmp_path / "src" / "7" / "7.py").write_text("x" * (live.process_of("web")["run"] + 5) + "y")
        return bool(live.process_of("web")["run"] > calm)

    live.wait_until(changed_again, "the next change is seen too", every=1.0)
    assert live.wait_for("web", "RUNNING")["restarts"] == 0
    unbroken(live)
