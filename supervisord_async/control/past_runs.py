"""The runs of a process, reconstructed from its records: when and why each began, how and why it ended. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from supervisord_async.core.record import Record
from supervisord_async.core.state import RUN_ENDED

#: The part of an end's message that is about what follows it.
_WHAT_FOLLOWED = re.compile(r"; restart \d+ in [0-9.]+ s$|; not restarted$")


class PastRun(msgspec.Struct):
    """One run, as far as it is known from the records."""

    run: int
    started_at: float | None = None
    start_cause: str | None = None
    start_by: str = ""  #: the operator who started it, if known
    pid: int | None = None
    ended_at: float | None = None
    end_cause: str | None = None
    end_by: str = ""  #: the operator who ended it, if known
    ready_at: float | None = None  #: when it became RUNNING
    adopted_at: float | None = None  #: when a newer daemon last took it over
    reason: str = ""  #: why it was told to stop, in the words of whatever decided that
    last_word: str = ""  #: the message of the record that ended it, without what follows the end
    figures: dict[str, Any] = msgspec.field(default_factory=dict)  #: exit, uptime_seconds, max_rss_bytes, cpu_seconds


def past_runs(records: Iterable[Record]) -> list[PastRun]:
    """The runs in ``records``, which are one process's, newest first."""
    runs: list[PastRun] = []
    for record in records:
        if record.type == "adopted" and runs and runs[-1].run == record.run:
            runs[-1].adopted_at = record.at
        if record.type != "state" or not record.run:
            continue
        if record.to == "STARTING":
            if runs and runs[-1].ended_at is None:
                _end(runs[-1], record)
            runs.append(PastRun(record.run, started_at=record.at, start_cause=record.cause, start_by=record.data.get("by", "")))
            continue
        if not runs or runs[-1].run != record.run:
            runs.append(PastRun(record.run))
        past = runs[-1]
        if record.to == "RUNNING":
            past.pid, past.ready_at = record.data.get("pid"), past.ready_at or record.at
        elif record.to == "STOPPING":
            _ended_by(past, record)
            past.reason = past.reason or record.message.removeprefix("stopping (").removesuffix(")")
            _take_figures(past, record)
        elif record.to in RUN_ENDED and past.ended_at is None:
            _end(past, record)
    return runs[::-1]


def _end(past: PastRun, record: Record) -> None:
    past.ended_at, past.last_word = record.at, _WHAT_FOLLOWED.sub("", record.message)
    _ended_by(past, record)
    _take_figures(past, record)


def _ended_by(past: PastRun, record: Record) -> None:
    if past.end_cause is None:
        past.end_cause, past.end_by = record.cause, record.data.get("by", "")


def _take_figures(past: PastRun, record: Record) -> None:
    for key in ("exit", "uptime_seconds", "max_rss_bytes", "cpu_seconds"):
        if record.data.get(key) is not None:
            past.figures.setdefault(key, record.data[key])
