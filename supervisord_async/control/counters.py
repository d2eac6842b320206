"""Counts made from records as they are published, from the daemon's start on, so that the first scrape is right. Light."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container

from supervisord_async.core.record import Record

#: Upper bounds, in seconds, of the buckets for durations of runs.
BUCKETS = (1.0, 10.0, 60.0, 600.0, 3_600.0, 86_400.0, math.inf)


class Counters:
    """What the daemon's records amount to since its start."""

    def __init__(self) -> None:
        self.restarts: Counter[tuple[str, str]] = Counter()
        self.events: Counter[str] = Counter()
        self.reloads = 0
        self.refused_reloads = 0
        self.runs: dict[str, list[int]] = {}  #: process → ended runs in each bucket, not cumulated
        self.run_seconds: Counter[str] = Counter()

    def on_record(self, record: Record) -> None:
        """Count ``record``."""
        self.events[record.type] += 1
        if record.type == "reload":
            self.reloads += 1
        elif record.type == "config_refused":
            self.refused_reloads += 1
        elif record.type == "state" and record.name is not None:
            if record.to == "STARTING" and (record.run or 0) > 1:
                self.restarts[record.name, record.cause or "unknown"] += 1
            uptime = record.data.get("uptime_seconds")
            if uptime is not None:
                counts = self.runs.setdefault(record.name, [0] * len(BUCKETS))
                counts[next(index for index, bound in enumerate(BUCKETS) if uptime <= bound)] += 1
                self.run_seconds[record.name] += uptime

    def keep_only(self, names: Container[str]) -> None:
        """The counts of other processes are forgotten: else those of programs that come and go under ever new names would pile up."""
        self.runs = {name: counts for name, counts in self.runs.items() if name in names}
        self.run_seconds = Counter({name: seconds for name, seconds in self.run_seconds.items() if name in names})
        self.restarts = Counter({key: count for key, count in self.restarts.items() if key[0] in names})
