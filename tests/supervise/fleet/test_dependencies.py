"""Restarts of many, in the order of their dependencies, by a real supervisor over a fake machine."""

from __future__ import annotations

from collections.abc import Iterable

import anyio
import pytest
from msgspec.structs import replace

from supervisord_async.config.model import Backoff, Restart
from supervisord_async.control.commands import Outcome
from supervisord_async.core.inputs import RestartRequested
from supervisord_async.core.order import Member, Need, Verdict, judge
from supervisord_async.core.policy import RestartPolicy
from supervisord_async.core.record import Record
from supervisord_async.core.state import Cause, State
from supervisord_async.supervise.fleet import dependencies
from supervisord_async.supervise.fleet.dependencies import Dependencies
from supervisord_async.supervise.process import Process
from tests.control.conftest import Scene, playing, swift
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio


def steps_of(scene: Scene) -> list[tuple[str | None, str | None]]:
    """Who reaches STARTING and RUNNING from here on, as it happens."""
    steps: list[tuple[str | None, str | None]] = []

    def on_record(record: Record) -> None:
        if record.type == "state" and record.to in (State.STARTING, State.RUNNING):
            steps.append((record.name, record.to))

    scene.bus.listen(on_record)
    return steps


async def test_a_dependent_that_is_down_waits_for_the_new_run_of_its_dependency() -> None:
    """Nothing of web has to be stopped first: it must not find the db that is about to go."""
    once = Restart(policy=RestartPolicy.NEVER)
    async with playing(swift("web", depends_on={"db": "ready"}, restart=once), swift("db")) as scene:
        await scene.state("web", State.RUNNING)
        scene.child("web").end(code=0)
        await scene.state("web", State.EXITED)
        steps = steps_of(scene)
        outcome = await scene.commands.restart(["all"])
        assert [(result.name, result.ok) for result in outcome.results] == [("web", True), ("db", True)]
        assert steps == [("db", "STARTING"), ("db", "RUNNING"), ("web", "STARTING"), ("web", "RUNNING")]


async def test_an_operator_who_starts_one_starts_what_it_needs_and_is_over() -> None:
    """Also what that needs in turn; but no job again that is done."""
    never = Restart(policy=RestartPolicy.NEVER)
    job, disk = swift("job", restart=never), swift("disk", restart=never)
    db = swift("db", restart=never, depends_on={"disk": "ready"})
    web = swift("web", depends_on={"job": "succeeded", "db": "ready"}, on_dependency_failure="fail", restart=never)
    async with playing(job, disk, db, web) as scene:
        await scene.state("db", State.RUNNING)
        scene.child("job").end(code=0)
        await scene.state("web", State.RUNNING)
        for name in ("web", "db", "disk"):
            scene.child(name).end(code=0)
            await scene.state(name, State.EXITED)
        outcome = await scene.commands.start(["web"])
        assert [(result.name, result.ok) for result in outcome.results] == [("web", True)]
        assert {name: scene.snapshot(name).run for name in ("job", "disk", "db", "web")} == {"job": 1, "disk": 2, "db": 2, "web": 2}
        scene.child("disk").end(code=0)
        scene.child("db").end(code=0)
        await scene.state("db", State.EXITED)
        await scene.state("disk", State.EXITED)
        scene.supervisor.processes["web"].post(RestartRequested(Cause.FILE_CHANGED))
        await scene.state("web", State.FATAL)
        assert scene.snapshot("db").run == 2, "nobody asked for it"


async def test_what_an_order_needs_is_started_with_it_and_a_stop_that_comes_later_wins() -> None:
    """It was started when the old run had ended: whoever had stopped it meanwhile was overruled, and a killed daemon had forgotten it."""
    async with playing(swift("db"), swift("web", depends_on={"db": "ready"})) as scene:
        await scene.state("web", State.RUNNING)
        await scene.commands.stop(["db"])
        web = scene.child("web")
        web.obeys = False
        await scene.commands.restart(["web"], wait=False)
        assert (scene.snapshot("web").state, scene.snapshot("db").wanted) == (State.STOPPING, True), "answered: both are saved"
        await scene.commands.stop(["db"])
        web.end(code=0)
        await scene.state("web", State.WAITING)
        outcome = await scene.commands.wait(["web"], "ready", timeout=0.1)
        assert outcome.timed_out and (scene.snapshot("db").state, scene.snapshot("db").cause) == (State.STOPPED, Cause.OPERATOR)


async def test_a_start_does_not_wait_for_one_that_is_just_being_stopped() -> None:
    """Nobody started it once it was down, and the start waited until its time was over."""
    async with playing(swift("disk"), swift("db", depends_on={"disk": "ready"}), swift("web", depends_on={"db": "ready"})) as scene:
        await scene.state("web", State.RUNNING)
        await scene.commands.stop(["web"])
        db = scene.child("db")
        db.obeys = False
        await scene.commands.stop(["all"], wait=False)
        assert (scene.snapshot("db").state, scene.snapshot("db").wanted) == (State.STOPPING, False)
        async with anyio.create_task_group() as tasks:
            outcomes: list[Outcome] = []

            async def start() -> None:
                outcomes.append(await scene.commands.start(["web"], timeout=30))

            tasks.start_soon(start)
            await wait_until(lambda: scene.snapshot("db").wanted)
            db.end(code=0)
        assert [(result.name, result.ok) for result in outcomes[0].results] == [("web", True)]
        assert {name: scene.snapshot(name).state for name in ("disk", "db")} == dict.fromkeys(("disk", "db"), State.RUNNING)


