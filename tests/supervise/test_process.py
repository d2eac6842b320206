"""The driver of one process against a fake machine, under a virtual clock: no sleep is real."""

from __future__ import annotations

import itertools
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from supervisord_async.config.model import Backoff, Heartbeat, Probe, Restart, Stop, Watch
from supervisord_async.core.inputs import RestartRequested, SignalRequested, StartRequested, StopRequested
from supervisord_async.core.policy import OnLimit, RestartPolicy
from supervisord_async.core.record import Record
from supervisord_async.core.state import Cause, Health, Snapshot, State
from supervisord_async.errors import SpawnError
from supervisord_async.supervise.host import Signature
from supervisord_async.supervise.process import CALM_SECONDS, RESUME_PAUSES_SECONDS, Process
from supervisord_async.supervise.recovery.persist import SavedNotifySocket, SavedProcess
from supervisord_async.supervise.recovery.takeover import Inherited
from tests.fake_host import FakeChild, FakeHost, program, shared_context
from tests.virtual_clock import run_virtually, until

STEADY = Backoff(initial_seconds=1.0, factor=2.0, max_seconds=60.0, jitter=0.0)


class Scene:
    """One process on a fake machine, and all that was told of it."""

    def __init__(self, host: FakeHost, process: Process, records: list[Record]) -> None:
        self.host, self.process, self.records = host, process, records

    async def until(self, condition: Callable[[], bool], seconds: float = 3600.0) -> None:
        """Returns when the condition holds; virtual time passes meanwhile."""
        await until(condition, seconds)

    async def state(self, *states: State) -> None:
        await self.until(lambda: self.process.snapshot.state in states)

    def states(self) -> list[str]:
        return [record.to or "" for record in self.records if record.type == "state"]


def play(scene: Callable[[Scene], Awaitable[None]], host: FakeHost | None = None, **settings: Any) -> Scene:
    """Run ``scene`` with a process of these settings."""
    result: list[Scene] = []

    async def main() -> None:
        machine = host or FakeHost()
        shared = shared_context(machine)
        process = Process("web", 0, program(**settings), shared)
        records: list[Record] = []
        shared.bus.listen(records.append)
        result.append(Scene(machine, process, records))
        async with anyio.create_task_group() as tasks:
            process.begin(tasks)
            await scene(result[0])
            tasks.cancel_scope.cancel()

    run_virtually(main)
    return result[0]


def test_a_start_reaches_running_after_start_seconds() -> None:
    async def scene(s: Scene) -> None:
        s.process.post(StartRequested())
        began = anyio.current_time()
        await s.state(State.RUNNING)
        assert anyio.current_time() - began == pytest.approx(2.0, abs=0.05)
        assert s.process.snapshot.pid == s.host.child.pid

    assert play(scene, start_seconds=2.0).states() == ["STARTING", "RUNNING"]


def test_a_crash_is_followed_by_backoff_and_a_new_run() -> None:
    async def scene(s: Scene) -> None:
        s.process.post(StartRequested())
        await s.state(State.RUNNING)
        s.host.child.end(code=1)
        await s.until(lambda: len(s.host.children) == 2)
        await s.state(State.RUNNING)
        snapshot = s.process.snapshot
        assert (snapshot.cause, snapshot.restarts, snapshot.run) == (Cause.EXITED, 1, 2)
        assert snapshot.exit is not None and snapshot.exit.code == 1

    told = play(scene, restart=Restart(backoff=STEADY))
    assert told.states() == ["STARTING", "RUNNING", "BACKOFF", "STARTING", "RUNNING"]
    assert "exited with 1" in next(record.message for record in told.records if record.to == "BACKOFF")


def test_a_successor_is_begun_before_the_end_of_the_former_run_is_told() -> None:
    told_before: list[list[str]] = []

    async def scene(s: Scene) -> None:
        s.process.post(StartRequested())
        await s.state(State.RUNNING)
        spawn = s.host.spawn

        async def observed(spec: Any) -> Any:
            told_before.append(s.states())
            return await spawn(spec)

        s.host.spawn = observed  # type: ignore[method-assign]
        s.host.child.end(code=1)
        await s.until(lambda: len(s.states()) == 5)

    s = play(scene, restart=Restart(policy=RestartPolicy.ALWAYS, backoff=Backoff(initial_seconds=0.0, jitter=0.0)))
    assert told_before == [["STARTING", "RUNNING"]]
    assert s.states() == ["STARTING", "RUNNING", "BACKOFF", "STARTING", "RUNNING"]


