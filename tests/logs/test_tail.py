"""The last lines, and those that follow, across rotation."""

from __future__ import annotations

import gzip
import os
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import pytest

from supervisord_async.logs import rotation
from supervisord_async.logs import tail as tailing
from supervisord_async.logs.formats import render
from supervisord_async.logs.tail import follow, tail
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio


def lines(text: bytes) -> list[bytes]:
    return text.removesuffix(b"\n").split(b"\n") if text else []


async def test_tail_reads_over_backups_plain_and_compressed(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    (tmp_path / "x.log.2.gz").write_bytes(gzip.compress(b"".join(b"%d\n" % n for n in range(100))))
    (tmp_path / "x.log.1").write_bytes(b"".join(b"%d\n" % n for n in range(100, 200)))
    log.write_bytes(b"".join(b"%d\n" % n for n in range(200, 300)) + b"no end")
    assert lines(tail(str(log), 3)) == [b"298", b"299", b"no end"]
    assert lines(tail(str(log), 251)) == [b"%d" % n for n in range(50, 300)] + [b"no end"]
    assert len(lines(tail(str(log), 10_000))) == 301
    assert lines(tail(str(log), 0)) == []
    assert lines(tail(str(tmp_path / "none.log"), 5)) == []


async def test_tail_of_a_line_beyond_the_bound_has_its_end_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tailing, "BOUND_BYTES", 200_000)
    log = tmp_path / "x.log"
    with log.open("wb") as stream:
        stream.truncate(1 << 30)  # a gigabyte of one line
        stream.seek(0, os.SEEK_END)
        stream.write(b"the end\n")
    found = tail(str(log), 5)
    assert len(found) == 200_000 and found.startswith(tailing.CUT) and found.endswith(b"\0the end\n")
    with log.open("ab") as stream:
        stream.write(b"short\nno end")
    assert tail(str(log), 5) == b"short\nno end"


async def test_tail_of_long_lines_crosses_blocks(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    written = [bytes([65 + n]) * (70_000 * n) for n in range(5)] + [b""]
    log.write_bytes(b"\n".join(written) + b"\n")
    assert lines(tail(str(log), 100)) == written
    assert lines(tail(str(log), 2)) == written[-2:]


@pytest.mark.parametrize("format_", ["timestamp", "json"])
async def test_since_is_each_lines_own_time(tmp_path: Path, format_: str) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(
        b"".join(render(b"%d\n" % n, format_, at_ms=n * 1000, name="w", stream="stdout", run=1) for n in range(10))  # type: ignore[arg-type]
    )
    assert len(lines(tail(str(log), 100, 7.0, format_))) == 3  # type: ignore[arg-type]


async def test_since_of_raw_is_the_files_time(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(b"new\n")
    (tmp_path / "x.log.1").write_bytes(b"old\n")
    os.utime(tmp_path / "x.log.1", (1000, 1000))
    assert lines(tail(str(log), 10, 2000.0)) == [b"new"]


async def test_follow_goes_on_over_rotations_truncation_and_making_anew(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    got = bytearray()

    async def read() -> None:
        async for chunk in follow(str(log), poll_seconds=0.01):
            got.extend(chunk)

    async def append(data: bytes) -> None:
        with log.open("ab") as file:
            file.write(data)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        with anyio.fail_after(60):
            while not got:  # what is appended before it follows is not for it
                await append(b"1\n")
                await anyio.sleep(0.01)
        for number in range(2, 6):
            await append(b"%d before\n" % number)
            rotation.shift(str(log), 9)
            await append(b"%d after\n" % number)
            rotation.shift(str(log), 9)
        await append(b"6 is longer than 7\n")
        await wait_until(lambda: got.endswith(b"7\n"))
        os.truncate(log, 0)
        await append(b"7\n")
        log.unlink()
        await append(b"8\n")
        await wait_until(lambda: got.endswith(b"8\n"))
        tasks.cancel_scope.cancel()
    expected = b"".join(b"%d before\n%d after\n" % (n, n) for n in range(2, 6)) + b"6 is longer than 7\n7\n8\n"
    assert bytes(got[got.index(b"2") :]) == expected


@pytest.mark.parametrize(
    ("had", "meanwhile", "first"),
    [
        (b"1\n2\n3\n4\n", b"", b"2\n3\n4\n"),
        (b"1\n2\n3\n4\n", b"".join(b"%d\n" % n for n in range(5, 50)), b"2\n3\n4\n"),
        (b"1\n2\n3\nlo", b"ng\n5\n", b"2\n3\nlo"),
        (b"", b"1\n2\n3\n4\n5\n", b""),
        (b"x\nx\n", b"x\nx\nx\nx\nx\n", b"x\nx\n"),
    ],
)
@pytest.mark.parametrize("rotated", [False, True])
async def test_what_is_appended_while_the_last_lines_are_read_comes_once_and_after_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, had: bytes, meanwhile: bytes, first: bytes, rotated: bool
) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(had)
    original = rotation.backups_of

    def look_around(path: str) -> Any:
        monkeypatch.setattr(rotation, "backups_of", original)
        with log.open("ab") as file:
            file.write(meanwhile)
        if rotated:
            rotation.shift(str(log), 9)
            log.write_bytes(b"next\n")
        return original(path)

    monkeypatch.setattr(rotation, "backups_of", look_around)
    expected = had[len(had) - len(first) :] + meanwhile + (b"next\n" if rotated else b"")
    async with aclosing(follow(str(log), 3, poll_seconds=0.01)) as chunks:
        with anyio.fail_after(60):
            got = await anext(chunks)
            assert got == first
            while len(got) < len(expected):
                got += await anext(chunks)
    assert got == expected
