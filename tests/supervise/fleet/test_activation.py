"""Starts at the first connection, by a real supervisor over a fake machine."""

from __future__ import annotations

import pytest

from supervisord_async.config.load import Loaded
from supervisord_async.config.model import Configuration, Daemon
from supervisord_async.core.state import State
from supervisord_async.supervise.fleet.activation import Activation
from supervisord_async.supervise.process import Process
from tests.control.conftest import playing, swift
from tests.waiting import take_turns

pytestmark = pytest.mark.anyio


async def test_a_change_of_one_program_wakes_the_watch_of_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    armed = Activation._armed

    def counted(self: Activation, name: str) -> list[Process]:
        looks.append(name)
        return armed(self, name)

    async with playing(*(swift(f"p{number}", start_on_connect=True) for number in range(20))) as scene:
        for name in scene.supervisor.processes:
            await scene.state(name, State.RUNNING)
        await take_turns()  # for the watches that these changes have woken
        monkeypatch.setattr(Activation, "_armed", counted)
        assert (await scene.commands.restart(["p7"])).error is None
        assert set(looks) == {"p7"}


async def test_nothing_is_kept_of_programs_that_are_gone() -> None:
    """A program whose name changes at each deployment left something behind each time, for as long as the daemon lived."""
    daemon = Daemon(name="shop", run_dir="/nowhere", socket="/nowhere/asupd.sock")

    async def load() -> Loaded:
        return Loaded(Configuration(file="/nowhere/programs.yaml", daemon=daemon, programs={now.name: now}), ())

    now = swift("v0", start_on_connect=True)
    async with playing(now, load=load) as scene:
        for number in range(1, 5):
            await scene.state(now.name, State.RUNNING)
            await take_turns()  # until its watch waits for a change
            now = swift(f"v{number}", start_on_connect=True)
            await scene.commands.reload()
        await take_turns()
        kept = [each for each in vars(scene.supervisor._activation).values() if isinstance(each, dict)]
        assert kept
        assert all(set(each) == {"v4"} for each in kept)
