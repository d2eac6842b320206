"""A run's entry in the history; in a module of its own, so that it can be imported where sqlite is missing."""

from __future__ import annotations

from typing import Any

import msgspec


class RunEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a process, as ``asupctl history`` lists it."""

    name: str
    run: int
    cause: str | None  #: why it was started
    started_at: str  #: ISO 8601, UTC
    running_at: str | None  #: when it became RUNNING; null if it never did
    ended_at: str | None  #: null while it lives; where no daemon saw it end, the time at which that was found
    end_cause: str | None
    end_detail: str | None
    exit_status: dict[str, Any] | None
    pid: int | None
    duration_seconds: float | None
    peak_memory_bytes: int | None
    cpu_seconds: float | None
