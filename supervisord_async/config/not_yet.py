"""The keys that are known and whose behaviour does not exist yet: refused in files, absent from the published schema.

Remove a line to turn a key on; nothing else has to change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Keys of programs (and of ``defaults``).
PROGRAM: frozenset[str] = frozenset()
#: Keys of ``daemon``.
DAEMON: frozenset[str] = frozenset()


def refused(data: Mapping[str, Any], keys: frozenset[str]) -> list[str]:
    """Those of ``keys`` that ``data`` gives; null, false and empty collections ask for nothing."""
    return [key for key in data if key in keys and not _asks_for_nothing(data[key])]


def _asks_for_nothing(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_asks_for_nothing(item) for item in value.values())
    return value is None or value is False or value == []
