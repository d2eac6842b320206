"""The example programs do what they say, alone and with little patience."""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.app.conftest import EXAMPLES, Launch
from tests.waiting import wait_until_sync

Output = Callable[[], str]
pytestmark = pytest.mark.real


def test_web_server_answers_and_goes_when_told(launch: Launch, output: Output, free_port: int) -> None:
    process = launch(EXAMPLES / "web_server.py", PORT=str(free_port), ASUP_NAME="web")
    wait_until_sync(lambda: "serving on" in output())
    with urllib.request.urlopen(f"http://127.0.0.1:{free_port}/healthz", timeout=20) as answer:
        assert answer.read() == b"ok\n"
    with urllib.request.urlopen(f"http://127.0.0.1:{free_port}/", timeout=20) as answer:
        assert b"Hello from web" in answer.read()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert output().endswith("finished\n")


@pytest.mark.parametrize("name", ["heartbeat_client.py", "scenario_client.py"])
def test_clients_beat_the_file_of_the_environment_or_the_default(tmp_path: Path, launch: Launch, name: str) -> None:
    launch(EXAMPLES / name, ASUP_EXAMPLE_INTERVAL="0.02")
    wait_until_sync((tmp_path / "heartbeat.txt").exists)
    launch(EXAMPLES / name, ASUP_EXAMPLE_INTERVAL="0.02", ASUP_HEARTBEAT_FILE=str(tmp_path / "mine"))
    wait_until_sync((tmp_path / "mine").exists)
    first = (tmp_path / "mine").read_text()
    wait_until_sync(lambda: (tmp_path / "mine").read_text() not in {first, ""})


@pytest.mark.parametrize(("scenario", "code"), [("normal", 0), ("long_request", 0), ("nonsense", 2)])
def test_scenarios_end_as_they_say(tmp_path: Path, launch: Launch, scenario: str, code: int) -> None:
    (tmp_path / "heartbeat.txt").write_text("from an earlier run")
    assert launch(EXAMPLES / "scenario_client.py", scenario, "0.2", ASUP_EXAMPLE_INTERVAL="0.05").wait(60) == code
    assert ((tmp_path / "heartbeat.txt").read_text() == "from an earlier run") is (code == 2)


def test_crash_periodic_crashes_now_and_then(launch: Launch, output: Output) -> None:
    process = launch(EXAMPLES / "scenario_client.py", "crash_periodic", "60", ASUP_EXAMPLE_INTERVAL="0.01", ASUP_EXAMPLE_SEED="1")
    assert process.wait(60) == 1
    assert "crashing" in output()


def test_hang_stops_beating_and_sigterm_test_ends_by_term(tmp_path: Path, launch: Launch, output: Output) -> None:
    hanging = launch(EXAMPLES / "scenario_client.py", "hang", ASUP_EXAMPLE_INTERVAL="0.02")
    wait_until_sync(lambda: "no more heartbeats" in output())
    last = (tmp_path / "heartbeat.txt").read_text()
    time.sleep(0.1)  # five times the interval
    assert (tmp_path / "heartbeat.txt").read_text() == last
    assert hanging.poll() is None
    waiting = launch(EXAMPLES / "scenario_client.py", "sigterm_test", output="second", ASUP_EXAMPLE_INTERVAL="0.02")
    wait_until_sync(lambda: (tmp_path / "second").read_text().count("heartbeat sent") >= 2)
    waiting.send_signal(signal.SIGTERM)
    assert waiting.wait(60) == 0


def test_one_shot_succeeds_flaky_fails_and_edited_greets(launch: Launch, output: Output) -> None:
    assert launch(EXAMPLES / "one_shot.py", ASUP_EXAMPLE_INTERVAL="0.01").wait(60) == 0
    assert launch(EXAMPLES / "flaky.py", ASUP_EXAMPLE_INTERVAL="0.01").wait(60) == 1
    edited = launch(EXAMPLES / "edited.py", ASUP_EXAMPLE_INTERVAL="0.01")
    wait_until_sync(lambda: "hello\nhello" in output())
    edited.send_signal(signal.SIGTERM)
    assert edited.wait(60) == 0


