"""A log that cannot be written costs its own oldest output, counted, and nothing else; it is said once, and mends itself."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from supervisord_async.logs import capture, rotation
from supervisord_async.logs.outage import KEPT_BYTES
from supervisord_async.logs.rotation import backups_of
from supervisord_async.logs.spool import BOUND_BYTES
from supervisord_async.logs.target import Format, Target
from supervisord_async.system.threads import DaemonThreads
from tests import mounting
from tests.logs.capturing import captured, everything
from tests.waiting import wait_until

LINE = b"line %d " + b"x" * 250 + b"\n"

pytestmark = [pytest.mark.anyio, pytest.mark.real]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    with mounting.small_disk(tmp_path / "disk") as disk:
        yield disk


@pytest.mark.parametrize("format_", ["raw", "json"])
async def test_a_full_disk_stops_neither_child_nor_others_and_writing_resumes(small_disk: Path, tmp_path: Path, format_: Format) -> None:
    log, other = small_disk / "x.log", tmp_path / "other.log"
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 700_000)
    async with captured(Target(str(log), format=format_), Target(str(other))) as [full, sound]:
        said = 0
        for _ in range(6):  # far more than fits on the disk and in what is kept
            await full.say_all(b"".join(LINE % number for number in range(said, said + 10_000)))
            said += 10_000
            sound.say(b"undisturbed\n")
            assert await sound.capture.drain()
        await wait_until(lambda: full.losses)
        assert len(full.losses) == 1
        begin = full.losses[0]
        assert (begin.kind, begin.errno, begin.path) == ("begin", errno.ENOSPC, str(log))
        assert "No space left on device (free some space" in begin.message
        ballast.unlink()

        def mended() -> bool:
            if os.statvfs(small_disk).f_bavail == 0:  # what was kept is more than the disk holds
                os.truncate(log, 0)
            return len(full.losses) == 2

        await wait_until(mended, every=0.05)
        os.truncate(log, 0)
        end = full.losses[1]
        assert (end.kind, end.bytes_lost, end.lines_lost > 1000) == ("end", full.capture.bytes_lost, True)
        full.say(b"last\n")
        assert await full.capture.drain()
        assert (b'"line":"last"' if format_ == "json" else b"last\n") in log.read_bytes()[-100:]
        assert other.read_bytes() == b"undisturbed\n" * 6
        total = sum(len(LINE % number) for number in range(said)) + len(b"last\n")
        assert full.capture.bytes_written + full.capture.bytes_lost == total
        assert len(full.losses) == 2


async def test_what_fits_in_the_bound_is_kept_over_a_full_disk(small_disk: Path) -> None:
    log, ballast = small_disk / "x.log", small_disk / "ballast"
    with pytest.raises(OSError, match="No space"), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 65536) or file.write(b"")
            if os.statvfs(small_disk).f_bavail == 0:
                raise OSError(errno.ENOSPC, "No space")
    async with captured(Target(str(log))) as [stream]:
        data = b"".join(b"line %d\n" % number for number in range(40_000))
        stream.say(data[:1000])
        await wait_until(lambda: stream.losses)
        await stream.say_all(data[1000:])
        assert len(data) < KEPT_BYTES // 2
        ballast.unlink()
        await wait_until(lambda: len(stream.losses) == 2)
        assert (stream.losses[1].bytes_lost, stream.losses[1].lines_lost) == (0, 0)
        assert "nothing was lost" in stream.losses[1].message
        assert await stream.capture.drain()
        assert log.read_bytes() == data


async def test_a_fifo_without_reader_is_reported_once_and_a_reader_gets_the_rest(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    async with captured(Target(str(fifo))) as [stream]:
        stream.say(b"early\n")
        await wait_until(lambda: stream.losses)
        assert stream.losses[0].errno == errno.ENXIO
        assert "start the FIFO's reader" in stream.losses[0].message
        await stream.say_all(b"x" * 79 + b"\n" + b"y" * 3_000_000 + b"\n")
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        try:
            stream.say(b"late\n")
            got = bytearray()

            def read() -> bool:
                with contextlib.suppress(BlockingIOError):
                    got.extend(os.read(reader, 65536))
                return got.endswith(b"late\n")

            await wait_until(read)
            await wait_until(lambda: len(stream.losses) == 2)
            assert len(got) + stream.capture.bytes_lost == 6 + 80 + 3_000_001 + 5
        finally:
            os.close(reader)
        for _ in range(3):
            stream.say(b"nobody\n")
            await anyio.lowlevel.checkpoint()
        await wait_until(lambda: len(stream.losses) == 3)
        assert stream.losses[2].errno in (errno.EPIPE, errno.ENXIO)


async def test_a_device_that_is_full_is_left_as_soon_as_the_path_leads_elsewhere(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.symlink_to("/dev/full")
    async with captured(Target(str(log))) as [stream]:
        stream.say(b"early\n")
        await wait_until(lambda: stream.losses)
        log.unlink()
        await wait_until(lambda: len(stream.losses) == 2)
        assert (log.read_bytes(), stream.losses[1].bytes_lost) == (b"early\n", 0)


async def test_a_fifo_that_was_made_anew_or_became_a_file_is_written_as_a_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisord_async.logs.sink.CHECK_SECONDS", 0.0)
    log = tmp_path / "x.log"
    os.mkfifo(log)
    readers = [os.open(log, os.O_RDONLY | os.O_NONBLOCK)]
    try:
        async with captured(Target(str(log))) as [stream]:
            stream.say(b"one\n")
            assert await stream.capture.drain()
            assert os.read(readers[0], 100) == b"one\n"
            log.unlink()
            stream.say(b"two\n")
            assert await stream.capture.drain()
            assert (os.read(readers[0], 100), log.exists()) == (b"two\n", False)  # the old one has its reader, and nothing is in the way
            os.mkfifo(log)
            readers.append(os.open(log, os.O_RDONLY | os.O_NONBLOCK))
            stream.say(b"three\n")
            assert await stream.capture.drain()
            assert os.read(readers[1], 100) == b"three\n"
            (tmp_path / "file").touch()
            (tmp_path / "file").replace(log)
            stream.say(b"four\n")
            assert await stream.capture.drain()
            assert log.read_bytes() == b"four\n"
    finally:
        for reader in readers:
            os.close(reader)


async def test_a_reader_of_a_fifo_that_does_not_read_holds_no_child_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisord_async.logs.capture.STALL_SECONDS", 0.1)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        async with captured(Target(str(fifo))) as [stream]:
            await stream.say_all(b"y" * 79 + b"\n" + b"x" * 4_000_000 + b"\n")
            await wait_until(lambda: stream.losses)
            assert (stream.losses[0].errno, "reader does not read" in stream.losses[0].message) == (errno.EAGAIN, True)
            got = 0

            def read() -> bool:
                nonlocal got
                with contextlib.suppress(BlockingIOError):
                    while block := os.read(reader, 65536):
                        got += len(block)
                return len(stream.losses) == 2

            await wait_until(read)
            assert stream.losses[1].bytes_lost == stream.capture.bytes_lost > 0
            await wait_until(
                lambda: read() and got + stream.capture.bytes_lost >= 4_000_081
            )  # a line's end may be put in where it was torn
    finally:
        os.close(reader)


async def test_a_rotation_that_fails_is_said_and_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("supervisord_async.logs.sink.ROTATION_RETRY_SECONDS", 0.05)
    log, obstacle = tmp_path / "x.log", tmp_path / "x.log.1"
    (obstacle / "inside").mkdir(parents=True)
    async with captured(Target(str(log), max_size_bytes=1000, backups=1)) as [stream]:
        data = b"0123456789\n" * 1000
        await stream.say_all(data)
        assert await stream.capture.drain()
        assert log.read_bytes() == data
        assert stream.losses == []
        assert f"cannot rotate {log}" in caplog.text
        (obstacle / "inside").rmdir()
        obstacle.rmdir()

        async def rotated() -> bool:
            stream.say(b"next\n")
            await stream.capture.drain()
            return obstacle.is_file()

        await wait_until(rotated, every=0.05)
        assert obstacle.read_bytes().startswith(data)


class BugError(Exception):
    """A bug of ours."""


@pytest.fixture
def small_files() -> Iterator[int]:
    """This process's files may become that long (RLIMIT_FSIZE), as a service manager's LimitFSIZE has it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, before[1]))
    yield 256 * 1024
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("format_", ["raw", "timestamp"])
async def test_a_log_is_rotated_where_its_max_size_is_more_than_a_file_may_have(tmp_path: Path, small_files: int, format_: Format) -> None:
    log = tmp_path / "x.log"
    said = b"".join(LINE % number for number in range(30_000))
    async with captured(Target(str(log), format=format_, max_size_bytes=50 << 20, backups=50)) as [stream]:
        await stream.say_all(said)
        assert await stream.capture.drain() and not stream.losses
    assert re.sub(rb"(?m)^\d+-\S+Z ", b"", everything(log)) == said
    assert {file.stat().st_size for file in tmp_path.glob("x.log.*")} == {small_files}


