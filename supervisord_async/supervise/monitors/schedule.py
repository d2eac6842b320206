"""The schedule monitor: starts programs when their schedule is due, if they do not run.

One task for all. It sleeps by the monotonic clock, a minute at most, and derives everything from the wall clock anew
each time: so a clock that was set, or a sleep of the machine, is noticed within that minute.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

import anyio

from supervisord_async.config.model import Program, Schedule
from supervisord_async.core.inputs import StartRequested
from supervisord_async.core.record import Record
from supervisord_async.core.state import DOWN, Cause, State
from supervisord_async.supervise.fleet.schedule import Marks, next_after, rests_for
from supervisord_async.supervise.records.bus import Bus
from supervisord_async.supervise.retry import retry_on_shortage
from supervisord_async.system.shortage import is_shortage
from supervisord_async.system.threads import in_thread

if TYPE_CHECKING:
    from supervisord_async.supervise.process import Process

#: The longest sleep between two looks at the clock.
POLL_SECONDS = 60.0
#: A scheduled start found later than this counts as missed: the machine slept, or its clock was set forward.
LATE_SECONDS = 90.0
#: The same when the daemon has just started; not 0, as that may have been a re-exec.
LATE_AT_START_SECONDS = 2.0
#: A clock set back by less repeats no starts, as in cron; if it is set back by more, schedules start anew. A schedule with shorter
#: intervals than that step starts anew in any case: else it would not run for all that time.
SET_BACK_SECONDS = 3 * 3600.0


class ScheduleWatch:
    """Posts a start for every process whose program's schedule is due. ``Process.scheduled_at`` says when the next one is."""

    def __init__(
        self,
        bus: Bus,
        processes: Callable[[], Iterable[Process]],
        run_dir: str,
        *,
        active: Callable[[], bool] = lambda: True,
        wall_clock: Callable[[], float] = time.time,
        off_the_loop: Callable[..., Awaitable[None]] = in_thread,
    ) -> None:
        self._bus = bus
        self._processes = processes
        self._marks = Marks(run_dir)
        self._active = active
        self._wall_clock = wall_clock
        self._off_the_loop = off_the_loop
        self._news = anyio.Event()
        self._late_seconds = LATE_AT_START_SECONDS
        self._written: bytes | None = None  # the marks that are on the disk; None: they have not been read yet
        bus.listen(self._on_record)

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            groups = self._groups()
            if not groups:
                await self._news.wait()
            elif self._written is None:
                await retry_on_shortage("read when schedules were last due", lambda: self._off_the_loop(self._marks.load))
                self._written = self._marks.snapshot()
                continue
            else:
                delay = await self._look(groups)
                with anyio.move_on_after(delay):
                    await self._news.wait()
            self._news = anyio.Event()

    def _on_record(self, record: Record) -> None:
        if record.type in ("reload", "scale"):
            self._news.set()

    def _groups(self) -> dict[str, tuple[Program, list[Process]]]:
        groups: dict[str, tuple[Program, list[Process]]] = {}
        for process in self._processes():
            if process.program.schedule is None:
                process.scheduled_at = None
            else:
                groups.setdefault(process.program.name, (process.program, []))[1].append(process)
        return groups

    async def _look(self, groups: dict[str, tuple[Program, list[Process]]]) -> float:
        """Start what is due; returns the seconds until the next look."""
        now = self._wall_clock()
        soonest = now + POLL_SECONDS
        for program, processes in groups.values():
            due = self._consider(program, processes, now)
            for process in processes:
                process.scheduled_at = due
            soonest = min(soonest, due) if due is not None else soonest
        self._late_seconds = LATE_SECONDS
        self._marks.keep_only(set(groups))
        if (marks := self._marks.snapshot()) != self._written:
            await self._write(marks)
        return max(0.0, soonest - self._wall_clock())

    async def _write(self, marks: bytes) -> None:
        """Write ``marks`` to the disk; if no thread can be started for that, a later look does it."""
        try:
            await self._off_the_loop(self._marks.write, marks)
        except OSError as error:
            if not is_shortage(error):
                raise
        else:
            self._written = marks

    def _consider(self, program: Program, processes: list[Process], now: float) -> float | None:
        """Start the program's processes if its schedule is due; returns when it is due next."""
        schedule = program.schedule
        assert schedule is not None  # noqa: S101  see _groups
        mark = self._marks.get(program.name, schedule)
        if mark is None or (mark > now and _begins_anew(schedule, mark, now)):
            mark = now
            self._marks.put(program.name, schedule, now)
        due = next_after(schedule, mark)
        if due is None or due > now or not self._active():
            return due
        self._marks.put(program.name, schedule, now)
        latest = next_after(schedule, max(mark, now - self._late_seconds))
        if latest is not None and latest <= now:
            self._start(processes, "")
        elif schedule.catch_up == "once":
            self._start(processes, " (missed, caught up)")
        else:
            for process in processes:
                self._publish(process, "missed a scheduled start: the daemon or the machine was down, or its clock was set", "missed")
        return next_after(schedule, now)

    def _start(self, processes: list[Process], words: str) -> None:
        for process in processes:
            now = process.snapshot
            if now.state is State.STOPPED and now.cause is Cause.OPERATOR:
                message = f"scheduled start{words} skipped: an operator stopped it; starting it by hand resumes the schedule"
                self._publish(process, message, "paused")
            elif now.state not in DOWN:
                self._publish(process, f"scheduled start{words} skipped: it is {now.state}", "overlap")
            else:
                self._publish(process, f"started by its schedule{words}", "started")
                process.ask(StartRequested(Cause.SCHEDULE))

    def _publish(self, process: Process, message: str, what: str) -> None:
        self._bus.publish("schedule", name=process.name, message=message, data={"what": what})


def _begins_anew(schedule: Schedule, mark: float, now: float) -> bool:
    back = mark - now
    return back > SET_BACK_SECONDS or not rests_for(schedule, back, now=now, mark=mark)
