"""When a command is done: each verb's goal, judged by a process's snapshot alone.

A goal is judged after the process has handled the command's input, so the state that it finds is the result of this command,
or of somebody's later one. Pure: no waiting, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from supervisord_async.control.view import state_words
from supervisord_async.core.machine import succeeded
from supervisord_async.core.policy import OnLimit
from supervisord_async.core.state import Cause, Snapshot, State
from supervisord_async.supervise.records.narrate import detail_words, exit_words

if TYPE_CHECKING:
    from supervisord_async.supervise.process import Process


class Verdict(NamedTuple):
    """The outcome for one process."""

    ok: bool
    message: str


#: Takes the process and its snapshot from before the command; returns the verdict, or None if there is none yet.
Goal: TypeAlias = Callable[["Process", Snapshot], Verdict | None]


def is_started(process: Process, before: Snapshot) -> Verdict | None:
    """RUNNING; or EXITED, if it ended well: a job that is done."""
    now = process.snapshot
    match now.state:
        case State.RUNNING:
            same = before.state is State.RUNNING and now.run == before.run
            return Verdict(True, f"{'already ' if same else ''}running, pid {now.pid}, run {now.run}")
        case State.EXITED if succeeded(now, process.policy):
            return Verdict(True, _done(now))
        case State.STARTING | State.WAITING | State.STOPPING:
            return None
        case State.STOPPED:
            return Verdict(False, f"stopped meanwhile ({now.cause or 'not started'})")
        case _:
            return Verdict(False, trouble(now))


def is_restarted(process: Process, before: Snapshot) -> Verdict | None:
    """A newer run is RUNNING, or ended well."""
    now = process.snapshot
    if now.state in (State.RUNNING, State.EXITED) and now.run <= before.run:
        return None
    return is_started(process, before)


def is_stopped(process: Process, before: Snapshot) -> Verdict | None:
    """STOPPED."""
    now = process.snapshot
    match now.state:
        case State.STOPPED:
            if before.state is State.STOPPED:
                return Verdict(True, "already stopped")
            ended = now.ended_run > before.ended_run and now.exit is not before.exit  # a run without a process does not change the exit
            return Verdict(True, f"stopped; {exit_words(now.exit)}" if ended else "stopped")
        case State.STOPPING:
            return None
        case State.UNKNOWN:
            return Verdict(False, trouble(now))
        case _:
            return Verdict(False, f"started again meanwhile ({now.cause})")


def is_ready(process: Process) -> bool:
    """RUNNING and not unhealthy; or a job that ended well."""
    now = process.snapshot
    return now.is_ready or (now.state is State.EXITED and succeeded(now, process.policy))


def unless_idle(goal: Goal, named: Sequence[str]) -> Goal:
    """``goal``; but a process that a pattern selected (it is not ``named``), that is STOPPED and has no autostart, is not awaited."""

    def judge(process: Process, before: Snapshot) -> Verdict | None:
        idle = process.snapshot.state is State.STOPPED and not process.program.autostart
        if idle and process.name not in named and process.program.name not in named:
            return Verdict(True, "not awaited: autostart is false")
        return goal(process, before)

    return judge


def becomes_ready(process: Process, _before: Snapshot) -> Verdict | None:
    """Ready, as in :func:`is_ready`. FATAL, or a job that failed, is a failure: it cannot become ready unless somebody starts it."""
    now = process.snapshot
    if is_ready(process):
        return Verdict(True, f"ready, pid {now.pid}, run {now.run}" if now.is_ready else _done(now))
    if now.state is State.EXITED and process.scheduled_at is None and not process.program.start_on_connect:
        return Verdict(False, trouble(now))
    return Verdict(False, trouble(now)) if _is_final_failure(process) else None


def becomes_stopped(process: Process, _before: Snapshot) -> Verdict | None:
    """Down: STOPPED or EXITED, or FATAL without a retry."""
    now = process.snapshot
    down = now.state in (State.STOPPED, State.EXITED) or _is_final_failure(process)
    return Verdict(True, f"{now.state}: {trouble(now)}" if now.state is not State.STOPPED else "stopped") if down else None


def becomes_exited(process: Process, _before: Snapshot) -> Verdict | None:
    """EXITED. FATAL without a retry is a failure."""
    now = process.snapshot
    if now.state is State.EXITED:
        return Verdict(True, f"run {now.run} {exit_words(now.exit)}")
    return Verdict(False, trouble(now)) if _is_final_failure(process) else None


#: What ``wait --for`` may name.
WAITS: dict[str, Goal] = {"ready": becomes_ready, "stopped": becomes_stopped, "exited": becomes_exited}


def _done(now: Snapshot) -> str:
    return f"run {now.run} {now.detail or f'{exit_words(now.exit)}: it is done'}"


def trouble(now: Snapshot) -> str:
    """What went wrong, in words."""
    if now.state is State.UNKNOWN:
        return f"a bug broke its supervision, its process is left alone: {now.detail}"
    if (now.state is State.RUNNING and not now.is_ready) or (now.state is State.STARTING and now.complaint):
        return state_words(now)
    if now.detail:
        return detail_words(now)
    if now.cause is Cause.EXITED:
        return f"run {now.run} {exit_words(now.exit)}"
    return str(now.cause) if now.cause is not None else state_words(now)


def _is_final_failure(process: Process) -> bool:
    now = process.snapshot
    return now.state is State.FATAL and not (now.cause is Cause.RESTART_LIMIT and process.policy.on_limit is OnLimit.RETRY)