async def test_a_log_that_may_not_rotate_and_is_as_long_as_a_file_may_be_is_reported(tmp_path: Path, small_files: int) -> None:
    log = tmp_path / "x.log"
    async with captured(Target(str(log), max_size_bytes=0)) as [stream]:
        await stream.say_all(b"x" * small_files + b"more\n")
        await wait_until(lambda: stream.losses)
        assert "File too large (raise the daemon's limit of file sizes, or set logs.max_size" in stream.losses[0].message
        os.truncate(log, 0)
        await wait_until(lambda: len(stream.losses) == 2)
    assert log.read_bytes() == b"more\n"


async def test_a_bug_of_whoever_listens_stops_no_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: object) -> None:
        raise BugError

    log = tmp_path / "sub" / "x.log"
    log.parent.write_text("in the way")
    async with captured(Target(str(log)), start=False) as [stream]:
        stream.capture._on_loss = stream.capture.echo = fail
        stream.capture.start()
        stream.say(b"kept\n")
        await wait_until(lambda: "reporting that" in caplog.text)
        log.parent.unlink()
        await wait_until(lambda: log.read_bytes() == b"kept\n")
        await wait_until(lambda: "no more of it is echoed" in caplog.text)
        stream.say(b"more\n")
        assert await stream.capture.drain()
        assert log.read_bytes() == b"kept\nmore\n"
        assert caplog.text.count("no more of it is echoed") == 1


