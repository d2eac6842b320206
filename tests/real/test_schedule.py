"""Schedules of a real daemon."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.daemons import LiveDaemon

Make = Callable[..., LiveDaemon]
pytestmark = pytest.mark.real


def test_a_scheduled_job_is_not_autostarted_and_runs_when_due(daemon: Make, tmp_path: Path) -> None:
    live = daemon("""
programs:
  often: {command: [sh, -c, "echo $ASUP_RUN >> often"], schedule: "@every 1s"}
  nightly: {command: [touch, nightly], schedule: {at: "0 3 * * *", timezone: Europe/Berlin}}
  both: {command: [sleep, "1000"], start_seconds: 0, schedule: "@every 1s", autostart: true}
""")
    live.wait_until(
        lambda: (tmp_path / "often").exists() and len((tmp_path / "often").read_text().split()) >= 3, "it is run again and again"
    )
    nightly = live.process_of("nightly")
    assert (nightly["state"], nightly["run"]) == ("STOPPED", 0)
    due = datetime.fromisoformat(nightly["next_at"])
    assert due > datetime.now(UTC) and due.minute == 0
    both = live.wait_for("both", "RUNNING", run=1)
    assert both["cause"] == "autostart" and both["next_at"] is not None
    assert "next scheduled start at" in live.do("why", "nightly")
    assert live.ctl("status", "nightly", "both").returncode == 0


def test_a_schedule_that_comes_with_a_reload_is_followed(daemon: Make, tmp_path: Path) -> None:
    live = daemon("programs: {a: {command: [touch, done], autostart: false}}")
    assert live.process_of("a")["next_at"] is None
    live.write("programs: {a: {command: [touch, done], schedule: '@every 1s'}}")
    live.do("reload")
    live.wait_until((tmp_path / "done").exists, "it was started")
    live.write("programs: {a: {command: [touch, done], autostart: false}}")
    live.do("reload")
    live.wait_until(lambda: live.process_of("a")["next_at"] is None, "nothing is due any more")


def test_lines_that_are_wrong_are_refused_at_load(daemon: Make) -> None:
    live = daemon(
        "programs: {a: {command: ['true'], schedule: '61 * * * *'}, b: {command: ['true'], schedule: {at: '0 0 * * *', timezone: Mars/Olympus}}}",
        start=False,
    )
    live.start(wait=False)
    assert live.wait() == 2
    assert "programs.yaml:1:" in live.text() and "61 * * * *" in live.text() and "Mars/Olympus" in live.text()


@pytest.mark.slow
def test_of_jobs_that_are_due_together_one_takes_no_earlier_success_of_the_other_for_the_present_one(daemon: Make, tmp_path: Path) -> None:
    live = daemon("""
programs:
  load: {command: [sh, -c, "printf b >>done"], schedule: "@every 2s", depends_on: {extract: succeeded}}
  extract: {command: [sh, -c, "sleep 0.3; printf a >>done"], schedule: "@every 2s"}
""")
    done = tmp_path / "done"
    live.wait_until(lambda: done.exists() and len(done.read_text()) >= 6, "both have run three times")
    assert done.read_text().startswith("ababab")
