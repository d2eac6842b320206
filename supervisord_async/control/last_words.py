"""The last lines that a run printed before it ended, although newer runs write to the same file.

A raw log does not say which run a line belongs to. But when each run began, the process noted how much its streams had
written until then; what came since is skipped from the end. In the other formats each line has its run, or its time.
"""

from __future__ import annotations

import json
import math
import os
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

import anyio.to_thread
import msgspec

from supervisord_async.control import logs
from supervisord_async.errors import FailedError

if TYPE_CHECKING:
    from supervisord_async.supervise.process import Process

LINES = 20
#: A line is cut after this many characters.
LINE_CHARACTERS = 500
#: Where younger runs have written more than this, an older one's last words are not looked for.
SKIP_BYTES = 8 * 1024 * 1024
WINDOW_BYTES = 256 * 1024
#: Lines are stamped in whole milliseconds.
ROUNDING_SECONDS = 0.001


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """The last lines of one stream."""

    stream: str
    run: int  #: the run that they are the last of
    lines: list[str]


async def of(process: Process, run: int, began_at: float | None = None, last_moment: float | None = None) -> list[Output]:
    """The last lines of ``run``, for each stream that is kept in a file and has some."""
    births = {birth.run: birth.written for birth in process.output.births}
    written, began, followed = process.output.written(), births.get(run), births.get(run + 1)
    found, seen = [], set()
    for stream in ("stdout", "stderr"):
        try:
            source = logs.source_of(process, stream)
        except FailedError:
            continue
        if source.path in seen:
            continue
        seen.add(source.path)
        total = written.get(source.path, 0)
        end = followed.get(source.path, 0) if followed is not None else total
        own = end - began.get(source.path, 0) if began is not None else WINDOW_BYTES
        until = last_moment if followed is not None else None
        search = partial(last_lines, source, run, until, skip=total - end, own=own, since=began_at)
        lines = await anyio.to_thread.run_sync(search)
        if lines:
            found.append(Output(stream=stream, run=run, lines=lines))
    return found


def last_lines(source: logs.Source, run: int, until: float | None, *, skip: int, own: int, since: float | None = None) -> list[str]:
    """The last :data:`LINES` of ``run`` in ``source``. Blocking.

    ``since`` and ``until`` are wall times: older and younger lines are of other runs, as far as lines have times.

    Of a raw file ``skip`` bytes at the end are of younger runs, and the ``own`` ones before are of this one.
    """
    if source.format != "raw":
        skip, own = 0, WINDOW_BYTES
    if not 0 <= skip <= SKIP_BYTES:
        return []
    try:
        with open(source.path, "rb") as file:
            end = os.fstat(file.fileno()).st_size - skip
            begin = max(0, end - min(own, WINDOW_BYTES))
            file.seek(begin)
            data = file.read(end - begin) if end > 0 else b""
    except OSError:
        return []
    raw = data.splitlines()[1 if begin and own >= WINDOW_BYTES else 0 :]  # a window begins anywhere in a line
    if source.format == "json":
        return [text for line in raw if (text := _json_line(line, run, since)) is not None][-LINES:]
    lines = [line.decode(errors="replace")[:LINE_CHARACTERS] for line in raw]
    if source.format == "timestamp":
        begin_at, end_at = since or 0.0, until if until is not None else math.inf
        lines = [line for line in lines if begin_at - ROUNDING_SECONDS <= _stamp(line) <= end_at]
    return lines[-LINES:]


def _json_line(line: bytes, run: int, since: float | None) -> str | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    if not isinstance(value, dict) or value.get("run") != run:
        return None
    if since is not None and _stamp(str(value.get("at", ""))) < since - ROUNDING_SECONDS:
        return None  # an earlier daemon's run of that number
    return str(value.get("line", ""))[:LINE_CHARACTERS]


def _stamp(line: str) -> float:
    try:
        return datetime.fromisoformat(line.partition(" ")[0]).timestamp()
    except ValueError:
        return 0.0
