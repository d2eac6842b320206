"""The runs of a process as its records tell them: when and why each began, how and why it ended. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from supervisord_async.core.record import Record
from supervisord_async.core.state import RUN_ENDED
from supervisord_async.wire import exit_words

#: Causes, as they read after "because".
CAUSES = {
    "operator": "an operator asked for it",
    "autostart": "it starts with the daemon",
    "exited": "the run before ended by itself",
    "spawn_failed": "the run before could not be started",
    "heartbeat_missed": "its heartbeat stopped",
    "liveness_failed": "its liveness probe failed",
    "readiness_failed": "it was not ready in time",
    "file_changed": "a watched file changed",
    "config_changed": "its configuration changed",
    "dependency": "a program that depends on it was to start",
    "memory_limit": "it used more memory than allowed",
    "restart_limit": "the restart limit was reached",
    "schedule": "its schedule said so",
    "daemon_stop": "the daemon was stopping",
    "adopted": "a daemon found it running and took it over",
    "internal_error": "of a bug in the daemon",
}


#: What a record's message says beyond the end that it tells of.
_WHAT_FOLLOWED = re.compile(r"; restart \d+ in [0-9.]+ s$|; not restarted$")


class Story(msgspec.Struct):
    """One run, as far as the records tell."""

    run: int
    started_at: float | None = None
    start_cause: str | None = None
    pid: int | None = None
    ended_at: float | None = None
    end_cause: str | None = None
    ready_at: float | None = None  #: when it was RUNNING
    adopted_at: float | None = None  #: when another daemon took it over, the last time
    reason: str = ""  #: why it was told to go, in the words of whatever found that out
    last_word: str = ""  #: the message of the record that ended it, without what followed
    figures: dict[str, Any] = msgspec.field(default_factory=dict)  #: exit, uptime_seconds, max_rss_bytes, cpu_seconds


def stories(records: Iterable[Record]) -> list[Story]:
    """The runs that ``records`` of one process tell of, newest first."""
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


def cause_words(cause: str | None, *, on_connect: bool = False) -> str:
    """``because …``, without the because; ``on_connect``: it does not start with the daemon, but with a connection."""
    if cause == "autostart" and on_connect:
        return "somebody connected to one of its sockets"
    return CAUSES.get(cause or "", cause or "of something unknown")


def exit_story(exit_status: dict[str, Any] | None) -> str:
    """The exit status as the rest of a sentence: ``exited with 1``, ``was killed by SIGSEGV (core dumped)``."""
    words = exit_words(exit_status)
    return f"was {words}" if words.startswith("killed") else words


def span(seconds: float) -> str:
    """``0.4 s``, ``59 s``, ``3 min 5 s``, ``2 h 10 min``, ``3 d 4 h``."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    for size, name, small, small_name in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {name}" + (f" {rest} {small_name}" if rest else "")
    return f"{whole} s"


def size_words(count: int) -> str:
    """``512 KiB``, ``3.4 MiB``."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit in ("B", "KiB") else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"