async def test_a_bug_in_a_turn_costs_that_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    from supervisord_async.logs import mover

    move_raw, failed = mover.move_raw, []

    def fail_once(*arguments: Any, **settings: Any) -> None:
        if not failed:
            failed.append(True)
            raise BugError
        move_raw(*arguments, **settings)

    monkeypatch.setattr(mover, "move_raw", fail_once)
    async with captured(Target(str(tmp_path / "x.log"))) as [stream]:
        stream.say(b"kept\n")
        await wait_until(lambda: len(stream.losses) == 2)
        assert (tmp_path / "x.log").read_bytes() == b"kept\n"
        assert "moving the output of web:0 (stdout) failed" in caplog.text


async def test_a_bug_after_a_turn_costs_that_stream_a_pause_and_no_other_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(capture, "BUG_SECONDS", 0.05)
    decide, failed = capture.Capture._succeeded, []

    def fail_once(self: capture.Capture, outcome: Any) -> None:
        if not failed:
            failed.append(self)
            raise BugError
        decide(self, outcome)

    monkeypatch.setattr(capture.Capture, "_succeeded", fail_once)
    logs = [tmp_path / "x.log", tmp_path / "y.log"]
    async with captured(*(Target(str(log)) for log in logs)) as streams:
        for stream in streams:
            stream.say(b"one\n")
        await wait_until(lambda: "because of a bug" in caplog.text)
        for stream in streams:
            stream.say(b"two\n")
        await wait_until(lambda: [log.read_bytes() for log in logs] == [b"one\ntwo\n"] * 2)


