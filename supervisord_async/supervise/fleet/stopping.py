"""Stopping several processes in reverse order: what depends on a process is down before that process is told to go.

Only those that are stopped together are put in order; whatever else depends on them is left as it is. The stops that it posts are
ordinary ones, and it listens to records.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import anyio

from supervisord_async.core.inputs import StopRequested
from supervisord_async.core.state import DOWN, Snapshot, State
from supervisord_async.errors import BusyError
from supervisord_async.supervise.fleet.dependencies import Dependencies
from supervisord_async.supervise.records.bus import Bus

if TYPE_CHECKING:
    from supervisord_async.supervise.process import Process

#: How often it looks without a record: a lost one must not hold up the stop.
LOOK_SECONDS = 1.0
#: A process that outlives its KILL for this long holds the others up no longer.
KILL_PATIENCE_SECONDS = 10.0


class OrderlyStop:
    """One stop of several processes; :attr:`pending` are those whose turn has not come."""

    def __init__(self, processes: Sequence[Process], dependents: Callable[[str], Iterable[Process]]) -> None:
        """``dependents`` gives the processes that depend on a program."""
        self.pending: dict[str, Process] = {process.name: process for process in reversed(processes)}
        self.refused: dict[str, str] = {}  #: those that could not be told, and why
        self._told: dict[str, tuple[Process, Snapshot, float]] = {}  #: each as it was then
        self._before: dict[str, set[str]] = {
            process.name: {other.name for other in dependents(process.program.name)} & self.pending.keys() for process in processes
        }

    @property
    def levels(self) -> int:
        """How many turns there are at most, for whoever has to wait for all of them."""
        return 1 + sum(1 for others in self._before.values() if others)

    def is_undecided(self, process: Process) -> bool:
        """Its turn has not come, or it was told and has not decided on that yet; one that is at rest needs no turn."""
        if process.name in self.pending:
            return not _rests(process)
        told = self._told.get(process.name)
        return told is not None and process.snapshot.wanted and process.snapshot is told[1]

    def tell_free(self, now: float) -> None:
        """Those that nothing holds up any more are told to stop."""
        holding = {name for name, process in self.pending.items() if not _rests(process)}
        holding |= {name for name, (process, _, at) in self._told.items() if _holds(process, at, now)}
        for name in [name for name in self.pending if not self._before[name] & holding]:
            process = self.pending.pop(name)
            self._told[name] = process, process.snapshot, now
            try:
                process.post(StopRequested())
            except BusyError as error:
                self.refused[name] = str(error)
                del self._told[name]

    def overrule(self, programs: Collection[str]) -> None:
        """The processes of ``programs`` whose turn has not come are left running: somebody wants them up."""
        self.pending = {name: process for name, process in self.pending.items() if process.program.name not in programs}

    async def run(self, bus: Bus, present: Callable[[str], Process | None]) -> None:
        """All of the others have been told, each in its turn; those that no longer exist (``present``) need not be."""
        with bus.subscribe() as records:
            while True:
                self.pending = {name: process for name, process in self.pending.items() if present(name) is process}
                self.tell_free(anyio.current_time())
                if not self.pending:
                    return
                with anyio.move_on_after(LOOK_SECONDS):
                    await records.receive()
                while records.receive_nowait() is not None:
                    pass  # one look serves all that came


class OrderlyStops:
    """The stops of one daemon that are under way."""

    def __init__(
        self,
        bus: Bus,
        start: Callable[[Callable[[], Coroutine[Any, Any, None]], str], None],
        dependencies: Dependencies,
        present: Callable[[str], Process | None],
    ) -> None:
        """``start`` begins a task of a name; ``present`` gives the process of a name."""
        self._bus, self._start, self._dependencies, self._present = bus, start, dependencies, present
        self._under_way: list[OrderlyStop] = []

    def begin(self, processes: Sequence[Process]) -> OrderlyStop:
        """All of ``processes`` are told to stop, those that depend on others of them first; what is left of that is under way."""
        stop = OrderlyStop(processes, self._dependencies.dependents)
        stop.tell_free(anyio.current_time())
        if stop.pending:
            self._under_way.append(stop)

            async def run() -> None:
                await stop.run(self._bus, self._present)
                self._under_way.remove(stop)

            self._start(run, "stop in order")
        return stop

    def overrule(self, processes: Iterable[Process]) -> None:
        """``processes`` are to be started: no stop that was asked for before ends them, or what they depend on, any more."""
        if self._under_way:
            wanted = set(self._dependencies.start_order([process.program.name for process in processes]))
            for stop in self._under_way:
                stop.overrule(wanted)


def _rests(process: Process) -> bool:
    """Whether it is at rest: a stop would change nothing, so no record would tell of it."""
    return process.snapshot.state is State.STOPPED


def _holds(process: Process, told_at: float, now: float) -> bool:
    """Whether a process that was told to go still holds up the others; one that somebody wants up again does not."""
    s = process.snapshot
    if s.state in DOWN or (s.wanted and now - told_at > LOOK_SECONDS):
        return False
    return now < max(told_at + process.policy.grace_seconds, s.extended_until) + KILL_PATIENCE_SECONDS
