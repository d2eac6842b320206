"""Waits until many processes have reached one goal, with one subscription."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from supervisord_async.control.goal import Goal, Verdict
from supervisord_async.core.state import State

if TYPE_CHECKING:
    from supervisord_async.supervise.process import Process
    from supervisord_async.supervise.records.bus import Subscription


class GoalWait:
    """The processes of one command, each with its verdict, or None while it has none.

    Records only wake it up; the snapshots are judged. So if records were lost, all processes are judged once. A WAITING process
    is judged at every record, since its dependencies may have changed; and all are after one of the daemon itself, such as a reload,
    which may have removed them.
    """

    def __init__(self, processes: Iterable[Process], goal: Goal) -> None:
        self.verdicts: dict[str, Verdict | None] = {}
        self._goal = goal
        self._open: dict[str, Process] = {}
        for process in processes:
            self.verdicts[process.name] = None
            self._open[process.name] = process
        self._before = {name: process.snapshot for name, process in self._open.items()}

    def unsettled(self) -> list[str]:
        """The names that have no verdict yet."""
        return [name for name, verdict in self.verdicts.items() if verdict is None]

    async def follow(self, records: Subscription) -> None:
        """Every process has its verdict; if the daemon ended before that, the verdict says so."""
        self._open = {name: process for name, process in self._open.items() if self.verdicts[name] is None}
        self._judge(list(self._open))
        while self._open:
            record = await records.receive()
            if record is None:
                for name in self._open:
                    self.verdicts[name] = Verdict(False, "the daemon ended meanwhile")
                return
            changed = {record.name}
            while (record := records.receive_nowait()) is not None:
                changed.add(record.name)
            if None in changed or records.take_missed():
                changed.update(self._open)
            self._judge([name for name, process in self._open.items() if name in changed or process.snapshot.state is State.WAITING])

    def _judge(self, names: Iterable[str]) -> None:
        for name in names:
            verdict = self._goal(self._open[name], self._before[name])
            if verdict is not None:
                self.verdicts[name] = verdict
                del self._open[name]
