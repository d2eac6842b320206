"""The records as lines of the daemon's own log, each at the level of its type, or of the state entered."""

from __future__ import annotations

import logging

from supervisord_async.core.record import Record
from supervisord_async.core.state import Cause, State

_log = logging.getLogger("asupd")

#: By the record's type; others are logged at level info.
LEVELS = {
    "log_loss": logging.ERROR,
    "config_refused": logging.ERROR,
    "config_warning": logging.WARNING,
    "flapping": logging.WARNING,
    "watch": logging.WARNING,
    "rolling_failed": logging.WARNING,
    "supervision": logging.ERROR,
}
#: For records of type ``state``, by the state that was entered.
STATE_LEVELS: dict[str, int] = {State.FATAL: logging.ERROR, State.UNKNOWN: logging.ERROR, State.BACKOFF: logging.WARNING}
#: Causes for which the daemon ends a run that nobody asked it to end.
FAULTS = frozenset({Cause.HEARTBEAT_MISSED, Cause.LIVENESS_FAILED, Cause.READINESS_FAILED, Cause.MEMORY_LIMIT})


def log_record(record: Record) -> None:
    """A listener of the bus: log ``record`` with the time at which it happened, not at which it was published."""
    level = _level(record)
    if _log.isEnabledFor(level):
        transition = f"{record.from_} → {record.to}: " if record.type == "state" else ""
        line = _log.makeRecord(_log.name, level, "", 0, transition + record.message, (), None, extra={"subject": record.name})
        line.created = record.at
        _log.handle(line)


def _level(record: Record) -> int:
    if (record.type, record.to) == ("flapping", "false"):
        return logging.INFO
    if record.type != "state":
        return LEVELS.get(record.type, logging.INFO)
    if (record.to == State.STOPPING and record.cause in FAULTS) or "failed" in record.data:
        return logging.WARNING
    return STATE_LEVELS.get(record.to or "", logging.INFO)
