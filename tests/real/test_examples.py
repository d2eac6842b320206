"""The example applications under a real daemon: edited, they go on from their state; hung, they are replaced."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemons import LiveDaemon

Make = Callable[..., LiveDaemon]
pytestmark = pytest.mark.real

EXAMPLES = Path(__file__).parents[2] / "config" / "examples"
ROOT = {"PYTHONPATH": str(Path(__file__).parents[2])}


def test_an_edited_application_goes_on_from_its_saved_state(daemon: Make, tmp_path: Path) -> None:
    source = tmp_path / "dev_application.py"
    shutil.copy(EXAMPLES / source.name, source)
    live = daemon(
        f"""
programs:
  dev:
    command: [{sys.executable}, -B, dev_application.py]
    environment: {{ASUP_EXAMPLE_INTERVAL: "0.02"}}
    watch: {{paths: [dev_application.py]}}
    logs: {{stdout: dev.log}}
    start_seconds: 0
  other: {{command: [sleep, "1000"], start_seconds: 0}}
""",
        environment=ROOT,
    )
    log = tmp_path / "dev.log"
    others = live.wait_for("other", "RUNNING")["pid"]

    def consumed() -> list[tuple[int, int]]:
        text = log.read_text() if log.exists() else ""
        return [(int(event), int(step)) for event, step in re.findall(r"^event (\d+): .* step (\d+)$", text, re.MULTILINE)]

    live.wait_until(lambda: len(consumed()) > 5, "it works")
    live.wait_watching()
    for run, step in ((2, 100), (3, 200), (4, 300)):
        edited = re.sub(r"^STEP = \d+", f"STEP = {step}", source.read_text(), flags=re.MULTILINE)
        source.write_text(edited)
        live.wait_until(lambda step=step: any(taken[1] == step for taken in consumed()), f"it works by step {step}")  # type: ignore[misc]
        assert live.wait_for("dev", "RUNNING", run=run, cause="file_changed", restarts=0)
    assert re.search(r"^start 4, PID \d+, [3-9] events waiting", log.read_text(), re.MULTILINE)
    events = [event for event, _ in consumed()]
    assert events == list(range(1, len(events) + 1))  # none lost, none doubled, over all restarts
    assert live.process_of("other")["pid"] == others


def test_a_protected_worker_survives_its_errors_and_is_replaced_when_it_hangs(daemon: Make, tmp_path: Path) -> None:
    live = daemon(
        f"""
programs:
  worker:
    command: [{sys.executable}, {EXAMPLES / "protected_worker.py"}]
    environment: {{ASUP_EXAMPLE_INTERVAL: "0.05", ASUP_EXAMPLE_HANG_AFTER: "3"}}
    heartbeat: 2s
    stop: {{grace_period: 500ms}}  # which hears no TERM while it hangs
    logs: {{stdout: worker.log}}
    start_seconds: 0
    restart: {{backoff: {{initial: 50ms}}}}
""",
        environment=ROOT,
    )
    status = live.wait_for("worker", "RUNNING", run=2, cause="heartbeat_missed")
    log = tmp_path / "worker.log"
    live.wait_until(lambda: "round 5: task 4 done" in log.read_text(), "the second run works on")
    first, second = log.read_text().split("run 2 begins")
    assert "hanging in round 4" in first and "round 3: task 4 done" in first
    assert first.count("task 3 always fails") >= 3 and second.count("task 3 always fails") >= 3
    assert live.wait_for("worker", "RUNNING", health="healthy")["pid"] == status["pid"]
    live.do("stop", "worker")
    assert live.process_of("worker")["exit_status"] == {"code": 0}
    live.wait_until(lambda: "ended" in log.read_text().rstrip().splitlines()[-1], "its last words are in the log")
