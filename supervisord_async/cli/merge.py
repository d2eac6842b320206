"""Lines of several logs in the order of their times, where all of the logs have times. Pure."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping

from supervisord_async.client.answers import Log

#: ``2026-11-21T12:00:00.123Z``: as text such moments are in the order of time.
_STAMP_BYTES = 24


def merged(logs: Mapping[str, Log]) -> Iterator[tuple[str, bytes]] | None:
    """The name and each line, by time; lines of one log stay in their order. None: a log's format knows no times."""
    if any(log.format not in ("timestamp", "json") for log in logs.values() if log.lines):
        return None
    streams = [_stamped(number, name, log) for number, (name, log) in enumerate(logs.items())]
    return ((name, line) for _, _, _, name, line in heapq.merge(*streams))


def _stamped(number: int, name: str, log: Log) -> Iterator[tuple[str, int, int, str, bytes]]:
    latest = ""
    for place, line in enumerate(log.lines):
        latest = max(latest, _time_of(line, log.format))  # the clock may have been set back, a line have no time
        yield latest, number, place, name, line


def _time_of(line: bytes, format_: str) -> str:
    """A line's own time; nothing where somebody else wrote it."""
    try:
        stamp = str(json.loads(line)["at"]) if format_ == "json" else line[:_STAMP_BYTES].decode("ascii")
    except (ValueError, KeyError, TypeError):
        return ""
    return stamp if len(stamp) == _STAMP_BYTES and stamp[10:11] == "T" and stamp.endswith("Z") else ""
