"""A shortage is waited out and told once; anything else is raised at once."""

from __future__ import annotations

import errno

import anyio
import pytest

from supervisord_async.supervise import retry
from supervisord_async.supervise.retry import retry_on_shortage
from tests.virtual_clock import run_virtually

SHORTAGES = [OSError(errno.EMFILE, "Too many open files"), OSError(errno.EAGAIN, "can't start new thread")]
OTHERS = [OSError(errno.EACCES, "Permission denied"), RuntimeError("a bug"), ValueError("another")]


def failing(times: int, error: Exception) -> tuple[list[float], object]:
    """When it was tried, and what fails so many times and then is 5."""
    tried: list[float] = []

    async def do() -> int:
        tried.append(anyio.current_time())
        if len(tried) <= times:
            raise error
        return 5

    return tried, do


@pytest.fixture(autouse=True)
def nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Daemons of other tests that were killed in a simulated world wait for ever."""
    monkeypatch.setattr(retry, "_waiting", set())


@pytest.mark.parametrize("error", SHORTAGES, ids=str)
def test_a_shortage_is_waited_out_and_its_begin_and_end_are_told_once(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    tried, do = failing(7, error)
    assert run_virtually(retry_on_shortage, "spawn", do) == 5
    assert [round(at - tried[0], 2) for at in tried] == [0, 0.05, 0.15, 0.35, 0.85, 1.85, 2.85, 3.85]
    begun, ended = [record.getMessage() for record in caplog.records]
    assert begun.startswith("transient: cannot spawn: ") and ended == "could spawn now; nothing else waits for the same reason"


def test_many_that_wait_for_the_same_reason_are_told_as_one(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for times in (3, 5, 4):
                tasks.start_soon(retry_on_shortage, f"do {times}", failing(times, SHORTAGES[0])[1])
            with anyio.move_on_after(0.1):  # who gives up waits no longer
                await retry_on_shortage("do 99", failing(99, SHORTAGES[0])[1])
        await retry_on_shortage("do 1", failing(1, SHORTAGES[0])[1])

    run_virtually(main)
    told = [record.getMessage().partition(":")[0].partition(" now;")[0] for record in caplog.records]
    assert told == ["transient", "could do 5", "transient", "could do 1"]


def test_one_that_waited_and_then_failed_for_another_reason_does_not_hide_later_shortages(caplog: pytest.LogCaptureFixture) -> None:
    errors: list[Exception] = [SHORTAGES[0], ProcessLookupError(errno.ESRCH, "it is gone")]

    async def do() -> None:
        raise errors.pop(0)

    with pytest.raises(ProcessLookupError):
        run_virtually(retry_on_shortage, "adopt", do)
    caplog.clear()
    caplog.set_level("INFO")
    run_virtually(retry_on_shortage, "spawn", failing(1, SHORTAGES[0])[1])
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_what_is_no_shortage_is_raised_at_once(error: Exception) -> None:
    tried, do = failing(1, error)
    with pytest.raises(type(error), match=str(error.args[-1])):
        run_virtually(retry_on_shortage, "spawn", do)
    assert len(tried) == 1
