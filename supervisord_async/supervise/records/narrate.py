"""From a change of a snapshot to its records, with stable words for scripts and a sentence for people."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from supervisord_async import wire
from supervisord_async.core.machine import succeeded
from supervisord_async.core.policy import Policy, backoff_delay
from supervisord_async.core.record import RecordType
from supervisord_async.core.state import Cause, ExitStatus, Snapshot, State
from supervisord_async.system import signals

#: What follows the exit status in the detail of a run that the kernel killed for want of memory.
OUT_OF_MEMORY = "the kernel was out of memory"
#: How the detail of a reached restart limit ends if the last run just exited.
_ONLY_EXITED = re.compile("; last: exited$")


def exit_json(status: ExitStatus | None) -> dict[str, Any] | None:
    """The API's ``exit_status``."""
    if status is None:
        return None
    if status.code is not None:
        return {"code": status.code}
    if status.signal is not None:
        return {"signal": signals.name(status.signal), "core": status.core}
    return {"unknown": True}


def exit_words(status: ExitStatus | None) -> str:
    """As :func:`.wire.exit_words`."""
    return wire.exit_words(exit_json(status))


def detail_words(snapshot: Snapshot) -> str:
    """The snapshot's detail; where that says only that the last run exited, with how it exited."""
    if snapshot.exit is None:
        return snapshot.detail
    return _ONLY_EXITED.sub(f"; last: {exit_words(snapshot.exit)}", snapshot.detail)


def _asked(snapshot: Snapshot) -> str:
    """The cause, with who gave the order, if an operator did."""
    return f"{snapshot.told_cause}: {snapshot.told_by}" if snapshot.told_by else str(snapshot.told_cause)


def state_message(before: Snapshot, after: Snapshot, policy: Policy, now: float) -> str:
    """The change in one line, for people."""
    match after.state:
        case State.STARTING:
            return f"starting run {after.run} ({_asked(after)})"
        case State.RUNNING:
            return f"running, pid {after.pid}, run {after.run}"
        case State.WAITING:
            return "waiting for its dependencies"
        case State.BACKOFF:
            why = after.detail or exit_words(after.exit)
            word = ", up" if after.detail else " after"  # "Connection refused after 5 s" would sound like a slow connection
            after_seconds = f"{word} {now - before.run_since:.1f} s" if before.pid is not None else ""
            delay = backoff_delay(policy, after.restarts - 1, after.run)
            return f"{why}{after_seconds}; restart {after.restarts} in {delay:.1f} s"
        case State.STOPPING:
            return f"stopping ({after.detail or _asked(after)})"
        case State.EXITED:
            return f"{after.detail or exit_words(after.exit)}; not restarted"
        case State.FATAL | State.UNKNOWN:
            return detail_words(after) or str(after.cause)
        case State.STOPPED:
            ended = (before.pid is not None or before.state is State.STOPPING) and not _never_spawned(before, after)
            return f"stopped; {exit_words(after.exit)}" if ended else "stopped"


def _never_spawned(before: Snapshot, after: Snapshot) -> bool:
    """Whether the run ended without ever having had a process, so that ``exit`` is still that of an earlier run."""
    in_flight = before.state in (State.STARTING, State.STOPPING) and before.pid is None and before.ended_run != before.run
    return in_flight and after.exit == before.exit


def _exit_unrecorded(before: Snapshot, after: Snapshot) -> bool:
    """Whether the main process ended earlier during STOPPING, without a change of state, so that no record has its exit yet."""
    recorded = before.cause is Cause.EXITED  # it ended by itself, which led to STOPPING
    return before.state is State.STOPPING and after.state is not State.STOPPING and before.ended_run == before.run and not recorded


def records_of(name: str, before: Snapshot, after: Snapshot, policy: Policy, now: float) -> Iterator[tuple[RecordType, dict[str, Any]]]:
    """The type and fields of each record that the change gives rise to."""
    if after.state is not before.state or after.run != before.run:
        data: dict[str, Any] = {"pid": after.pid, "restarts": after.restarts, "flapping": after.flapping}
        if (
            after.exit is not None
            and not _never_spawned(before, after)
            and (after.ended_run != before.ended_run or _exit_unrecorded(before, after))
        ):
            data |= {"exit": exit_json(after.exit), "uptime_seconds": round(now - before.run_since, 3)}
            if before.pid is not None:
                data["ended_pid"] = before.pid  # of a run that was never RUNNING, no other record has it
        if after.told_by:
            data["by"] = after.told_by
        if after.state is State.EXITED and not succeeded(after, policy):
            data["failed"] = exit_json(after.exit)  # also if an earlier record has the exit: something of the run outlived it
        cause = after.told_cause
        yield (
            "state",
            {
                "name": name,
                "from_": before.state.value,
                "to": after.state.value,
                "cause": cause.value if cause else None,
                "run": after.run,
                "message": state_message(before, after, policy, now),
                "data": data,
            },
        )
    if after.health is not before.health:
        message = f"health: {after.health}" + (f" ({after.complaint})" if after.complaint else "")
        yield "health", {"name": name, "from_": before.health.value, "to": after.health.value, "run": after.run, "message": message}
    if after.flapping is not before.flapping:
        message = f"flapping: {after.restarts} automatic restarts without a calm time" if after.flapping else "no longer flapping"
        yield "flapping", {"name": name, "to": str(after.flapping).lower(), "run": after.run, "message": message}
