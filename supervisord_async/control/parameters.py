"""A request's query and body as typed values; an invalid value raises a UsageError that names the parameter."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from supervisord_async.errors import UsageError

_TRUE, _FALSE = frozenset({"", "1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})
#: The largest number of anything that a request may ask for.
COUNT_LIMIT = 100_000


class Parameters:
    """The parameters of one request: those of a JSON object in its body, overridden by those of its query."""

    def __init__(self, query: Mapping[str, str], body: bytes, *, known: frozenset[str]) -> None:
        """Raises UsageError if the body is not a JSON object, or if a parameter is not ``known``."""
        values: dict[str, Any] = dict(_object(body)) if body.strip() else {}
        values.update(query)
        for name in values:
            if name not in known:
                expected = ", ".join(sorted(known)) or "none"
                raise UsageError(f"unknown parameter {name!r} (known: {expected})")
        self._values = values

    def text(self, name: str) -> str | None:
        """A string as it is; None if it is absent."""
        value = self._values.get(name)
        if value is not None and not isinstance(value, str):
            raise UsageError(f"{name}: expected a string, found {value!r}")
        return value

    def words(self, name: str) -> tuple[str, ...]:
        """The parts of a comma-separated list, or the items of an array; () if it is absent."""
        value = self._values.get(name)
        if isinstance(value, list):
            if not all(isinstance(item, str) for item in value):
                raise UsageError(f"{name}: expected an array of strings")
            return tuple(value)
        text = self.text(name)
        if text is None:
            return ()
        parts = tuple(part for part in text.split(",") if part)
        if not parts:
            raise UsageError(f"{name}: expected words between commas, found {text!r}")
        return parts

    def flag(self, name: str, default: bool) -> bool:
        """True for ``?name`` and ``?name=true``; ``default`` if it is absent."""
        value = self._values.get(name, default)
        if isinstance(value, bool):
            return value
        word = str(value).lower()
        if word not in _TRUE | _FALSE:
            raise UsageError(f"{name}: expected true or false, found {value!r}")
        return word in _TRUE

    def count(self, name: str, default: int | None, *, least: int = 0, most: int = COUNT_LIMIT) -> int:
        """A whole number from ``least`` to ``most``; required if ``default`` is None."""
        value = self._values.get(name, default)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise UsageError(f"{name}: expected a whole number from {least} to {most}, found {value!r}")
        return value

    def seconds(self, name: str) -> float | None:
        """A duration in seconds; None if it is absent."""
        value = self._values.get(name)
        if value is None:
            return None
        found = _seconds_of(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else None
        if found is None:
            raise UsageError(f"{name}: expected a duration such as 5, 500ms or 1m30s, found {value!r}")
        return found

    def at(self, name: str) -> float | None:
        """A moment as wall time, given in ISO 8601 or as a duration before now; None if it is absent."""
        text = self.text(name)
        if text is None:
            return None
        back = _seconds_of(text)
        if back is not None:
            return time.time() - back
        try:
            moment = datetime.fromisoformat(text)
            return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            raise UsageError(f"{name}: expected ISO 8601 or a duration such as 10m, found {text!r}") from None

    def signum(self, name: str) -> int:
        """The number of a signal, given by name, with or without SIG, or by number; required."""
        value = self._values.get(name)
        if value is None:
            raise UsageError(f"{name}: which signal? e.g. HUP")
        from supervisord_async.config.units import parse_signal  # late, as in _seconds_of

        try:
            return parse_signal(value if isinstance(value, int) and not isinstance(value, bool) else str(value))
        except ValueError as error:
            raise UsageError(f"{name}: {value!r}: {error}") from None


def _seconds_of(value: float | str) -> float | None:
    """The seconds of a duration as in configuration files (``5``, ``500ms``, ``1m30s``); None for anything else."""
    from supervisord_async.config.units import parse_duration  # late, as a re-exec does not need it otherwise

    try:
        return parse_duration(value)
    except ValueError:
        return None


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise UsageError("the body is not a JSON object")
    return value
