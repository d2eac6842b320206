"""Reloads that something goes wrong in."""

from __future__ import annotations

import weakref
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from supervisord_async.config.load import Loaded
from supervisord_async.core.state import State
from supervisord_async.errors import ConfigError, Problem
from supervisord_async.supervise.runs.output import Output
from tests.control.conftest import Scene, playing, swift
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio


async def test_a_reload_that_breaks_is_not_the_answer_of_another_one() -> None:
    """What shared it reads the file again."""
    scenes: list[Scene] = []
    gate = anyio.Event()
    loads = 0

    async def load() -> Loaded:
        nonlocal loads
        loads += 1
        await gate.wait()
        if loads == 2:
            raise RuntimeError("can't start new thread")
        now = scenes[0].supervisor.configuration
        name = f"new{loads}"
        return Loaded(replace(now, programs=now.programs | {name: swift(name, autostart=False)}), ())

    async with playing(swift("web"), load=load) as scene, anyio.create_task_group() as tasks:
        scenes.append(scene)
        answers: dict[int, Any] = {}

        async def reload(number: int) -> None:
            try:
                answers[number] = (await scene.supervisor.reload()).added
            except RuntimeError as error:
                answers[number] = str(error)

        tasks.start_soon(reload, 0)
        await wait_until(lambda: loads == 1)
        for number in (1, 2):  # these share the next one
            tasks.start_soon(reload, number)
        await anyio.wait_all_tasks_blocked()
        gate.set()
        await wait_until(lambda: len(answers) == 3)
        assert answers == {0: ("new1",), 1: "can't start new thread", 2: ("new3",)}


@pytest.mark.usefixtures("no_collections")
async def test_nothing_of_a_refused_file_is_kept_but_its_problems() -> None:
    """The traceback kept all that was loaded, 100,000 objects for 1,000 programs, until the next reload."""

    class Tree:
        """What was read of the file."""

    trees: list[weakref.ref[Tree]] = []

    async def load() -> Loaded:
        tree = Tree()
        trees.append(weakref.ref(tree))
        raise ConfigError([Problem("programs.yaml", 1, 1, "unsound")])

    async with playing(swift("web"), load=load) as scene:
        with pytest.raises(ConfigError, match="unsound"):
            await scene.supervisor.reload()
        assert [problem.message for problem in scene.supervisor.refused] == ["unsound"]
        assert [tree() for tree in trees] == [None]


async def test_of_hundreds_of_changes_the_first_ones_are_in_the_log() -> None:
    """A reload that brought 2,000 programs was a line of 40,000 characters there."""
    scenes: list[Scene] = []

    async def load() -> Loaded:
        now = scenes[0].supervisor.configuration
        return Loaded(replace(now, programs={name: swift(name, autostart=False) for name in (f"p{number}" for number in range(200))}), ())

    async with playing(swift("web"), load=load) as scene:
        scenes.append(scene)
        plan = await scene.supervisor.reload()
        assert len(plan.added) == 200
        [record] = [record for record in scene.bus.since(0)[0] if record.type == "reload"]
        assert record.message.startswith("reloaded: + p0 added; + p1 added; ")
        assert record.message.endswith("; + p19 added; and 181 more")
        assert len(record.data["plan"]["added"]) == 200


async def test_a_removal_that_a_bug_broke_is_done_by_the_next_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes: list[Scene] = []
    close = Output.aclose

    async def bug(_output: Output) -> None:
        monkeypatch.setattr(Output, "aclose", close)
        raise ZeroDivisionError("a bug")

    async def load() -> Loaded:
        now = scenes[0].supervisor.configuration
        return Loaded(replace(now, programs={"db": now.programs["db"]}), ())

    async with playing(swift("web"), swift("db"), load=load) as scene:
        scenes.append(scene)
        supervisor = scene.supervisor
        monkeypatch.setattr(Output, "aclose", bug)
        await supervisor.reload()
        await supervisor.removals.wait_gone([supervisor.processes["web"]])
        assert "web" in supervisor.processes and "web" not in supervisor.removals
        await supervisor.reload()
        await wait_until(lambda: "web" not in supervisor.processes, 5)


@pytest.mark.parametrize(("verb", "state"), [("start", State.RUNNING), ("stop", State.STOPPED)])
async def test_what_is_ordered_while_a_removed_program_closes_its_logs_is_for_its_successor(
    verb: str, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that began then was dropped with the rest: nobody supervised it, and its history never ended."""
    scenes: list[Scene] = []
    listed, close, closing, gate = True, Output.aclose, anyio.Event(), anyio.Event()

    async def slow(output: Output) -> None:
        closing.set()
        await gate.wait()
        await close(output)

    async def load() -> Loaded:
        web = {"web": swift("web", autostart=verb == "stop")} if listed else {}
        return Loaded(replace(scenes[0].supervisor.configuration, programs={"db": swift("db")} | web), ())

    async with playing(swift("db"), swift("web"), load=load) as scene:
        scenes.append(scene)
        supervisor = scene.supervisor
        removed = supervisor.processes["web"]
        monkeypatch.setattr(Output, "aclose", slow)
        listed = False
        await supervisor.reload()
        await closing.wait()
        await getattr(scene.commands, verb)(["web"], wait=False)
        assert removed.snapshot.state is State.STOPPED and len(scene.host.children) == 2, "no run of the removed one has begun"
        listed = True
        await supervisor.reload()
        gate.set()
        await wait_until(lambda: supervisor.processes["web"] is not removed)
        await wait_until(lambda: scene.snapshot("web").cause is not None and not supervisor.processes["web"].in_motion)
        assert scene.snapshot("web").state is state
