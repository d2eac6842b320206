r"""JSON for any text, and timestamps for JSON.

Paths and variables may contain bytes that are not UTF-8, which Python keeps as lone surrogates. msgspec is fast but refuses
them; the standard library, used only then, writes them as escapes (``\udcff``) and reads them back.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec


def json_bytes(value: Any) -> bytes:
    """``value`` as compact JSON, in UTF-8. Raises TypeError for a type that JSON cannot express."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        import json

        return json.dumps(msgspec.to_builtins(value), separators=(",", ":")).encode("ascii")


def json_value(content: bytes | str) -> Any:
    """The value that :func:`json_bytes` wrote. Raises ValueError if ``content`` is not JSON."""
    try:
        return msgspec.json.decode(content)
    except msgspec.DecodeError:
        import json

        return json.loads(content)


def spelt(text: str) -> str:
    r"""``text`` for people, in characters that every encoder accepts: a byte that is not UTF-8 becomes ``\xff``."""
    return text if text.isascii() else text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def iso(at: float) -> str:
    """Wall time (seconds since 1970) as ISO 8601 in UTC with milliseconds: ``2026-11-20T12:00:00.123Z``."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
