"""Moments on a command line, in the forms that journalctl and docker accept."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

#: Units spelt out, and those of :mod:`supervisord_async.config.units` that they mean.
_UNITS = {"seconds": "s", "second": "s", "sec": "s", "minutes": "m", "minute": "m", "min": "m", "hours": "h", "hour": "h", "hr": "h"}
_UNITS |= {"days": "d", "day": "d"}
#: Longer units, in days, as systemd.time(7) counts them.
_DAYS = {"w": 7, "week": 7, "weeks": 7, "month": 30.44, "months": 30.44, "y": 365.25, "year": 365.25, "years": 365.25}
_IN_DAYS = re.compile(rf"(\d+(?:\.\d+)?)\s*({'|'.join(_DAYS)})(?![a-z])")
_MONTHS = re.compile(r"(?<=\d)\s*M(?![A-Za-z])")  #: not minutes, which are ``m``
_EPOCH = re.compile(r"@(\d+(?:\.\d+)?)|(\d{10}(?:\.\d+)?)")
_UNIT = re.compile(rf"(?<=\d)\s*({'|'.join(_UNITS)})\b")


class Since(click.ParamType[str]):
    """A duration ago, ``now``, ``today``, ``yesterday``, a time of day, a time in ISO 8601 (local if it has no zone), or one since 1970."""

    name = "since"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The time in ISO 8601, UTC; a usage error for anything else."""
        try:
            moment = _moment(value.strip(), datetime.now(UTC).astimezone())
        except (ValueError, OverflowError, OSError, KeyError):
            self.fail(f"{value!r}: expected a duration such as 10m, or a time such as 02:30 or 2026-11-21T14:00", param, ctx)
        return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _moment(text: str, now: datetime) -> datetime:
    """The moment that ``text`` means. Raises ValueError."""
    from supervisord_async.config.units import parse_duration

    if (word := text.lower()) == "now":
        return now
    if word in ("today", "yesterday"):
        day = now.date() - timedelta(days=word == "yesterday")
        return datetime(day.year, day.month, day.day).astimezone()
    if re.match(r"\d\d?:\d\d", text):
        return datetime.fromisoformat(f"{now.date()}T{text if text[2] == ':' else '0' + text}").astimezone()
    if re.match(r"\d{4}-", text):
        return _dated(text)
    if epoch := _EPOCH.fullmatch(text):
        return datetime.fromtimestamp(float(epoch[1] or epoch[2]), UTC)
    duration = _MONTHS.sub("month", text.removeprefix("-")).lower().removesuffix("ago").strip()
    duration = _IN_DAYS.sub(lambda found: f"{float(found[1]) * _DAYS[found[2]]:f}d", duration)
    duration = _UNIT.sub(lambda found: _UNITS[found[1]], duration)
    return now - timedelta(seconds=parse_duration(duration.replace(" ", "")))


def _dated(text: str) -> datetime:
    """A time with its date: in ISO 8601, or with a zone's name after it, as journalctl takes it. Raises ValueError, KeyError, OSError."""
    date, _, zone = text.rpartition(" ")
    if not zone[:1].isalpha():
        return datetime.fromisoformat(text.upper()).astimezone()
    from zoneinfo import ZoneInfo

    return datetime.fromisoformat(date.upper()).replace(tzinfo=UTC if zone.upper() == "UTC" else ZoneInfo(zone))
