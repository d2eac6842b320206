"""The daemon's own log and the echo never wait and never fail."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisord_async.logs import own_log, writer_thread
from supervisord_async.logs.echo import Echo
from supervisord_async.logs.own_log import OwnLog
from supervisord_async.system.descriptors import is_journal
from tests.waiting import wait_until_sync

pytestmark = pytest.mark.real


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("tests.own")
    logger.propagate = False
    yield logger
    for handler in [one for one in logger.handlers if isinstance(one, OwnLog)]:
        logger.removeHandler(handler)
        handler.close()


def test_text_and_json_tell_time_level_process_and_traceback(tmp_path: Path, logger: logging.Logger) -> None:
    OwnLog(path=str(tmp_path / "a" / "text")).install("tests.own")
    OwnLog(path=str(tmp_path / "json"), format="json").install("tests.own")
    logger.debug("not this")
    logger.info("RUNNING \x1b[2J", extra={"subject": "web"})
    try:
        raise ValueError("oops")
    except ValueError:
        logger.exception("it broke: %s", "badly")
    for handler in [one for one in logger.handlers if isinstance(one, OwnLog)]:
        handler.emit(logging.LogRecord("x", logging.INFO, __file__, 1, "%d", ("no number",), None))
        handler.flush()
    text = (tmp_path / "a" / "text").read_text().splitlines()
    assert text[0][10] == "T"
    assert text[0][23:] == "Z info    web  RUNNING \\x1b[2J"
    assert text[1][24:] == " error   it broke: badly"
    assert "    ValueError: oops" in text
    assert "a message could not be written" in text[-1]
    objects = [json.loads(line) for line in (tmp_path / "json").read_text().splitlines()]
    assert (objects[0]["level"], objects[0]["name"], objects[0]["message"]) == ("info", "web", "RUNNING \x1b[2J")
    assert "ValueError: oops" in objects[1]["traceback"]


def test_the_journal_is_told_the_priority_and_keeps_the_time_itself(
    tmp_path: Path, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "journal").open("wb") as journal, (tmp_path / "else").open("wb") as other:
        stream = os.fstat(journal.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{stream.st_dev}:{stream.st_ino}")
        OwnLog(fd=journal.fileno()).install("tests.own")
        OwnLog(fd=other.fileno()).install("tests.own")
        logger.info("RUNNING \x1b[2J", extra={"subject": "web"})
        logger.warning("two\nlines")
        logger.error("bad")
        for handler in [one for one in logger.handlers if isinstance(one, OwnLog)]:
            handler.flush()
    assert (tmp_path / "journal").read_text() == "<6>web  RUNNING \\x1b[2J\n<4>two\n<4>    lines\n<3>bad\n"
    assert (tmp_path / "else").read_text()[10] == "T", "JOURNAL_STREAM is of another stream"


@pytest.mark.parametrize("told", ["", "1", "a:b", ":", "1:2"])
def test_what_is_not_the_journal_gets_plain_lines(told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", told)
    with (tmp_path / "file").open("wb") as file:
        assert not is_journal(file.fileno())
    assert not is_journal(10**6)


def test_a_message_a_thousand_times_is_counted(tmp_path: Path, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_log, "WINDOW_SECONDS", 0.2)
    log = tmp_path / "log"
    OwnLog(path=str(log)).install("tests.own")
    for _ in range(1000):
        logger.warning("again")
    logger.warning("other")
    wait_until_sync(lambda: "repeated" in log.read_text())
    text = log.read_text()
    counted = sum(int(line.split("repeated ")[1].split()[0]) for line in text.splitlines() if "repeated" in line)
    assert text.count(" again\n") - text.count("repeated") + counted == 1000
    assert "other" in text


def test_a_stuck_stderr_costs_messages_and_no_time(logger: logging.Logger) -> None:
    reader, writer = os.pipe()
    handler = OwnLog(fd=writer)
    handler.install("tests.own")
    begin = time.monotonic()
    for number in range(20_000):
        logger.info("%d %s", number, "x" * 100)
    assert time.monotonic() - begin < 15
    got = bytearray()

    def read() -> bool:
        got.extend(os.read(reader, 1 << 20))
        return b"messages were lost" in got

    wait_until_sync(read)
    handler.close()
    os.close(reader)
    os.close(writer)


def test_each_message_that_a_full_disk_cost_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_thread, "RETRY_SECONDS", 0.01)
    log = tmp_path / "log"
    log.symlink_to("/dev/full")
    full = writer_thread.WriterThread(path=str(log), lost=lambda count: b"%d lost\n" % count)
    for _ in range(500):
        full.put(b"message\n")
    assert full.flush(60)
    log.unlink()
    full.reopen()
    full.put(b"the last\n")
    full.close(60)
    assert sorted(log.read_text().splitlines()) == ["500 lost", "the last"]


@pytest.mark.parametrize(("missing", "cut"), [(-3, 0), (0, 0), (1, 1), (6, 1), (7, 2), (14, 3)])
def test_a_message_that_was_written_in_part_is_lost(missing: int, cut: int) -> None:
    assert writer_thread._cut_off([b"one\n", b"two\n", b"three\n"], missing) == cut


@pytest.mark.parametrize("to_file", [True, False])
def test_without_a_thread_it_is_written_as_far_as_it_can_be_at_once(
    to_file: bool, tmp_path: Path, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that gives no thread may give none from the start: the daemon says so, instead of doing nothing in silence."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    reader, writer = os.pipe()
    log = OwnLog(path=str(tmp_path / "log")) if to_file else OwnLog(fd=writer)
    log.install("tests.own")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        logger.warning("no thread")
        found = (tmp_path / "log").read_bytes() if to_file else os.read(reader, 4096)
        assert found.endswith(b" warning no thread\n")
        if not to_file:
            for number in range(200):
                logger.warning("%d %s", number, "x" * 1000)  # more than the pipe holds
            assert not log._writer.flush(0.0)
    logger.warning("the last")
    if not to_file:
        lines = b""
        while b"the last" not in lines:
            lines += os.read(reader, 1 << 20)
        assert [line.split()[2] for line in lines.splitlines()] == [*map(b"%d".__mod__, range(200)), b"the"]
        log.close()
    os.close(reader)
    os.close(writer)


def test_a_log_on_a_full_disk_holds_nobody_up_who_closes_it(logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    """asup-run, and the daemon, ended two seconds late where their stderr was a file on a full disk."""
    monkeypatch.setattr(writer_thread, "RETRY_SECONDS", 600.0)
    handler = OwnLog(path="/dev/full")
    handler.install("tests.own")
    logger.warning("lost")
    wait_until_sync(lambda: handler._writer._resting)
    logger.warning("lost as well")
    handler.close()
    thread = handler._writer._thread
    assert thread is not None
    assert not thread.is_alive()


def test_a_reopened_log_is_written_at_its_path(tmp_path: Path, logger: logging.Logger) -> None:
    log = tmp_path / "log"
    handler = OwnLog(path=str(log))
    handler.install("tests.own")
    logger.info("one")
    handler.flush()
    log.rename(tmp_path / "old")
    handler.reopen()
    wait_until_sync(log.exists)
    logger.info("two")
    handler.flush()
    assert "two" in log.read_text()
    assert "two" not in (tmp_path / "old").read_text()


def _say(handler: OwnLog, logger: logging.Logger, first: int, last: int) -> None:
    """Messages of which two fill a log."""
    for number in range(first, last + 1):
        logger.info("%d %s", number, "x" * 600)
        handler.flush()  # what is said at once is written at once


def _numbers(file: Path) -> list[int]:
    return [int(line.split()[2]) for line in file.read_text().splitlines()]


def test_a_log_that_has_grown_is_rotated_and_so_many_backups_are_kept(
    tmp_path: Path, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_log, "MAX_BYTES", 1000)
    monkeypatch.setattr(own_log, "BACKUPS", 2)
    log = tmp_path / "log"
    handler = OwnLog(path=str(log))
    handler.install("tests.own")
    _say(handler, logger, 1, 9)
    assert {file.name: _numbers(file) for file in tmp_path.iterdir()} == {"log": [9], "log.1": [7, 8], "log.2": [5, 6]}


def test_a_link_in_the_logs_place_stays_and_what_it_leads_to_is_rotated(
    tmp_path: Path, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_log, "MAX_BYTES", 1000)
    monkeypatch.setattr(own_log, "BACKUPS", 2)
    (tmp_path / "big").mkdir()
    (tmp_path / "log").symlink_to("big/log")
    handler = OwnLog(path=str(tmp_path / "log"))
    handler.install("tests.own")
    _say(handler, logger, 1, 9)
    assert {file.name: _numbers(file) for file in (tmp_path / "big").iterdir()} == {"log": [9], "log.1": [7, 8], "log.2": [5, 6]}
    assert (tmp_path / "log").is_symlink()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_log_that_cannot_be_rotated_grows_on_and_says_so_once(
    tmp_path: Path, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_log, "MAX_BYTES", 1000)
    monkeypatch.setattr(own_log, "BACKUPS", 1)
    log = tmp_path / "log"
    (tmp_path / "log.1").mkdir()
    handler = OwnLog(path=str(log))
    handler.install("tests.own")
    _say(handler, logger, 1, 4)
    (tmp_path / "log.1").rmdir()
    lines = log.read_text().splitlines()
    assert [line.split()[2] for line in lines if "cannot" not in line] == ["1", "2", "3", "4"]
    assert [line[24:] for line in lines if "cannot" in line] == [
        f" warning cannot rotate {log}: Is a directory (it keeps growing until that is fixed)"
    ]
    handler._rotate_after = 0.0
    _say(handler, logger, 5, 5)
    assert _numbers(log) == [5], "it was rotated when it could be"


def test_what_is_no_file_is_not_rotated(tmp_path: Path, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_log, "MAX_BYTES", 0)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    handler = OwnLog(path=str(fifo))
    handler.install("tests.own")
    logger.info("one")
    handler.flush()
    assert os.read(reader, 4096).endswith(b"one\n")
    os.close(reader)
    assert [file.name for file in tmp_path.iterdir()] == ["fifo"]


def test_a_standard_stream_named_as_the_file_is_written_through_its_descriptor_and_not_rotated(
    tmp_path: Path, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_log, "MAX_BYTES", 0)
    with (tmp_path / "output").open("wb", buffering=0) as output:
        monkeypatch.setitem(own_log.STANDARD_STREAMS, str(tmp_path / "stream"), output.fileno())
        handler = OwnLog(path=str(tmp_path / "stream"))
        handler.install("tests.own")
        output.write(b"before ")
        logger.info("one")
        handler.flush()
        output.write(b"behind")
    assert (tmp_path / "output").read_bytes().startswith(b"before ")
    assert (tmp_path / "output").read_bytes().endswith(b"one\nbehind")
    assert [file.name for file in tmp_path.iterdir()] == ["output"]


def test_echo_prefixes_lines_and_lets_no_control_reach_a_terminal() -> None:
    reader, writer = os.pipe()
    echo = Echo(writer, terminal=True, colour=True)
    echo("web", "stdout", "one\x1b[2J\x9b\nпривет".encode())
    echo("worker:0", "stderr", b"\x07two\n")
    echo("web", "stdout", " мир\n".encode())
    echo("web", "stdout", b"rest")
    echo.close()
    os.close(writer)
    text = os.read(reader, 65536).decode()
    os.close(reader)
    assert "\x9b" not in text
    lines = [line.split("\x1b[0m")[1] for line in text.splitlines()]
    assert lines == ["one^[[2J\\x9b", "^Gtwo", "привет мир", "rest"]
    assert "web      | " in text


@pytest.mark.parametrize(
    ("colour", "shown"),
    [(False, "web        | red ^[[2J\nworker:0   | plain\n"), (True, "\x1b[1;31mred\x1b[0m ^[[2J\x1b[0m\n")],
)
def test_echo_on_a_terminal_keeps_colours_where_it_has_some_and_pads_names_to_the_longest_from_the_start(colour: bool, shown: str) -> None:
    reader, writer = os.pipe()
    echo = Echo(writer, names=["web", "worker:0", "scheduler1"], terminal=True, colour=colour)
    echo("web", "stdout", b"\x1b[1;31mred\x1b[0m \x1b[2J\n")
    echo("worker:0", "stdout", b"plain\n")
    echo.close()
    os.close(writer)
    text = os.read(reader, 65536).decode()
    os.close(reader)
    assert shown in text


def test_echo_parts_a_very_long_line_between_characters_and_no_shorter_one(tmp_path: Path) -> None:
    said = (b"{" + b"x" * 60_000 + b"}\n") + ("x" + "\N{SNOWMAN}" * 40_000).encode()
    with (tmp_path / "out").open("wb") as out:
        echo = Echo(out.fileno())
        for start in range(0, len(said), 10_000):  # as reads from a pipe end anywhere
            echo("web", "stdout", said[start : start + 10_000])
        echo.close()
    whole, *parts = (tmp_path / "out").read_bytes().decode().splitlines()
    assert whole == "web | {" + "x" * 60_000 + "}"
    assert "".join(part.removeprefix("web | ") for part in parts) == "x" + "\N{SNOWMAN}" * 40_000


def test_echo_elsewhere_is_plain() -> None:
    reader, writer = os.pipe()
    echo = Echo(writer)
    echo("web", "stdout", b"\x1b[1mbold\n")
    echo.close()
    os.close(writer)
    assert os.read(reader, 65536) == b"web | \x1b[1mbold\n"
    os.close(reader)
