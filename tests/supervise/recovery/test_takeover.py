"""Two witnesses, the saved state and /proc, and what follows from what they say together."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec import structs

from supervisord_async.config.model import Logs, Probe, Program
from supervisord_async.core.inputs import SignalRequested
from supervisord_async.core.state import Cause, Snapshot, State
from supervisord_async.errors import SpawnError
from supervisord_async.supervise.process import Process
from supervisord_async.supervise.recovery import ending, persist
from supervisord_async.supervise.recovery.persist import SavedProcess, SavedState
from supervisord_async.supervise.recovery.takeover import finish_ending, reconcile, take_note_of_ending, without_impostors
from supervisord_async.system.credentials import Credentials
from supervisord_async.system.identity import Identity, identify
from supervisord_async.system.tags import Tagged
from tests.fake_host import FakeChild, FakeHost, program, shared_context
from tests.virtual_clock import run_virtually

BOOT = "boot"


def saved(**snapshot: Any) -> SavedState:
    process = SavedProcess(name="web", program="web", replica=0, snapshot=Snapshot(**snapshot), start_ticks=500, settings="d")
    return SavedState(boot_id=BOOT, instance="i", processes=(process,))


def alive(run: int, pid: int = 42, ticks: int = 500, leader: bool = True) -> Tagged:
    return Tagged(Identity(pid, ticks, BOOT), "web", run, leader)


RUNNING: dict[str, Any] = {"state": State.RUNNING, "wanted": True, "run": 3, "ended_run": 2, "pid": 42, "cause": Cause.AUTOSTART}


def test_what_was_saved_and_lives_goes_on() -> None:
    slot = reconcile(saved(**RUNNING), [alive(3)], BOOT)["web"]
    assert slot.main == Identity(42, 500, BOOT)
    assert slot.snapshot.state is State.RUNNING and slot.stray_runs == ()


def test_what_is_saved_before_it_is_taken_over_is_enough_for_the_next_daemon() -> None:
    process = Process("web", 0, program(), shared_context(FakeHost()))
    former = saved(**RUNNING)
    known = former.processes[0]
    process.inherit(reconcile(former, [alive(3)], BOOT, by_reexec=True)["web"])
    again = structs.replace(former, processes=(process.saved(),))
    assert (again.processes[0].start_ticks, again.processes[0].settings) == (known.start_ticks, known.settings)
    assert reconcile(again, [alive(3)], BOOT)["web"].main == Identity(42, 500, BOOT)


class Slow(FakeHost):
    """Many others are taken over before ``former``, which happens in :meth:`turn`."""

    def __init__(self) -> None:
        super().__init__()
        self.former = FakeChild(42, None)
        self._turns: list[Any] = []

    def adopt(self, identity: Identity) -> Any:
        return self.former

    def at_turn(self, callback: Any) -> None:
        self._turns.append(callback)

    def turn(self) -> None:
        for callback in self._turns:
            callback()


@asynccontextmanager
async def taking_over(host: Slow, one: Program, **snapshot: Any) -> AsyncIterator[Process]:
    """A process whose former run is ``host.former``."""
    process = Process("web", 0, one, shared_context(host))
    process.inherit(structs.replace(reconcile(saved(**RUNNING | snapshot), [alive(3)], BOOT)["web"], settings=""))
    async with anyio.create_task_group() as tasks:
        process.begin(tasks)
        await anyio.sleep(1)
        yield process
        process.dismiss()


def test_a_signal_that_is_ordered_before_the_run_is_taken_over_reaches_it() -> None:
    async def main() -> None:
        host = Slow()
        async with taking_over(host, program()) as process:
            process.post(SignalRequested(signal.SIGHUP))
            await anyio.sleep(1)
            host.turn()
            await anyio.sleep(1)
            assert host.former.signals == [signal.SIGHUP]

    run_virtually(main)


def test_a_start_that_nobody_saw_become_ready_is_looked_at_before_it_is_late() -> None:
    """It was to be ready in 3 s, and there was no daemon for 100."""

    async def main() -> None:
        host = Slow()
        checked = program(readiness=Probe(kind="tcp", tcp=("127.0.0.1", 80), start_timeout_seconds=3.0))
        async with taking_over(host, checked, state=State.STARTING, run_since=anyio.current_time() - 100.0) as process:
            assert process.snapshot.state is State.STARTING
            host.answers["127.0.0.1", 80] = "Connection refused"
            host.turn()
            await anyio.sleep(2)
            assert process.snapshot.state is State.STARTING
            host.answers.clear()
            await anyio.sleep(2)
            assert (process.snapshot.state, host.former.signals) == (State.RUNNING, [])

    run_virtually(main)


def test_a_run_spawned_after_the_last_save_is_found_by_its_tag() -> None:
    slot = reconcile(saved(**RUNNING | {"state": State.BACKOFF, "pid": None, "ended_run": 3}), [alive(4, 77, 900)], BOOT)["web"]
    assert slot.main == Identity(77, 900, BOOT)
    assert (slot.snapshot.run, slot.snapshot.ended_run, slot.snapshot.state, slot.snapshot.wanted) == (4, 3, State.UNKNOWN, True)


@pytest.mark.parametrize(
    ("state", "said", "settings"),
    [
        (saved(**RUNNING), "", "d"),  # a program may overwrite its environment
        (saved(**RUNNING | {"state": State.BACKOFF, "pid": None, "run": 2, "ended_run": 2}), "", ""),  # "d" was the earlier run's
        (saved(**RUNNING | {"state": State.BACKOFF, "pid": None, "run": 2, "ended_run": 2}), "e", "e"),
        (saved(**RUNNING | {"state": State.STARTING, "pid": None}), "e", "e"),  # saved before the run began, perhaps with a former one's
        (None, "e", "e"),
        (None, "", ""),
    ],
)
def test_the_settings_that_a_run_was_begun_with_are_its_own_word_and_no_earlier_runs(
    state: SavedState | None, said: str, settings: str
) -> None:
    slot = reconcile(state, [structs.replace(alive(3), settings=said)], BOOT)["web"]
    assert (slot.main, slot.snapshot.run, slot.settings) == (Identity(42, 500, BOOT), 3, settings)


@pytest.mark.parametrize("ticks", [900, 901])
def test_who_left_the_session_of_a_run_that_no_state_knows_does_not_lead_it(ticks: int) -> None:
    earlier, main, child = alive(3, 200, 100), alive(4, 300, 900), alive(4, 301, ticks)
    for state in (None, saved(**RUNNING | {"state": State.BACKOFF, "pid": None, "ended_run": 3})):
        for found in ([earlier, main, child], [child, main, earlier]):
            slot = reconcile(state, found, BOOT)["web"]
            assert (slot.main, slot.snapshot.run, slot.stray_runs) == (main.identity, 4, (3,))


def test_without_any_state_the_living_are_adopted() -> None:
    slot = reconcile(None, [alive(9)], BOOT)["web"]
    assert slot.main == Identity(42, 500, BOOT) and slot.saved is None
    found = slot.snapshot
    assert (found.state, found.run, found.ended_run, found.wanted, found.cause) == (State.UNKNOWN, 9, 8, True, Cause.ADOPTED)


def test_the_age_of_a_run_that_no_state_knows_is_that_of_its_process() -> None:
    me = identify(os.getpid())
    assert me is not None
    sleeper = subprocess.Popen(["sleep", "1000"])
    try:
        before = time.monotonic()
        newborn = identify(sleeper.pid)
        assert newborn is not None
        for state in (None, saved(**RUNNING | {"run_since": 1.0})):  # of no daemon; of one that was killed before it saved
            mine, its = (reconcile(state, [Tagged(one, "web", 9, True)], BOOT)["web"].snapshot.run_since for one in (me, newborn))
            assert 0.0 < mine <= its and abs(its - before) < 60.0
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_spawn_in_flight_is_found_or_known_to_have_failed() -> None:
    state = saved(**RUNNING | {"state": State.STARTING, "pid": None})
    found = reconcile(state, [alive(3)], BOOT)["web"]
    assert (found.main, found.snapshot.state, found.snapshot.pid) == (Identity(42, 500, BOOT), State.STARTING, 42)
    assert reconcile(state, [], BOOT)["web"].main is None


def test_an_operators_stop_survives() -> None:
    slot = reconcile(saved(state=State.STOPPED, wanted=False, run=3, ended_run=3, cause=Cause.OPERATOR), [], BOOT)["web"]
    assert slot.snapshot.state is State.STOPPED and not slot.snapshot.wanted and slot.main is None


def test_leftovers_of_a_run_that_is_over_are_strays() -> None:
    slot = reconcile(saved(**RUNNING), [alive(2, 30, 100), alive(3)], BOOT)["web"]
    assert slot.stray_runs == (2,) and slot.main == Identity(42, 500, BOOT)


@pytest.mark.parametrize("state", [State.STOPPING, State.BACKOFF])
def test_a_leftover_in_a_session_of_its_own_does_not_lead_the_run_that_it_outlived(state: State) -> None:
    slot = reconcile(saved(**RUNNING | {"state": state, "pid": None, "ended_run": 3}), [alive(3, 77, 900)], BOOT)["web"]
    assert slot.main is None and slot.stray_runs == (3,)


def test_descendants_alone_are_nobodys_main_process() -> None:
    slot = reconcile(None, [alive(5, leader=False)], BOOT)["web"]
    assert slot.main is None and slot.stray_runs == (5,)


def test_the_number_of_a_run_whose_leftovers_live_is_not_given_again() -> None:
    slot = reconcile(None, [alive(7, 31, leader=False), alive(5, leader=False)], BOOT)["web"]
    assert slot.snapshot.run == 7 and slot.stray_runs == (5, 7)


@pytest.mark.parametrize(
    ("cause", "after_a_death", "after_a_reexec"),
    [
        (None, True, True),
        (Cause.DAEMON_STOP, True, False),
        (Cause.CONFIG_CHANGED, True, True),
        (Cause.OPERATOR, False, False),
        (Cause.EXITED, False, False),
    ],
)
def test_autostart_starts_what_is_down_for_no_order_of_anybodys(cause: Cause | None, after_a_death: bool, after_a_reexec: bool) -> None:
    down = saved(state=State.STOPPED, wanted=False, run=3, ended_run=3, cause=cause)
    assert reconcile(down, [], BOOT)["web"].begins_anew is after_a_death
    assert reconcile(down, [], BOOT, by_reexec=True)["web"].begins_anew is after_a_reexec


def test_autostart_leaves_alone_what_is_wanted_already() -> None:
    assert not reconcile(saved(**RUNNING | {"cause": None}), [alive(3)], BOOT)["web"].begins_anew


def test_what_lives_of_an_ending_and_no_state_knows_is_told_to_go_once_more() -> None:
    known = saved(**RUNNING | {"state": State.STOPPING, "wanted": False, "since": 1.0, "cause": Cause.DAEMON_STOP})
    for state, since in ((None, 7.0), (known, 1.0)):  # what is known was told when the ending was noted
        slot = finish_ending(reconcile(state, [alive(3)], BOOT), 7.0)["web"]
        found = slot.snapshot
        assert slot.ending and slot.main == Identity(42, 500, BOOT)
        assert (found.state, found.wanted, found.cause, found.since) == (State.STOPPING, False, Cause.DAEMON_STOP, since)


def test_a_state_of_another_boot_says_nothing() -> None:
    assert reconcile(saved(**RUNNING), [], "another boot") == {}


def test_a_daemon_that_is_not_shown_the_boot_knows_the_former_ones_orders_and_is_known_by_the_next() -> None:
    stopped = saved(**RUNNING | {"state": State.STOPPED, "wanted": False, "ended_run": 3, "pid": None, "cause": Cause.OPERATOR})
    for former, boot_id in ((stopped, ""), (structs.replace(stopped, boot_id=""), BOOT)):
        assert not reconcile(former, [], boot_id)["web"].snapshot.wanted


def test_while_the_saved_main_process_lives_nobody_leads_a_later_run() -> None:
    me = identify(os.getpid())
    assert me is not None
    process = SavedProcess(name="web", program="web", replica=0, snapshot=Snapshot(**RUNNING | {"pid": me.pid}), start_ticks=me.start_ticks)
    state = SavedState(boot_id=me.boot_id, instance="i", processes=(process,))
    slot = reconcile(state, [Tagged(Identity(7, 7, me.boot_id), "web", 999, True)], me.boot_id)["web"]
    assert slot.main == me and slot.snapshot.run == 3 and slot.stray_runs == (999,)


@pytest.mark.anyio
async def test_a_tag_makes_nobody_lead_a_run_that_is_of_another_user() -> None:
    own = os.geteuid()

    def tagged(name: str, uid: int | None) -> Tagged:
        return Tagged(Identity(7, 7, BOOT), name, 3, True, uid)

    async def look_up(user: str | None, _group: str | None) -> Credentials | None:
        if user == "nobody knows":
            raise SpawnError("user", None, user)
        return Credentials(4711, 4711, (), "www", "/") if user is not None else None

    programs = {
        user or "": Program(name="web", command=("a",), group="web", directory="/", logs=Logs(stdout="none"), user=user)
        for user in (None, "www", "nobody knows")
    }
    living = [
        tagged(name, uid)
        for name, uid in [
            ("", own),
            ("", None),
            ("www", own),
            ("www", 4711),
            ("nobody knows", own + 1),
            ("", 4711),
            ("www", own + 1),
            ("gone", 4711),
        ]
    ]
    led = [each.is_leader for each in await without_impostors(living, programs, look_up)]
    assert led == [True] * 5 + [False] * 3


def test_an_ending_that_was_begun_is_saved_before_its_mark_goes(tmp_path: Path) -> None:
    """Whoever dies now has told the next one all the same."""
    ending.begin(str(tmp_path))
    now = take_note_of_ending(str(tmp_path), saved(**RUNNING))
    assert now is not None
    assert (now.processes[0].snapshot.state, now.processes[0].snapshot.cause) == (State.STOPPING, Cause.DAEMON_STOP)
    assert persist.load(str(tmp_path))[0] == now
    assert not ending.is_begun(str(tmp_path))


def test_an_ending_without_a_state_leaves_none(tmp_path: Path) -> None:
    ending.begin(str(tmp_path))
    assert take_note_of_ending(str(tmp_path), None) is None
    assert persist.load(str(tmp_path)) == (None, [])
    assert not ending.is_begun(str(tmp_path))