def test_backoff_doubles_up_to_the_limit_which_is_fatal() -> None:
    async def scene(s: Scene) -> None:
        s.host.on_spawn = lambda child: child.end(code=1)
        s.process.post(StartRequested())
        began = anyio.current_time()
        await s.state(State.FATAL)
        assert anyio.current_time() - began == pytest.approx(1 + 2 + 4, abs=0.1)
        assert s.process.snapshot.cause is Cause.RESTART_LIMIT
        assert len(s.host.children) == 4

    play(scene, restart=Restart(max_restarts=3, backoff=STEADY))


def test_the_seeds_unit_three_restarts_in_ten_minutes_thirty_seconds_apart() -> None:
    async def scene(s: Scene) -> None:
        s.host.on_spawn = lambda child: child.end(code=1)
        s.process.post(StartRequested())
        began = anyio.current_time()
        await s.state(State.FATAL)
        assert anyio.current_time() - began == pytest.approx(90, abs=0.2)

    play(scene, restart=Restart(max_restarts=3, within_seconds=600, backoff=Backoff(initial_seconds=30, factor=1, jitter=0.0)))


def test_calm_resets_the_counter() -> None:
    async def scene(s: Scene) -> None:
        s.process.post(StartRequested())
        await s.state(State.RUNNING)
        s.host.child.end(code=1)
        await s.until(lambda: s.process.snapshot.run == 2)
        await s.until(lambda: s.process.snapshot.restarts == 0)
        assert s.process.snapshot.state is State.RUNNING

    play(scene, restart=Restart(backoff=STEADY, reset_after_seconds=30))


def test_a_stop_wins_over_a_pending_restart() -> None:
    async def scene(s: Scene) -> None:
        s.process.post(StartRequested())
        await s.state(State.RUNNING)
        s.host.child.obeys = False
        s.process.post(RestartRequested())
        s.process.post(StopRequested())
        await s.state(State.STOPPED)
        assert s.host.child.signals[:1] == [15] and s.host.child.signals[-1] == 9
        assert len(s.host.children) == 1

    play(scene, stop=Stop(grace_seconds=3))


def test_what_outlives_its_parent_goes_before_the_next_run() -> None:
    async def scene(s: Scene) -> None:
        s.process.post(StartRequested())
        await s.state(State.RUNNING)
        first = s.host.child
        first.leaves = 2
        s.host.on_spawn = lambda child: None if first.leaves == 0 else pytest.fail("spawned beside leftovers")
        first.end(code=1)
        await s.until(lambda: len(s.host.children) == 2)
        assert 15 in first.signals

    assert "STOPPING" in play(scene, restart=Restart(backoff=STEADY)).states()


def test_a_failed_spawn_goes_through_backoff_with_its_stage() -> None:
    host = FakeHost()
    host.refuse = [SpawnError("exec", 2, "/no/such")] * 2

    async def scene(s: Scene) -> None:
        s.process.post(StartRequested())
        await s.state(State.RUNNING)
        assert s.process.snapshot.run == 3

    told = play(scene, host, restart=Restart(backoff=STEADY))
    backoffs = [record for record in told.records if record.to == "BACKOFF"]
    assert [record.cause for record in backoffs] == ["spawn_failed", "spawn_failed"]
    assert "exec: /no/such: No such file or directory" in backoffs[0].message


def test_a_missed_heartbeat_restarts_within_a_quarter_more_than_the_timeout() -> None:
    async def scene(s: Scene) -> None:
        s.process.post(StartRequested())
        await s.state(State.RUNNING)
        for beat in range(1, 6):
            await anyio.sleep(4)
            s.host.files["/beat"] = (beat, 1, 1)
        await s.until(lambda: s.process.snapshot.health is Health.HEALTHY)
        last = anyio.current_time()
        await s.state(State.STOPPING, State.BACKOFF)
        assert 20 <= anyio.current_time() - last + 0.05 <= 25.1
        await s.until(lambda: len(s.host.children) == 2)
        await s.state(State.RUNNING)
        assert s.process.snapshot.cause is Cause.HEARTBEAT_MISSED

    play(scene, heartbeat=Heartbeat(file="/beat", timeout_seconds=20), restart=Restart(backoff=STEADY))


def test_a_file_left_by_an_earlier_run_is_no_heartbeat() -> None:
    host = FakeHost()
    host.files["/beat"] = (1, 1, 1)

    async def scene(s: Scene) -> None:
        s.process.post(StartRequested())
        await s.until(lambda: s.process.snapshot.cause is Cause.HEARTBEAT_MISSED)
        assert all(record.to != "healthy" for record in s.records)

    play(scene, host, heartbeat=Heartbeat(file="/beat", timeout_seconds=5))


def test_settings_that_come_while_a_run_begins_hold_for_it() -> None:
    async def scene(s: Scene) -> None:
        s.host.on_spawn = lambda _: s.process.reconfigure(program(heartbeat=Heartbeat(file="/beat", timeout_seconds=5)))
        s.process.post(StartRequested())
        await s.state(State.RUNNING)
        began = anyio.current_time()
        await s.until(lambda: s.process.snapshot.cause is Cause.HEARTBEAT_MISSED)
        assert anyio.current_time() - began < 10

    play(scene, heartbeat=Heartbeat(file="/beat", timeout_seconds=600))


