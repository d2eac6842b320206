"""Waiting for many: whom a record wakes, and what happens where records were lost."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from supervisord_async.control.goal import Verdict
from supervisord_async.control.goal_wait import GoalWait
from supervisord_async.core import order
from supervisord_async.core.record import Record
from supervisord_async.core.state import Snapshot, State
from supervisord_async.supervise.fleet import dependencies
from tests.control.conftest import playing, swift

pytestmark = pytest.mark.anyio


class Records:
    """A subscription: one record of somebody else, then silence."""

    def __init__(self, *, missed: bool) -> None:
        self.waiting: list[Record] = [Record(id=1, at=0.0, type="state", name="other")]
        self.missed = missed

    async def receive(self) -> Record:
        if not self.waiting:
            await anyio.sleep_forever()
        return self.waiting.pop()

    def receive_nowait(self) -> None:
        return None

    def take_missed(self) -> bool:
        missed, self.missed = self.missed, False
        return missed


@pytest.mark.parametrize(
    ("state", "missed", "judged"),
    [(State.STARTING, False, 1), (State.STARTING, True, 2), (State.WAITING, False, 2)],
)
async def test_who_is_judged_when_somebody_elses_record_comes(state: State, missed: bool, judged: int) -> None:
    """All, where records were lost; and those that wait for others."""
    judgements: list[str] = []

    def goal(process: Any, _before: Snapshot) -> Verdict | None:
        judgements.append(process.name)
        return Verdict(True, "there") if len(judgements) == 2 else None

    web: Any = SimpleNamespace(name="web", snapshot=Snapshot(state=state))
    waiting = GoalWait([web], goal)
    records: Any = Records(missed=missed)
    with anyio.move_on_after(0.05 if judged == 1 else 60):
        await waiting.follow(records)
    assert (len(judgements), waiting.unsettled()) == (judged, ["web"] if judged == 1 else [])


async def test_a_chain_that_restarts_does_not_judge_all_that_wait_at_each_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each start had the whole way down judged for each that still waited: a chain of 300 took 48 s, instead of three."""
    length, judged = 40, 0

    def counting(need: order.Need, members: Iterable[order.Member]) -> order.Verdict:
        nonlocal judged
        judged += 1
        return order.judge(need, members)

    chain = [swift(f"c{number}", depends_on={f"c{number - 1}": "ready"} if number else {}) for number in range(length)]
    async with playing(*chain) as scene:
        await scene.state(f"c{length - 1}", State.RUNNING)
        monkeypatch.setattr(dependencies, "judge", counting)
        with anyio.fail_after(60):
            outcome = await scene.commands.restart(["all"])
        assert outcome.error is None
        assert judged < length * length
