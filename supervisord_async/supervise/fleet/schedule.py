"""When a schedule is due, by the wall clock; and up to when each schedule was checked, which outlives the daemon.

Wall time is legitimate here: a cron line is about what clocks on walls show. Where they change, in spring and autumn,
cronsim does what cron does: a time that is skipped is due right after the gap, one that comes twice is due once, and lines
for every hour or minute follow elapsed time. ``@every`` is due at the multiples of its length since 1970 (UTC): so it
needs no memory, and does not drift over restarts.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from supervisord_async.config.model import Schedule

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

_log = logging.getLogger(__name__)

FILE_NAME = "schedule.json"


def next_after(schedule: Schedule, at: float) -> float | None:
    """The first time after ``at`` at which the schedule is due; None: never. In seconds since 1970."""
    if schedule.every_seconds is not None:
        every = schedule.every_seconds
        due = (math.floor(at / every) + 1) * every
        return due if due > at else due + every  # rounding may give ``at`` itself
    from cronsim import CronSim

    for moment in CronSim(schedule.at, datetime.fromtimestamp(math.floor(at), zone_of(schedule))):
        due = moment.timestamp()
        if due > at:  # in an hour that comes twice, cronsim may start too early
            return due
    return None


def rests_for(schedule: Schedule, seconds: float, *, now: float, mark: float) -> bool:
    """Whether there are ``seconds`` or more between two due times, from the first one after ``now`` to the first after ``mark``."""
    if schedule.every_seconds is not None:
        return schedule.every_seconds >= seconds
    at, following = None, next_after(schedule, now)
    while following is not None:
        if at is not None and (following - at >= seconds or at > mark):
            return following - at >= seconds
        at, following = following, next_after(schedule, following)
    return True


def zone_of(schedule: Schedule) -> ZoneInfo:
    """The schedule's time zone, or the machine's."""
    from zoneinfo import ZoneInfo  # here, as it is only needed for programs with a schedule

    return ZoneInfo(schedule.timezone) if schedule.timezone is not None else local_zone(os.environ.get("TZ", ""))


@functools.cache
def local_zone(name: str, localtime: str = "/etc/localtime") -> ZoneInfo:
    """The zone that ``name`` (the value of ``TZ``) or ``localtime`` names; UTC where neither names one.

    The zone itself, not today's offset, which is all that the standard library knows of local time.
    """
    from zoneinfo import ZoneInfo

    try:
        if name:
            return ZoneInfo(name.removeprefix(":"))
        with open(localtime, "rb") as file:
            return ZoneInfo.from_file(file, key=os.path.realpath(localtime).rpartition("zoneinfo/")[2])
    except (OSError, ValueError, KeyError) as error:
        if name:
            _log.warning("TZ=%s names no time zone (%s); schedules without a timezone go by UTC", name, error)
        return ZoneInfo("UTC")


class Marks:
    """Up to when each program's schedule was checked, kept in ``run_dir``. A changed schedule starts from now."""

    def __init__(self, run_dir: str) -> None:
        self._path = Path(run_dir) / FILE_NAME
        self._marks: dict[str, tuple[str, float]] = {}
        self._trouble: str | None = None

    def load(self) -> None:
        """Read the marks. Blocking. A file that cannot be used is reported and ignored."""
        try:
            self._marks = msgspec.json.decode(self._path.read_bytes(), type=dict[str, tuple[str, float]])
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            _log.warning("degraded: cannot use %s (%s); runs that were missed are not caught up", self._path, error)

    def get(self, name: str, schedule: Schedule) -> float | None:
        """Up to when this very schedule of ``name`` was checked; None: never."""
        line, at = self._marks.get(name, ("", 0.0))
        return at if line == _line(schedule) else None

    def put(self, name: str, schedule: Schedule, at: float) -> None:
        """The schedule of ``name`` was checked up to ``at``."""
        self._marks[name] = (_line(schedule), at)

    def keep_only(self, names: set[str]) -> None:
        """The marks of other programs are forgotten."""
        self._marks = {name: mark for name, mark in self._marks.items() if name in names}

    def snapshot(self) -> bytes:
        """The content for :meth:`write`."""
        return json.dumps(self._marks).encode()

    def write(self, content: bytes) -> None:
        """Write ``content`` to the file. Blocking. A failure is reported once, until a write succeeds."""
        draft = self._path.with_suffix(".new")
        try:
            draft.write_bytes(content)
            os.replace(draft, self._path)
            self._trouble = None
        except OSError as error:
            if self._trouble is None:
                self._trouble = str(error)
                _log.warning("degraded: cannot write %s: %s; runs that are missed may not be caught up", self._path, error.strerror)


def _line(schedule: Schedule) -> str:
    return f"{schedule.at} {schedule.timezone or ''}".strip()