def test_a_missed_heartbeat_of_a_file_ends_the_run_by_the_programs_own_signal() -> None:
    """ABRT is for those who know of the watchdog: they asked for it by ``notify``."""

    async def scene(s: Scene) -> None:
        s.process.post(StartRequested())
        await s.until(lambda: len(s.host.children) == 2)
        assert s.process.snapshot.cause is Cause.HEARTBEAT_MISSED
        assert s.host.children[0].signals[0] == signal.SIGHUP

    def obey(child: Any) -> None:
        child.end_by = child.signal
        child.signal = lambda signum, scope: (child.end_by(signum, scope), child.end(signal=signum))

    host = FakeHost()
    host.on_spawn = obey
    play(
        scene, host, heartbeat=Heartbeat(file="/beat", timeout_seconds=5), stop=Stop(signal=signal.SIGHUP), restart=Restart(backoff=STEADY)
    )


def test_who_is_told_to_go_is_not_asked_any_more_whether_it_is_ready() -> None:
    async def scene(s: Scene) -> None:
        s.process.post(StartRequested())
        await s.state(State.RUNNING)
        s.host.child.obeys = False
        s.process.post(StopRequested())
        await s.state(State.STOPPING)
        asked = s.host.asked
        await anyio.sleep(50.0)
        assert s.process.snapshot.state is State.STOPPING
        assert s.host.asked == asked

    class Counting(FakeHost):
        asked = 0

        async def ask(self, probe: Any) -> str | None:
            self.asked += 1
            return await super().ask(probe)

    play(scene, Counting(), readiness=Probe(kind="tcp", tcp=("127.0.0.1", 80), interval_seconds=1.0), stop=Stop(grace_seconds=100.0))


@pytest.mark.parametrize("by_reexec", [False, True])
def test_descriptors_of_a_former_daemon_are_taken_over_by_a_reexec_alone(by_reexec: bool) -> None:
    """To any other process its numbers say nothing."""

    async def main() -> None:
        ours, theirs = socket.socketpair(type=socket.SOCK_DGRAM)
        notify_socket = SavedNotifySocket(fd=ours.detach(), address="@nowhere", status="serving")
        saved = SavedProcess(name="web", program="web", replica=0, snapshot=Snapshot(), notify_socket=notify_socket)
        process = Process("web", 0, program(), shared_context(FakeHost()))
        process.inherit(Inherited("web", Snapshot(), None, saved, by_reexec=by_reexec))
        assert process.status_text == ("serving" if by_reexec else "")
        process.close_notify_socket()
        assert Path(f"/proc/self/fd/{notify_socket.fd}").exists() is not by_reexec
        theirs.close()
        if not by_reexec:
            os.close(notify_socket.fd)

    run_virtually(main)


def test_limit_with_shutdown_asks_for_the_end_of_the_daemon() -> None:
    asked: list[str] = []

    async def main() -> None:
        host = FakeHost()
        host.on_spawn = lambda child: child.end(code=1)
        restart = Restart(max_restarts=0, on_limit=OnLimit.SHUTDOWN)
        process = Process("web", 0, program(restart=restart), shared_context(host, shut_down=asked.append))
        async with anyio.create_task_group() as tasks:
            process.begin(tasks)
            process.post(StartRequested())
            while not asked:
                await anyio.sleep(0.1)
            tasks.cancel_scope.cancel()

    run_virtually(main)
    assert asked[0].startswith("web: restart limit")


def test_an_operators_signal_that_ends_it_is_no_failure() -> None:
    async def scene(s: Scene) -> None:
        s.process.post(StartRequested())
        await s.state(State.RUNNING)
        s.process.post(SignalRequested(15))
        await s.state(State.EXITED)

    play(scene, restart=Restart(policy=RestartPolicy.ON_FAILURE))


@pytest.mark.parametrize("broken", ["spawn", "tree", "signature"])
def test_a_bug_in_one_process_leaves_it_unknown_and_is_survived(broken: str, caplog: pytest.LogCaptureFixture) -> None:
    host = FakeHost()
    good = getattr(host, broken)

    def bug(*_args: Any, **_kwargs: Any) -> Any:
        setattr(host, broken, good)
        raise ZeroDivisionError("a bug")

    setattr(host, broken, bug)

    async def scene(s: Scene) -> None:
        s.process.post(StartRequested())
        await s.until(lambda: "UNKNOWN" in s.states())
        await s.state(State.RUNNING)

    told = play(scene, host, heartbeat=Heartbeat(file="/beat", timeout_seconds=600), restart=Restart(backoff=STEADY))
    assert "a bug" in caplog.text
    assert told.process.snapshot.state is State.RUNNING
    (record,) = [record for record in told.records if record.type == "supervision"]
    assert record.name == "web" and "a bug broke its supervision" in record.message and "a bug" in record.message
    assert [record.cause for record in told.records if record.to == "UNKNOWN"] == ["internal_error"]


