"""Stopping several processes in reverse order: the dependents of a process are down before that process is asked to stop.

Only processes that are stopped together are put in order; other dependents are left as they are. It posts ordinary stops and
listens to records.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

import anyio

from supervisord_async.core.inputs import StopRequested
from supervisord_async.core.state import DOWN, Snapshot, State
from supervisord_async.errors import BusyError
from supervisord_async.supervise.fleet.dependencies import Dependencies
from supervisord_async.supervise.fleet.fleet import Fleet
from supervisord_async.supervise.records.bus import Bus

if TYPE_CHECKING:
    from supervisord_async.supervise.process import Process

#: How often to look without a record, as a lost record must not stall the stop.
POLL_SECONDS = 1.0
#: A process that has outlived its KILL by this much no longer holds up the others.
KILL_WAIT_SECONDS = 10.0


class OrderlyStop:
    """One stop of several processes; :attr:`pending` are those whose turn has not come."""

    def __init__(self, processes: Sequence[Process], dependents: Callable[[str], Iterable[Process]], request: StopRequested) -> None:
        """``dependents`` gives the processes that depend on a program."""
        self._request = request
        self.pending: dict[str, Process] = {process.name: process for process in reversed(processes)}
        self.refused: dict[str, str] = {}  #: those whose mailbox refused the stop, and why
        self._asked: dict[str, tuple[Process, Snapshot, float]] = {}  #: those that were asked to stop: the snapshot then, and when
        self._before: dict[str, set[str]] = {
            process.name: {other.name for other in dependents(process.program.name)} & self.pending.keys() for process in processes
        }
        self._behind: dict[str, list[str]] = {}  #: the other way round: those that each may hold up
        for name, others in self._before.items():
            for other in others:
                self._behind.setdefault(other, []).append(name)
        self._all_judged_at = float("-inf")

    @property
    def levels(self) -> int:
        """The most turns that there can be, to bound a wait for all of them."""
        return 1 + sum(1 for others in self._before.values() if others)

    def is_undecided(self, process: Process) -> bool:
        """Whether its turn has not come, or it was asked to stop and has not decided yet. One that is STOPPED needs no turn."""
        if process.name in self.pending:
            return not _rests(process)
        told = self._asked.get(process.name)
        return told is not None and process.snapshot.wanted and process.snapshot is told[1]

    @property
    def unfinished(self) -> set[str]:
        """The names of those whose turn has not come, and of those that were asked and are neither down nor wanted up again."""
        asked = [process for process, _, _ in self._asked.values() if self.is_undecided(process) or _goes_down(process)]
        return {*self.pending, *(process.name for process in asked)}

    def tell_free(self, now: float, changed: Iterable[str] | None = None) -> None:
        """Ask those to stop that nothing holds up any more.

        If it is known that only ``changed`` did change since the last call, only those behind them are judged, so that a long chain
        takes linear time; and now and then all, as time may release them too.
        """
        judged: Iterable[str] = self.pending
        if changed is None or now >= self._all_judged_at + POLL_SECONDS:
            self._all_judged_at = now
        else:
            judged = dict.fromkeys(name for each in changed for name in self._behind.get(each, ()) if name in self.pending)
        self._tell([name for name in judged if not any(self._holds_up(other, now) for other in self._before[name])], now)

    def _holds_up(self, name: str, now: float) -> bool:
        if (process := self.pending.get(name)) is not None:
            return not _rests(process)
        asked = self._asked.get(name)
        return asked is not None and _holds(asked[0], asked[2], now)

    def tell_all(self, now: float) -> None:
        """Ask all the others to stop, whatever the order."""
        self._tell(list(self.pending), now)

    def _tell(self, names: Iterable[str], now: float) -> None:
        for name in names:
            process = self.pending.pop(name)
            self._asked[name] = process, process.snapshot, now
            try:
                process.post(self._request)
            except BusyError as error:
                self.refused[name] = str(error)
                del self._asked[name]

    def overrule(self, names: Collection[str]) -> None:
        """Those of the processes ``names`` whose turn has not come are left running, as somebody wants them up."""
        self.pending = {name: process for name, process in self.pending.items() if name not in names}
        self._all_judged_at = float("-inf")

    async def run(self, bus: Bus, fleet: Fleet) -> None:
        """Ask all the others to stop, each in its turn; processes that ``fleet`` no longer has are dropped."""
        changed: set[str] | None = None
        with bus.subscribe() as records:
            while True:
                if changed is None:
                    self.pending = {name: process for name, process in self.pending.items() if fleet.processes.get(name) is process}
                self.tell_free(anyio.current_time(), changed)
                if not self.pending:
                    return
                changed = await records.wait_for_names(POLL_SECONDS)


class OrderlyStops:
    """The orderly stops of one daemon that are under way."""

    def __init__(self, bus: Bus, fleet: Fleet, dependencies: Dependencies, changed: Callable[[], None]) -> None:
        """``changed`` has :attr:`unfinished` saved."""
        self._bus, self._fleet, self._dependencies, self._changed = bus, fleet, dependencies, changed
        self._under_way: list[OrderlyStop] = []
        self._inherited: frozenset[str] = frozenset()

    @property
    def unfinished(self) -> frozenset[str]:
        """The names of all processes that a stop under way has still to end, for the next daemon to go on with it."""
        return self._inherited.union(*(stop.unfinished for stop in self._under_way))

    def inherit(self, unfinished: frozenset[str]) -> None:
        """:meth:`resume` will go on with what an earlier daemon left ``unfinished``."""
        self._inherited = unfinished

    def resume(self) -> None:
        """The processes that an earlier daemon was about to stop are stopped, dependents first."""
        left, self._inherited = [process for name, process in self._fleet.processes.items() if name in self._inherited], frozenset()
        if left:
            self.begin(left)

    def begin(self, processes: Sequence[Process], by: str = "") -> OrderlyStop:
        """Stop ``processes``, dependents first: those that nothing holds up are asked to stop now, the others by a task.

        ``by`` ordered it.
        """
        stop = OrderlyStop(processes, self._dependencies.dependents, StopRequested(by=by))
        stop.tell_free(anyio.current_time())
        if stop.pending:
            self._under_way.append(stop)
            self._changed()

            async def run() -> None:
                try:
                    await stop.run(self._bus, self._fleet)
                finally:  # also after a bug: else the next daemon would go on with it
                    self._under_way.remove(stop)

            self._fleet.start_task(run, "stop in order")
        return stop

    def overrule(self, processes: Collection[Process]) -> None:
        """``processes`` are to be started: no earlier stop ends them, or their dependencies, any more."""
        if self._under_way:
            needs = self._dependencies.start_order([need for process in processes for need in process.program.depends_on])
            wanted = {process.name for process in processes}
            wanted.update(member.name for need in needs for member in self._dependencies.members(need))
            for stop in self._under_way:
                stop.overrule(wanted)
            self._changed()


def _rests(process: Process) -> bool:
    """Whether a stop would change nothing, and give no record."""
    return process.snapshot.state is State.STOPPED


def _goes_down(process: Process) -> bool:
    return not process.snapshot.wanted and process.snapshot.state not in DOWN


def _holds(process: Process, told_at: float, now: float) -> bool:
    """Whether a process that was asked to stop still holds up the others; one that somebody wants up again does not."""
    s = process.snapshot
    if s.state in DOWN or (s.wanted and now - told_at > POLL_SECONDS):
        return False
    return now < max(told_at + process.policy.grace_seconds, s.extended_until) + KILL_WAIT_SECONDS
