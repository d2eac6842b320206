"""What a reload touched is found in one pass, however much it is."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from supervisord_async.control.reload_goal import ReloadGoal


def seconds_to_find(count: int) -> float:
    """The least CPU time, of some attempts, in which ``count`` programs are found that a reload added."""
    names = [f"p{number}" for number in range(count)]
    processes: Any = {name: SimpleNamespace(name=name) for name in names}
    supervisor: Any = SimpleNamespace(
        configuration=SimpleNamespace(programs=processes),
        dependencies=SimpleNamespace(members=lambda name: [processes[name]]),
        removals=(),
    )
    plan: Any = SimpleNamespace(restarted=list, started=list)
    least = float("inf")
    for _ in range(5):
        began = time.thread_time()
        touched = ReloadGoal(supervisor, plan, {})
        least = min(least, time.thread_time() - began)
        assert len(touched.processes) == count
    return least


def test_sixteen_times_as_many_take_nothing_like_two_hundred_and_fifty_six_times_as_long() -> None:
    assert seconds_to_find(16_000) < 64 * seconds_to_find(1000)
