"""Rolling restarts: the replicas of a program are restarted one at a time, each when the one before is RUNNING, which means ready.

It posts ordinary restarts and listens to records. At the first replica that does not come back it stops: the others keep their
present runs, and a record of type ``rolling_failed`` says so for each. A newer restart of the same program replaces one that
is under way. One that a re-exec or the daemon's death cuts off is continued by the next daemon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import anyio
import anyio.lowlevel

from supervisord_async.core.inputs import Input, RestartRequested
from supervisord_async.core.machine import succeeded
from supervisord_async.core.state import Cause, State
from supervisord_async.errors import BusyError
from supervisord_async.supervise.fleet.fleet import Fleet
from supervisord_async.supervise.records.bus import Bus
from supervisord_async.supervise.records.narrate import exit_words
from supervisord_async.supervise.recovery.persist import SavedRoll

if TYPE_CHECKING:
    from supervisord_async.supervise.process import Process

#: How often to look without a record, as a lost record must not stall the restart.
POLL_SECONDS = 1.0
STOPPED_MEANWHILE = "it was stopped meanwhile"


class Turn(NamedTuple):
    """One process of a rolling restart, and its run that a newer one is to replace."""

    process: Process
    older: int


class Roll:
    """One rolling restart."""

    def __init__(self, processes: Sequence[Process], request: RestartRequested) -> None:
        self.request = request
        self.failure: str | None = None  #: why it stopped early; None: it did not
        self.turns: list[Turn] = []  #: those that are not over
        self.done = 0  #: how many are over
        self.pending: list[str] = []  #: those whose turn has not come
        #: Those that were stopped when the restart was requested. If another one is found stopped, its stop came later, and wins.
        self.down: set[str] = set()
        self.scope = anyio.CancelScope()
        for process in processes:
            self.add(process, process.snapshot.run, down=process.stop_ordered)

    def add(self, process: Process, older: int, *, down: bool) -> None:
        """``process`` takes the last turn, for a run newer than ``older``; ``down``: it is stopped."""
        self.turns.append(Turn(process, older))
        self.pending.append(process.name)
        if down:
            self.down.add(process.name)

    def saved(self) -> SavedRoll:
        """What the next daemon needs to continue it."""
        return SavedRoll(self.request, tuple((process.name, older) for process, older in self.turns), frozenset(self.down))

    def refusal(self, name: str) -> str | None:
        """Why ``name`` is not restarted, if the roll has stopped before its turn; None: it was restarted, or still may be."""
        return f"not restarted: {self.failure}" if self.failure is not None and name in self.pending else None


class Rolling:
    """The rolling restarts of one daemon."""

    def __init__(self, bus: Bus, fleet: Fleet, changed: Callable[[], None]) -> None:
        """``changed`` has :attr:`unfinished` saved."""
        self._bus = bus
        self._fleet = fleet
        self._changed = changed
        self._rolls: dict[str, Roll] = {}
        self._inherited: tuple[SavedRoll, ...] = ()

    @property
    def unfinished(self) -> tuple[SavedRoll, ...]:
        """All that are under way, for the next daemon to continue."""
        return (*self._inherited, *(roll.saved() for roll in self._rolls.values() if roll.failure is None))

    def inherit(self, unfinished: Iterable[SavedRoll]) -> None:
        """:meth:`resume` will continue what an earlier daemon left ``unfinished``."""
        self._inherited = tuple(unfinished)

    def resume(self) -> None:
        """What an earlier daemon left is continued: replicas that have a newer run already are only waited for."""
        left, self._inherited = self._inherited, ()
        for saved in left:
            roll = Roll((), saved.request)
            for name, older in saved.turns:
                if (process := self._fleet.processes.get(name)) is not None:
                    roll.add(process, older, down=name in saved.down)
            if roll.turns:
                self._begin(roll)

    def take(self, processes: Sequence[Process], request: Input | None) -> dict[str, Roll]:
        """Begin a rolling restart for every program with ``rolling`` of which two or more replicas are among ``processes``.

        Returns the roll of each process that is in one, by name; the caller has to restart the others.
        """
        if not isinstance(request, RestartRequested):
            return {}
        groups: dict[str, list[Process]] = {}
        for process in processes:
            if process.program.rolling:
                groups.setdefault(process.program.name, []).append(process)
        rolls: dict[str, Roll] = {}
        for group in groups.values():
            if len(group) > 1:
                rolls |= dict.fromkeys((process.name for process in group), self._begin(Roll(group, request)))
        return rolls

    def overrule(self, processes: Iterable[Process]) -> None:
        """``processes`` are to be stopped: no earlier restart by an operator starts those of them that were down already."""
        for process in processes:
            roll = self._rolls.get(process.program.name)
            if roll is not None and roll.request.cause is Cause.OPERATOR and process.name in roll.down:
                roll.down.discard(process.name)
                self._changed()

    def under_way(self, program: str) -> Roll | None:
        """The rolling restart of ``program``, if there is one."""
        return self._rolls.get(program)

    def awaits(self, process: Process) -> bool:
        """Whether ``process`` will be restarted when its turn comes."""
        roll = self._rolls.get(process.program.name)
        return roll is not None and process.name in roll.pending

    def follow(self, process: Process, request: RestartRequested, members: Sequence[Process]) -> bool:
        """Whether a restart that ``process`` itself requests is handled here, as part of a rolling one of ``members``.

        A file change is reported by each of ``members``; the first one's report begins the restart of all. Settings that changed
        while no daemon was there may concern only some of them, which then take their turns.
        """
        if not process.program.rolling or len(members) < 2:
            return False
        if request.cause is Cause.CONFIG_CHANGED:
            roll = self._rolls.get(process.program.name)
            if roll is None or roll.failure is not None:
                self._begin(Roll([process], request))
            elif process.name not in roll.pending:
                roll.add(process, process.snapshot.run, down=process.stop_ordered)
            return True
        if process is members[0]:
            self.take([member for member in members if member.snapshot.wanted], request)
        return True

    def _begin(self, roll: Roll) -> Roll:
        program = roll.turns[0].process.program.name
        former = self._rolls.get(program)
        if former is not None:
            self._stop(former, "another restart of the program has begun")
            former.scope.cancel()
        self._rolls[program] = roll
        self._changed()

        async def run() -> None:
            try:
                with roll.scope:
                    await self._run(roll)
            except Exception as error:
                self._stop(roll, f"internal error: {error!r}")
                raise
            finally:
                if self._rolls.get(program) is roll:
                    del self._rolls[program]
                    self._changed()
            if roll.failure is None and not self._fleet.shutting_down:
                message = f"{program}: {roll.done} replicas were restarted one after the other"
                self._bus.publish("rolling", cause=str(roll.request.cause), message=message, data={"program": program})

        self._fleet.start_task(run, f"rolling restart {program}")
        return roll

    async def _run(self, roll: Roll) -> None:
        while roll.turns:  # there may be more meanwhile
            if self._fleet.shutting_down:
                self._stop(roll, "the daemon is shutting down")
                return
            trouble = await self._replace(roll.turns[0], roll)
            if trouble is not None:
                self._stop(roll, f"{roll.turns[0].process.name} did not come back: {trouble}")
                return
            del roll.turns[0]
            roll.done += 1

    async def _replace(self, turn: Turn, roll: Roll) -> str | None:
        """Restart the process and wait for it. None: it has a new run, or was down and is to stay down; else what went wrong."""
        process = turn.process
        await process.wait_settled()
        await _let_it_decide()
        if process.stop_ordered and process.name not in roll.down:
            return STOPPED_MEANWHILE
        with self._bus.subscribe() as records:
            if process.snapshot.run <= turn.older:  # else an earlier daemon restarted it, or it came back by itself
                try:
                    process.post(roll.request)
                except BusyError as error:
                    return str(error)
                await _let_it_decide()
            roll.pending.remove(process.name)
            while (verdict := _judge(turn, roll)) is None:
                await records.wait_for_news(POLL_SECONDS)
            return verdict or None

    def _stop(self, roll: Roll, why: str) -> None:
        if roll.failure is not None:
            return
        roll.failure = why
        for name in roll.pending:
            self._bus.publish("rolling_failed", name=name, cause=str(roll.request.cause), message=f"not restarted: {why}")


async def _let_it_decide() -> None:
    """A process has handled what was posted, at the loop's next turn; one more to be safe."""
    for _ in range(2):
        await anyio.lowlevel.checkpoint()


def _judge(turn: Turn, roll: Roll) -> str | None:
    """Empty if the process came back, or is rightly down; else what went wrong. None: not decided yet."""
    process, now = turn.process, turn.process.snapshot
    newer = now.run > turn.older
    match now.state:
        case State.RUNNING if newer:
            return ""
        case State.EXITED if newer:
            return "" if succeeded(now, process.policy) else exit_words(now.exit)
        case State.STOPPED:
            was_down = process.name in roll.down and roll.request.cause is not Cause.OPERATOR
            return "" if was_down else STOPPED_MEANWHILE
        case State.BACKOFF | State.FATAL | State.UNKNOWN:
            return now.detail or (exit_words(now.exit) if now.cause is Cause.EXITED else str(now.cause))
        case _:
            return None