async def test_without_a_thread_output_waits_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from supervisord_async.logs import writer as writer_module

    in_thread, refused = writer_module._in_thread, []

    def refuse_some(function: Any) -> Any:
        if len(refused) < 3:
            refused.append(True)
            raise BlockingIOError(11, "can't start new thread")
        return in_thread(function)

    monkeypatch.setattr(writer_module, "_in_thread", refuse_some)
    async with captured(Target(str(tmp_path / "x.log"))) as [stream]:
        stream.say(b"kept\n")
        await wait_until(lambda: (tmp_path / "x.log").read_bytes() == b"kept\n")
        assert len(refused) == 3


async def test_backups_for_which_there_is_no_thread_are_compressed_after_the_next_rotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    submit, refuses = DaemonThreads.submit, [True]

    def refuse(threads: DaemonThreads, *work: Any, **how: Any) -> Any:
        if refuses and threads._name == "log-gzip":
            raise BlockingIOError(11, "can't start new thread")
        return submit(threads, *work, **how)

    monkeypatch.setattr(DaemonThreads, "submit", refuse)
    log = tmp_path / "x.log"
    async with captured(Target(str(log), max_size_bytes=1000, backups=100, compress=True)) as [stream]:
        await stream.say_all(b"0123456789\n" * 1000)
        await wait_until(lambda: f"cannot compress the backups of {log}: can't start new thread" in caplog.text)
        refuses.clear()
        await stream.say_all(b"0123456789\n" * 1000)
        assert await stream.capture.drain()
        await wait_until(lambda: all(found.endswith(".gz") for _, found in backups_of(str(log))))
    assert everything(log) == b"0123456789\n" * 2000


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "cannot compress the backups of {}"),
        (BugError(), "compressing the backups of {} failed because of a bug"),
    ],
)
async def test_backups_that_cannot_be_compressed_stay_and_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, words: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(rotation, "_compress", fail)
    log = tmp_path / "x.log"
    async with captured(Target(str(log), max_size_bytes=1000, backups=100, compress=True)) as [stream]:
        await stream.say_all(b"0123456789\n" * 1000)
        assert await stream.capture.drain()
        await wait_until(lambda: words.format(log) in caplog.text)
        stream.say(b"more\n")
        assert await stream.capture.drain()
    assert everything(log) == b"0123456789\n" * 1000 + b"more\n"


@pytest.mark.parametrize("obstacle", ["a file where a directory must be", "a directory where the file must be"])
async def test_a_path_that_cannot_be_is_reported_and_mended_later(tmp_path: Path, obstacle: str) -> None:
    log = tmp_path / "sub" / "x.log"
    if obstacle.startswith("a file"):
        log.parent.write_text("in the way")
    else:
        log.mkdir(parents=True)
    async with captured(Target(str(log))) as [stream]:
        stream.say(b"kept\n")
        await wait_until(lambda: stream.losses)
        assert str(log) in stream.losses[0].message
        if obstacle.startswith("a file"):
            log.parent.unlink()
        else:
            log.rmdir()
        await wait_until(lambda: len(stream.losses) == 2)
        assert log.read_bytes() == b"kept\n"


