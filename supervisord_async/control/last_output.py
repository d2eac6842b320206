"""The last lines that a run printed before it ended, even if newer runs have since written to the same file.

A raw log does not say which run a line belongs to. But the process notes, when a run begins, how many bytes its streams had
written until then; what newer runs wrote is skipped from the end. In the other formats each line has its run, or its time.
"""

from __future__ import annotations

import json
import math
import os
from functools import partial
from typing import TYPE_CHECKING

import anyio
import msgspec

from supervisord_async.control import logs
from supervisord_async.errors import FailedError
from supervisord_async.logs.tail import READERS, open_log, time_of

if TYPE_CHECKING:
    from supervisord_async.supervise.process import Process

LINES = 20
#: A longer line is cut.
LINE_CHARACTERS = 500
#: If newer runs have written more than this, an older run's last lines are not looked for.
SKIP_BYTES = 8 * 1024 * 1024
#: How many bytes before the end of a run's output are searched for its last lines.
WINDOW_BYTES = 256 * 1024
#: A log whose disk does not answer within this time is left out.
TIMEOUT_SECONDS = 5.0
#: Timestamps of lines are rounded to milliseconds.
ROUNDING_SECONDS = 0.001


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """The last lines of one stream."""

    stream: str
    run: int  #: the run that printed them
    earlier_daemon: bool = False  #: the run belonged to an earlier daemon, which numbered its runs separately
    lines: list[str]


async def of(
    process: Process, run: int, began_at: float | None = None, last_moment: float | None = None, next_run: int | None = None
) -> list[Output]:
    """The last lines of ``run``, for each stream that is kept in a readable file and has some.

    ``next_run`` is the run after it, by default the next number; if it is not above ``run``, it belongs to a newer daemon, which
    numbers runs from 1 again.
    """
    offsets = {start.run: start.written for start in process.output.run_offsets}
    earlier_daemon = next_run is not None and next_run <= run
    began = None if earlier_daemon else offsets.get(run)
    written, followed = process.output.written(), offsets.get(run + 1 if next_run is None else next_run)
    found, seen = [], set()
    for stream in ("stdout", "stderr"):
        try:
            source = logs.source_of(process, stream)
        except FailedError:
            continue
        if source.path in seen:
            continue
        seen.add(source.path)
        if next_run is not None and followed is None and began is None and source.format == "raw":
            continue  # the next run was adopted: where in the file it began is not known
        total = written.get(source.path, 0)
        end = followed.get(source.path, 0) if followed is not None else total
        own = end - began.get(source.path, 0) if began is not None else WINDOW_BYTES
        until = last_moment if followed is not None or next_run is not None else None
        search = partial(last_lines, source, run, until, skip=total - end, own=own, since=began_at)
        with anyio.move_on_after(TIMEOUT_SECONDS):
            if lines := await READERS.run(search):
                found.append(Output(stream=stream, run=run, earlier_daemon=earlier_daemon, lines=lines))
    return found


def last_lines(source: logs.Source, run: int, until: float | None, *, skip: int, own: int, since: float | None = None) -> list[str]:
    """The last :data:`LINES` of ``run`` in ``source``; none if that cannot be read or is not a regular file. Blocking.

    ``since`` and ``until`` are wall times: if lines have timestamps, those outside this span belong to other runs.

    In a raw file the last ``skip`` bytes belong to newer runs, and the ``own`` bytes before them to this one.
    """
    if source.format != "raw":
        skip, own = 0, WINDOW_BYTES
    if not 0 <= skip <= SKIP_BYTES:
        return []
    try:
        with open_log(source.path) as file:
            end = os.fstat(file.fileno()).st_size - skip
            begin = max(0, end - min(own, WINDOW_BYTES))
            file.seek(begin)
            data = file.read(end - begin) if end > 0 else b""
    except OSError:
        return []
    raw = data.splitlines()[1 if begin and own >= WINDOW_BYTES else 0 :]  # a full window may begin in the middle of a line
    begin_at, end_at = (since or 0.0) - ROUNDING_SECONDS, until if until is not None else math.inf
    if source.format != "raw":  # in JSON too, as another daemon's run may have the same number
        raw = [line for line in raw if begin_at <= (time_of(line, source.format) or 0.0) <= end_at]
    if source.format == "json":
        return [text for line in raw if (text := _json_line(line, run)) is not None][-LINES:]
    return [line.decode(errors="replace")[:LINE_CHARACTERS] for line in raw][-LINES:]


def _json_line(line: bytes, run: int) -> str | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return str(value.get("line", ""))[:LINE_CHARACTERS] if isinstance(value, dict) and value.get("run") == run else None
