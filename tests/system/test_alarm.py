"""A callback of the loop, when it is time."""

from __future__ import annotations

import anyio

from supervisord_async.system.alarm import Alarm
from tests.virtual_clock import run_virtually


def rung(*sets: float | None, rings: int = 0, stopped: bool = False) -> list[float]:
    """When it called back, in seconds after it was set to each of ``sets`` and rung so often."""
    times: list[float] = []

    async def main() -> None:
        began = anyio.current_time()
        alarm = Alarm(lambda: times.append(anyio.current_time() - began))
        for seconds in sets:
            alarm.set(None if seconds is None else began + seconds)
        for _ in range(rings):
            alarm.ring()
        if stopped:
            alarm.stop()
        assert times == []  # not before the loop's next turn
        await anyio.sleep(100)

    run_virtually(main)
    return times


def test_the_last_time_that_it_was_set_to_holds() -> None:
    assert rung(10.0) == [10.0]
    assert rung(10.0, 20.0) == [20.0]
    assert rung(20.0, 10.0) == [10.0]
    assert rung(10.0, None) == []
    assert rung(-5.0) == [0.0]


def test_it_calls_back_once_however_often_it_is_rung() -> None:
    assert rung(rings=3) == [0.0]
    assert rung(10.0, rings=1) == [0.0]


def test_nothing_comes_after_a_stop() -> None:
    assert rung(10.0, rings=1, stopped=True) == []
