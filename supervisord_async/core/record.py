"""One numbered record per change: what the log, the event stream, the history, metrics and pages are functions of."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

#: What a record may tell of. docs/http-api.md names the same.
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
    """Something changed."""

    id: int  #: rising, also over restarts of the daemon
    at: float  #: wall clock, seconds since 1970; for people, never for decisions
    type: str  #: a :data:`RecordType`; in a history that another version has written, perhaps one of its own
    name: str | None = None
    from_: str | None = None
    to: str | None = None
    cause: str | None = None
    run: int | None = None
    message: str = ""  #: the change in one line of words
    data: dict[str, Any] = {}  #: what only records of this type have
