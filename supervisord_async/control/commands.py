"""The daemon's commands and queries, without any transport: HTTP, like any later interface, calls these and nothing below.

A command that changes something subscribes to records, posts ordinary inputs and learns the result from the records. It is
idempotent, acts on many names in parallel, waits for a bounded time, and says per name what happened.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import msgspec

from supervisord_async.control import goal as goals
from supervisord_async.control.goal import Goal, Verdict
from supervisord_async.control.goal_wait import GoalWait
from supervisord_async.control.reload_goal import ReloadGoal
from supervisord_async.control.view import ProcessView, process_view, waiting_words
from supervisord_async.control.view_cache import ViewCache
from supervisord_async.core.inputs import Input, RestartRequested, SignalRequested, StartRequested
from supervisord_async.core.state import DOWN, Snapshot, State
from supervisord_async.errors import BusyError, CommandError, FailedError, NotFoundError, TimedOutError, UnavailableError, UsageError
from supervisord_async.system import signals
from supervisord_async.system.threads import in_thread
from supervisord_async.words import listed

if TYPE_CHECKING:
    from supervisord_async.config.diff import Plan
    from supervisord_async.control.why import Why
    from supervisord_async.supervise.fleet.rolling import Roll
    from supervisord_async.supervise.fleet.stopping import OrderlyStop
    from supervisord_async.supervise.process import Process
    from supervisord_async.supervise.records.bus import Subscription
    from supervisord_async.supervise.records.figures import Figures, Sampler
    from supervisord_async.supervise.records.history import History
    from supervisord_async.supervise.records.run_entry import RunEntry
    from supervisord_async.supervise.supervisor import Supervisor

#: How long a command without a timeout waits beyond the program's own times.
MARGIN_SECONDS = 60.0
#: No command waits longer, whatever its timeout.
MAX_WAIT_SECONDS = 86_400.0
#: The same limit as in a file.
MAX_REPLICAS = 10_000
#: How long an answer waits for the figures of CPU and memory.
FIGURES_TIMEOUT_SECONDS = 1.0


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a command for one process."""

    name: str
    ok: bool
    state: str  #: when the command ended
    cause: str | None
    message: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The results of a command, one for each of its processes."""

    results: list[Result]
    timed_out: tuple[str, ...] = ()  #: names that had no result in time

    @property
    def error(self) -> CommandError | None:
        """The error of the command as a whole; None if every result is ok. A failure outweighs a timeout."""
        bad = [result for result in self.results if not result.ok]
        if not bad:
            return None
        words = "; ".join(f"{result.name}: {result.message}" for result in bad[:5])
        if len(bad) > 5:
            words += f"; and {len(bad) - 5} more"
        late = all(result.name in self.timed_out for result in bad)
        return TimedOutError(words) if late else FailedError(words)


class Commands:
    """The commands and queries of one daemon."""

    def __init__(self, supervisor: Supervisor, *, history: History | None = None, figures: Sampler | None = None) -> None:
        self.supervisor = supervisor
        self.history_store = history
        self.figures = figures
        self._views = ViewCache()

    # Queries

    async def status_json(self, selectors: Sequence[str] = (), *, figures: bool = True) -> bytes:
        """A JSON list of the processes that ``selectors`` name (all, if there is none), with CPU and memory if ``figures``."""
        processes = self._select(selectors) if selectors else list(self.supervisor.processes.values())
        found = await self._figures() if figures else {}
        return self._views.json(processes, anyio.current_time(), time.time(), found)

    async def status_of(self, name: str) -> ProcessView:
        """The view of one process. Raises NotFoundError."""
        process = self.process(name)
        found = await self._figures()
        return process_view(process, anyio.current_time(), time.time(), found.get(name))

    async def _figures(self) -> dict[str, Figures]:
        """The present figures; the last known ones, if the present ones take too long."""
        if self.figures is None:
            return {}
        processes = self.supervisor.processes.values()
        if (known := self.figures.known(processes)) is not None:
            return known
        with anyio.move_on_after(FIGURES_TIMEOUT_SECONDS):
            return await self.figures.sample(processes)
        return self.figures.last

    def process(self, name: str) -> Process:
        """The one process of that name. Raises NotFoundError, with the nearest names, if there is none or more than one."""
        found = self.supervisor.processes.get(name)
        if found is not None:
            return found
        selected = self._select([name])
        if len(selected) == 1:
            return selected[0]
        names = listed([process.name for process in selected])
        raise NotFoundError(f"{name!r} is {len(selected)} processes, this needs one ({names})")

    async def why(self, name: str) -> Why:
        """Why the process is in its state: see :mod:`supervisord_async.control.why`."""
        from supervisord_async.control.why import explain

        supervisor = self.supervisor
        refused = tuple(str(problem) for problem in supervisor.refused if not problem.warning)
        process = self.process(name)
        return await explain(process, supervisor.bus, self.history_store, refused, await self._detailed(process))

    async def _detailed(self, process: Process) -> Figures | None:
        """What ``process`` uses now, open files included; None if it is not running, or if this takes too long to find out."""
        if self.figures is not None and process.snapshot.pid is not None:
            with anyio.move_on_after(FIGURES_TIMEOUT_SECONDS):
                return (await self.figures.sample(self.supervisor.processes.values(), detailed=True)).get(process.name)
        return None

    async def history(self, name: str, limit: int = 50) -> list[RunEntry]:
        """The last ``limit`` runs of ``name``, newest first.

        Raises NotFoundError if it is neither a process nor in the history, UnavailableError if the history cannot be read.
        """
        if self.history_store is None:
            raise UnavailableError("there is no history: the daemon's log says why")
        self.supervisor.bus.catch_up()  # a run that a client has seen is in the history that it reads
        runs = await self.history_store.runs(name, limit)
        if not runs and name not in self.supervisor.processes:
            self.process(name)  # raises, with the name that was probably meant
        return runs

    async def configuration(self, program: str | None = None) -> dict[str, Any]:
        """The effective configuration, or that of one ``program``, with secrets masked. Raises NotFoundError."""
        from supervisord_async.config.secrets import masked

        everything = await in_thread(masked, self.supervisor.configuration)  # a quarter of a millisecond for each program
        if program is None:
            return everything
        found = everything["programs"].get(program)
        if found is None:
            found = everything["programs"].get(self.process(program).program.name)
        if found is None:
            raise NotFoundError(f"program {program!r} is no longer in the configuration")
        return dict(found)

    # Actions. ``by`` says who ordered one, if that is known.

    async def start(self, selectors: Sequence[str], *, wait: bool = True, timeout: float | None = None, by: str = "") -> Outcome:
        """All are RUNNING, or EXITED with success."""
        self._refuse_when_shutting_down()
        return await self._act(selectors, StartRequested(by=by), goals.is_started, wait, timeout)

    async def stop(self, selectors: Sequence[str], *, wait: bool = True, timeout: float | None = None, by: str = "") -> Outcome:
        """All are STOPPED; dependents were stopped before what they depend on."""
        processes = self._select(selectors)
        with self.supervisor.bus.subscribe(limit=max(1024, 16 * len(processes))) as records:
            order: OrderlyStop | None = None

            def goal(process: Process, before: Snapshot) -> Verdict | None:
                if order is not None and process.name in order.refused:
                    return Verdict(False, order.refused[process.name])
                return None if order is None or order.is_undecided(process) else goals.is_stopped(process, before)

            waiting = GoalWait(processes, goal)
            self.supervisor.rolling.overrule(processes)
            order = self.supervisor.stops.begin(processes, by)
            if timeout is None:
                timeout = order.levels * _own_times(processes) + MARGIN_SECONDS
            outcome = await self._wait_goal(waiting, processes, records, wait, timeout)
        if order.levels > 1:  # those that had to wait for their turn were asked to stop after what was remembered
            await self.supervisor.remembered()
        return outcome

    async def restart(self, selectors: Sequence[str], *, wait: bool = True, timeout: float | None = None, by: str = "") -> Outcome:
        """All are RUNNING in a newer run."""
        self._refuse_when_shutting_down()
        return await self._act(selectors, RestartRequested(by=by), goals.is_restarted, wait, timeout)

    async def wait(self, selectors: Sequence[str], for_: str, *, timeout: float | None = None) -> Outcome:
        """All are ``ready``, ``stopped`` or ``exited``; nothing was posted to them. Without ``timeout`` it waits for a day.

        ``ready`` does not wait for processes that a pattern selects, but that are down and have no ``autostart``.
        """
        goal = goals.WAITS.get(for_)
        if goal is None:
            raise UsageError(f"cannot wait for {for_!r}: expected {', '.join(goals.WAITS)}")
        if for_ == "ready":
            goal = goals.unless_idle(goal, selectors)
        if for_ != "stopped":  # which every removal leads to
            goal = self._unless_removed(goal)
        return await self._act(selectors, None, goal, True, MAX_WAIT_SECONDS if timeout is None else timeout)

    async def signal(self, selectors: Sequence[str], signum: int) -> Outcome:
        """``signum`` is sent to the main process of each selected process that has one; the others fail."""
        verdicts: dict[str, Verdict | None] = {}
        processes = self._select(selectors)
        for process in processes:
            if (pid := process.snapshot.pid) is None:
                verdicts[process.name] = Verdict(False, f"not running: {process.snapshot.state}")
                continue
            verdicts[process.name] = _posted(process, SignalRequested(signum)) or Verdict(True, f"sent {signals.name(signum)} to pid {pid}")
        await _let_them_decide()
        return _outcome(processes, verdicts)

    async def scale(self, name: str, replicas: int, *, wait: bool = True, timeout: float | None = None, by: str = "") -> Outcome:
        """Until the next reload the program has ``replicas`` processes: added ones are up, removed ones are gone."""
        self._refuse_when_shutting_down()
        if not 0 <= replicas <= MAX_REPLICAS:
            raise UsageError(f"cannot scale {name} to {replicas}: expected a number from 0 to {MAX_REPLICAS}")
        with self.supervisor.bus.subscribe(limit=max(1024, 16 * replicas)) as records:
            added, removed, starts = self.supervisor.scale(name, replicas, by)
            gone = {process.name for process in removed}
            returning = {process.name for process in added if process.name in self.supervisor.removals}

            def goal(process: Process, before: Snapshot) -> Verdict | None:
                if process.name in gone:
                    return Verdict(True, "removed") if process.snapshot.state in DOWN else None
                if process.name in returning and starts:  # the removed one has to be gone before its successor is created
                    former, process = process, self.supervisor.processes.get(process.name, process)
                    return goals.is_started(process, Snapshot()) if process is not former and process.snapshot.cause is not None else None
                if process.snapshot.state is State.STOPPED and process.snapshot.cause is None:  # nothing has happened to it yet
                    return None if starts else Verdict(True, "added; not started, as the others are not")
                return goals.is_started(process, before)

            return await self._wait_goal(GoalWait([*added, *removed], goal), [*added, *removed], records, wait, timeout)

    async def plan(self) -> Plan:
        """What a reload would do; raises ConfigError."""
        return await self.supervisor.plan()

    async def reload(self, *, wait: bool = True, timeout: float | None = None, by: str = "") -> tuple[Plan, Outcome]:
        """The file on disk is in force, and every process that this touched has settled.

        Raises ConfigError if the file is unsound: then nothing has changed.
        """
        self._refuse_when_shutting_down()
        supervisor = self.supervisor
        with supervisor.bus.subscribe(limit=max(1024, 16 * len(supervisor.processes))) as records:
            before = {name: (process, process.snapshot) for name, process in supervisor.processes.items()}
            plan = await supervisor.reload(by)
            touched = ReloadGoal(supervisor, plan, before)
            waiting = GoalWait(touched.processes, touched.judge, supervisor.dependencies.in_vain)
            if timeout is None:
                levels = supervisor.dependencies.levels(touched.processes)
                timeout = touched.turns * levels * _own_times(touched.processes) + MARGIN_SECONDS
            return plan, await self._wait_goal(waiting, touched.processes, records, wait, timeout)

    def shutdown(self, by: str = "") -> None:
        """Everything will be stopped, then the daemon ends."""
        if not self.supervisor.shutting_down:  # a second request would kill: meant for signals, not for this command
            self.supervisor.request_shutdown(by=by)

    async def reexec(self) -> None:
        """The daemon will replace itself in place. Raises CommandError if it cannot."""
        self._refuse_when_shutting_down()
        await self.supervisor.reexec()

    def reopen_logs(self) -> None:
        """From now on every log is written to the file that is now at its path."""
        self.supervisor.reopen_logs()

    # Shared by actions

    def _select(self, selectors: Sequence[str]) -> list[Process]:
        if not selectors:
            raise UsageError("cannot act on nothing: name a program, GROUP:*, a glob or all")
        return self.supervisor.select(selectors)

    def _refuse_when_shutting_down(self) -> None:
        if self.supervisor.shutting_down:
            raise BusyError("cannot do this: the daemon is shutting down")

    async def _act(self, selectors: Sequence[str], request: Input | None, goal: Goal, wait: bool, timeout: float | None) -> Outcome:
        processes = self._select(selectors)
        with self.supervisor.bus.subscribe(limit=max(1024, 16 * len(processes))) as records:
            if request is not None:
                self.supervisor.stops.overrule(processes)
            rolls = self.supervisor.rolling.take(processes, request)
            in_vain = self._in_vain if request is not None else None
            waiting = GoalWait(processes, _of_rolls(goal, rolls), in_vain)
            if request is not None:
                dependencies = self.supervisor.dependencies
                for process in dependencies.in_start_order(processes):
                    if process.name not in rolls and (refused := _posted(process, request)) is not None:
                        waiting.verdicts[process.name] = refused
                restarts, up = isinstance(request, RestartRequested), (State.STARTING, State.RUNNING)
                dependencies.pull([one for one in processes if restarts or one.snapshot.state not in up], by_operator=True)
                if timeout is None:  # the longest case: dependencies and rolling restarts take their turns
                    timeout = max(len(rolls), 1) * dependencies.levels(processes) * _own_times(processes) + MARGIN_SECONDS
            return await self._wait_goal(waiting, processes, records, wait, timeout)

    def _in_vain(self, processes: Iterable[Process]) -> set[str]:
        """As :meth:`.Dependencies.in_vain`; those that wait have had started what they need, as a listener of their records does."""
        waiting = [process for process in processes if process.snapshot.state is State.WAITING]
        if waiting:  # else records stay delayed, so that starts come first
            self.supervisor.bus.catch_up()
        return self.supervisor.dependencies.in_vain(waiting)

    def _unless_removed(self, goal: Goal) -> Goal:
        """``goal``; but a process that is no longer configured will not reach it any more."""

        def judge(process: Process, before: Snapshot) -> Verdict | None:
            supervisor = self.supervisor
            removed = process.name in supervisor.removals or supervisor.processes.get(process.name) is not process
            return goal(process, before) or (Verdict(False, "no longer configured") if removed else None)

        return judge

    async def _wait_goal(
        self, waiting: GoalWait, processes: list[Process], records: Subscription, wait: bool, timeout: float | None
    ) -> Outcome:
        seconds = min(MAX_WAIT_SECONDS, _own_times(processes) + MARGIN_SECONDS if timeout is None else max(0.0, timeout))
        await _let_them_decide()
        await self.supervisor.remembered()  # the answer must stay true if the daemon is killed after it
        if not wait:
            return _outcome(processes, {name: verdict or Verdict(True, "accepted") for name, verdict in waiting.verdicts.items()})
        with anyio.move_on_after(seconds):
            await waiting.follow(records)
            await self.supervisor.removals.wait_gone(processes)  # once "removed" is answered, the process is no longer listed
        self.supervisor.bus.catch_up()  # once a command is answered, the history has its records
        late = waiting.unsettled()
        for name in late:
            snapshot = self.supervisor.processes[name].snapshot if name in self.supervisor.processes else None
            now = f"still {snapshot.state} ({self._trouble(name, snapshot)})" if snapshot is not None else "no longer configured"
            waiting.verdicts[name] = Verdict(False, f"timed out after {seconds:g} s: {now}")
        return _outcome([self.supervisor.processes.get(process.name, process) for process in processes], waiting.verdicts, late)

    def _trouble(self, name: str, snapshot: Snapshot) -> str:
        return waiting_words(self.supervisor.processes[name]) if snapshot.state is State.WAITING else goals.trouble(snapshot)


def _of_rolls(goal: Goal, rolls: dict[str, Roll]) -> Goal:
    """``goal``, but not before the turn of a process in a rolling restart; if that never comes, it has failed, with the reason."""

    def judge(process: Process, before: Snapshot) -> Verdict | None:
        roll = rolls.get(process.name)
        if roll is None or process.name not in roll.pending:
            return goal(process, before)
        refusal = roll.refusal(process.name)
        return Verdict(False, refusal) if refusal is not None else None

    return judge if rolls else goal


async def _let_them_decide() -> None:
    """Each process has handled what was posted: it empties its mailbox at the loop's next turn.

    A process whose supervision has just broken handles it later; until then it is UNKNOWN, which the goals judge.
    """
    for _ in range(2):  # that turn, and one to spare
        await anyio.lowlevel.checkpoint()


def _posted(process: Process, request: Input) -> Verdict | None:
    """``request`` is in the mailbox of ``process``; else the verdict that says why it could not be posted."""
    try:
        process.post(request)
    except BusyError as error:
        return Verdict(False, str(error))
    return None


def _own_times(processes: Iterable[Process]) -> float:
    """The longest time in seconds that one of ``processes`` may take to stop and start, by its own settings."""
    policies = [process.policy for process in processes]
    return max(((policy.start_timeout_seconds or policy.start_seconds) + policy.grace_seconds for policy in policies), default=0.0)


def _outcome(processes: Iterable[Process], verdicts: dict[str, Verdict | None], late: Sequence[str] = ()) -> Outcome:
    results = []
    for process in processes:
        verdict = verdicts[process.name] or Verdict(False, "no result")
        snapshot = process.snapshot
        state, cause = str(snapshot.state), str(snapshot.told_cause) if snapshot.told_cause is not None else None
        results.append(Result(name=process.name, ok=verdict.ok, state=state, cause=cause, message=verdict.message))
    return Outcome(results=results, timed_out=tuple(late))
