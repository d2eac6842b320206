"""Waits until many processes have reached one goal, with one subscription."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from typing import TYPE_CHECKING

from supervisord_async.control.goal import Goal, Verdict
from supervisord_async.control.view import waiting_words
from supervisord_async.core.state import State

if TYPE_CHECKING:
    from supervisord_async.supervise.process import Process
    from supervisord_async.supervise.records.bus import Subscription


#: A dependency that enters one of these is not lost by that. So in a chain not each start has all others judged.
_COMES_OR_GOES = frozenset({State.STARTING, State.RUNNING, State.STOPPING})


class GoalWait:
    """The processes of one command, each with its verdict, or None while it has none.

    Records only wake it up; the snapshots are judged. So if records were lost, all processes are judged once. A WAITING process
    is judged at every record by which a dependency may have been lost; and all are after one of the daemon itself, such as a reload,
    which may have removed them.
    """

    def __init__(
        self, processes: Iterable[Process], goal: Goal, in_vain: Callable[[Iterable[Process]], Container[str]] | None = None
    ) -> None:
        """``in_vain`` returns the names of those that wait for what will not come by itself: these have failed. None: none have."""
        self.verdicts: dict[str, Verdict | None] = {}
        self._goal, self._in_vain = goal, in_vain
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
            changed, lost = {record.name}, record.to not in _COMES_OR_GOES
            while (record := records.receive_nowait()) is not None:
                changed.add(record.name)
                lost = lost or record.to not in _COMES_OR_GOES
            if None in changed or records.take_missed():
                changed.update(self._open)
            if lost:
                changed.update(name for name, process in self._open.items() if process.snapshot.state is State.WAITING)
            self._judge([name for name in changed if name in self._open])

    def _judge(self, names: Sequence[str]) -> None:
        in_vain = self._in_vain(self._open[name] for name in names) if self._in_vain is not None else ()
        for name in names:
            process = self._open[name]
            verdict = Verdict(False, waiting_words(process)) if name in in_vain else self._goal(process, self._before[name])
            if verdict is not None:
                self.verdicts[name] = verdict
                del self._open[name]
