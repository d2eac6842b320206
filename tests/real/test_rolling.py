"""Rolling restarts and scaling of a real daemon."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisord_async.client import Client
from tests.daemons import LiveDaemon

Make = Callable[..., LiveDaemon]
pytestmark = pytest.mark.real

WEB = """
programs:
  web:
    command: [sh, -c, 'test ! -e broken || exit 1; sleep 0.2; echo ready; exec sleep 1000']
    environment: {VERSION: "%s"}
    replicas: 3
    rolling: true
    readiness: {log: ready, interval: 50ms}
    restart: never
"""


def ready_at_least(live: LiveDaemon, action: Callable[[], None]) -> int:
    """The fewest replicas that were ready at any look while ``action`` ran."""
    done, least = threading.Event(), [99]

    def look() -> None:
        with Client(live.folder / ".asupd" / "asupd.sock") as client:
            while not done.is_set():
                least[0] = min(least[0], sum(process.state == "RUNNING" for process in client.processes(figures=False)))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        action()
    finally:
        done.set()
        thread.join()
    return least[0]


def restart(live: LiveDaemon) -> None:
    live.do("restart", "web")


def test_a_rolling_restart_never_has_fewer_than_all_but_one_ready(daemon: Make) -> None:
    live = daemon(WEB % 1)
    before = [live.wait_for(f"web:{number}", "RUNNING")["pid"] for number in range(3)]
    assert ready_at_least(live, lambda: restart(live)) == 2
    status = live.status()
    assert [status[f"web:{number}"]["run"] for number in range(3)] == [2, 2, 2]
    live.write(WEB % 2)

    def reload() -> None:
        live.do("reload")
        live.wait_until(lambda: [entry["run"] for entry in live.status().values()] == [3, 3, 3], "all have the new version")
        live.wait_for("web:2", "RUNNING")

    assert ready_at_least(live, reload) == 2
    assert not set(before) & {entry["pid"] for entry in live.status().values()}


def test_a_saved_file_replaces_one_replica_after_the_other(daemon: Make, tmp_path: Path) -> None:
    source = tmp_path / "app.py"
    source.write_text("1")
    live = daemon((WEB % 1) + f"    watch: {{paths: [{source}], debounce: 50ms}}\n")
    for number in range(3):
        live.wait_for(f"web:{number}", "RUNNING")
    live.wait_watching()

    def save() -> None:
        source.write_text("2")
        live.wait_until(lambda: [entry["run"] for entry in live.status().values()] == [2, 2, 2], "all have the new version")
        live.wait_for("web:2", "RUNNING")

    assert ready_at_least(live, save) == 2


def test_a_new_version_that_came_while_the_daemon_was_dead_is_rolled_out(daemon: Make) -> None:
    live = daemon(WEB % 1)
    for number in range(3):
        live.wait_for(f"web:{number}", "RUNNING")
    state = live.folder / ".asupd" / "state.json"
    live.wait_until(lambda: state.read_text().count("RUNNING") == 3, "a successor will know that all were ready")
    live.kill()
    live.write(WEB % 2)
    live.start()

    def settle() -> None:
        live.wait_until(lambda: [entry["run"] for entry in live.status().values()] == [2, 2, 2], "all have the new version")
        live.wait_for("web:2", "RUNNING")

    assert ready_at_least(live, settle) == 2


@pytest.mark.parametrize("cut", ["death", "reexec"])
def test_a_rolling_restart_that_was_cut_off_is_continued_by_the_next_daemon(daemon: Make, cut: str) -> None:
    live = daemon(WEB.replace("log: ready", "command: 'test ! -e hold'") % 1)
    for number in range(3):
        live.wait_for(f"web:{number}", "RUNNING")
    (live.folder / "hold").touch()
    live.do("restart", "web", "--no-wait")
    state = live.folder / ".asupd" / "state.json"
    live.wait_until(lambda: '"state":"STARTING"' in state.read_text(), "the first replica has its turn")
    if cut == "death":
        live.kill()
        live.start()
    else:
        live.do("reexec")
    assert [entry["run"] for entry in live.status().values()] == [2, 1, 1], "the next one waits until the first is ready"

    def go_on() -> None:
        (live.folder / "hold").unlink()
        live.wait_until(lambda: [entry["run"] for entry in live.status().values()] == [2, 2, 2], "all have a new run")
        live.wait_for("web:2", "RUNNING")

    assert ready_at_least(live, go_on) == 2
    live.wait_until(lambda: [event["cause"] for event in live.events() if event["type"] == "rolling"] == ["operator"], "it is done")
    live.kill()
    live.start()
    assert [entry["run"] for entry in live.status().values()] == [2, 2, 2], "and is not done once more"


def test_a_version_that_does_not_start_takes_one_replica_down_and_no_more(daemon: Make, tmp_path: Path) -> None:
    live = daemon(WEB % 1)
    for number in range(3):
        live.wait_for(f"web:{number}", "RUNNING")
    (tmp_path / "broken").touch()
    restart = live.ctl("restart", "web")
    assert restart.returncode == 1
    assert "web:1: not restarted: web:0 did not come back" in restart.stdout + restart.stderr
    states = {name: entry["state"] for name, entry in live.status().items()}
    assert states["web:0"] != "RUNNING" and states["web:1"] == states["web:2"] == "RUNNING"
    assert sum(event["type"] == "rolling_failed" for event in live.events()) == 2


def test_scale_changes_the_number_until_the_next_reload(daemon: Make, tmp_path: Path) -> None:
    live = daemon("programs: {web: {command: [sh, -c, 'echo $ASUP_NAME; exec sleep 1000'], start_seconds: 0, replicas: 2}}")
    first = live.wait_for("web:0", "RUNNING")["pid"]
    live.do("scale", "web", "4")
    assert {name: entry["state"] for name, entry in live.status().items()} == {f"web:{number}": "RUNNING" for number in range(4)}
    live.wait_until(lambda: (tmp_path / ".asupd/logs/web-3.log").exists(), "the new one has a log of its own")
    pids = {name: entry["pid"] for name, entry in live.status().items()}
    live.kill()
    live.start()
    live.wait_until(lambda: {name: entry["pid"] for name, entry in live.status().items()} == pids, "another daemon keeps the number")
    live.do("reexec")
    assert {name: entry["pid"] for name, entry in live.status().items()} == pids
    live.do("scale", "web", "3")
    live.wait_until(lambda: set(live.status()) == {"web:0", "web:1", "web:2"}, "one has gone")
    live.do("reload")
    live.wait_until(lambda: set(live.status()) == {"web:0", "web:1"}, "the file counts again")
    assert live.process_of("web:0")["pid"] == first
    live.kill()
    live.start()
    assert set(live.status()) == {"web:0", "web:1"}, "the number that was forgotten stays so"
    assert live.ctl("scale", "nothing", "2").returncode == 1
