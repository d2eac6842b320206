"""The device below the state and the history fails (EIO): told once, undisturbed, recovered, and adoption works all the same."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.daemons import LiveDaemon, unbroken
from tests.liar import EVERYTHING, RENAMING, SYNCING, WRITING, Liar

Make = Callable[..., LiveDaemon]
pytestmark = pytest.mark.real

COUNTER = "import itertools,time\nfor n in itertools.count():\n  print(n, flush=True)\n  time.sleep(0.002)"
#: The programs do not inherit: they are told the truth.
PROGRAMS = f"""
defaults: {{inherit_environment: [PATH], start_seconds: 0, restart: {{backoff: {{initial: 100ms, max: 1s}}}}}}
programs:
  counter: {{command: [{sys.executable}, -c, {json.dumps(COUNTER)}]}}
  victim: {{command: [sleep, "1000"]}}
  other: {{command: [sleep, "1000"]}}
"""


def state_of(live: LiveDaemon) -> Path:
    return live.folder / ".asupd" / "state.json"


def history_of(live: LiveDaemon) -> Path:
    return live.folder / ".asupd" / "history.db"


def counted(live: LiveDaemon) -> list[int]:
    """The numbers in the counter's log."""
    return [int(line) for line in (live.folder / ".asupd" / "logs" / "counter.log").read_bytes().split(b"\n")[:-1]]


def goes_on(live: LiveDaemon) -> None:
    """The counter's output arrives, and nothing of it is missing."""
    count = len(counted(live))
    live.wait_until(lambda: len(counted(live)) > count + 100, "the counter's output arrives", every=0.1)
    numbers = counted(live)
    assert numbers == list(range(len(numbers)))


def die(live: LiveDaemon, run: int) -> dict[str, Any]:
    """The victim is killed, and its next run is RUNNING: this is it."""
    os.kill(live.process_of("victim")["pid"], signal.SIGKILL)
    return live.wait_for("victim", "RUNNING", run=run)


def runs_kept(live: LiveDaemon) -> list[int]:
    """The runs of the victim that the history has."""
    with closing(sqlite3.connect(f"file:{history_of(live)}?mode=ro", uri=True)) as database:
        return [run for (run,) in database.execute("SELECT run FROM runs WHERE name = 'victim' ORDER BY id")]


def said(live: LiveDaemon, words: str) -> int:
    return live.text().count(words)


@pytest.mark.parametrize("kinds", [EVERYTHING, SYNCING, RENAMING], ids=["everything", "syncing", "renaming"])
def test_a_state_that_cannot_be_kept_is_told_once_and_kept_again(daemon: Make, liar: Liar, kinds: int) -> None:
    live = daemon(PROGRAMS, environment=liar.environment)
    before = {name: live.wait_for(name, "RUNNING")["pid"] for name in ("counter", "victim", "other")}
    with liar.failing(state_of(live), kinds=kinds):
        die(live, 2)
        live.wait_until(lambda: "cannot save the state" in live.text(), "it is told")
        assert "Input/output error" in live.text()
        told = liar.told
        die(live, 3)
        live.wait_until(lambda: liar.told > told + 1, "it is tried again")
        live.do("stop", "other")
        goes_on(live)
        assert said(live, "cannot save the state") == 1
    live.wait_until(lambda: "the state is saved again" in live.text(), "it is told that it works")
    victim = live.process_of("victim")
    live.kill()
    live.start()
    assert live.wait_for("victim", "RUNNING", run=3)["pid"] == victim["pid"]
    assert live.process_of("counter")["pid"] == before["counter"]
    assert live.process_of("other")["state"] == "STOPPED"
    assert said(live, "cannot save the state") == said(live, "the state is saved again") == 1
    goes_on(live)
    unbroken(live)
    assert live.end() == 0
    assert live.tagged() == []


@pytest.mark.parametrize("kinds", [EVERYTHING, WRITING], ids=["everything", "writing"])
def test_a_history_that_cannot_be_kept_is_told_once_and_has_everything_afterwards(daemon: Make, liar: Liar, kinds: int) -> None:
    live = daemon(PROGRAMS, environment=liar.environment)
    before = {name: live.wait_for(name, "RUNNING")["pid"] for name in ("counter", "victim", "other")}
    with liar.failing(history_of(live), kinds=kinds):
        die(live, 2)
        live.wait_until(lambda: "history: cannot write" in live.text(), "it is told")
        for _ in range(5):
            told = live.ctl("history", "victim")
            assert told.returncode == 0 or (told.returncode == 1 and "the history cannot be read: " in told.stderr), told
        assert (told.returncode == 0) is (kinds == WRITING), "what cannot be read is not told as empty"
        die(live, 3)
        goes_on(live)
        assert said(live, "history: cannot write") == 1 and said(live, "history: cannot read") <= 1
    live.wait_until(lambda: "is written again; 0 records were dropped" in live.text(), "it is told that it works")
    live.wait_until(lambda: runs_kept(live) == [1, 2, 3], "the runs of meanwhile are there")
    die(live, 4)
    live.wait_until(lambda: runs_kept(live) == [1, 2, 3, 4], "so is the next")
    assert live.process_of("counter")["pid"] == before["counter"]
    assert live.process_of("other")["pid"] == before["other"]
    assert not list(history_of(live).parent.glob("*.corrupt-*"))
    unbroken(live)
    assert live.end() == 0
    assert live.tagged() == []


@pytest.mark.parametrize("meanwhile", ["it still fails", "it works again"])
def test_a_daemon_that_is_killed_while_its_device_fails_has_a_successor_that_adopts_by_tags(
    daemon: Make, liar: Liar, meanwhile: str
) -> None:
    """What was started after the last good save is in no file."""
    live = daemon(PROGRAMS, environment=liar.environment)
    before = {name: live.wait_for(name, "RUNNING")["pid"] for name in ("counter", "victim", "other")}
    with liar.failing(state_of(live), history_of(live)):
        for run in (2, 3):
            victim = die(live, run)["pid"]
        live.wait_until(lambda: "cannot save the state" in live.text(), "the state that is not saved is told")
        live.wait_until(lambda: "history: cannot write" in live.text(), "the history that is not written is told")
        live.kill()
        if meanwhile == "it still fails":
            live.start()
            adopted(live, before | {"victim": victim})
            live.wait_until(lambda: said(live, "cannot save the state") == 2, "the successor tells it too")
    if meanwhile == "it works again":
        live.start()
        adopted(live, before | {"victim": victim})
    else:
        live.wait_until(lambda: "the state is saved again" in live.text(), "the state is saved again")
        live.wait_until(lambda: "is written again" in live.text(), "the history is written again")
    die(live, 4)
    live.wait_until(lambda: 4 in runs_kept(live), "the next run is in the history")
    goes_on(live)
    unbroken(live)
    assert live.end() == 0
    assert live.tagged() == []


def adopted(live: LiveDaemon, pids: dict[str, int]) -> None:
    """These live on, each once."""
    for name, pid in pids.items():
        assert live.wait_for(name, "RUNNING")["pid"] == pid
    assert live.process_of("victim")["run"] == 3
    assert {process.identity.pid for process in live.tagged()} == set(pids.values())
