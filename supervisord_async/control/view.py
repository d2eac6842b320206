"""What clients see of a process and of a record: plain objects, made from snapshots, never kept.

Not here: how they are sent (``http``) and how they look on a terminal (``cli``). Names and messages may contain anything; whoever
prints them neutralises control characters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from supervisord_async.core.record import Record
from supervisord_async.core.state import Cause, Snapshot, State
from supervisord_async.jsontext import iso
from supervisord_async.supervise.records.narrate import detail_words, exit_json, exit_words

if TYPE_CHECKING:
    from supervisord_async.supervise.process import Process
    from supervisord_async.supervise.records.figures import Figures


#: Causes whose detail says what a new run was asked for, and not what was wrong.
_ASKED = frozenset({Cause.CONFIG_CHANGED, Cause.FILE_CHANGED, Cause.DEPENDENCY})


class ProcessView(msgspec.Struct, frozen=True, kw_only=True):
    """One process, as ``asupctl status --json`` lists it."""

    name: str
    program: str
    group: str
    state: str  #: STOPPED WAITING STARTING RUNNING BACKOFF STOPPING EXITED FATAL UNKNOWN
    health: str  #: none starting healthy unhealthy
    pid: int | None  #: null without a process
    run: int  #: 0 before the first
    uptime_seconds: float | None  #: of the present run, null without a process
    restarts: int  #: consecutive automatic restarts
    flapping: bool
    exit_status: dict[str, Any] | None  #: of the last ended run, null before one has ended
    cause: str | None  #: why it is in this state, a short stable word
    next_at: str | None  #: when the next attempt, or KILL, is due; ISO 8601, UTC
    description: str  #: what is wrong, in BACKOFF and FATAL; else the program's own description; without one the state in words
    cpu_percent: float | None  #: of one core, the whole tree; null without a process
    memory_bytes: int | None  #: resident size of the whole tree, what is shared in it once; null without a process


class EventView(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """One record. Members that do not fit its type are absent."""

    id: int
    at: str  #: ISO 8601, UTC
    type: str
    name: str | msgspec.UnsetType = msgspec.UNSET
    from_: str | msgspec.UnsetType = msgspec.UNSET
    to: str | msgspec.UnsetType = msgspec.UNSET
    cause: str | msgspec.UnsetType = msgspec.UNSET
    run: int | msgspec.UnsetType = msgspec.UNSET
    message: str = ""
    data: dict[str, Any] = {}


def process_view(process: Process, now: float, wall_now: float, figures: Figures | None = None) -> ProcessView:
    """The process as it is at ``now`` (monotonic), which is ``wall_now`` by the wall clock."""
    snapshot, program = process.snapshot, process.program
    cause = snapshot.told_cause
    use = figures if snapshot.pid is not None else None  # a look may be older than the end of the run that it saw
    return ProcessView(
        name=process.name,
        program=program.name,
        group=program.group,
        state=snapshot.state.value,
        health=snapshot.health.value if snapshot.checks else "none",
        pid=snapshot.pid,
        run=snapshot.run,
        uptime_seconds=round(max(0.0, now - snapshot.run_since), 3) if snapshot.pid is not None else None,
        restarts=snapshot.restarts,
        flapping=snapshot.flapping,
        exit_status=exit_json(snapshot.exit),
        cause=cause.value if cause is not None else None,
        next_at=next_iso(process, now, wall_now),
        description=_description(process),
        cpu_percent=use.cpu_percent if use is not None else None,
        memory_bytes=use.memory_bytes if use is not None else None,
    )


def next_iso(process: Process, now: float, wall_now: float) -> str | None:
    """When the next thing is due: the next attempt, KILL, or the next scheduled start (a stop pauses the schedule)."""
    if process.next_at is not None:
        return iso(wall_now + process.next_at - now)
    paused = process.snapshot.state is State.STOPPED and process.snapshot.cause is Cause.OPERATOR
    return iso(process.scheduled_at) if process.scheduled_at is not None and not paused else None


def _description(process: Process) -> str:
    """Whom it waits for, if it waits; what is wrong, if it failed; else that its log cannot be written; else what it says by sd_notify,
    else the program's own description, else the state in words.
    """
    if process.snapshot.state is State.WAITING:
        return waiting_words(process)
    if process.snapshot.state in (State.BACKOFF, State.FATAL):
        return state_words(process.snapshot)
    if process.snapshot.pid is not None and (trouble := process.output.trouble) is not None:
        return f"its log cannot be written: {trouble}"
    if process.snapshot.pid is not None and process.words:
        return process.words
    if process.program.start_on_connect and process.snapshot.state is State.STOPPED and not process.snapshot.run:
        return process.program.description or "starts at the first connection"
    return process.program.description or state_words(process.snapshot)


def waiting_words(process: Process) -> str:
    """``waiting for db to be ready (it is STARTING)``."""
    return f"waiting for {process.waits_for or 'its dependencies'}"


def state_words(snapshot: Snapshot) -> str:
    """Why it is in its state, in words that need no clock."""
    match snapshot.state:
        case State.RUNNING | State.STARTING if snapshot.complaint:
            return ("not ready yet" if snapshot.state is State.STARTING else str(snapshot.health)) + f": {snapshot.complaint}"
        case State.RUNNING if not snapshot.detail:
            return f"run {snapshot.run}"
        case State.RUNNING if snapshot.cause not in _ASKED:  # the detail tells what was wrong with the run before
            return f"run {snapshot.run}; before it: {detail_words(snapshot)}"
        case State.STARTING:
            return (f"{snapshot.detail}; " if snapshot.detail else "") + f"starting run {snapshot.run}"
        case State.WAITING:
            return "waiting for its dependencies"
        case State.STOPPED if not snapshot.run:
            return "not started"
        case State.STOPPED | State.EXITED if snapshot.exit is not None:
            return (snapshot.state is State.EXITED and snapshot.detail) or exit_words(snapshot.exit)
        case State.STOPPED:
            return "stopped"
        case State.BACKOFF if not snapshot.detail:
            return exit_words(snapshot.exit)
        case _:
            return detail_words(snapshot) or (snapshot.cause.value.replace("_", " ") if snapshot.cause else "")


def event_view(record: Record) -> EventView:
    """The record as events, history and logs tell it."""
    unset = msgspec.UNSET
    return EventView(
        id=record.id,
        at=iso(record.at),
        type=record.type,
        name=record.name if record.name is not None else unset,
        from_=record.from_ if record.from_ is not None else unset,
        to=record.to if record.to is not None else unset,
        cause=record.cause if record.cause is not None else unset,
        run=record.run if record.run is not None else unset,
        message=record.message,
        data=record.data,
    )
