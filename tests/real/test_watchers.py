"""The heartbeat and file watchers on real processes: in time, and never against a healthy program."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.daemons import LiveDaemon, python

Make = Callable[..., LiveDaemon]
pytestmark = pytest.mark.real

TIMEOUT_SECONDS = 4.0


def seconds_of(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["at"]).timestamp()


def test_a_hang_is_found_between_one_and_one_and_a_half_timeouts_after_the_last_beat(daemon: Make, tmp_path: Path) -> None:
    """Whatever the phase between beats and looks: seven replicas stop beating at seven instants.

    Never before the timeout by anybody's clock; how soon after it, by the daemon's own count, which a machine that starves it slows.
    """
    script = (
        "import os, time\nme = int(os.environ['ASUP_REPLICA'])\n"
        "for n in range(10 + me): open(os.environ['ASUP_HEARTBEAT_FILE'], 'w').write(str(n)); time.sleep(0.07)\n"
        "last = str(time.time()); open(f'last.{me}', 'w').write(last); open(os.environ['ASUP_HEARTBEAT_FILE'], 'w').write('last')\n"
        "time.sleep(1000)"
    )
    live = daemon(
        f"programs: {{w: {{command: {python(script)}, replicas: 7, heartbeat: {TIMEOUT_SECONDS:g}s, restart: never, start_seconds: 0}}}}"
    )

    def misses() -> dict[str, dict[str, Any]]:
        found = [event for event in live.events() if event.get("to") == "STOPPING"]
        assert all(event["cause"] == "heartbeat_missed" for event in found)
        return {event["name"]: event for event in found}

    live.wait_until(lambda: len(misses()) == 7, "every hang is found", every=0.5)
    for name, event in misses().items():
        assert seconds_of(event) - float((tmp_path / f"last.{name[2:]}").read_text()) >= TIMEOUT_SECONDS, name
        counted = re.search(r"no heartbeat for ([0-9.]+) s", event["message"])
        assert counted and TIMEOUT_SECONDS <= float(counted[1]) <= 1.5 * TIMEOUT_SECONDS, event


def test_own_logs_and_junk_below_a_watched_path_restart_nothing(daemon: Make, tmp_path: Path) -> None:
    """A program that watches the whole directory in which run_dir, its log, its heartbeat, the daemon's log and byte code lie."""
    script = (
        "import itertools, os, time\nos.makedirs('__pycache__', exist_ok=True); os.makedirs('.git', exist_ok=True)\n"
        "for n in itertools.count():\n  print('line', n, '.' * 20)\n"
        "  for junk in ('__pycache__/a.pyc', '.git/index', '.app.py.swp', 'app.py~', '4913'): open(junk, 'w').write(str(n))\n"
        "  open('beats', 'w').write(str(n)) if n % 10 == 9 else None\n  time.sleep(0.02)"
    )
    (tmp_path / "app.py").write_text("1")
    live = daemon(
        "daemon: {log: {file: own.log, level: debug}}\n"
        f"programs: {{w: {{command: {python(script)}, watch: {{paths: [.], ignore: [xdg/, asupd.log], debounce: 50ms}}, "
        "heartbeat: {file: beats, timeout: 60s}, logs: {stdout: logs/w.log, max_size: 1KiB, compress: true}, start_seconds: 0}}"
    )
    live.wait_for("w", "RUNNING")
    live.wait_until(lambda: int((tmp_path / "beats").read_text() or 0) > 75, "seconds of noise")
    assert list((tmp_path / "logs").glob("w.log.*"))  # it was rotated meanwhile
    assert live.process_of("w")["run"] == 1
    (tmp_path / "app.py").write_text("2")
    status = live.wait_for("w", "RUNNING", run=2)
    assert status["cause"] == "file_changed"
    assert "app.py changed" in live.do("why", "w")


def test_a_program_that_writes_what_it_watches_is_suspended_and_says_so(daemon: Make, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    script = "import os, time\nwhile True: open('data/out', 'w').write(str(time.time())); time.sleep(0.3)"
    live = daemon(f"programs: {{w: {{command: {python(script)}, watch: {{paths: [data], debounce: 50ms}}, start_seconds: 0}}}}")
    live.wait_until(lambda: "not followed for 30 s" in live.text(), "the watch is suspended")
    said = next(event for event in live.events() if event["type"] == "watch" and event["data"]["what"] == "suspended")
    assert "watch.ignore" in said["message"] and "out" in said["message"]
    status = live.wait_for("w", "RUNNING")
    assert (status["cause"], status["restarts"]) == ("file_changed", 0)
    written = (tmp_path / "data" / "out").stat().st_mtime_ns
    live.wait_until(lambda: (tmp_path / "data" / "out").stat().st_mtime_ns > written + 1_000_000_000, "it writes on")
    assert live.process_of("w")["run"] == status["run"]


def test_a_change_can_be_a_signal_instead(daemon: Make, tmp_path: Path) -> None:
    (tmp_path / "settings").write_text("1")
    script = (
        "import signal, time\nsignal.signal(signal.SIGHUP, lambda *_: open('got', 'w').close())\n"
        "open('ready', 'w').close()\nwhile True: time.sleep(1)"
    )
    live = daemon(f"""
programs:
  w: {{command: {python(script)}, watch: {{paths: [settings], debounce: 50ms, action: HUP}}, start_seconds: 0}}
""")
    live.wait_until((tmp_path / "ready").exists, "it listens")

    def changed() -> bool:
        (tmp_path / "settings").write_text(str(len((tmp_path / "settings").read_text()) * "x") + "y")
        return (tmp_path / "got").exists()

    live.wait_until(changed, "the signal arrived", every=0.3)
    assert live.process_of("w")["run"] == 1


@pytest.mark.parametrize("form", ["written in place", "renamed over", "removed and made anew"])
def test_an_editors_way_to_save_a_single_file_is_seen_every_time(daemon: Make, tmp_path: Path, form: str) -> None:
    source = tmp_path / "app.conf"
    source.write_text("0")
    live = daemon("programs: {w: {command: [sleep, '1000'], watch: {paths: [app.conf], debounce: 50ms}, start_seconds: 0}}")
    live.wait_for("w", "RUNNING")
    for number in (2, 3):  # the first at once: perhaps before anybody looks

        def save(number: int = number) -> None:
            if form == "written in place":
                source.write_text(str(number))
            elif form == "renamed over":
                (tmp_path / "draft").write_text(str(number))
                (tmp_path / "draft").replace(source)
            else:
                source.unlink()
                source.write_text(str(number))

        save()
        live.wait_for("w", "RUNNING", run=number, cause="file_changed")
    assert live.process_of("w")["restarts"] == 0