def test_protected_worker_survives_failures_then_hangs_in_its_first_run(tmp_path: Path, launch: Launch, output: Output) -> None:
    options = {"ASUP_EXAMPLE_INTERVAL": "0.02", "ASUP_EXAMPLE_HANG_AFTER": "3", "ASUP_HEARTBEAT_FILE": str(tmp_path / "beat")}
    hanging = launch(EXAMPLES / "protected_worker.py", ASUP_RUN="1", **options)
    wait_until_sync(lambda: "hanging in round 4" in output())
    assert "task 3 always fails" in output()
    last = (tmp_path / "beat").read_text()
    time.sleep(0.1)  # five times the interval
    assert (tmp_path / "beat").read_text() == last
    hanging.kill()
    again = launch(EXAMPLES / "protected_worker.py", output="second", ASUP_RUN="2", **options)
    wait_until_sync(lambda: "round 5: task 4 done" in (tmp_path / "second").read_text())
    assert (tmp_path / "beat").read_text() != last
    again.send_signal(signal.SIGTERM)
    assert again.wait(60) == 0
    assert "connection closed" in (tmp_path / "second").read_text()


def consumed(text: str) -> list[tuple[int, int]]:
    """The events in the order in which they were taken, with the step of the code that took them."""
    return [(int(event), int(step)) for event, step in re.findall(r"^event (\d+): .* step (\d+)$", text, re.MULTILINE)]


def begin_dev_application(tmp_path: Path, launch: Launch, *arguments: str) -> Path:
    shutil.copy(EXAMPLES / "dev_application.py", tmp_path)
    launch("dev_application.py", *arguments, ASUP_EXAMPLE_INTERVAL="0.02")
    return tmp_path / "dev_application.py"


def test_dev_application_restarts_itself_and_continues(tmp_path: Path, launch: Launch, output: Output) -> None:
    source = begin_dev_application(tmp_path, launch, "--dev")
    wait_until_sync(lambda: len(consumed(output())) > 5)
    for start, step in ((2, 100), (3, 200)):
        edited = re.sub(r"^STEP = \d+", f"STEP = {step}", source.read_text(), flags=re.MULTILINE)
        began = time.monotonic()
        source.write_text(edited)
        wait_until_sync(lambda step=step: any(taken[1] == step for taken in consumed(output())))  # type: ignore[misc]
        print(f"saved to working again: {time.monotonic() - began:.2f} s")
        assert re.search(rf"^start {start}, PID \d+, [3-9] events waiting", output(), re.MULTILINE)
    events = [event for event, _ in consumed(output())]
    assert events == list(range(1, len(events) + 1))  # none lost, none doubled, over both restarts


def test_dev_application_restarted_from_outside_continues(tmp_path: Path, launch: Launch, output: Output) -> None:
    # What a supervisor with watch: does: TERM, then another run.
    begin_dev_application(tmp_path, launch)
    wait_until_sync(lambda: len(consumed(output())) > 5)
    first = launch("dev_application.py", output="other", ASUP_EXAMPLE_STATE="elsewhere.json", ASUP_EXAMPLE_INTERVAL="0.02")
    wait_until_sync(lambda: len(consumed((tmp_path / "other").read_text())) > 5)
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) == 0
    saved = json.loads((tmp_path / "elsewhere.json").read_text())["state"]
    assert len(saved["event_queue"]) >= 3
    launch("dev_application.py", output="other", ASUP_EXAMPLE_STATE="elsewhere.json", ASUP_EXAMPLE_INTERVAL="0.02", ASUP_RUN="2")
    wait_until_sync(lambda: len(consumed((tmp_path / "other").read_text())) > saved["self_state"]["consumed"] + 3)
    events = [event for event, _ in consumed((tmp_path / "other").read_text())]
    assert events == list(range(1, len(events) + 1))
    assert "start 2" in (tmp_path / "other").read_text()
