"""``daemon.exit_when``: whether a change ends the daemon, and with which exit code."""

from __future__ import annotations

from collections.abc import Callable, Collection

from supervisord_async.core.machine import succeeded
from supervisord_async.core.record import Record
from supervisord_async.core.state import DOWN, State
from supervisord_async.supervise.process import Process


def exit_for(when: str, record: Record, processes: Collection[Process], is_stuck: Callable[[Process], bool]) -> tuple[int, str] | None:
    """The daemon's exit code and the reason, if ``record`` is the change that ``exit_when`` waits for; None: the daemon goes on.

    A process that waits for a dependency that will not come counts as down, and as a failure; ``is_stuck`` tells whether a WAITING
    process is one, and is only asked when no other process is up.
    """
    if record.type != "state" or (record.to not in DOWN and record.to != State.WAITING):
        return None
    if when == "any_fatal" and record.to == State.FATAL:
        return 1, f"exit_when: any_fatal; {record.name} is FATAL"
    if when == "all_exited" and all(_rests(process) for process in processes):
        waiting = [process for process in processes if process.snapshot.state is State.WAITING]
        if waiting and not any(process.in_motion for process in processes) and all(map(is_stuck, waiting)):
            return 1, f"exit_when: all_exited; nothing will release {', '.join(process.name for process in waiting[:5])}"
        if not waiting:
            return int(any(map(has_failed, processes))), "exit_when: all_exited"
    return None


def has_failed(process: Process) -> bool:
    """Whether its last run failed and no other follows by itself: FATAL, or EXITED and not well. An unknown end is no failure."""
    snapshot = process.snapshot
    if snapshot.state is State.EXITED:
        return snapshot.exit is not None and not snapshot.exit.unknown and not succeeded(snapshot, process.policy)
    return snapshot.state is State.FATAL


def _rests(process: Process) -> bool:
    """Whether it is WAITING, or is down and will only be started on request."""
    program = process.program
    starts_itself = process.next_at is not None or program.schedule is not None or program.start_on_connect
    return process.snapshot.state is State.WAITING or (process.snapshot.state in DOWN and not starts_itself)