async def test_who_needs_it_started_goes_as_soon_as_it_has_a_process() -> None:
    """It may take an hour to become RUNNING."""
    slow = swift("db", start_seconds=3600.0, autostart=False)
    web, patient = (
        swift("web", depends_on={"db": "started"}, autostart=False),
        swift("patient", depends_on={"db": "ready"}, autostart=False),
    )
    async with playing(web, patient, slow) as scene:
        await scene.commands.start(["patient"], wait=False)
        outcome = await scene.commands.start(["web"], timeout=60)
        assert [(result.name, result.ok) for result in outcome.results] == [("web", True)]
        assert (scene.snapshot("db").state, scene.snapshot("patient").state) == (State.STARTING, State.WAITING)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[Need]:
    """The needs that were judged."""
    judged: list[Need] = []

    def counting(need: Need, members: Iterable[Member]) -> Verdict:
        judged.append(need)
        return judge(need, members)

    monkeypatch.setattr(dependencies, "judge", counting)
    return judged


async def test_who_needs_many_does_not_judge_all_of_them_at_each_record(judged: list[Need]) -> None:
    """What has hundreds of dependencies judged each of them at each record of each."""
    needs = [swift(f"d{number}", autostart=False) for number in range(150)]
    top = swift("top", depends_on=dict.fromkeys([one.name for one in needs], "ready"), autostart=False)
    async with playing(*needs, top) as scene:
        outcome = await scene.commands.start(["top"], timeout=60)
        assert outcome.error is None
        assert len(judged) < 60 * len(needs)


async def test_of_hundreds_of_needs_the_first_few_are_told() -> None:
    """Each line of `status`, and each error, had them all."""
    needs = [swift(f"d{number}", autostart=False, start_seconds=3600.0) for number in range(200)]
    async with playing(*needs, swift("top", depends_on=dict.fromkeys([one.name for one in needs], "ready"))) as scene:
        await scene.state("top", State.WAITING)
        words = scene.supervisor.processes["top"].waits_for
        assert [each.split()[0] for each in words.split("; ")] == ["d0", "d1", "d2", "d3", "d4", "and"]
        assert words.endswith("; and 195 more")


async def test_replicas_that_wait_have_their_need_judged_once_for_all(judged: list[Need]) -> None:
    """Each of a hundred replicas judged its need over a hundred others, at each record of each of these."""
    db, web = swift("db", replicas=40, autostart=False), swift("web", replicas=40, depends_on={"db": "ready"}, autostart=False)
    async with playing(db, web) as scene:
        outcome = await scene.commands.start(["web"], timeout=60)
        assert outcome.error is None
        assert len(judged) < 10 * 40


async def test_who_waits_for_one_that_is_about_to_be_started_is_not_stuck() -> None:
    async with playing(swift("db", start_seconds=3600.0), swift("web", depends_on={"db": "ready"})) as scene:
        await scene.state("web", State.WAITING)
        web, db = scene.supervisor.processes["web"], scene.supervisor.processes["db"]
        is_stuck = scene.supervisor.dependencies.is_stuck
        assert is_stuck(web)  # as long as nobody is up, which is for the caller to see
        for state, stuck in ((State.STOPPED, False), (State.RUNNING, False), (State.FATAL, True), (State.EXITED, True)):
            db.snapshot = replace(db.snapshot, state=state)
            assert is_stuck(web) == stuck, state


async def test_a_run_is_replaced_with_its_dependency_and_nothing_is_begun_that_is_over() -> None:
    """A job that is done, and what waits for its next attempt, have no run that is older than the dependency's."""
    follows = {"depends_on": {"db": "ready"}, "restart_with_dependency": True}
    job = swift("job", restart=Restart(policy=RestartPolicy.NEVER), **follows)
    failing = swift("failing", restart=Restart(backoff=Backoff(initial_seconds=600.0)), **follows)
    async with playing(swift("db"), swift("web", **follows), job, failing, swift("loner", depends_on={"db": "ready"})) as scene:
        for name in ("web", "job", "failing", "loner"):
            await scene.state(name, State.RUNNING)
        scene.child("job").end(code=0)
        scene.child("failing").end(code=1)
        await scene.state("job", State.EXITED)
        await scene.state("failing", State.BACKOFF)
        await scene.commands.restart(["db"])
        await wait_until(lambda: scene.snapshot("web").run == 2 and scene.snapshot("web").state is State.RUNNING)
        assert (scene.snapshot("job").state, scene.snapshot("job").run) == (State.EXITED, 1)
        assert (scene.snapshot("failing").state, scene.snapshot("failing").run) == (State.BACKOFF, 1)
        assert (scene.snapshot("loner").state, scene.snapshot("loner").run) == (State.RUNNING, 1)


async def test_a_long_chain_is_started_in_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    members = Dependencies.members

    def counted(self: Dependencies, name: str) -> list[Process]:
        asked.append(name)
        return members(self, name)

    monkeypatch.setattr(Dependencies, "members", counted)
    chain = [swift(f"p{number}", **({"depends_on": {f"p{number - 1}": "started"}} if number else {})) for number in range(100)]
    async with playing(*chain) as scene:
        await scene.state("p99", State.RUNNING)
        assert len(asked) < 20 * len(chain)


async def test_levels_count_what_comes_up_one_after_the_other() -> None:
    a, b, c, free = swift("a", depends_on={"b": "ready", "c": "ready"}), swift("b", depends_on={"c": "ready"}), swift("c"), swift("free")
    async with playing(a, b, c, free) as scene:
        dependencies, processes = scene.supervisor.dependencies, scene.supervisor.processes
        assert dependencies.levels([]) == dependencies.levels([processes["free"], processes["c"]]) == 1
        assert dependencies.levels(list(processes.values())) == dependencies.levels([processes["a"]]) == 3
        assert [each.name for each in dependencies.in_start_order(list(processes.values()))] == ["c", "b", "a", "free"]
