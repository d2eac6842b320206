"""Restart policies on real processes: what ends, what goes on, and after which pause."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from itertools import pairwise

import pytest

from tests.daemons import LiveDaemon

Make = Callable[..., LiveDaemon]
pytestmark = pytest.mark.real


def test_a_sliding_window_trips_although_each_life_was_calm(daemon: Make) -> None:
    """The consecutive count returns to 0 each time; the window remembers."""
    live = daemon("""
programs:
  windowed: {command: [sh, -c, "sleep 0.5; exit 1"], start_seconds: 0,
         restart: {max_restarts: 3, within: 10m, reset_after: 100ms, backoff: {initial: 50ms, factor: 1}}}
  calm: {command: [sh, -c, "sleep 0.5; exit 1"], start_seconds: 0,
         restart: {max_restarts: 3, reset_after: 100ms, backoff: {initial: 50ms, factor: 1}}}
""")
    status = live.wait_for("windowed", "FATAL")
    assert (status["cause"], status["run"]) == ("restart_limit", 4)
    assert "within" in live.do("why", "windowed") or "in 10m" in live.do("why", "windowed")
    live.wait_until(lambda: live.process_of("calm")["run"] >= 7, "calm lives are forgiven for ever")
    assert live.process_of("calm")["restarts"] <= 1


def test_what_reached_its_limit_is_tried_again_after_a_while(daemon: Make) -> None:
    live = daemon("programs: {b: {command: ['false'], restart: {max_restarts: 1, on_limit: {retry_after: 1s}, backoff: {initial: 10ms}}}}")
    status = live.wait_for("b", "FATAL")
    assert (status["cause"], status["run"]) == ("restart_limit", 2) and status["next_at"] is not None
    live.wait_until(lambda: live.process_of("b")["run"] >= 6, "two more rounds")


def test_backoff_doubles_to_its_cap_and_jitter_spreads_it(daemon: Make) -> None:
    """The pauses, read from the records of each death and the start that followed it."""
    live = daemon("""
programs:
  growing: {command: ["false"], restart: {max_restarts: 5, backoff: {initial: 100ms, factor: 2, max: 400ms, jitter: 0}, reset_after: 1m}}
  spread: {command: ["false"], replicas: 12, restart: {backoff: {initial: 1h, max: 1h, jitter: 0.5}}}
""")
    live.wait_for("growing", "FATAL")
    records = [event for event in live.events() if event.get("name") == "growing" and event["type"] == "state"]
    moments = [(event["to"], datetime.fromisoformat(event["at"])) for event in records]
    pauses = [
        (after - at).total_seconds()
        for (state, at), (following, after) in pairwise(moments)
        if state == "BACKOFF" and following == "STARTING"
    ]
    assert len(pauses) == 5
    for pause, least in zip(pauses, (0.1, 0.2, 0.4, 0.4, 0.4), strict=True):
        # A loaded daemon tells of a death some milliseconds late, which shortens the pause; how late the start is does not matter.
        assert least - 0.05 <= pause < least + 20.0
    for number in range(12):
        live.wait_for(f"spread:{number}", "BACKOFF")
    due = [datetime.fromisoformat(status["next_at"]).timestamp() for name, status in live.status().items() if name.startswith("spread")]
    assert max(due) - min(due) > 300  # of ± 1800 s, from 12 processes


def test_what_people_asked_for_is_neither_delayed_nor_counted(daemon: Make) -> None:
    live = daemon(
        "programs: {a: {command: [sleep, '1000'], start_seconds: 0, restart: {max_restarts: 1, backoff: {initial: 1h, max: 1h}}}}"
    )
    live.wait_for("a", "RUNNING")
    for run in (2, 3, 4):
        live.do("restart", "a")
        status = live.wait_for("a", "RUNNING", run=run)
        assert (status["cause"], status["restarts"], status["flapping"]) == ("operator", 0, False)


def test_a_program_that_ends_at_once_is_called_flapping_until_it_is_calm(daemon: Make, tmp_path_factory: pytest.TempPathFactory) -> None:
    good = tmp_path_factory.mktemp("flag") / "good"
    script = f"[ -e {good} ] && exec sleep 1000; exit 1"
    live = daemon(f"""
programs:
  f: {{command: '{script}', shell: true, start_seconds: 0, restart: {{reset_after: 500ms, backoff: {{initial: 50ms, max: 50ms}}}}}}
""")
    live.wait_until(lambda: live.process_of("f")["flapping"], "it flaps")
    assert "flapping" in live.ctl("status").stdout
    good.touch()
    live.wait_for("f", "RUNNING", flapping=False, restarts=0)
