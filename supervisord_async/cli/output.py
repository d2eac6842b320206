"""Prints to a terminal or a pipe: tables, colour, JSON, messages.

On a terminal a table fits the width and is coloured; in a pipe every cell is complete and there are no escape codes. Colours
and layout are kept simple: a rich-text library would cost more than the rest of ``asupctl status``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, TextIO

from supervisord_async.cli.words import printable

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
STATE_STYLES = {
    "RUNNING": "green",
    "STARTING": "cyan",
    "STOPPING": "cyan",
    "WAITING": "cyan",
    "BACKOFF": "yellow",
    "FATAL": "red",
    "UNKNOWN": "red",
    "STOPPED": "dim",
    "EXITED": "dim",
    "healthy": "green",
    "unhealthy": "red",
    "starting": "cyan",
}
#: The first and last columns are never cut below this; in a narrower terminal lines wrap.
_NARROWEST = 12
#: The least that a long first column leaves for the last one; in a wide terminal it leaves half of what both share.
_WANTED = 20
_GAP = "  "


def colours(stream: TextIO) -> bool:
    """Whether to write colour codes there: it is a terminal, not a dumb one, and ``NO_COLOR`` is not set."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def styled(text: str, style: str | None, *, on: bool) -> str:
    """The text in a style of :data:`_CODES`; unchanged unless ``on``."""
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if on and style and text else text


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The rows are printed in columns under ``head``; on a terminal a cell whose text is a key of :data:`STATE_STYLES` is coloured."""
    stream = sys.stdout
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max([len(title), *(_width(row[column]) for row in cells)]) for column, title in enumerate(head)]
    limit = _columns(stream)
    room = None
    if limit is not None:
        gaps = len(_GAP) * (len(widths) - 1)
        shared = limit - sum(widths[1:-1]) - gaps
        wanted = max(_WANTED, min(shared // 2, widths[-1]))
        widths[0] = max(min(widths[0], _NARROWEST), min(widths[0], shared - wanted))
        room = max(_NARROWEST, limit - sum(widths[:-1]) - gaps)
    on = colours(stream)
    if room is None and not on and all(cell.isascii() for row in cells for cell in row):
        pattern = _GAP.join(f"{{:<{width}}}" for width in widths)
        stream.write("".join([pattern.format(*row).rstrip() + "\n" for row in (head, *cells)]))
        return
    lines = [_line(head, widths, room, dict.fromkeys(head, "bold"), on)]
    lines += [_line(row, widths, room, STATE_STYLES, on) for row in cells]
    stream.write("".join(lines))


def _line(row: Sequence[str], widths: Sequence[int], room: int | None, styles: Mapping[str, str], on: bool) -> str:
    parts = []
    for column, (whole, width) in enumerate(zip(row[:-1], widths, strict=False)):
        cell = shortened(whole, width) if column == 0 and room is not None else whole
        padding = " " * (width - _width(cell))
        parts.append(styled(cell, styles.get(cell), on=on) + padding)
    last = row[-1]
    parts.append(styled(shortened(last, room), styles.get(last), on=on))
    return _GAP.join(parts).rstrip() + "\n"


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def shortened(text: str, room: int | None) -> str:
    """The text in at most ``room`` columns, cut with an ellipsis if it is longer; unchanged if ``room`` is None."""
    if room is None or _width(text) <= room:
        return text
    kept = text[:room]
    while _width(kept) > room - 1:
        kept = kept[:-1]
    return kept + "…"


def wrapped(text: str, *, indent: int, begin: int = 0) -> str:
    """On a terminal the text is broken between words where it would not fit, and goes on below its own ``indent``.

    ``begin`` columns of its first line are taken already. Words are never broken, so a path can be copied. In a pipe the text
    is unchanged.
    """
    limit = _columns(sys.stdout)
    if limit is None or begin + _width(text) <= limit or limit - indent < _WANTED:
        return text
    from textwrap import TextWrapper

    wrapper = TextWrapper(limit, initial_indent=" " * begin, subsequent_indent=" " * indent, expand_tabs=False, replace_whitespace=False)
    wrapper.break_long_words = wrapper.break_on_hyphens = False
    return "\n".join(wrapper.wrap(text))[begin:]


def _columns(stream: TextIO) -> int | None:
    """The terminal's width; None if ``stream`` is not a terminal."""
    if not stream.isatty():
        return None
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except OSError:
        return None


def say(text: str) -> None:
    """Print one line on standard output, with control characters spelt out."""
    sys.stdout.write(printable(text) + "\n")


def complain(text: str, *, begin: str = "asupctl: ") -> None:
    """Print lines on standard error, with control characters spelt out, and ``begin`` before the first."""
    first, *others = text.split("\n")
    lines = [begin + printable(first), *(printable(line) for line in others)]
    sys.stdout.flush()
    with suppress(OSError):  # nobody reads it; the exit code says it too
        sys.stderr.write("\n".join(lines) + "\n")
        sys.stderr.flush()


def print_json(document: Any) -> None:
    """Print the document: indented on a terminal, in one line elsewhere."""
    indent = 2 if sys.stdout.isatty() else None
    sys.stdout.write(json.dumps(document, indent=indent) + "\n")


def print_json_line(document: Any) -> None:
    """Print the document in one line, and flush it."""
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()
