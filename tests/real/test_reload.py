"""SIGHUP and ``asupctl reload``: only what changed, only as much as it needs, nothing on a refused file."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemons import LiveDaemon, alive

Make = Callable[..., LiveDaemon]
pytestmark = pytest.mark.real

BASE = """
programs:
  same: {command: [sleep, "1000"], start_seconds: 0}
  edited: {command: [sleep, "1000"], start_seconds: 0}
  tuned: {command: [sleep, "1000"], start_seconds: 0}
  removed: {command: [sleep, "1000"], start_seconds: 0}
"""
NEXT = """
programs:
  added: {command: [sleep, "1000"], start_seconds: 0, replicas: 2}
  same: {command: [sleep, "1000"], start_seconds: 0}
  edited: {command: [sleep, "2000"], start_seconds: 0}
  tuned: {command: [sleep, "1000"], start_seconds: 0, logs: {max_size: 1MB}, restart: {max_restarts: 7}}
"""


def pids(live: LiveDaemon, *names: str) -> dict[str, int]:
    return {name: live.wait_for(name, "RUNNING")["pid"] for name in names}


def test_only_what_changed_is_touched(daemon: Make) -> None:
    live = daemon(BASE)
    before = pids(live, "same", "edited", "tuned", "removed")
    live.write(NEXT)
    plan = live.do("reload", "--plan")
    for word in ("added", "edited", "tuned", "removed"):
        assert word in plan
    assert pids(live, *before) == before  # a plan does nothing
    live.send(signal.SIGHUP)
    live.wait_until(lambda: list(live.status()) == ["added:0", "added:1", "same", "edited", "tuned"], "the file's order")
    live.wait_for("edited", "RUNNING", run=2, cause="config_changed", restarts=0)
    after = pids(live, "same", "edited", "tuned", "added:0", "added:1")
    assert (after["same"], after["tuned"]) == (before["same"], before["tuned"])
    assert after["edited"] != before["edited"] and not alive(before["removed"])
    assert json.loads(live.do("config", "tuned", "--json"))["restart"]["max_restarts"] == 7


def test_a_living_daemon_refuses_to_move_and_touches_nothing(daemon: Make) -> None:
    live = daemon(BASE)
    before = pids(live, "same", "edited", "tuned")
    live.write("daemon:\n  run_dir: elsewhere\n" + BASE)
    for verb in (["reload"], ["reload", "--plan"]):
        refused = live.ctl(*verb)
        assert refused.returncode == 2
        assert f"programs.yaml:2:12: daemon.run_dir: the running daemon cannot move from {live.folder}/.asupd: stop it" in refused.stderr
    refused = live.ctl("reexec")
    assert refused.returncode == 1
    assert "a running daemon cannot move to another run_dir" in refused.stderr
    assert pids(live, *before) == before
    assert not (live.folder / "elsewhere").exists()
    live.write(BASE)
    live.do("reload")
    assert pids(live, *before) == before


def test_a_refused_file_leaves_everything_and_says_all(daemon: Make) -> None:
    live = daemon(BASE)
    before = pids(live, "same", "edited")
    live.write(BASE.replace("start_seconds: 0}", "start_second: 0}", 1) + "  bad: {command: 5, replicas: -1}\n")
    refused = live.ctl("reload")
    assert refused.returncode == 2
    assert (
        "programs.yaml:3:" in refused.stderr and "did you mean 'start_seconds'" in refused.stderr and "programs.yaml:7:" in refused.stderr
    )
    assert pids(live, "same", "edited") == before
    assert "refused" in live.ctl("status").stdout
    assert "programs.yaml:7:" not in live.text()  # who asked was told
    live.send(signal.SIGHUP)
    live.wait_until(lambda: "programs.yaml:3:" in live.text() and "programs.yaml:7:" in live.text(), "a signal's asker reads it in the log")
    assert pids(live, "same", "edited") == before
    live.write(BASE)
    live.do("reload")
    assert "refused" not in live.ctl("status").stdout
    assert pids(live, "same", "edited") == before


def test_a_storm_of_hups_is_survived(daemon: Make) -> None:
    live = daemon(BASE)
    before = pids(live, "same", "edited", "tuned", "removed")
    for number in range(200):
        live.write(NEXT if number % 2 else BASE)
        live.send(signal.SIGHUP)
    live.write(BASE)
    live.do("reload")
    live.wait_until(lambda: sorted(live.status()) == sorted(before), "the last file holds")
    assert pids(live, "same")["same"] == before["same"]
    assert live.text().count("reloaded") < 150
    assert live.end() == 0 and live.tagged() == []


def test_replicas_come_and_go(daemon: Make) -> None:
    live = daemon("programs: {w: {command: [sleep, '1000'], start_seconds: 0, replicas: 2}}")
    first = pids(live, "w:0", "w:1")
    live.write("programs: {w: {command: [sleep, '1000'], start_seconds: 0, replicas: 4}}")
    live.do("reload")
    assert {key: pids(live, *[f"w:{n}" for n in range(4)])[key] for key in first} == first
    live.write("programs: {w: {command: [sleep, '1000'], start_seconds: 0, replicas: 2}}")
    live.do("reload")
    live.wait_until(lambda: list(live.status()) == ["w:0", "w:1"], "two again")
    assert pids(live, "w:0", "w:1") == first


def test_files_that_a_reload_names_are_watched_and_others_not_any_more(daemon: Make, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text("0")
    base = "programs: {a: {command: [sleep, '1000'], start_seconds: 0, watch: {paths: [one], debounce: 10ms}}}"
    live = daemon(base)
    live.wait_for("a", "RUNNING")
    live.write(base.replace("one", "two"))
    live.do("reload")
    assert live.process_of("a")["run"] == 1
    (tmp_path / "one").write_text("1")
    count = 0

    def followed() -> bool:
        nonlocal count
        count += 1
        (tmp_path / "two").write_text("1" * count)  # the first may come before it is watched
        return live.process_of("a")["run"] > 1

    live.wait_until(followed, "a change of the other file is followed", every=0.3)
    told = [event["message"] for event in live.events() if event.get("to") == "STOPPING"]
    assert told and all("two changed" in words for words in told)


def test_a_program_taken_out_and_put_back_at_once(daemon: Make, tmp_path: Path) -> None:
    """The former run takes its time; the new one comes when it is over."""
    script = 'trap "while ! test -e go; do sleep 0.05; done; exit" TERM; while :; do sleep 0.05; done'
    others = "programs:\n  a: {command: [sleep, '1000'], start_seconds: 0}\n"
    slow = others + f"  slow: {{command: [sh, -c, {json.dumps(script)}], start_seconds: 0, stop: {{grace_period: 5m}}}}\n"
    live = daemon(slow)
    old = pids(live, "a", "slow")["slow"]
    live.write(others)
    live.do("reload", "--no-wait")
    live.wait_for("slow", "STOPPING")
    live.write(slow)
    live.do("reload", "--no-wait")
    assert alive(old)
    (tmp_path / "go").touch()
    live.wait_until(lambda: not alive(old), "the old one is gone")
    assert live.wait_for("slow", "RUNNING")["pid"] != old
    assert len(live.tagged()) >= 2


def test_nothing_of_a_removed_program_stays_in_the_run_dir_but_its_log(open_path: Path) -> None:
    """Programs that get a new name with each deployment left a heartbeat file each."""
    beating = "command: [sleep, '1000'], start_seconds: 0, heartbeat: 1h"
    programs = f"programs: {{v1: {{{beating}, logs: {{format: json}}}}, talking: {{command: [sleep, '1000'], notify: true}}}}"
    with LiveDaemon(open_path, programs) as live:
        live.wait_for("v1", "RUNNING")
        live.wait_until(lambda: bool(live.process_of("talking")["pid"]), "talking has its socket")
        run_dir = live.folder / ".asupd"
        assert {path.name for folder in ("heartbeats", "notify") for path in (run_dir / folder).iterdir()} == {"v1", "talking.sock"}
        live.write(f"programs: {{v2: {{{beating}}}}}")
        live.do("reload")
        live.wait_until(lambda: list(live.status()) == ["v2"], "the others are gone")
        left = {path.name for folder in ("heartbeats", "notify", "output") for path in (run_dir / folder).iterdir()}
        assert left == {"v2"}
