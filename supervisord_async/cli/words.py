"""Figures, times and states in words for people. Pure: knows no terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from supervisord_async import wire

if TYPE_CHECKING:
    from datetime import datetime

    from supervisord_async.cli.row import Row
    from supervisord_async.client import ProcessStatus

#: States in which the exit of the last run matters.
_AFTER_A_RUN = ("BACKOFF", "FATAL", "EXITED")
#: States whose description says best what is wrong, and so comes first: a narrow terminal cuts the rest. Another attempt may follow.
_AFTER_A_FAULT = ("BACKOFF", "FATAL")
#: Causes that are not mentioned: they only say what somebody wanted, or no more than the exit status.
_PLAIN_CAUSES = ("", "exited", "operator", "autostart", "restart_limit")

_UNPRINTABLE = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F, *range(0x80, 0xA0))}
#: Characters that reorder the text around them on a terminal.
_UNPRINTABLE |= {code: f"\\u{code:04x}" for code in (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))}
_LOG_LINE = {code: text for code, text in _UNPRINTABLE.items() if code != 0x09}


def printable(text: str) -> str:
    r"""The text in one line, with every control character spelt out (``\x1b``): safe on any terminal."""
    return text if text.isascii() and text.isprintable() else _valid(text).translate(_UNPRINTABLE)


def printable_line(text: str) -> str:
    """As :func:`printable`, but keeps tabs; for a line that a program printed."""
    return text if text.isascii() and text.isprintable() else _valid(text).translate(_LOG_LINE)


def _valid(text: str) -> str:
    """``text`` with bytes that are not UTF-8 spelt out."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def duration(seconds: float | None) -> str:
    """A duration: ``0.4s``, ``12s``, ``3m05s``, ``2h10m``, ``3d04h``; empty for None."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    for unit, small, size, part in (("d", "h", 86400, 3600), ("h", "m", 3600, 60), ("m", "s", 60, 1)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // part:02}{small}"
    return f"{whole}s"


def size(count: int | None) -> str:
    """A size: ``512B``, ``14.2MiB``; empty for None."""
    if count is None:
        return ""
    if count < 1024:
        return f"{count}B"
    value, units = float(count), iter(("KiB", "MiB", "GiB", "TiB"))
    unit = ""
    while value >= 1024 and (further := next(units, "")):
        value, unit = value / 1024, further
    return f"{value:.1f}{unit}"


def exit_words(status: Mapping[str, Any] | None) -> str:
    """As :func:`.wire.exit_words`; empty for None, which means that no run has ended yet."""
    return wire.exit_words(status) if status is not None else ""


def seconds_until(at: str | None, now: datetime | None = None) -> float | None:
    """Seconds from now to an ISO 8601 time, never below 0; None if there is no such time."""
    if not at:
        return None
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())


def reason(process: ProcessStatus | Row, now: datetime | None = None) -> str:
    """Why the process is in its state: flapping, the exit, the cause, its description, what comes next; without repetition."""
    parts: list[str] = []
    if process.flapping:
        parts.append("flapping")
    if process.state in _AFTER_A_RUN:
        parts.append(exit_words(process.exit_status))
    named = process.cause == "file_changed" and process.description.endswith(" changed")  # the description names the file
    if (process.cause or "") not in _PLAIN_CAUSES and process.state != "WAITING" and not named:
        parts.append((process.cause or "").replace("config_", "configuration_").replace("_", " "))
    left = seconds_until(process.next_at, now)
    if left is not None and process.state not in (*_AFTER_A_FAULT, "STOPPING"):
        parts.append(f"next run at {_soon(process.next_at, now)}")
    parts = _with(_fault_first(process), [part for part in parts if part], soon=process.state in _AFTER_A_FAULT)
    if left is not None and process.state in _AFTER_A_FAULT:
        parts.append(f"next attempt in {_wait(left)}")
    elif left is not None and process.state == "STOPPING":
        parts.append(f"KILL in {_wait(left)}")
    return "; ".join(parts)


def _fault_first(process: ProcessStatus | Row) -> str:
    """The description; at the restart limit what ended the last run comes before the limit, which a narrow terminal may cut."""
    if process.cause != "restart_limit":
        return process.description
    limit, _, last = process.description.partition("; last: ")
    return "; ".join(part for part in (last, limit) if part)


def _wait(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 1 else f"{seconds:.0f} s" if seconds < 100 else duration(seconds)


def _with(description: str, parts: list[str], *, soon: bool) -> list[str]:
    """``parts`` with the description, which replaces those that it contains; at the end else, or with ``soon`` right after flapping."""
    said = [index for index, part in enumerate(parts) if part in description]
    others = [part for part in parts if part not in description]
    if description:
        at = int("flapping" in others) if soon else said[0] if said else len(others)
        others.insert(at, description)
    return others


def _soon(at: str | None, now: datetime | None) -> str:
    """A future time, without the date if it is today."""
    from datetime import UTC, datetime

    return local_time(at).removeprefix((now or datetime.now(UTC)).astimezone().strftime("%Y-%m-%d "))


def local_time(at: str | None) -> str:
    """An ISO 8601 time as ``2026-11-21 14:02:11`` in the local zone; unchanged if it cannot be parsed."""
    if not at:
        return ""
    from datetime import datetime

    try:
        return datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return at
