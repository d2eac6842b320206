"""Merges lines of several logs by their timestamps, if all of the logs have some. Pure."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping

from supervisord_async.client.answers import Log

#: The length of ``2026-11-21T12:00:00.123Z``; such timestamps can be compared as text.
_STAMP_BYTES = 24


def merged(logs: Mapping[str, Log]) -> Iterator[tuple[str, bytes]] | None:
    """Each line with its log's name, by time; lines of one log keep their order. None if a log's format has no timestamps."""
    if any(log.format not in ("timestamp", "json") for log in logs.values() if log.lines):
        return None
    streams = [_stamped(number, name, log) for number, (name, log) in enumerate(logs.items())]
    return ((name, line) for _, _, _, name, line in heapq.merge(*streams))


def _stamped(number: int, name: str, log: Log) -> Iterator[tuple[str, int, int, str, bytes]]:
    latest = ""
    for place, line in enumerate(log.lines):
        latest = max(latest, _time_of(line, log.format))  # the clock may have been set back, or a line have no timestamp
        yield latest, number, place, name, line


def _time_of(line: bytes, format_: str) -> str:
    """A line's timestamp; empty if it has none, because something else wrote it."""
    try:
        stamp = str(json.loads(line)["at"]) if format_ == "json" else line[:_STAMP_BYTES].decode("ascii")
    except (ValueError, KeyError, TypeError):
        return ""
    return stamp if len(stamp) == _STAMP_BYTES and stamp[10:11] == "T" and stamp.endswith("Z") else ""
