"""A log that cannot be read, or not in time, is an answer too."""

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from supervisord_async.control import logs
from supervisord_async.control.logs import Source, follow, last
from supervisord_async.errors import FailedError
from tests.hanging_disk import HangingDisk, can_hang

pytestmark = pytest.mark.anyio
needs_fuse = pytest.mark.skipif(not can_hang(), reason="only root can mount a FUSE")


@needs_fuse
async def test_a_log_whose_disk_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "ANSWER_SECONDS", 0.1)
    with HangingDisk(tmp_path / "away", "log", b"one\ntwo\n") as disk:
        source = Source(str(disk.path), "raw")
        with pytest.raises(FailedError, match=r"its disk has not answered for 0\.1 s"):
            await last(source, 1, None)
        disk.answer()
        monkeypatch.setattr(logs, "ANSWER_SECONDS", 30.0)
        assert await last(source, 1, None) == b"two\n"


@needs_fuse
async def test_who_follows_a_log_whose_disk_hangs_may_leave(tmp_path: Path) -> None:
    with HangingDisk(tmp_path / "away", "log", b"one\n") as disk:
        disk.answer()
        heard: list[bytes] = []

        async def send(chunk: bytes) -> None:
            heard.append(chunk)

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow, Source(str(disk.path), "raw"), 1, None, send, lambda: False)
                while not heard:
                    await anyio.sleep(0.01)
                disk.hang()
                await anyio.to_thread.run_sync(disk.waiting.wait, 30)
                tasks.cancel_scope.cancel()
        assert heard[0] == b"one\n"


async def test_who_follows_a_log_is_done_when_that_can_no_longer_be_read(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(b"one\n")
    heard: list[bytes] = []

    async def send(chunk: bytes) -> None:
        heard.append(chunk)
        log.unlink()
        log.mkdir()

    with anyio.fail_after(30):
        await follow(Source(str(log), "raw"), 1, None, send, lambda: False)
    assert heard == [b"one\n"]
