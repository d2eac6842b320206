"""Starts at the first connection, by a real supervisor over a fake machine."""

from __future__ import annotations

import pytest

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
