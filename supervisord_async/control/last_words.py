"""The last lines that a run printed before it died, although newer runs write to the same file.

A raw log does not say which run a line is of. So at the birth of each run it is noted how much its streams had written; what
came since is skipped from the end. The other formats tell by themselves: by the run, or by the time.
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
from supervisord_async.core.record import Record
from supervisord_async.errors import FailedError

if TYPE_CHECKING:
    from supervisord_async.control.why import Output
    from supervisord_async.supervise.process import Process
    from supervisord_async.supervise.supervisor import Supervisor

LINES = 20
#: A line is cut after so many characters.
LINE_CHARACTERS = 500
#: Births that are remembered of each process.
BIRTHS = 4
#: Where younger runs have written more than this, an older one's last words are not looked for.
SKIP_BYTES = 8 * 1024 * 1024
WINDOW_BYTES = 256 * 1024
#: Lines are stamped in whole milliseconds.
ROUNDING_SECONDS = 0.001


class Birth(msgspec.Struct, frozen=True):
    """How much each file of a process had got when a run began."""

    run: int
    written: dict[str, int]


class LastWords:
    """Notes of how much each process had written when each of its last runs was born."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._births: dict[str, tuple[Birth, ...]] = {}  # tuples: a thousand empty deques are most of a megabyte
        supervisor.bus.listen(self._heed)

    def _heed(self, record: Record) -> None:
        if record.type != "state" or record.to != "STARTING" or record.name is None:
            return
        process = self._supervisor.processes.get(record.name)
        if process is not None:
            births = self._births.get(record.name, ())
            self._births[record.name] = (*births[1 - BIRTHS :], Birth(record.run or 0, _written(process)))
        if len(self._births) > 2 * len(self._supervisor.processes) + 100:  # those of processes that a reload removed
            self._births = {name: births for name, births in self._births.items() if name in self._supervisor.processes}

    async def of(self, process: Process, run: int, began_at: float | None = None, last_moment: float | None = None) -> list[Output]:
        """The last lines of ``run``, for each stream that is kept in a file and has some."""
        from supervisord_async.control.why import Output

        births = {birth.run: birth.written for birth in self._births.get(process.name, ())}
        written, began, followed = _written(process), births.get(run), births.get(run + 1)
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
            if began is None and source.path in written and began_at is not None and began_at >= self._supervisor.started_at:
                own = end  # it was born before births were noted: what this daemon wrote first is its
            until = last_moment if followed is not None else None
            search = partial(last_lines, source, run, until, skip=total - end, own=own, since=began_at)
            lines = await anyio.to_thread.run_sync(search)
            if lines:
                found.append(Output(stream=stream, run=run, lines=lines))
        return found


def _written(process: Process) -> dict[str, int]:
    return {capture.target.path: capture.bytes_written for capture in process.output.captures if capture.target.path is not None}


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
