"""The last lines that a run printed before it died, although newer runs write to the same file.

A raw log does not say which run a line is of. So at the birth of each run it is noted how much its streams had written; what
came since is skipped from the end. The other formats tell by themselves: by the run, or by the time.
"""

from __future__ import annotations

import json
import os
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

import anyio.to_thread

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
#: Where a younger run has written more than this, an older one's last words are not looked for.
SKIP_BYTES = 8 * 1024 * 1024
WINDOW_BYTES = 256 * 1024


class LastWords:
    """Notes of how much each process had written when its present run was born."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        #: process → run, bytes of each file at its birth
        self._births: dict[str, tuple[int, dict[str, int]]] = {}
        supervisor.bus.listen(self._heed)

    def _heed(self, record: Record) -> None:
        if record.type != "state" or record.to != "STARTING" or record.name is None:
            return
        process = self._supervisor.processes.get(record.name)
        if process is not None:
            self._births[record.name] = (record.run or 0, _written(process))
        if len(self._births) > 2 * len(self._supervisor.processes) + 100:  # those of processes that a reload removed
            self._births = {name: birth for name, birth in self._births.items() if name in self._supervisor.processes}

    async def of(self, process: Process, run: int, ended_at: float | None) -> list[Output]:
        """The last lines of ``run``, for each stream that is kept in a file and has some."""
        from supervisord_async.control.why import Output

        born, at_birth = self._births.get(process.name, (run, {}))
        written = _written(process)
        found, seen = [], set()
        for stream in ("stdout", "stderr"):
            try:
                source = logs.source_of(process, stream)
            except FailedError:
                continue
            if source.path in seen:
                continue
            seen.add(source.path)
            skip = written.get(source.path, 0) - at_birth.get(source.path, 0) if born > run else 0
            lines = await anyio.to_thread.run_sync(partial(last_lines, source, run, ended_at if born > run else None, skip))
            if lines:
                found.append(Output(stream=stream, run=run, lines=lines))
        return found


def _written(process: Process) -> dict[str, int]:
    return {capture.target.path: capture.bytes_written for capture in process.output.captures if capture.target.path is not None}


def last_lines(source: logs.Source, run: int, ended_at: float | None, skip: int) -> list[str]:
    """The last :data:`LINES` of ``run`` in ``source``; ``skip`` bytes of a raw file's end are of younger runs. Blocking."""
    if source.format != "raw":
        skip = 0
    if not 0 <= skip <= SKIP_BYTES:
        return []
    try:
        with open(source.path, "rb") as file:
            end = os.fstat(file.fileno()).st_size - skip
            begin = max(0, end - WINDOW_BYTES)
            file.seek(begin)
            data = file.read(end - begin) if end > 0 else b""
    except OSError:
        return []
    raw = data.splitlines()[1 if begin else 0 :]
    if source.format == "json":
        return [text for line in raw if (text := _json_line(line, run)) is not None][-LINES:]
    lines = [line.decode(errors="replace")[:LINE_CHARACTERS] for line in raw]
    if source.format == "timestamp" and ended_at is not None:
        lines = [line for line in lines if _stamp(line) <= ended_at + 0.5]
    return lines[-LINES:]


def _json_line(line: bytes, run: int) -> str | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return str(value.get("line", ""))[:LINE_CHARACTERS] if isinstance(value, dict) and value.get("run") == run else None


def _stamp(line: str) -> float:
    try:
        return datetime.fromisoformat(line.partition(" ")[0]).timestamp()
    except ValueError:
        return 0.0
