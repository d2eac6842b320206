r"""JSON of any text, and times as JSON has them.

Paths and variables may have bytes that are not UTF-8, which Python keeps as lone surrogates. msgspec, which is quick, refuses
those; then the standard library writes them, as escapes (``\udcff``), and reads them again.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec


def json_bytes(value: Any) -> bytes:
    """``value`` in compact JSON, in UTF-8. Raises TypeError for what has none."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        import json

        return json.dumps(msgspec.to_builtins(value), separators=(",", ":")).encode("ascii")


def json_value(content: bytes | str) -> Any:
    """What :func:`json_bytes` wrote. Raises ValueError for what is not JSON."""
    try:
        return msgspec.json.decode(content)
    except msgspec.DecodeError:
        import json

        return json.loads(content)


def spelt(text: str) -> str:
    r"""``text`` for people, in characters that every encoder takes: a byte that is not UTF-8 is ``\xff``."""
    return text if text.isascii() else text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def iso(at: float) -> str:
    """Wall time (seconds since 1970) as ISO 8601 in UTC with milliseconds: ``2026-11-20T12:00:00.123Z``."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
