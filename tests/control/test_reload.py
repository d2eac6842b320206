"""A reload waits until what it touched has settled, and says of each what became of it; a stop of many has an order."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from supervisord_async.config.load import Loaded
from supervisord_async.config.model import Configuration, Daemon, Program, Stop
from supervisord_async.core.state import State
from supervisord_async.errors import FailedError, TimedOutError
from tests.control.conftest import playing, swift
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

DAEMON = Daemon(name="shop", run_dir="/nowhere", socket="/nowhere/asupd.sock")


class File:
    """The configuration file as the next reload finds it."""

    def __init__(self, *programs: Program) -> None:
        self.programs = programs

    async def __call__(self) -> Any:
        programs = {one.name: one for one in self.programs}
        return Loaded(Configuration(file="/nowhere/programs.yaml", daemon=DAEMON, programs=programs), ())


def told(outcome: Any) -> dict[str, tuple[bool, str]]:
    return {result.name: (result.ok, result.message.partition(",")[0]) for result in outcome.results}


async def test_reload_tells_what_became_of_each_that_it_touched() -> None:
    before = (swift("kept"), swift("changed"), swift("gone"), swift("down", autostart=False))
    file = File(
        swift("kept"),
        swift("changed", environment={"A": "1"}),
        swift("down", autostart=False, environment={"A": "1"}),
        swift("new"),
        swift("idle", autostart=False),
    )
    async with playing(*before, load=file) as scene:
        plan, outcome = await scene.commands.reload()
        assert plan.added == ("new", "idle")
        assert outcome.error is None
        assert told(outcome) == {
            "changed": (True, "running"),
            "down": (True, "changed; it stays stopped"),
            "new": (True, "running"),
            "idle": (True, "added; not started: autostart is false"),
            "gone": (True, "removed"),
        }
        assert scene.snapshot("changed").run == 2
        assert "gone" not in {one.name for one in await scene.commands.status(figures=False)}


async def test_reload_that_touches_nothing_has_no_results() -> None:
    async with playing(swift("web"), load=File(swift("web", description="the shop"))) as scene:
        plan, outcome = await scene.commands.reload()
        assert [change.in_place for change in plan.changed] == [("description",)]
        assert outcome.results == []
        assert outcome.error is None


async def test_reload_fails_for_what_does_not_come_up_and_for_what_waits_for_it() -> None:
    file = File(swift("web"), swift("bad", start_seconds=5.0), swift("needy", depends_on={"bad": "ready"}))
    async with playing(swift("web"), load=file) as scene:
        scene.host.on_spawn = lambda child: child.end(code=4)
        _, outcome = await scene.commands.reload(timeout=0.5)
        assert told(outcome)["bad"] == (False, "run 1 exited with 4")
        assert isinstance(outcome.error, FailedError)
        assert "needy" in outcome.timed_out  # bad is in BACKOFF: it may still come
        needy = next(result for result in outcome.results if result.name == "needy")
        assert "waiting for bad to be ready" in needy.message


async def test_a_start_that_waits_in_vain_fails_at_once() -> None:
    broken, needy = swift("broken", autostart=False), swift("needy", autostart=False, depends_on={"broken": "succeeded"})
    async with playing(broken, needy) as scene:
        scene.host.on_spawn = lambda child: child.end(code=0)
        process = scene.supervisor.processes["broken"]
        process.snapshot = process.snapshot.__class__(state=State.FATAL, run=1, ended_run=1)
        with anyio.fail_after(20):
            outcome = await scene.commands.start(["needy"])
        assert told(outcome)["needy"][0] is False
        assert "broken, which will not come by itself" in outcome.results[0].message


async def test_reload_that_is_not_waited_for_answers_at_once() -> None:
    async with playing(swift("web"), load=File(swift("web"), swift("slow", start_seconds=600.0))) as scene:
        _, outcome = await scene.commands.reload(wait=False)
        assert told(outcome) == {"slow": (True, "accepted")}
        with pytest.raises(TimedOutError):
            raise (await scene.commands.wait(["slow"], "ready", timeout=0.0)).error or AssertionError("it was ready")


async def test_reload_answers_over_http_with_its_results(serving: Any) -> None:
    file = File(swift("web"), swift("bad", start_seconds=5.0))
    async with serving(swift("web"), load=file) as wire:
        assert (await wire.ask("POST", "/v1/reload?plan=true")).json["results"] == []
        wire.scene.host.on_spawn = lambda child: child.end(code=4)
        refused = (await wire.ask("POST", "/v1/reload")).problem(409, "failed")
        assert refused["applied"] is True
        assert refused["lines"][0] == "+ bad added"
        assert [(one["name"], one["ok"]) for one in refused["results"]] == [("bad", False)]
        again = await wire.ask("POST", "/v1/reload?wait=false")
        assert (again.status, again.json["results"]) == (202, [])


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
        web.end(code=0)
        await wait_until(lambda: scene.snapshot("web").run == 2 and scene.snapshot("web").state is State.RUNNING)
        assert scene.snapshot("db").run == 1
        assert scene.snapshot("db").state is State.RUNNING
        assert scene.snapshot("other").state is State.STOPPED
