"""A capture moves every byte, whatever the bytes and however they come, and costs nothing while they do not."""

from __future__ import annotations

import gzip
import json
import os
import re
import resource
import sys
from pathlib import Path

import anyio
import pytest

from supervisord_async.logs import capture, sink
from supervisord_async.logs import writer as writing
from supervisord_async.logs.capture import Capture
from supervisord_async.logs.journal import Journal
from supervisord_async.logs.spool import Spool
from supervisord_async.logs.tail import tail
from supervisord_async.logs.target import Format, Target
from tests.logs.capturing import captured, everything
from tests.logs.test_killed import said
from tests.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.real]


def log_of(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "x.log"


async def test_bytes_arrive_as_they_were_said_without_asking(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    async with captured(Target(str(log))) as [stream]:
        stream.say(b"one\nno end \0\xff\x1b[31m")
        await wait_until(lambda: log.read_bytes() == b"one\nno end \0\xff\x1b[31m")
        stream.say(b" now\n")
        await wait_until(lambda: log.read_bytes().endswith(b" now\n"))
        await wait_until(lambda: stream.capture.bytes_written == len(log.read_bytes()))
        assert (log.stat().st_mode & 0o777, log.parent.stat().st_mode & 0o777) == (0o644, 0o755)


async def test_an_upgrade_that_took_aiofiles_away_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "aiofiles.ospath", None)
    monkeypatch.setitem(sys.modules, "gzip", None)
    writing._in_thread.cache_clear()
    try:
        async with captured(Target(str(log_of(tmp_path)), max_size_bytes=100, backups=3, compress=True)) as [stream]:
            for line in (b"a" * 80 + b"\n", b"b" * 80 + b"\n", b"c\n"):
                stream.say(line)
                assert await stream.capture.drain()
            await wait_until(lambda: "cannot compress" in caplog.text)
        assert everything(log_of(tmp_path)) == b"a" * 80 + b"\n" + b"b" * 80 + b"\nc\n"
        assert "aiofiles cannot be imported" in caplog.text
    finally:
        writing._in_thread.cache_clear()


async def test_one_byte_at_a_time_is_all_there(tmp_path: Path) -> None:
    async with captured(Target(str(log_of(tmp_path)))) as [stream]:
        data = os.urandom(3000)
        for byte in data:
            stream.say(bytes([byte]))
        assert await stream.capture.drain()
        assert log_of(tmp_path).read_bytes() == data


@pytest.mark.parametrize("format_", ["raw", "timestamp", "json"])
async def test_ten_megabytes_without_a_line_end_pass_in_bounded_memory(tmp_path: Path, format_: Format) -> None:
    async with captured(Target(str(log_of(tmp_path)), format=format_, max_size_bytes=0)) as [stream]:
        stream.say(b"warm\n")
        await stream.capture.drain()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        data = b"abcdefghij" * 1_000_000
        await stream.say_all(data)
        assert await stream.capture.drain()
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        written = log_of(tmp_path).read_bytes()
        if format_ == "raw":
            assert written == b"warm\n" + data
        elif format_ == "timestamp":
            assert b"".join(line[25:] for line in written.splitlines()[1:]) == data
        else:
            assert "".join(json.loads(line)["line"] for line in written.splitlines()[1:]).encode() == data
        assert grown_kib < 40_000  # the data itself and a few batches; not the stream twice


async def test_timestamps_and_json_tell_time_run_and_what_is_no_text(tmp_path: Path) -> None:
    stamped, objects = tmp_path / "t.log", tmp_path / "j.log"
    async with captured(Target(str(stamped), format="timestamp"), Target(str(objects), format="json")) as streams:
        for stream in streams:
            stream.capture.run_started(4)
            stream.say('a\n\nтекст "q" \\ \x1b \x7f\n'.encode() + b"\xff\0\n")
            assert await stream.capture.drain()
    lines = stamped.read_bytes().splitlines()
    assert all(re.fullmatch(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z .*", line) for line in lines)
    assert [line[25:] for line in lines] == [b"a", b"", 'текст "q" \\ \x1b \x7f'.encode(), b"\xff\0"]
    assert b"\x1b" not in objects.read_bytes()
    assert "текст".encode() in objects.read_bytes()
    assert b"\x7f" not in objects.read_bytes()
    found = [json.loads(line) for line in objects.read_bytes().splitlines()]
    assert [one["line"] for one in found] == ["a", "", 'текст "q" \\ \x1b \x7f', "�\0"]
    assert {(one["name"], one["stream"], one["run"]) for one in found} == {("web:1", "stdout", 4)}


async def test_a_line_without_its_end_is_written_after_a_while_of_quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "HELD_SECONDS", 0.5)
    log = log_of(tmp_path)
    async with captured(Target(str(log), format="timestamp")) as [stream]:
        stream.say(b"whole\nprompt> ")
        await wait_until(lambda: log.read_bytes().endswith(b"whole\n"))
        await wait_until(lambda: log.read_bytes().endswith(b"prompt> \n"))


@pytest.mark.parametrize("format_", ["raw", "timestamp"])
@pytest.mark.parametrize("compress", [False, True])
async def test_backups_together_are_what_was_said_and_cut_at_line_ends(tmp_path: Path, compress: bool, format_: Format) -> None:
    log = log_of(tmp_path)
    target = Target(str(log), max_size_bytes=20_000, backups=1000, compress=compress, format=format_)
    async with captured(target) as [stream]:
        data = b"".join(b"%d %s\n" % (number, b"x" * (number % 300)) for number in range(5000))
        await stream.say_all(data)
        assert await stream.capture.drain()
        if compress:
            await wait_until(lambda: not list(log.parent.glob("x.log.*[0-9]")) and not list(log.parent.glob("*.part")))
        backups = [path for path in log.parent.iterdir() if path != log]
        assert len(backups) > 20
        assert all(path.name.endswith(".gz") == compress for path in backups)
    whole = everything(log)
    assert (whole if format_ == "raw" else b"".join(line[25:] for line in whole.splitlines(keepends=True))) == data
    if not compress:
        assert all(path.read_bytes().endswith(b"\n") and path.stat().st_size < 20_400 for path in backups)


async def test_no_more_backups_than_configured_and_none_empties_the_file(tmp_path: Path) -> None:
    few, none = tmp_path / "few.log", tmp_path / "none.log"
    async with captured(Target(str(few), 1000, backups=3), Target(str(none), 1000, backups=0)) as streams:
        for stream in streams:
            await stream.say_all(b"0123456789\n" * 2000)
            assert await stream.capture.drain()
        assert sorted(path.name for path in tmp_path.glob("few*")) == ["few.log", "few.log.1", "few.log.2", "few.log.3"]
        assert [path.name for path in tmp_path.glob("none*")] == ["none.log"]
        assert none.stat().st_size <= 1011
        streams[0].capture.reconfigure(Target(str(few), 1000, backups=1))
        assert await streams[0].capture.drain()
        assert sorted(path.name for path in tmp_path.glob("few*")) == ["few.log", "few.log.1"]


async def test_backups_that_nobody_came_to_compress_are_compressed(tmp_path: Path) -> None:
    """A daemon was killed before it did; or was told only now."""
    old, new = tmp_path / "old.log", tmp_path / "new.log"
    for log in (old, new):
        log.with_suffix(".log.1").write_bytes(b"earlier\n")
    async with captured(Target(str(old), compress=True), Target(str(new))) as [_, stream]:
        await wait_until(
            lambda: (
                gzip.decompress((tmp_path / "old.log.1.gz").read_bytes()) == b"earlier\n" if (tmp_path / "old.log.1.gz").exists() else False
            )
        )
        await wait_until(lambda: not (tmp_path / "old.log.1").exists())
        assert (tmp_path / "new.log.1").exists()
        stream.capture.reconfigure(Target(str(new), compress=True))
        await wait_until(lambda: (tmp_path / "new.log.1.gz").exists() and not (tmp_path / "new.log.1").exists())


async def test_a_reconfigured_path_and_format_take_what_comes_next(tmp_path: Path) -> None:
    journal = Journal.open(str(tmp_path / "journal"))
    one, two = tmp_path / "one.log", tmp_path / "two.log"
    async with captured(Target(str(one)), journal=journal) as [stream]:
        stream.say(b"first\n")
        assert await stream.capture.drain()
        stream.capture.reconfigure(Target(str(two), format="timestamp"))
        stream.say(b"second\nbegun ")
        await wait_until(lambda: two.read_bytes().endswith(b"second\n"))
        stream.capture.reconfigure(Target(str(two), format="raw"))
        stream.say(b"and ended\n")
        await wait_until(lambda: two.read_bytes().endswith(b"begun and ended\n"))
        assert one.read_bytes() == b"first\n"
        await wait_until(lambda: not os.listdir(tmp_path / "journal"))


async def test_a_log_that_is_a_link_stays_one_and_what_it_leads_to_is_rotated(tmp_path: Path) -> None:
    log, big = log_of(tmp_path), tmp_path / "big"
    log.parent.mkdir()
    big.mkdir()
    log.symlink_to("../big/y.log")
    async with captured(Target(str(log), max_size_bytes=100, backups=2, compress=True)) as [stream]:
        for line in (b"a", b"b", b"c", b"d"):
            stream.say(line * 80 + b"\n")
            stream.say(line * 80 + b"\n")
            assert await stream.capture.drain()
        await wait_until(lambda: {path.name for path in big.iterdir()} == {"y.log", "y.log.1.gz", "y.log.2.gz"})
    assert [path.name for path in log.parent.iterdir()] == ["x.log"]
    assert log.is_symlink()
    lines = tail(str(log), 100).splitlines()
    assert lines == [letter * 80 for letter in (b"b", b"b", b"c", b"c", b"d", b"d")][-len(lines) :]
    assert len(lines) > 2


@pytest.mark.parametrize("recreate", [True, False])
async def test_a_log_renamed_by_logrotate_is_left_and_its_path_written(
    tmp_path: Path, recreate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink, "CHECK_SECONDS", 0.2)
    log = log_of(tmp_path)
    async with captured(Target(str(log))) as [stream]:
        stream.say(b"old\n")
        assert await stream.capture.drain()
        log.rename(log.with_suffix(".old"))
        if recreate:
            log.touch()
        stream.capture.reopen()
        stream.say(b"new\n")
        assert await stream.capture.drain()
        assert (log.with_suffix(".old").read_bytes(), log.read_bytes()) == (b"old\n", b"new\n")
        log.rename(log.with_suffix(".old2"))  # and without a word

        async def noticed() -> bool:
            stream.say(b"tick\n")
            await stream.capture.drain()
            return log.exists()

        await wait_until(noticed, every=0.1)


async def test_a_log_emptied_by_somebody_goes_on_at_its_begin(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    async with captured(Target(str(log))) as [stream]:
        stream.say(b"old\n" * 100)
        assert await stream.capture.drain()
        os.truncate(log, 0)
        stream.say(b"new\n")
        assert await stream.capture.drain()
        assert log.read_bytes() == b"new\n"


async def test_a_removed_directory_comes_back_and_nothing_is_lost(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    async with captured(Target(str(log))) as [stream]:
        stream.say(b"old\n")
        assert await stream.capture.drain()
        log.unlink()
        log.parent.rmdir()
        stream.say(b"new\n")
        assert await stream.capture.drain()
        assert log.read_bytes() == b"new\n"
        assert stream.losses == []


@pytest.mark.parametrize("path", ["/dev/null", None, "/dev/full"])
async def test_devices_take_output_and_echo_sees_it(tmp_path: Path, path: str | None) -> None:
    async with captured(Target(path), start=False) as [stream]:
        stream.with_echo().capture.start()
        stream.say(b"seen\n")
        if path == "/dev/full":
            await wait_until(lambda: stream.losses)
        else:
            assert await stream.capture.drain()
            assert b"".join(stream.echoed) == b"seen\n"


async def test_echo_has_what_the_child_said_in_every_format(tmp_path: Path) -> None:
    raw, objects = Target(str(tmp_path / "r")), Target(str(tmp_path / "j"), format="json")
    async with captured(raw, objects, start=False) as streams:
        for stream in streams:
            stream.with_echo().capture.start()
            data = b"".join(b"line %d\n" % number for number in range(40_000))
            await stream.say_all(data)
            assert await stream.capture.drain()
            assert b"".join(stream.echoed) == data


async def test_two_streams_of_one_path_share_it_without_mixing_lines(tmp_path: Path) -> None:
    target = Target(str(log_of(tmp_path)), format="timestamp")
    async with captured(target, target) as [one, two]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.say_all, b"a" * 50 + b"\n" + b"a\n" * 50_000)
            tasks.start_soon(two.say_all, b"b" * 50 + b"\n" + b"b\n" * 50_000)
        assert await one.capture.drain()
        assert await two.capture.drain()
    lines = [line[25:] for line in log_of(tmp_path).read_bytes().splitlines()]
    assert sorted(set(lines)) == [b"a", b"a" * 50, b"b", b"b" * 50]
    assert (lines.count(b"a"), lines.count(b"b")) == (50_000, 50_000)


async def test_quiet_streams_have_no_task_timer_or_thread(tmp_path: Path) -> None:
    import asyncio
    import threading

    targets = [Target(str(tmp_path / f"{number}.log")) for number in range(50)]
    tasks_before = len(asyncio.all_tasks())
    async with captured(*targets) as streams:
        await anyio.lowlevel.checkpoint()
        assert len(asyncio.all_tasks()) == tasks_before + 1  # the writer, waiting for its end
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("log")]
        assert all(not os.path.exists(target.path or "") for target in targets)
        assert all(stream.capture._wakeup._timer is None for stream in streams)


async def abandon(capture: Capture) -> None:
    """As a daemon that dies leaves it: nothing is read any more, and what is in the pipe and the spool is for a successor."""
    assert await capture._stop()
    capture._writer.close_sink(capture.sink)
    assert capture._spool is not None
    capture._spool.close()


async def test_what_an_abandoned_capture_left_its_successor_writes(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    target = Target(str(log), format="timestamp")
    async with captured(target, journal=Journal.open(str(tmp_path / "journal"))) as [stream]:
        stream.say(b"whole\nbegun ")
        await wait_until(lambda: log.read_bytes().endswith(b"whole\n"))
        await abandon(stream.capture)
        stream.say(b"and ended\n")
        stream.journal = Journal.open(str(tmp_path / "journal"))
        stream.capture = stream.make_capture()
        stream.capture.start()
        await wait_until(lambda: log.read_bytes().endswith(b"Z begun and ended\n"))


async def test_a_line_whose_rest_went_with_its_pipe_is_not_continued_by_the_next_run(tmp_path: Path) -> None:
    """The daemon and the program died together: what was taken of a line is one, and what comes by a new pipe begins another."""
    log, directory = log_of(tmp_path), tmp_path / "journal"
    target = Target(str(log), format="timestamp")
    async with captured(target, journal=Journal.open(str(directory))) as [stream]:
        stream.say(b"whole\nbegun")
        await wait_until(lambda: log.read_bytes().endswith(b"whole\n"))
        await abandon(stream.capture)
        stream.journal = Journal.open(str(directory))
        stream.capture = stream.make_capture()
        stream.say(b"another\n")  # before the first turn
        stream.capture.start(afresh=True)
        await wait_until(lambda: said(log.read_bytes(), "timestamp") == [b"whole\n", b"begun\n", b"another\n"])


@pytest.mark.parametrize("format_", ["timestamp", "json"])
async def test_a_line_whose_rest_comes_while_the_begin_is_flushed_is_one_line(
    tmp_path: Path, format_: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with captured(Target(str(log_of(tmp_path)), format=format_), start=False) as [stream]:
        take = Spool.take
        rest = [b" and ended\n"]

        def taken(spool: Spool, pipe_fd: int, count: int) -> int:
            moved = take(spool, pipe_fd, count)
            while rest:
                stream.say(rest.pop())
            return moved

        monkeypatch.setattr(Spool, "take", taken)
        stream.say(b"begun")
        assert await stream.capture.drain()
        assert said(log_of(tmp_path).read_bytes(), format_) == [b"begun and ended\n"]
