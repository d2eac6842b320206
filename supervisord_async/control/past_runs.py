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


class Story(msgspec.Struct):
    """One run, as far as it is known from the records."""

    run: int
    started_at: float | None = None
    start_cause: str | None = None
    pid: int | None = None
    ended_at: float | None = None
    end_cause: str | None = None
    ready_at: float | None = None  #: when it became RUNNING
    adopted_at: float | None = None  #: when a newer daemon last took it over
    reason: str = ""  #: why it was told to stop, in the words of whatever decided that
    last_word: str = ""  #: the message of the record that ended it, without what follows the end
    figures: dict[str, Any] = msgspec.field(default_factory=dict)  #: exit, uptime_seconds, max_rss_bytes, cpu_seconds


def stories(records: Iterable[Record]) -> list[Story]:
    """The runs in ``records``, which are one process's, newest first."""
    runs: list[Story] = []
    for record in records:
        if record.type == "adopted" and runs and runs[-1].run == record.run:
            runs[-1].adopted_at = record.at
        if record.type != "state" or not record.run:
            continue
        if record.to == "STARTING":
            if runs and runs[-1].ended_at is None:
                _end(runs[-1], record)
            runs.append(Story(record.run, started_at=record.at, start_cause=record.cause))
            continue
        if not runs or runs[-1].run != record.run:
            runs.append(Story(record.run))
        story = runs[-1]
        if record.to == "RUNNING":
            story.pid, story.ready_at = record.data.get("pid"), story.ready_at or record.at
        elif record.to == "STOPPING":
            story.end_cause = story.end_cause or record.cause
            story.reason = story.reason or record.message.removeprefix("stopping (").removesuffix(")")
            _take_figures(story, record)
        elif record.to in RUN_ENDED and story.ended_at is None:
            _end(story, record)
    return runs[::-1]


def _end(story: Story, record: Record) -> None:
    story.ended_at, story.last_word = record.at, _WHAT_FOLLOWED.sub("", record.message)
    story.end_cause = story.end_cause or record.cause
    _take_figures(story, record)


def _take_figures(story: Story, record: Record) -> None:
    for key in ("exit", "uptime_seconds", "max_rss_bytes", "cpu_seconds"):
        if record.data.get(key) is not None:
            story.figures.setdefault(key, record.data[key])
