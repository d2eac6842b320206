"""What an owner that died left, and the next finishes before anybody else writes."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from supervisord_async.logs.journal import Journal
from supervisord_async.logs.sink import Sink
from supervisord_async.logs.spool import Spool
from supervisord_async.logs.target import Format, Target
from tests.logs.dying import Life


def begun(journal: Journal, name: str, log: Path, format_: Format, data: bytes) -> Spool:
    """The spool of a stream that has said ``data``, all of which is the next batch."""
    pipe_fd, child_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    os.write(child_fd, data)
    spool = journal.spool(name, "stdout")
    spool.describe(str(log), format_)
    spool.take(pipe_fd, len(data))
    os.close(pipe_fd)
    os.close(child_fd)
    spool.begin(len(data), format_, 0, 1)
    return spool


def dies_appending(spool: Spool, sink: Sink, life: Life) -> None:
    sink.ready()
    with pytest.MonkeyPatch.context() as patch, life.lived(patch):
        spool.append(sink)
    assert life.died


def test_what_one_stream_left_for_a_shared_log_is_not_taken_for_what_another_had_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first stream's batch was refused by the disk; the second's owner died before it wrote."""
    log = tmp_path / "x.log"
    sink = Sink(str(log), Target(str(log)))
    journal = Journal.open(str(tmp_path / "journal"))

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    first = begun(journal, "a", log, "timestamp", b"of the first\n")
    sink.ready()
    with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):
        patch.setattr(Sink, "write", full)
        first.append(sink)
    second = begun(journal, "b", log, "timestamp", b"of the second\n")
    dies_appending(second, sink, Life(2))
    for left in (first, second, sink):
        left.close()
    Journal.open(str(tmp_path / "journal"))
    assert [line[25:] for line in log.read_bytes().splitlines()] == [b"of the first", b"of the second"]
    assert not os.listdir(tmp_path / "journal")


def test_a_name_that_is_too_long_for_a_file_is_whole_in_what_is_finished(tmp_path: Path) -> None:
    name = "long" * 100
    log = tmp_path / "x.log"
    sink = Sink(str(log), Target(str(log), format="json"))
    spool = begun(Journal.open(str(tmp_path / "journal")), name, log, "json", b"said\n")
    dies_appending(spool, sink, Life(2, halfway=True))
    spool.close()
    sink.close()
    Journal.open(str(tmp_path / "journal"))
    assert json.loads(log.read_bytes())["name"] == name


def test_how_much_of_a_batch_was_written_is_remembered_though_the_log_cannot_be_opened(tmp_path: Path) -> None:
    """While the path is a directory, the next owner cannot finish; the one after it does not begin again."""
    log = tmp_path / "x.log"
    sink = Sink(str(log), Target(str(log)))
    spool = begun(Journal.open(str(tmp_path / "journal")), "a", log, "timestamp", b"said\n")
    dies_appending(spool, sink, Life(2, halfway=True))
    spool.close()
    sink.close()
    log.rename(tmp_path / "x.log.1")
    log.mkdir()
    Journal.open(str(tmp_path / "journal"))
    begin = (tmp_path / "x.log.1").read_bytes()
    (tmp_path / "x.log.1").unlink()
    log.rmdir()
    Journal.open(str(tmp_path / "journal"))
    assert begin + log.read_bytes() == b"1970-01-01T00:00:00.000Z said\n"


def test_a_file_that_cannot_be_removed_keeps_no_daemon_from_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It holds nothing any more; the disk may have errors, and programs wait to be taken over."""
    log, folder = tmp_path / "x.log", tmp_path / "journal"
    spool, sink = begun(Journal.open(str(folder)), "a", log, "timestamp", b"said\n"), Sink(str(log), Target(str(log)))
    dies_appending(spool, sink, Life(2))
    for left in (spool, sink):
        left.close()
    assert os.listdir(folder) == ["a.stdout"]
    unlink = os.unlink

    def failing(path: str) -> None:
        if path.endswith("a.stdout"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        unlink(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", failing)
        Journal.open(str(folder))
    assert log.read_bytes()[25:] == b"said\n"
    assert f"cannot remove {folder}/a.stdout: Input/output error" in caplog.text
    Journal.open(str(folder))
    assert os.listdir(folder) == []
    assert log.read_bytes()[25:] == b"said\n"


@pytest.mark.anyio
async def test_what_was_left_of_a_program_that_is_gone_is_written_once_and_then_nothing_is_unfinished(tmp_path: Path) -> None:
    log, folder = tmp_path / "x.log", str(tmp_path / "journal")
    former = Journal.open(folder)
    assert not former.unfinished
    spool = former.spool("gone", "stdout")
    spool.describe(str(log), "timestamp")
    pipe_fd, child_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    os.write(child_fd, b"last words\n")
    spool.take(pipe_fd, len(b"last words\n"))
    for descriptor in (pipe_fd, child_fd):
        os.close(descriptor)
    spool.close()
    journal = Journal.open(folder)
    assert journal.unfinished
    await journal.sweep([("gone", "stdout")])
    assert not log.exists(), "its capture will write it"
    await journal.sweep([])
    assert [line[25:] for line in log.read_bytes().splitlines()] == [b"last words"]
    assert not journal.unfinished
