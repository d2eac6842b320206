"""One numbered record per change. The log, the event stream, the history, the metrics and the pages derive from these records alone."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

#: The kinds of record; docs/http-api.md lists the same.
RecordType: TypeAlias = Literal[
    "state",
    "health",
    "flapping",
    "adopted",
    "reload",
    "config_refused",
    "config_warning",
    "log_loss",
    "log_recovered",
    "watch",
    "schedule",
    "scale",
    "rolling",
    "rolling_failed",
    "notify",
    "supervision",
    "daemon",
]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One change, as published to every subscriber."""

    id: int  #: increases with every record, also across restarts of the daemon
    at: float  #: wall clock, seconds since 1970; for people, never for decisions
    type: str  #: a :data:`RecordType`; a history written by another version may hold types unknown to this one
    name: str | None = None
    from_: str | None = None
    to: str | None = None
    cause: str | None = None
    run: int | None = None
    message: str = ""  #: the change in one line, for people
    data: dict[str, Any] = {}  #: fields specific to this type of record
