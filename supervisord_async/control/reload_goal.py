"""Which processes a reload touches, and when each has settled: added and restarted ones are up or have failed, removed ones are gone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from supervisord_async.control import goal as goals
from supervisord_async.control.goal import Verdict
from supervisord_async.core.state import DOWN, Snapshot, State
from supervisord_async.supervise.supervisor import is_idle

if TYPE_CHECKING:
    from supervisord_async.config.diff import Plan
    from supervisord_async.config.model import Program
    from supervisord_async.supervise.process import Process
    from supervisord_async.supervise.supervisor import Supervisor


class ReloadGoal:
    """The processes that one reload started, restarted or removed, in file order, the removed ones last."""

    def __init__(self, supervisor: Supervisor, plan: Plan, before: Mapping[str, tuple[Process, Snapshot]]) -> None:
        """``before`` are the processes and their snapshots from before the reload."""
        programs = supervisor.configuration.programs
        members = {name: supervisor.dependencies.members(name) for name in programs}
        self._supervisor = supervisor
        self._before = {name: snapshot for name, (_, snapshot) in before.items()}
        self._added = {one.name for group in members.values() for one in group if before.get(one.name, (None,))[0] is not one}
        self._returning = {one.name for group in members.values() for one in group if one.name in supervisor.removals}
        restarted = {one.name for name in plan.restarted() for one in members.get(name, ())} - self._added
        now_by_itself = {one.name for name in plan.started() for one in members.get(name, ())} - self._added
        self._started = {name for name in now_by_itself if is_idle(self._before[name])}
        kept = {one.name for group in members.values() for one in group}
        self._removed = {name for name in before if name not in kept}
        self._rolls = {name: supervisor.rolling.under_way(name) for name in plan.restarted()}
        up = self._added | self._returning | self._started | restarted
        self.processes: list[Process] = [one for group in members.values() for one in group if one.name in up] + [
            process for name, (process, _) in before.items() if name in self._removed
        ]

    @property
    def turns(self) -> int:
        """How many of them are restarted one after the other, at most."""
        return max([1, *(len(roll.turns) for roll in self._rolls.values() if roll is not None)])

    def judge(self, process: Process, _: Snapshot) -> Verdict | None:
        """How ``process`` has settled; None if it has not yet."""
        if process.name in self._returning:
            return self._judge_returning(process)
        now = process.snapshot
        if process.name in self._removed:
            return Verdict(True, "removed") if now.state in DOWN and not now.wanted else None
        if process.name in self._added:
            return self._judge_added(process)
        before = self._before[process.name]
        if process.name in self._started:
            return goals.is_started(process, before) if now is not before else None
        roll = self._rolls.get(process.program.name)
        if roll is not None and (refusal := roll.refusal(process.name)) is not None:
            return Verdict(False, refusal)
        if not before.wanted and not now.wanted:
            return Verdict(True, "changed; it stays stopped")
        return goals.is_restarted(process, before)

    def _judge_returning(self, gone: Process) -> Verdict | None:
        """``gone`` was removed by an earlier reload and is still ending: only after that its successor of the same name is created."""
        program = self._supervisor.configuration.programs.get(gone.program.name)
        if program is not None and not program.autostart:
            return _not_started(program)
        process = self._supervisor.processes.get(gone.name, gone)
        return self._judge_added(process) if process is not gone else None

    def _judge_added(self, process: Process) -> Verdict | None:
        now = process.snapshot
        if now.state is State.STOPPED and now.cause is None:  # nothing has happened to it yet
            return None if process.program.autostart else _not_started(process.program)
        return goals.is_started(process, Snapshot())


def _not_started(program: Program) -> Verdict:
    return Verdict(True, f"added; {'its schedule starts it' if program.schedule else 'not started: autostart is false'}")
