r"""JSON of any text: paths and variables may have bytes that are no UTF-8, which Python keeps as lone surrogates.

msgspec, which is quick, refuses those. Then the standard library writes them, as escapes (``\udcff``), and reads them again.
"""

from __future__ import annotations

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
    """What :func:`json_bytes` wrote. Raises ValueError for what is no JSON."""
    try:
        return msgspec.json.decode(content)
    except msgspec.DecodeError:
        import json

        return json.loads(content)


def spelt(text: str) -> str:
    r"""``text`` for people, in characters that every encoder takes: a byte that is no UTF-8 is ``\xff``."""
    return text if text.isascii() else text.encode(errors="surrogateescape").decode(errors="backslashreplace")
