"""Rolling restarts and scaling, by a real supervisor over a fake machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from supervisord_async.config.model import Configuration, Daemon, Heartbeat, Logs, Restart
from supervisord_async.core.inputs import Input, RestartRequested, StopRequested
from supervisord_async.core.policy import RestartPolicy
from supervisord_async.core.record import Record
from supervisord_async.core.state import Cause, State
from supervisord_async.errors import FailedError, NotFoundError
from supervisord_async.supervise.fleet.scaling import rescaled
from supervisord_async.supervise.process import Process
from supervisord_async.supervise.runs import run_spec
from tests.control.conftest import Scene, playing, swift
from tests.fake_host import FakeChild, program
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio


def web(**settings: Any) -> Any:
    return swift("web", **({"replicas": 3, "rolling": True} | settings))


def up(scene: Scene) -> int:
    return sum(process.snapshot.state is State.RUNNING for process in scene.supervisor.processes.values())


def watch_least_up(scene: Scene) -> list[int]:
    """How many were up after each change."""
    counts: list[int] = []
    scene.bus.listen(lambda record: counts.append(up(scene)) if record.type == "state" else None)
    return counts


def crash_from(number: int) -> Callable[[FakeChild], None]:
    """Children from this one on end with 1 at once."""
    seen: list[FakeChild] = []

    def on_spawn(child: FakeChild) -> None:
        seen.append(child)
        if len(seen) >= number:
            child.end(code=1)

    return on_spawn


async def test_replicas_are_restarted_one_at_a_time() -> None:
    async with playing(web()) as scene:
        await wait_until(lambda: up(scene) == 3)
        counts, records = watch_least_up(scene), list[Record]()
        scene.bus.listen(records.append)
        outcome = await scene.commands.restart(["web"])
        assert [(result.name, result.ok) for result in outcome.results] == [("web:0", True), ("web:1", True), ("web:2", True)]
        assert min(counts) == 2
        assert [scene.snapshot(f"web:{number}").run for number in range(3)] == [2, 2, 2]
        await wait_until(lambda: [record.cause for record in records if record.type == "rolling"] == ["operator"])


async def test_what_is_told_while_a_listener_acts_on_a_record_comes_after_that_record() -> None:
    async with playing(swift("db"), web(depends_on={"db": "started"}, restart_with_dependency=True)) as scene:
        await wait_until(lambda: up(scene) == 4)
        slow = scene.supervisor.processes["web:1"]
        slow.policy = replace(slow.policy, start_seconds=60.0)
        scene.supervisor.rolling.take(scene.supervisor.dependencies.members("web"), RestartRequested())
        await wait_until(lambda: slow.snapshot.run == 2 and slow.snapshot.state is State.STARTING)
        with scene.bus.subscribe() as records:
            scene.supervisor.processes["db"].post(RestartRequested())  # replaces the rolling restart by that of its two new runs
            told = list[Record]()
            with anyio.fail_after(30):
                while not told or told[-1].type != "rolling_failed":
                    told.append(await anext(records))
        assert (told[-2].name, told[-2].to, told[-1].id) == ("db", State.RUNNING, told[-2].id + 1)


async def test_a_bug_in_one_ends_it_and_the_next_one_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(process: Process, input_: Input) -> None:
        if process.name == "web:1" and isinstance(input_, RestartRequested):
            monkeypatch.undo()
            raise ZeroDivisionError("a bug")
        post(process, input_)

    post = Process.post
    async with playing(web()) as scene:
        await wait_until(lambda: up(scene) == 3)
        monkeypatch.setattr(Process, "post", bug)
        with anyio.fail_after(30):
            results = (await scene.commands.restart(["web"])).results
        assert [result.ok for result in results] == [True, False, False]
        assert results[2].message == "not restarted: internal error: ZeroDivisionError('a bug')"
        assert (await scene.commands.restart(["web"])).error is None


async def test_without_rolling_they_are_restarted_together() -> None:
    async with playing(web(rolling=False)) as scene:
        await wait_until(lambda: up(scene) == 3)
        counts = watch_least_up(scene)
        assert (await scene.commands.restart(["web"])).error is None
        assert min(counts) == 0


async def test_the_first_failure_stops_it_and_is_reported() -> None:
    async with playing(web(restart=Restart(policy=RestartPolicy.NEVER))) as scene:
        await wait_until(lambda: up(scene) == 3)
        scene.host.on_spawn = crash_from(2)
        # up for a moment is not ready: a probe says when
        records = []
        scene.bus.listen(records.append)
        for process in scene.supervisor.processes.values():
            process.policy = process.program.policy(process.name).__class__(start_seconds=0.2, restart=RestartPolicy.NEVER)
        outcome = await scene.commands.restart(["web"])
        results = {result.name: result for result in outcome.results}
        assert results["web:0"].ok and not results["web:1"].ok
        assert not results["web:2"].ok and "not restarted: web:1 did not come back" in results["web:2"].message
        assert (scene.snapshot("web:2").run, scene.snapshot("web:2").state) == (1, State.RUNNING)
        assert [record.name for record in records if record.type == "rolling_failed"] == ["web:2"]


@pytest.mark.parametrize("down", [["web:1", "web:2"], ["web"]])
async def test_replicas_that_are_down_are_started_in_their_turns(down: list[str]) -> None:
    async with playing(web()) as scene:
        await wait_until(lambda: up(scene) == 3)
        await scene.commands.stop(down)
        outcome = await scene.commands.restart(["web"])
        assert [result.ok for result in outcome.results] == [True] * 3, outcome.results
        assert [scene.snapshot(f"web:{number}").run for number in range(3)] == [2, 2, 2]


async def test_one_that_was_down_and_is_stopped_once_more_is_not_started_in_its_turn() -> None:
    """The stop came after the restart, and was answered; that it found nothing to do makes it no less."""
    async with playing(web()) as scene:
        await wait_until(lambda: up(scene) == 3)
        await scene.commands.stop(["web:1"])
        child = scene.child("web:0")
        child.obeys = False
        await scene.commands.restart(["web"], wait=False)
        await scene.commands.stop(["web:1"])
        child.end(code=0)
        await wait_until(lambda: scene.supervisor.rolling.under_way("web") is None)
        assert (scene.snapshot("web:1").state, scene.snapshot("web:1").run) == (State.STOPPED, 1)


async def test_one_replica_by_its_name_is_just_restarted() -> None:
    async with playing(web()) as scene:
        await wait_until(lambda: up(scene) == 3)
        assert (await scene.commands.restart(["web:1"])).error is None
        assert [scene.snapshot(f"web:{number}").run for number in range(3)] == [1, 2, 1]


async def test_a_replica_that_is_just_being_restarted_when_its_turn_comes_is_not_taken_for_stopped() -> None:
    async with playing(web()) as scene:
        await wait_until(lambda: up(scene) == 3)
        scene.child("web:0").obeys = scene.child("web:1").obeys = False
        outcomes: list[Any] = []

        async def roll() -> None:
            outcomes.append(await scene.commands.restart(["web"]))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(roll)
            await scene.state("web:0", State.STOPPING)
            scene.supervisor.processes["web:1"].post(RestartRequested())
            await scene.state("web:1", State.STOPPING)
            scene.child("web:0").end(code=0)
            await wait_until(lambda: scene.snapshot("web:0").run == 2)
            scene.child("web:1").end(code=0)
        assert outcomes[0].error is None
        assert not scene.supervisor.processes["web:1"].stop_ordered


async def test_who_follows_a_rolling_program_is_restarted_once_after_the_last() -> None:
    """It was restarted by each replica that came back, before the next went."""
    follower = swift("follower", depends_on={"web": "ready"}, restart_with_dependency=True)
    async with playing(web(), follower) as scene:
        await wait_until(lambda: up(scene) == 4)
        records: list[Record] = []
        scene.bus.listen(records.append)
        assert (await scene.commands.restart(["web"])).error is None
        await wait_until(lambda: scene.snapshot("follower").run == 2 and up(scene) == 4)
        begun = [record.name for record in records if record.to == State.STARTING]
        assert begun == ["web:0", "web:1", "web:2", "follower"]


async def test_nobody_follows_a_restart_that_stopped_half_way() -> None:
    """What still serves is not interrupted for it."""
    follower = swift("follower", depends_on={"web": "started"}, restart_with_dependency=True)
    async with playing(web(restart=Restart(policy=RestartPolicy.NEVER)), follower) as scene:
        await wait_until(lambda: up(scene) == 4)
        scene.host.on_spawn = crash_from(2)
        for name in ("web:0", "web:1", "web:2"):
            scene.supervisor.processes[name].policy = replace(scene.supervisor.processes[name].policy, start_seconds=0.2)
        outcome = await scene.commands.restart(["web"])
        assert [result.ok for result in outcome.results] == [True, False, False]
        await wait_until(lambda: scene.supervisor.rolling.under_way("web") is None)
        assert (scene.snapshot("follower").state, scene.snapshot("follower").run) == (State.RUNNING, 1)
        assert not scene.supervisor.processes["follower"].in_motion  # nor asked to


async def test_who_follows_rolls_too() -> None:
    """And is not begun anew by each replica of a dependency that comes back with the others."""
    async with playing(swift("db", replicas=2), web(depends_on={"db": "started"}, restart_with_dependency=True)) as scene:
        await wait_until(lambda: up(scene) == 5)
        counts = watch_least_up(scene)
        records: list[Record] = []
        scene.bus.listen(records.append)
        assert (await scene.commands.restart(["db"])).error is None
        await wait_until(lambda: [scene.snapshot(f"web:{number}").run for number in range(3)] == [2, 2, 2] and up(scene) == 5)
        assert min(counts) >= 3  # of five: both of db go at once, those of web one by one
        assert {scene.snapshot(f"web:{number}").cause for number in range(3)} == {Cause.DEPENDENCY}
        assert not [record for record in records if record.type == "rolling_failed"]


async def test_without_waiting_it_goes_on_by_itself() -> None:
    async with playing(web()) as scene:
        await wait_until(lambda: up(scene) == 3)
        assert (await scene.commands.restart(["web"], wait=False)).error is None
        await wait_until(lambda: [scene.snapshot(f"web:{number}").run for number in range(3)] == [2, 2, 2])


async def test_a_newer_restart_takes_the_place_of_an_older_one() -> None:
    async with playing(web(start_seconds=0.2)) as scene:
        await wait_until(lambda: up(scene) == 3)
        outcomes: list[Any] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(restart_into, scene, outcomes)
            await wait_until(lambda: scene.snapshot("web:0").run == 2)
            assert (await scene.commands.restart(["web"])).error is None
        assert "another restart" in str(outcomes[0].error)


async def restart_into(scene: Scene, outcomes: list[Any]) -> None:
    outcomes.append(await scene.commands.restart(["web"]))


async def test_a_stop_wins_over_a_rolling_restart_however_close_it_comes() -> None:
    async with playing(web()) as scene:
        await wait_until(lambda: up(scene) == 3)

        def stop_all() -> None:
            for process in scene.supervisor.processes.values():
                process.post(StopRequested())

        def on_record(record: Record) -> None:
            """The stop comes when the restart is about to hear that the first is back, and nobody has decided on it then."""
            if (record.name, record.to, record.run) == ("web:0", State.RUNNING, 2):
                asyncio.get_running_loop().call_soon(stop_all)

        scene.bus.listen(on_record)
        outcome = await scene.commands.restart(["web"])
        assert not any(result.ok for result in outcome.results[1:]), outcome.results
        await wait_until(lambda: all(process.snapshot.state is State.STOPPED for process in scene.supervisor.processes.values()))
        assert [scene.snapshot(f"web:{number}").run for number in range(3)] == [2, 1, 1]


async def test_changed_files_and_a_changed_configuration_roll_too() -> None:
    before = web()

    async def load() -> Any:
        after = web(environment={"A": "1"})
        configuration = Configuration(file="/nowhere/programs.yaml", daemon=scene.supervisor.configuration.daemon, programs={"web": after})
        return type("Loaded", (), {"configuration": configuration, "warnings": ()})

    async with playing(before, load=load) as scene:
        await wait_until(lambda: up(scene) == 3)
        counts = watch_least_up(scene)
        await scene.commands.reload()
        await wait_until(lambda: [scene.snapshot(f"web:{number}").run for number in range(3)] == [2, 2, 2] and up(scene) == 3)
        assert scene.snapshot("web:2").cause is Cause.CONFIG_CHANGED
        members = scene.supervisor.dependencies.members("web")
        assert [scene.supervisor.rolling.follow(member, RestartRequested(Cause.FILE_CHANGED), members) for member in members] == [True] * 3
        await wait_until(lambda: [scene.snapshot(f"web:{number}").run for number in range(3)] == [3, 3, 3] and up(scene) == 3)
        assert min(counts) == 2


async def test_who_has_nobody_to_take_turns_with_restarts_by_itself() -> None:
    request = RestartRequested(Cause.FILE_CHANGED)
    async with playing(swift("alone", rolling=True), swift("plain", replicas=2)) as scene:
        for name, program in (("alone", "alone"), ("plain:0", "plain"), ("plain:1", "plain")):
            members = scene.supervisor.dependencies.members(program)
            assert not scene.supervisor.rolling.follow(scene.supervisor.processes[name], request, members)


async def test_settings_that_changed_without_a_daemon_roll_through_those_concerned() -> None:
    async with playing(web()) as scene:
        await wait_until(lambda: up(scene) == 3)
        counts = watch_least_up(scene)
        members = scene.supervisor.dependencies.members("web")
        request = RestartRequested(Cause.CONFIG_CHANGED, "it changed")
        assert all(scene.supervisor.rolling.follow(member, request, members) for member in members[1:])
        await wait_until(lambda: [scene.snapshot(f"web:{number}").run for number in range(3)] == [1, 2, 2] and up(scene) == 3)
        assert min(counts) == 2


async def test_scaling_up_and_down_leaves_the_others_alone() -> None:
    async with playing(web(replicas=2)) as scene:
        await wait_until(lambda: up(scene) == 2)
        records = list[Record]()
        scene.bus.listen(records.append)
        outcome = await scene.commands.scale("web", 4)
        assert [(result.name, result.ok, result.state) for result in outcome.results] == [
            ("web:2", True, "RUNNING"),
            ("web:3", True, "RUNNING"),
        ]
        outcome = await scene.commands.scale("web", 1 + 1)
        assert [(result.name, result.message) for result in outcome.results] == [("web:2", "removed"), ("web:3", "removed")]
        await wait_until(lambda: list(scene.supervisor.processes) == ["web:0", "web:1"])
        assert (scene.snapshot("web:0").run, scene.snapshot("web:1").run) == (1, 1)
        assert (await scene.commands.scale("web", 2)).results == []
        told = [(record.data["from"], record.data["to"]) for record in records if record.type == "scale"]
        assert told == [(2, 4), (4, 2)], "what changes nothing is not told"
        await scene.commands.scale("web", 0)
        await wait_until(lambda: not scene.supervisor.processes)
        assert (await scene.commands.scale("web", 1)).results[0].state == "RUNNING"


async def test_what_has_one_heartbeat_file_for_all_has_one_process_at_most() -> None:
    async with playing(web(replicas=1, heartbeat=Heartbeat(file="/nowhere/beat"))) as scene:
        with pytest.raises(FailedError, match=r"2 processes would share heartbeat\.file /nowhere/beat"):
            await scene.commands.scale("web", 2)
        await scene.commands.scale("web", 0)
        assert (await scene.commands.scale("web", 1)).results[0].ok


async def test_what_is_scaled_while_stopped_stays_stopped() -> None:
    async with playing(web(replicas=2, autostart=False)) as scene:
        outcome = await scene.commands.scale("web", 3)
        assert [(result.name, result.ok, result.state) for result in outcome.results] == [("web:2", True, "STOPPED")]
        with pytest.raises(NotFoundError, match="'web:0' is one process of 'web': scale that"):
            await scene.commands.scale("web:0", 3)
        await scene.commands.start(["web:0"])
        outcome = await scene.commands.scale("web", 4)
        assert [(result.name, result.state) for result in outcome.results] == [("web:3", "RUNNING")], "as one of the others"


def test_scaled_processes_have_files_of_their_own() -> None:
    one = program(logs=Logs(stdout="/logs/web.log", stderr="/dev/stderr"), heartbeat=Heartbeat())
    three = rescaled(one, 3)
    assert (three.replicas, three.logs.stdout, three.logs.stderr) == (3, "/logs/web-{replica}.log", "/dev/stderr")
    assert rescaled(three, 1) == one
    with pytest.raises(FailedError, match=r"heartbeat\.file"):
        rescaled(program(heartbeat=Heartbeat(file="/run/web.beat")), 2)


def test_the_place_of_the_number_outlives_an_only_process() -> None:
    """``asupctl scale web 1`` filled the number in, and then there was no way back."""
    two = program(replicas=2, logs=Logs(stdout="/logs/{replica}/web.log"), heartbeat=Heartbeat(file="/run/{replica}.beat"))
    one = rescaled(two, 1)
    assert rescaled(one, 2) == two
    assert run_spec.heartbeat_file_of(one, "web", Daemon(name="x", run_dir="/run", socket="/run/s")) == "/run/0.beat"
