"""What breaks is begun again, and told; what returns is over."""

from __future__ import annotations

import anyio
import pytest

from supervisord_async.supervise.keep_running import keep_running
from tests.virtual_clock import run_virtually


def test_what_breaks_is_told_and_begun_again_later_each_time(caplog: pytest.LogCaptureFixture) -> None:
    begun: list[float] = []

    async def breaks() -> None:
        begun.append(anyio.current_time())
        if len(begun) in (5, 9):  # it went well for long
            await anyio.sleep(100)
        if len(begun) < 9:
            raise PermissionError(13, "Permission denied")

    run_virtually(keep_running, "looking", breaks)
    assert [round(later - begun[0]) for later in begun] == [0, 1, 3, 7, 15, 116, 118, 122, 130]
    assert caplog.text.count("looking failed because of a bug") == 8
    assert "Permission denied" in caplog.text
