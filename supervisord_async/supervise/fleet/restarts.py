"""Restarts of several processes: those with ``rolling`` one after another, the others at once, dependencies first.

Dependents with ``restart_with_dependency`` are restarted when a dependency has a new run, or, if that is rolling, when all its
replicas have one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from supervisord_async.core.inputs import RestartRequested
from supervisord_async.core.record import Record
from supervisord_async.core.state import Cause, State
from supervisord_async.supervise.fleet.dependencies import Dependencies
from supervisord_async.supervise.fleet.fleet import Fleet
from supervisord_async.supervise.fleet.rolling import Rolling
from supervisord_async.supervise.process import Process


class Restarts:
    """The restarts that the daemon itself requests."""

    def __init__(self, fleet: Fleet, dependencies: Dependencies, rolling: Rolling) -> None:
        self._fleet, self._dependencies, self._rolling = fleet, dependencies, rolling

    def request(self, asked: Mapping[RestartRequested, Sequence[Process]]) -> None:
        """Each process is asked to restart: those with ``rolling`` one after another, the others at once, dependencies first."""
        at_once: dict[Process, RestartRequested] = {}
        for request, processes in asked.items():
            rolled = self._rolling.take(processes, request)
            at_once |= {process: request for process in processes if process.name not in rolled}
        for process in self._dependencies.in_start_order(list(at_once)):
            process.ask(at_once[process])

    def roll(self, name: str, request: RestartRequested) -> bool:
        """Whether the restart that the process ``name`` requests itself is handled here, as part of a rolling one."""
        process = self._fleet.processes[name]
        return self._rolling.follow(process, request, self._dependencies.members(process.program.name))

    def on_record(self, record: Record) -> None:
        """A listener of the bus: dependents follow a run that is up, or a rolling restart that is done."""
        if record.type == "rolling":
            self._follow(record.data["program"])
        elif record.type == "state" and record.to == State.RUNNING and record.name in self._fleet.processes:
            self._follow(self._fleet.processes[record.name].program.name)

    def _follow(self, program: str) -> None:
        """Restart the followers whose run is older than one of ``program``, unless that is rolling just now."""
        followers = [process for process in self._dependencies.dependents(program) if self._may_follow(process)]
        if not followers or self._rolling.under_way(program) is not None:
            return
        up = [member for member in self._dependencies.members(program) if member.snapshot.state is State.RUNNING]
        newest = max(up, key=lambda member: member.snapshot.run_since, default=None)
        if newest is None:
            return
        older = [process for process in followers if process.snapshot.run_since < newest.snapshot.run_since]
        self.request({RestartRequested(Cause.DEPENDENCY, f"{newest.name} was restarted"): older})

    def _may_follow(self, process: Process) -> bool:
        up = process.snapshot.state in (State.STARTING, State.RUNNING)
        return up and process.program.restart_with_dependency and not self._rolling.awaits(process)
