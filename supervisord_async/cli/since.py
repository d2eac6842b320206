"""Moments on a command line, in the forms that journalctl and docker accept."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

#: Units spelt out, and those of :mod:`supervisord_async.config.units` that they mean.
_UNITS = {"seconds": "s", "second": "s", "sec": "s", "minutes": "m", "minute": "m", "min": "m", "hours": "h", "hour": "h", "hr": "h"}
_UNITS |= {"days": "d", "day": "d"}
_UNIT = re.compile(rf"(?<=\d)\s*({'|'.join(_UNITS)})\b")


class Since(click.ParamType[str]):
    """A duration ago, ``today``, ``yesterday``, a time of day, or a time in ISO 8601 (local if it has no zone)."""

    name = "since"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The time in ISO 8601, UTC; a usage error for anything else."""
        try:
            moment = _moment(value.strip().lower(), datetime.now(UTC).astimezone())
        except (ValueError, OverflowError):
            self.fail(f"{value!r}: expected a duration such as 10m, or a time such as 02:30 or 2026-11-21T14:00", param, ctx)
        return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _moment(text: str, now: datetime) -> datetime:
    """The moment that ``text`` means. Raises ValueError."""
    from supervisord_async.config.units import parse_duration

    if text in ("today", "yesterday"):
        day = now.date() - timedelta(days=text == "yesterday")
        return datetime(day.year, day.month, day.day).astimezone()
    if re.match(r"\d\d?:\d\d", text):
        return datetime.fromisoformat(f"{now.date()}T{text if text[2] == ':' else '0' + text}").astimezone()
    if re.match(r"\d{4}-", text):
        return datetime.fromisoformat(text.upper()).astimezone()
    duration = _UNIT.sub(lambda found: _UNITS[found[1]], text.removeprefix("-").removesuffix("ago").strip())
    return now - timedelta(seconds=parse_duration(duration.replace(" ", "")))
