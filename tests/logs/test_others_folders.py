"""Logs in folders in which others may write: who puts a link or a FIFO there gets nothing written, renamed or read elsewhere."""

from __future__ import annotations

import errno
import gzip
import os
import threading
from pathlib import Path

import pytest

from supervisord_async.logs import rotation
from supervisord_async.logs.tail import tail
from supervisord_async.logs.target import Target
from tests.logs.capturing import captured, everything
from tests.strangers import STRANGER, lay
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: files of other users can be made by root only")


@pytest.mark.anyio
@pytest.mark.real
async def test_a_strangers_link_in_a_logs_place_is_not_followed_and_nothing_is_lost(theirs: Path, tmp_path: Path) -> None:
    log, elsewhere = theirs / "x.log", tmp_path / "cron"
    lay(log, elsewhere)
    async with captured(Target(str(log))) as [stream]:
        stream.say(b"* * * * * root evil\n")
        await wait_until(lambda: stream.losses)
        assert (stream.losses[0].kind, stream.losses[0].errno) == ("begin", errno.ELOOP)
        assert f"a symbolic link on the way belongs to user {STRANGER}" in stream.losses[0].message
        assert not elsewhere.exists()
        log.unlink()
        await wait_until(lambda: len(stream.losses) == 2)
        assert await stream.capture.drain()
    assert log.read_bytes() == b"* * * * * root evil\n"


@pytest.mark.anyio
@pytest.mark.real
async def test_a_folder_that_becomes_a_link_leads_no_rotation_elsewhere(theirs: Path, tmp_path: Path) -> None:
    logs, elsewhere = theirs / "logs", tmp_path / "elsewhere"
    logs.mkdir()
    elsewhere.mkdir()
    (elsewhere / "x.log").write_bytes(b"not his\n")
    async with captured(Target(str(logs / "x.log"), max_size_bytes=100)) as [stream]:
        stream.say(b"first\n")
        assert await stream.capture.drain()
        logs.rename(theirs / "before")
        lay(logs, elsewhere)
        for _ in range(4):
            stream.say(b"x" * 99 + b"\n")
            await stream.capture.drain(1.0)
    assert {path.name for path in elsewhere.iterdir()} == {"x.log"}
    assert everything(elsewhere / "x.log") == b"not his\n"


def test_a_rotation_goes_on_in_the_folder_in_which_it_began(theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs, elsewhere = theirs / "logs", tmp_path / "elsewhere"
    logs.mkdir()
    elsewhere.mkdir()
    for folder in (logs, elsewhere):
        (folder / "x.log").write_bytes(b"now\n")
        (folder / "x.log.1").write_bytes(b"before\n")
    settle = rotation.settle

    def swap_first(path: str) -> None:
        logs.rename(theirs / "moved")
        lay(logs, elsewhere)
        settle(path)

    monkeypatch.setattr(rotation, "settle", swap_first)
    rotation.shift(str(logs / "x.log"), 5)
    assert {path.name for path in elsewhere.iterdir()} == {"x.log", "x.log.1"}
    assert {path.name for path in (theirs / "moved").iterdir()} == {"x.log.1", "x.log.2"}


def test_compression_reads_and_writes_through_no_link(theirs: Path, tmp_path: Path) -> None:
    log, secret = theirs / "x.log", tmp_path / "secret"
    secret.write_bytes(b"password\n")
    lay(theirs / "x.log.1", secret)
    with pytest.raises(OSError):
        rotation.compress_backups(str(log), threading.Lock())
    assert not list(theirs.glob("*.gz*"))
    (theirs / "x.log.1").unlink()
    (theirs / "x.log.1").write_bytes(b"own\n")
    lay(theirs / f"x.log.{(theirs / 'x.log.1').stat().st_ino}.gz.part", secret)
    rotation.compress_backups(str(log), threading.Lock())
    assert secret.read_bytes() == b"password\n"
    assert gzip.decompress((theirs / "x.log.1.gz").read_bytes()) == b"own\n"


def test_a_fifo_among_the_backups_holds_up_no_compression(theirs: Path) -> None:
    os.mkfifo(theirs / "x.log.1")
    done = threading.Event()

    def compress() -> None:
        with pytest.raises(OSError, match="not a regular file"):
            rotation.compress_backups(str(theirs / "x.log"), threading.Lock())
        done.set()

    threading.Thread(target=compress, daemon=True).start()
    assert done.wait(10)


def test_the_tail_of_a_log_shows_nobody_elses_file(theirs: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"password\n")
    for name in ("x.log", "y.log.1", "z.log"):
        lay(theirs / name, secret)
    (theirs / "y.log").write_bytes(b"")
    for name in ("x.log", "y.log"):
        with pytest.raises(OSError, match="symbolic link"):
            tail(str(theirs / name), 10)
    (theirs / "z.log").unlink()
    os.mkfifo(theirs / "z.log")
    with pytest.raises(OSError, match="not a regular file"):
        tail(str(theirs / "z.log"), 10)