async def test_what_waits_for_a_broken_log_is_bounded_in_every_format(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.mkdir()
    async with captured(Target(str(log), format="json")) as [stream]:
        data = b"".join(LINE % number for number in range(40_000))
        await stream.say_all(data)
        await wait_until(lambda: stream.losses)
        spool = stream.capture._spool
        assert spool is not None and spool.waiting_bytes <= BOUND_BYTES
        assert stream.capture.bytes_lost >= len(data) - BOUND_BYTES - 2 * KEPT_BYTES
        log.rmdir()
        await wait_until(lambda: len(stream.losses) == 2)


async def test_a_line_that_was_torn_by_a_loss_is_ended_before_the_next(tmp_path: Path) -> None:
    log, aside = tmp_path / "x.log", tmp_path / "aside"
    async with captured(Target(str(log), max_size_bytes=0)) as [stream]:
        stream.say(b"begun ")
        assert await stream.capture.drain()
        log.rename(aside)
        log.mkdir()
        stream.capture.reopen()
        stream.say(b"and torn\n")
        await wait_until(lambda: stream.losses)
        await stream.say_all(b"".join(LINE % number for number in range(20_000)))
        log.rmdir()
        aside.rename(log)
        await wait_until(lambda: len(stream.losses) == 2)
        assert stream.losses[1].bytes_lost > 0
        assert await stream.capture.drain()
        first, *lines = log.read_bytes().splitlines(keepends=True)
        assert first == b"begun \n"
        assert set(lines) <= {LINE % number for number in range(20_000)} and lines[-1] == LINE % 19_999


async def test_what_a_broken_log_holds_at_its_end_is_counted_as_lost(tmp_path: Path) -> None:
    (tmp_path / "sub").write_text("in the way")
    async with captured(Target(str(tmp_path / "sub" / "x.log"))) as [stream]:
        stream.say(b"one\ntwo\n")
        await wait_until(lambda: stream.losses)
        assert not await stream.capture.drain()
        await stream.capture.aclose()
        assert [(report.kind, report.bytes_lost, report.lines_lost) for report in stream.losses] == [("begin", 0, 0), ("end", 8, 2)]


async def test_a_disk_that_hangs_holds_one_lane_and_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from supervisord_async.logs.sink import Sink

    released = threading.Event()
    ready = Sink.ready

    def hang(self: Sink) -> int:
        if "hung" in self.path:
            released.wait(60)
        return ready(self)

    monkeypatch.setattr(Sink, "ready", hang)
    hung, sound = Target(str(tmp_path / "hung.log")), Target(str(tmp_path / "sound.log"))
    async with captured(hung, sound) as [stuck, free]:
        try:
            stuck.say(b"x\n")
            await wait_until(lambda: any(thread.name.startswith("log-") for thread in threading.enumerate()))
            for _ in range(20):
                stuck.say(b"x\n")
                free.say(b"y\n")
                assert await free.capture.drain()
            assert not await stuck.capture.drain(0.01)
            assert (tmp_path / "sound.log").read_bytes() == b"y\n" * 20
            lag = time.monotonic()
            await anyio.sleep(0)
            assert time.monotonic() - lag < 30
        finally:
            released.set()
        assert await stuck.capture.drain()
        assert (tmp_path / "hung.log").read_bytes() == b"x\n" * 21


async def test_a_log_at_a_standard_stream_that_is_a_socket_is_written_there() -> None:
    """As under systemd, where it cannot be opened by its path."""
    says = """
from supervisord_async.logs.sink import Sink
from supervisord_async.logs.target import Target
sink = Sink("/dev/stdout", Target("/dev/stdout"))
sink.write(b"said", sink.ready())
"""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = await anyio.run_process([sys.executable, "-c", says], stdout=theirs, stderr=subprocess.PIPE, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        assert ours.recv(100) == b"said"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a pipe of somebody else")
async def test_a_log_at_a_standard_stream_that_somebody_else_made_is_written_there() -> None:
    """As in a container that was entered as root and left that by su: the path may not be opened, the descriptor is open."""
    says = """
import os
from supervisord_async.logs.sink import Sink
from supervisord_async.logs.target import Target
os.setuid(65534)
sink = Sink("/dev/stdout", Target("/dev/stdout"))
sink.write(b"said", sink.ready())
"""
    done = await anyio.run_process([sys.executable, "-c", says], check=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, b"", b"said")


async def test_a_log_at_a_standard_stream_that_is_a_file_is_written_behind_what_is_there_and_not_rotated(tmp_path: Path) -> None:
    """As under ``asupd > FILE``, where the daemon's own messages go there too. (Not /dev/stdout: without the mend it would be renamed.)"""
    says = """
import os
from supervisord_async.logs.sink import Outcome, Sink
from supervisord_async.logs.target import Target
sink = Sink("/dev/fd/1", Target("/dev/fd/1", max_size_bytes=1))
pipe, end = os.pipe2(os.O_NONBLOCK)
for number in range(2):
    os.write(1, b"ours%d " % number)
    os.write(end, b"its%d " % number)
    sink.take(pipe, 100, sink.ready(), Outcome(), echo=False)
os.write(1, b"rotates" if sink.may_rotate() else b"stays")
"""
    with (tmp_path / "output").open("w") as output:
        done = await anyio.run_process([sys.executable, "-c", says], stdout=output, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "output").read_bytes() == b"ours0 its0 ours1 its1 stays"
