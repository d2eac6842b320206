"""Where a sandbox refuses splice and tee, output is read and written, in every format; what a broken log costs then is counted."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from supervisord_async.logs.target import Format, Target
from supervisord_async.system import transfer
from tests.logs.capturing import captured, everything
from tests.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.real]

LINE = b"line %d " + b"x" * 50 + b"\n"


@pytest.fixture(autouse=True)
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """splice and tee are answered as seccomp does."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "splice", refuse)
    monkeypatch.setattr(transfer, "peek", refuse)
    transfer.splices.cache_clear()
    assert not transfer.splices()
    yield
    transfer.splices.cache_clear()


@pytest.mark.parametrize("format_", ["raw", "timestamp", "json"])
async def test_output_is_in_the_log_and_its_backups_in_every_format(tmp_path: Path, format_: Format) -> None:
    log = tmp_path / "x.log"
    said = b"".join(LINE % number for number in range(20_000))
    async with captured(Target(str(log), format=format_, max_size_bytes=200_000, backups=99)) as [stream]:
        stream.with_echo()
        await stream.say_all(said)
        assert await stream.capture.drain() and not stream.losses
        assert b"".join(stream.echoed) == said
    text = everything(log)
    if format_ == "json":
        text = b"".join(json.loads(line)["line"].encode() + b"\n" for line in text.splitlines())
    assert (re.sub(rb"(?m)^\d+-\S+Z ", b"", text) if format_ == "timestamp" else text) == said
    assert len(list(tmp_path.iterdir())) > 3


async def test_a_fifo_whose_reader_is_slow_loses_nothing(tmp_path: Path) -> None:
    fifo, heard = tmp_path / "fifo", bytearray()
    os.mkfifo(fifo)
    said = b"".join(LINE % number for number in range(5_000))

    def listen() -> None:
        with open(fifo, "rb", buffering=0) as stream:
            while len(heard) < len(said) and (data := stream.read(20_000)):
                heard.extend(data)

    listener = threading.Thread(target=listen)
    listener.start()
    async with captured(Target(str(fifo))) as [stream]:
        await stream.say_all(said)
        await wait_until(lambda: len(heard) == len(said))
        assert not stream.losses
    listener.join()
    assert bytes(heard) == said


async def test_what_a_broken_log_costs_is_counted(tmp_path: Path) -> None:
    """RLIMIT_FSIZE makes a log that may not rotate a full one."""
    log, before = tmp_path / "x.log", resource.getrlimit(resource.RLIMIT_FSIZE)
    async with captured(Target(str(log), max_size_bytes=0)) as [stream]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        try:
            await stream.say_all(b"x" * 99_999 + b"\n")
            assert await stream.capture.drain()
            stream.say(LINE % 1)
            await wait_until(lambda: stream.capture.bytes_lost)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        stream.say(b"again\n")
        await wait_until(lambda: len(stream.losses) == 2)
        begin, end = stream.losses
        assert (begin.kind, begin.errno, end.kind) == ("begin", errno.EFBIG, "end")
        assert (end.bytes_lost, end.lines_lost) == (stream.capture.bytes_lost, stream.capture.bytes_lost // len(LINE % 1))
    assert log.read_bytes().endswith(b"x\nagain\n")
