"""Renders lines in a log's format. Pure: the same arguments give the same bytes, on which finishing a batch after a kill relies."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

from supervisord_async.logs.target import Format

#: A line longer than this is written in parts, in the formats that work by lines.
LINE_BYTES = 64 * 1024

#: Characters that JSON forbids in strings, except newlines; those that it allows but terminals obey (DEL, the C1 controls);
#: and two that end a line for some readers.
_CONTROLS = re.compile("[\\x00-\\x09\\x0b-\\x1f\\x7f-\\x9f\\u2028\\u2029]")


def stamp(at_ms: int) -> str:
    """Milliseconds since 1970 as ISO 8601 in UTC."""
    at = datetime.fromtimestamp(at_ms // 1000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}Z"


def render(data: bytes, format_: Format, *, at_ms: int, name: str, stream: str, run: int) -> bytes:
    """``data`` (lines, of which the last may lack its newline) in ``format_``; except in ``raw``, every line returned has a newline.

    In ``json`` the object of a line that lacks its newline has ``partial``.
    """
    if format_ == "raw" or not data:
        return data
    body = data[:-1] if data.endswith(b"\n") else data
    if format_ == "timestamp":
        prefix = f"{stamp(at_ms)} ".encode()
        return prefix + body.replace(b"\n", b"\n" + prefix) + b"\n"
    head = f'{{"at":"{stamp(at_ms)}","name":{json.dumps(name)},"stream":"{stream}","run":{run},"line":"'
    # All lines at once: a call for each line would cost ten times as much.
    text = _escaped(body.decode("utf-8", "replace"))
    end = '"}\n' if data.endswith(b"\n") else '","partial":true}\n'
    return (head + text.replace("\n", '"}\n' + head) + end).encode()


def _escaped(text: str) -> str:
    """``text`` as it is written inside JSON strings: readable, with control characters escaped; newlines are left to separate lines."""
    return _CONTROLS.sub(_escape, text.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t"))


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found.group()):04x}"


def whole_lines(data: bytes) -> int:
    """How many bytes of ``data`` to render now: up to its last newline, and the whole parts of a line longer than :data:`LINE_BYTES`."""
    end = data.rfind(b"\n") + 1
    rest = len(data) - end
    return end if rest < LINE_BYTES else _between_characters(data, end + rest - rest % LINE_BYTES)


def _between_characters(data: bytes, count: int) -> int:
    """``count``, or up to three bytes less, so that no UTF-8 character is cut in two there."""
    for first in range(count - 1, count - 4, -1):
        lead = data[first]
        if lead & 0b1100_0000 != 0b1000_0000:  # not a continuation byte: a character begins here
            length = 1 if lead < 0xC0 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            return first if first + length > count else count
    return count
