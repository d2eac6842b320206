"""Lines in a log's format. Pure: the same arguments give the same bytes, which finishing a batch after a kill relies on."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

from supervisord_async.logs.target import Format

#: A line longer than this is written in parts, by the formats that know lines.
LINE_BYTES = 64 * 1024

#: What JSON forbids in strings, but for line ends; what it allows and terminals obey (DEL, the C1 controls); and two that
#: end a line for some readers.
_CONTROLS = re.compile("[\\x00-\\x09\\x0b-\\x1f\\x7f-\\x9f\\u2028\\u2029]")


def stamp(at_ms: int) -> str:
    """Milliseconds since 1970 as ISO 8601 in UTC."""
    at = datetime.fromtimestamp(at_ms // 1000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}Z"


def render(data: bytes, format_: Format, *, at_ms: int, name: str, stream: str, run: int) -> bytes:
    """``data`` (lines, of which the last may lack its end) in ``format_``; except in ``raw``, every line that is returned is ended.

    An object of ``json`` whose line lacks its end says so: ``partial``.
    """
    if format_ == "raw" or not data:
        return data
    body = data[:-1] if data.endswith(b"\n") else data
    if format_ == "timestamp":
        prefix = f"{stamp(at_ms)} ".encode()
        return prefix + body.replace(b"\n", b"\n" + prefix) + b"\n"
    head = f'{{"at":"{stamp(at_ms)}","name":{json.dumps(name)},"stream":"{stream}","run":{run},"line":"'
    # All lines at once: a call per line would cost ten times as much.
    text = _escaped(body.decode("utf-8", "replace"))
    end = '"}\n' if data.endswith(b"\n") else '","partial":true}\n'
    return (head + text.replace("\n", '"}\n' + head) + end).encode()


def _escaped(text: str) -> str:
    """Lines as they stand inside JSON strings, readable where they are text and harmless where they are not."""
    return _CONTROLS.sub(_escape, text.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t"))


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found.group()):04x}"


def whole_lines(data: bytes) -> int:
    """How many bytes of ``data`` may be rendered now: up to its last line end, or much of it if its lines never end."""
    end = data.rfind(b"\n") + 1
    rest = len(data) - end
    return end if rest < LINE_BYTES else _between_characters(data, end + rest - rest % LINE_BYTES)


def _between_characters(data: bytes, count: int) -> int:
    """``count``, or up to three bytes less: no character of UTF-8 goes on behind it."""
    for first in range(count - 1, count - 4, -1):
        lead = data[first]
        if lead & 0b1100_0000 != 0b1000_0000:  # no continuation: a character begins here
            length = 1 if lead < 0xC0 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            return first if first + length > count else count
    return count
