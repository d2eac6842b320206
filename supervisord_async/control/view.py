"""What clients see of a process and of a record: plain objects, made on request, never kept.

Not here: how they are sent (``http``) and how they look on a terminal (``cli``). Names and messages may contain anything; whoever
prints them has to neutralise control characters.
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


#: Causes whose detail says why a new run was wanted, not what was wrong with the last one.
_ASKED = frozenset({Cause.CONFIG_CHANGED, Cause.FILE_CHANGED, Cause.DEPENDENCY})


class ProcessView(msgspec.Struct, frozen=True, kw_only=True):
    """One process, as ``asupctl status --json`` lists it."""

    name: str
    program: str
    group: str
    state: str  #: STOPPED WAITING STARTING RUNNING BACKOFF STOPPING EXITED FATAL UNKNOWN
    health: str  #: none starting healthy unhealthy
    pid: int | None  #: null if not running
    run: int  #: 0 before the first
    uptime_seconds: float | None  #: of the present run; null if not running
    restarts: int  #: consecutive automatic restarts
    flapping: bool
    exit_status: dict[str, Any] | None  #: of the last ended run; null before one has ended
    cause: str | None  #: why it is in this state, a short stable word
    next_at: str | None  #: when the next attempt, KILL or scheduled start is due; ISO 8601, UTC
    description: str  #: what is wrong, in BACKOFF and FATAL; else the program's own description; without one the state in words
    cpu_percent: float | None  #: of one core, the whole tree; null if not running
    memory_bytes: int | None  #: resident size of the whole tree, shared memory counted once; null if not running


class EventView(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """One record. Members that do not apply to its type are absent."""

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
    """The process as it is at ``now`` (monotonic), which is wall time ``wall_now``."""
    snapshot, program = process.snapshot, process.program
    cause = snapshot.told_cause
    use = figures if snapshot.pid is not None else None  # figures may be older than the end of their run
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
    """When the next attempt, KILL or scheduled start is due; an operator's stop pauses the schedule."""
    if process.next_at is not None:
        return iso(wall_now + process.next_at - now)
    return iso(process.scheduled_at) if process.scheduled_at is not None and not _is_held(process) else None


def _is_held(process: Process) -> bool:
    """Whether an operator stopped it, so that no schedule and no connection starts it."""
    return process.snapshot.state is State.STOPPED and process.snapshot.cause is Cause.OPERATOR


def _description(process: Process) -> str:
    """The first of these that applies: what it waits for; what is wrong, in BACKOFF and FATAL; that its log cannot be written; its
    own status by sd_notify; that its schedule is paused; the program's description; the state in words.
    """
    if process.snapshot.state is State.WAITING:
        return waiting_words(process)
    if process.snapshot.state in (State.BACKOFF, State.FATAL):
        return state_words(process.snapshot)
    if process.snapshot.pid is not None and (trouble := process.output.trouble) is not None:
        return f"its log cannot be written: {trouble}"
    if process.snapshot.pid is not None and process.status_text:
        return process.status_text
    if process.program.schedule is not None and _is_held(process):
        return "its schedule is paused: an operator stopped it"
    if process.program.start_on_connect and process.snapshot.state is State.STOPPED and not process.snapshot.run and not _is_held(process):
        return process.program.description or "starts at the first connection"
    return process.program.description or state_words(process.snapshot)


def waiting_words(process: Process) -> str:
    """What it waits for: ``waiting for db to be ready (it is STARTING)``."""
    return f"waiting for {process.waits_for or 'its dependencies'}"


def state_words(snapshot: Snapshot) -> str:
    """Why it is in its state, in words that do not depend on the time."""
    match snapshot.state:
        case State.RUNNING | State.STARTING if snapshot.complaint:
            return ("not ready yet" if snapshot.state is State.STARTING else str(snapshot.health)) + f": {snapshot.complaint}"
        case State.RUNNING if not snapshot.detail:
            return f"run {snapshot.run}"
        case State.RUNNING if snapshot.cause not in _ASKED:  # the detail says what was wrong with the previous run
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
    """The record as clients see it."""
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