def test_paths_that_are_watched_no_more_before_their_watch_has_begun_are_not_watched(tmp_path: Path) -> None:
    async def main() -> list[str]:
        shared = shared_context(FakeHost())
        process = Process("web", 0, program(watch=(Watch(paths=(str(tmp_path / "old"),)),)), shared)
        async with anyio.create_task_group() as tasks:
            process.begin(tasks)
            process.reconfigure(program(watch=(Watch(paths=(str(tmp_path / "new"),)),)))
            await anyio.wait_all_tasks_blocked()
            watched = [path.root for each in shared.files._subscriptions for path in each.watched_paths]
            tasks.cancel_scope.cancel()
        return watched

    assert run_virtually(main) == [str(tmp_path / "new")]


def test_settings_that_come_while_supervision_is_broken_hold_for_the_run_that_lives_on() -> None:
    host = FakeHost()
    good = host.signature

    async def bug(path: str) -> Signature:
        host.signature = good  # type: ignore[method-assign]
        raise ZeroDivisionError("a bug")

    async def scene(s: Scene) -> None:
        s.process.post(StartRequested())
        await s.state(State.RUNNING)
        host.signature = bug  # type: ignore[method-assign]
        await s.until(lambda: "UNKNOWN" in s.states())
        s.process.reconfigure(program())
        await s.state(State.RUNNING)
        await anyio.sleep(100)
        assert len(host.children) == 1

    play(scene, host, heartbeat=Heartbeat(file="/beat", timeout_seconds=20))


def test_supervision_that_breaks_again_and_again_is_taken_up_ever_later() -> None:
    """A pause is the first again after a calm time."""
    host = FakeHost()
    tries: list[float] = []
    mend = False

    def bug(*_: Any) -> Any:
        tries.append(anyio.current_time())
        if not mend:
            raise ZeroDivisionError("a bug")
        return good(*_)

    good = host.tree
    host.tree = bug  # type: ignore[method-assign,assignment]

    async def scene(s: Scene) -> None:
        nonlocal mend
        s.process.post(StartRequested())
        await s.until(lambda: len(tries) == 6)
        mend = True
        await s.state(State.RUNNING)
        await anyio.sleep(CALM_SECONDS)
        mend = False
        s.process.post(RestartRequested())
        await s.until(lambda: len(tries) == 9)

    play(scene, host, start_seconds=0.0, restart=Restart(backoff=Backoff(initial_seconds=0.0, jitter=0.0)))
    gaps = [round(after - before, 1) for before, after in itertools.pairwise(tries)]
    first, *others = RESUME_PAUSES_SECONDS
    assert gaps[:6] == [first, *others, others[-1], others[-1]]
    assert gaps[7] == first


def test_supervision_that_breaks_at_the_instant_at_which_it_is_taken_up_is_taken_up_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """What broke it, an end that could not be looked at, is met again there, before anything is awaited."""
    host = FakeHost()
    looks: list[float] = []

    def bug(_child: FakeChild) -> bool:
        looks.append(anyio.current_time())
        if len(looks) < 4:
            raise OSError("a bug")
        return False

    monkeypatch.setattr(FakeChild, "has_leftovers", bug)

    async def scene(s: Scene) -> None:
        s.process.post(StartRequested())
        await s.state(State.RUNNING)
        host.child.end(code=3)
        await s.until(lambda: len(host.children) == 2)
        await s.state(State.RUNNING)

    play(scene, host, restart=Restart(backoff=STEADY))
    gaps = [round(after - before, 1) for before, after in itertools.pairwise(looks[:4])]
    assert gaps == list(RESUME_PAUSES_SECONDS[:3])


def test_a_bug_after_the_birth_of_a_child_doubles_nothing(caplog: pytest.LogCaptureFixture) -> None:
    host = FakeHost()
    good = host.tree

    def bug(*_args: Any) -> Any:
        host.tree = good  # type: ignore[method-assign]
        raise ZeroDivisionError("a bug")

    host.tree = bug  # type: ignore[method-assign,assignment]

    async def scene(s: Scene) -> None:
        s.process.post(StartRequested())
        await s.until(lambda: "UNKNOWN" in s.states())
        await s.state(State.RUNNING)
        assert [child.alive for child in s.host.children] == [False, True]

    play(scene, host, restart=Restart(backoff=STEADY))
    assert "a bug" in caplog.text
