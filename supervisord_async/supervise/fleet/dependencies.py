"""Dependencies: a WAITING process is released when its needs are met.

This listens to records, asks :mod:`supervisord_async.core.order`, and posts inputs. What a process waits for is derived
on request; nothing is stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from supervisord_async.config.model import Configuration, Program
from supervisord_async.core.inputs import DependenciesMet, DependencyFailed, Input, StartRequested
from supervisord_async.core.order import Need, Outlook, Verdict, dependents, judge, with_dependencies
from supervisord_async.core.record import Record
from supervisord_async.core.state import DOWN, Cause, State
from supervisord_async.supervise.fleet.fleet import Fleet
from supervisord_async.supervise.process import Process

#: How many of the needs that are not met are named.
TOLD = 5


class Dependencies:
    """The dependencies among one daemon's processes."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._index_of: Configuration | None = None
        self._index: dict[str, set[str]] = {}

    def graph(self) -> dict[str, tuple[str, ...]]:
        """Each program's dependencies, in file order."""
        return {name: tuple(program.depends_on) for name, program in self._fleet.configuration.programs.items()}

    def members(self, program: str) -> list[Process]:
        """The existing processes of a program, in order."""
        settings, processes = self._fleet.configuration.programs.get(program), self._fleet.processes
        return [processes[name] for name in settings.process_names() if name in processes] if settings is not None else []

    def dependents(self, program: str) -> list[Process]:
        """The processes of all programs that depend on ``program``."""
        configuration = self._fleet.configuration
        if configuration is not self._index_of:  # configurations are immutable, so the index is valid until a reload brings another one
            self._index_of, self._index = configuration, dependents(self.graph())
        return [process for name in self._index.get(program, ()) for process in self.members(name)]

    def verdicts(self, program: Program) -> dict[str, Verdict]:
        """The verdict on each need of ``program``, by the name of the dependency."""
        return {name: self._verdict(name, need) for name, need in program.depends_on.items()}

    def _verdict(self, program: str, need: str) -> Verdict:
        members = self.members(program)
        verdict = judge(Need(need), [(member.name, member.snapshot, member.policy) for member in members])
        if verdict.outlook is Outlook.LOST and any(member.in_motion for member in members):
            return verdict._replace(outlook=Outlook.OPEN)  # one was asked to start, and has not decided yet
        return verdict

    def waits_for(self, program: Program) -> str:
        """Which dependencies of ``program`` are not met and why, in words; its WAITING processes wait for them."""
        return _joined(
            [
                verdict.words if verdict.outlook is Outlook.OPEN else f"{name}, {self._when_lost_comes(name)}: {verdict.words}"
                for name, verdict in self.verdicts(program).items()
                if verdict.outlook is not Outlook.MET
            ]
        )

    def _when_lost_comes(self, program: str) -> str:
        members = self.members(program)
        if any(member.scheduled_at is not None for member in members):
            return "which will not come before its next scheduled start"
        if any(member.snapshot.state is State.EXITED and member.program.start_on_connect for member in members):
            return "which will not come before somebody connects to it"
        return "which will not come by itself"

    def in_vain(self, processes: Iterable[Process]) -> set[str]:
        """The names of those of ``processes`` that wait, and that nothing under way will release.

        A direct or indirect dependency is lost until somebody starts it, or is flapping, or an operator stopped it. All are judged in
        one pass, in linear time.
        """
        waiting = [process for process in processes if process.snapshot.state is State.WAITING]
        known = {process.program.name: process.program for process in waiting}
        lost, waiters = list[str](), dict[str, list[str]]()
        pending = list(known.values())
        while pending:
            program = pending.pop()
            for name, verdict in self.verdicts(program).items():
                members = self.members(name) if verdict.outlook is Outlook.OPEN else []
                flapping = any(member.snapshot.state is State.BACKOFF and member.snapshot.flapping for member in members)
                if verdict.outlook is Outlook.LOST or flapping or any(map(_was_stopped, members)):
                    lost.append(program.name)
                for member in members:
                    if member.snapshot.state is State.WAITING:
                        waiters.setdefault(name, []).append(program.name)
                        if name not in known:
                            known[name] = member.program
                            pending.append(member.program)
        in_vain = set(with_dependencies(lost, waiters))
        return {process.name for process in waiting if process.program.name in in_vain}

    def is_stuck(self, process: Process) -> bool:
        """Whether nothing will release a WAITING process while all others are down: it needs one that has ended, not one about to start."""
        released = all(verdict.outlook is Outlook.MET for verdict in self.verdicts(process.program).values())
        return not released and not any(
            member.snapshot.state is State.STOPPED for program in process.program.depends_on for member in self.members(program)
        )

    def on_record(self, record: Record) -> None:
        """A listener of the bus: act on what a change of one process means for its dependents."""
        if record.type not in ("state", "health") or record.name is None:
            return
        changed = self._fleet.processes.get(record.name)
        if changed is None:
            return
        if record.to == State.WAITING:
            self.pull([changed], by_operator=False)
            self._consider([changed])
        self._consider(self.dependents(changed.program.name))

    def release(self, program: str) -> None:
        """A run of ``program`` has its process now. It stays STARTING without a record, but who needs it ``started`` may start."""
        self._consider(self.dependents(program))

    def reconsider(self) -> None:
        """Judge the needs of every WAITING process again, as its settings, or the daemon, may have changed since its wait began."""
        processes = list(self._fleet.processes.values())
        self.pull([process for process in processes if process.snapshot.state is State.WAITING], by_operator=False)
        self._consider(processes)

    def pull(self, processes: Iterable[Process], *, by_operator: bool) -> None:
        """Start what ``processes`` need and is STOPPED, but not by an operator.

        ``by_operator``: an operator orders them just now. Then also what an operator has stopped or is stopping, and what is lost,
        and what these need in turn: now and not when they begin to wait, as an operator may have stopped it again by then. Without
        an operator the others ask for their own needs when they begin to wait.
        """
        pending = list(processes)
        seen = {process.name for process in pending}
        while pending:
            needs = pending.pop().program.depends_on.items()
            for need, member in [(need, member) for program, need in needs for member in self.members(program)]:
                if member.name in seen:
                    continue
                now = member.snapshot
                if by_operator:
                    begins = member.stop_ordered or (now.state in DOWN and _is_lost(need, member))
                else:
                    begins = now.state is State.STOPPED and now.cause is not Cause.OPERATOR
                if begins:
                    member.ask(StartRequested(Cause.DEPENDENCY))
                if by_operator and (begins or now.state is State.WAITING):
                    seen.add(member.name)
                    pending.append(member)

    def _consider(self, processes: Iterable[Process]) -> None:
        """Those of ``processes`` that wait are released, or fail, if that follows from their program's needs, judged once for all."""
        follows: dict[str, Input | None] = {}
        for process in processes:
            if process.snapshot.state is State.WAITING:
                name = process.program.name
                if name not in follows:
                    follows[name] = self._what_follows(process.program)
                if (input_ := follows[name]) is not None:
                    process.ask(input_)

    def _what_follows(self, program: Program) -> Input | None:
        """What the processes of ``program`` that wait are told now; None if its needs may still be met."""
        verdicts = self.verdicts(program).values() if program.on_dependency_failure == "fail" else ()
        if lost := [verdict.words for verdict in verdicts if verdict.outlook is Outlook.LOST]:
            return DependencyFailed(_joined(lost))
        met = all(self._verdict(name, need).outlook is Outlook.MET for name, need in reversed(program.depends_on.items()))
        return DependenciesMet() if met else None  # the last need is judged first: it is mostly met last

    def start_order(self, programs: list[str]) -> list[str]:
        """``programs`` and everything they depend on, dependencies first."""
        return with_dependencies(programs, self.graph())

    def in_start_order(self, processes: Sequence[Process]) -> list[Process]:
        """``processes``, dependencies first: so none takes a dependency's run that is about to end for the new one."""
        rank = {name: number for number, name in enumerate(self.start_order([process.program.name for process in processes]))}
        return sorted(processes, key=lambda process: rank[process.program.name])

    def levels(self, processes: Sequence[Process]) -> int:
        """The length of the longest chain of dependencies that ends in ``processes``, in programs: 1 if none has any."""
        graph, depth = self.graph(), dict[str, int]()
        for name in self.start_order([process.program.name for process in processes]):  # dependencies first
            depth[name] = 1 + max((depth[need] for need in graph.get(name, ())), default=0)
        return max(depth.values(), default=1)


def _joined(words: list[str]) -> str:
    """The first few of ``words``, and how many more there are."""
    return "; ".join(words if len(words) <= TOLD else [*words[:TOLD], f"and {len(words) - TOLD} more"])


def _is_lost(need: str, process: Process) -> bool:
    return judge(Need(need), [(process.name, process.snapshot, process.policy)]).outlook is Outlook.LOST


def _was_stopped(process: Process) -> bool:
    """Whether an operator has stopped it, and nobody has asked it to start since."""
    return process.snapshot.state is State.STOPPED and process.snapshot.cause is Cause.OPERATOR and not process.in_motion
