"""A stop of many, and the daemon's end, have an order and a bound."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from msgspec import structs

from supervisord_async.config.model import Daemon, Program, Restart, Stop
from supervisord_async.core.policy import RestartPolicy
from supervisord_async.core.state import State
from supervisord_async.supervise.fleet.stopping import OrderlyStop
from tests.control.conftest import playing, swift
from tests.waiting import take_turns, wait_until

pytestmark = pytest.mark.anyio

DAEMON = Daemon(name="shop", run_dir="/nowhere", socket="/nowhere/asupd.sock")


def layered(**settings: Any) -> tuple[Program, ...]:
    """web needs api, api needs db; other is on its own."""
    return (
        swift("db", **settings),
        swift("api", depends_on={"db": "ready"}, **settings),
        swift("web", depends_on={"api": "ready"}, **settings),
        swift("other", **settings),
    )


async def test_stop_of_all_ends_dependents_before_what_they_depend_on() -> None:
    async with playing(*layered()) as scene:
        await scene.state("web", State.RUNNING)
        with scene.bus.subscribe() as records:
            outcome = await scene.commands.stop(["all"])
            assert outcome.error is None
            order = []
            while (record := records.receive_nowait()) is not None:
                if record.to in ("STOPPING", "STOPPED") and record.name != "other":
                    order.append((record.name, record.to))
        assert order == [(name, state) for name in ("web", "api", "db") for state in ("STOPPING", "STOPPED")]


async def test_a_stop_in_order_that_broke_is_not_left_to_the_next_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaks(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(OrderlyStop, "run", breaks)
    async with playing(*layered()) as scene:
        await scene.state("web", State.RUNNING)
        scene.supervisor.stops.begin([*scene.supervisor.processes.values()])
        assert "db" in scene.supervisor.stops.unfinished
        await wait_until(lambda: not scene.supervisor.stops.unfinished)


async def test_the_daemons_end_ends_dependents_before_what_they_depend_on() -> None:
    async with playing(*layered()) as scene:
        await scene.state("web", State.RUNNING)
        steps: list[tuple[str | None, str | None]] = []
        scene.bus.listen(lambda record: steps.append((record.name, record.to)) if record.to in ("STOPPING", "STOPPED") else None)
        scene.supervisor.request_shutdown()
        await scene.state("db", State.STOPPED)
        assert [step for step in steps if step[0] != "other"] == [
            (name, state) for name in ("web", "api", "db") for state in ("STOPPING", "STOPPED")
        ]


async def test_what_outlasts_the_daemons_own_bound_is_killed() -> None:
    stubborn = swift("web", stop=Stop(grace_seconds=600.0))
    async with playing(stubborn, daemon=structs.replace(DAEMON, stop_timeout_seconds=0.05)) as scene:
        await scene.state("web", State.RUNNING)
        child = scene.child("web")
        child.obeys = False
        scene.supervisor.request_shutdown()
        await wait_until(lambda: signal.SIGKILL in child.signals or not child.alive)


@pytest.mark.parametrize(
    ("exit_when", "restart", "code"),
    [
        ("any_fatal", Restart(max_restarts=0), 1),
        ("all_exited", Restart(policy=RestartPolicy.NEVER), 1),
        ("all_exited", Restart(max_restarts=0), 1),
        ("any_fatal", Restart(policy=RestartPolicy.NEVER), None),
        ("never", Restart(max_restarts=0), None),
    ],
)
async def test_the_daemon_ends_with_its_programs_as_exit_when_says(exit_when: Any, restart: Restart, code: int | None) -> None:
    async with playing(swift("job", restart=restart), daemon=structs.replace(DAEMON, exit_when=exit_when)) as scene:
        await scene.state("job", State.RUNNING)
        scene.child("job").end(code=3)
        await scene.state("job", State.EXITED if restart.policy is RestartPolicy.NEVER else State.FATAL, State.STOPPED)
        if code is None:
            await take_turns()
            assert not scene.supervisor.shutting_down
        else:
            await wait_until(lambda: scene.supervisor.shutting_down)
            assert scene.supervisor.exit_code == code


async def test_the_daemon_stays_until_the_last_program_has_exited() -> None:
    once = Restart(policy=RestartPolicy.NEVER)
    async with playing(swift("a", restart=once), swift("b", restart=once), daemon=structs.replace(DAEMON, exit_when="all_exited")) as scene:
        scene.child("a").end(code=0)
        await scene.state("a", State.EXITED)
        await take_turns()
        assert not scene.supervisor.shutting_down
        scene.child("b").end(code=0)
        await wait_until(lambda: scene.supervisor.shutting_down)


async def test_a_dependent_that_is_slow_to_stop_holds_up_only_what_it_needs() -> None:
    async with playing(*layered(stop=Stop(grace_seconds=600.0))) as scene:
        await scene.state("web", State.RUNNING)
        web = scene.child("web")
        web.obeys = False
        outcome = await scene.commands.stop(["all"], wait=False)
        assert [result.message for result in outcome.results] == ["accepted"] * 4
        await scene.state("other", State.STOPPED)
        assert scene.snapshot("web").state is State.STOPPING
        assert scene.snapshot("db").state is State.RUNNING
        web.end(code=0)
        await scene.state("db", State.STOPPED)


async def test_a_start_overrules_a_stop_whose_turn_has_not_come() -> None:
    async with playing(*layered(stop=Stop(grace_seconds=600.0))) as scene:
        await scene.state("web", State.RUNNING)
        web = scene.child("web")
        web.obeys = False
        await scene.commands.stop(["all"], wait=False)
        await scene.commands.start(["web"], wait=False)
        assert not any(stop.pending for stop in scene.supervisor.stops._under_way), "nothing that web needs will be told to stop"
        web.end(code=0)
        await wait_until(lambda: scene.snapshot("web").run == 2 and scene.snapshot("web").state is State.RUNNING)
        assert scene.snapshot("db").run == 1
        assert scene.snapshot("db").state is State.RUNNING
        assert scene.snapshot("other").state is State.STOPPED


async def test_a_start_of_one_replica_overrules_the_stop_of_no_other() -> None:
    async with playing(swift("web", depends_on={"db": "ready"}), swift("db", replicas=3)) as scene:
        await scene.state("web", State.RUNNING)
        web = scene.child("web")
        web.obeys = False
        await scene.commands.stop(["all"], wait=False)
        await scene.commands.restart(["db:1"], wait=False)
        web.end(code=0)
        await wait_until(lambda: all(scene.snapshot(name).state is State.STOPPED for name in ("db:0", "db:2")))
        await wait_until(lambda: (scene.snapshot("db:1").state, scene.snapshot("db:1").run) == (State.RUNNING, 2))


async def test_a_long_chain_is_stopped_in_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each record leads to a look at those that its process held up, and no others."""
    looks: list[str] = []
    holds_up = OrderlyStop._holds_up

    def counted(self: OrderlyStop, name: str, now: float) -> bool:
        looks.append(name)
        return holds_up(self, name, now)

    monkeypatch.setattr(OrderlyStop, "_holds_up", counted)
    chain = [swift(f"p{number}", **({"depends_on": {f"p{number - 1}": "started"}} if number else {})) for number in range(100)]
    async with playing(*chain) as scene:
        await scene.state("p99", State.RUNNING)
        order = list[str]()
        scene.bus.listen(lambda record: order.append(str(record.name)) if record.to == State.STOPPED else None)
        assert (await scene.commands.stop(["all"])).error is None
        assert order == [f"p{number}" for number in reversed(range(100))]
        assert len(looks) < 10 * len(chain)
