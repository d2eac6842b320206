"""The JSON of many processes, asked for again and again: of one whose state has not changed, only the figures are written anew.

A table of a thousand running programs that somebody refreshes costs a third of what a thousand new views would. Nothing
here is true by itself: what is kept holds only with the very snapshot and settings that it was made from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from supervisord_async.control.view import process_view
from supervisord_async.core.state import Snapshot, State

if TYPE_CHECKING:
    from supervisord_async.config.model import Program
    from supervisord_async.supervise.process import Process
    from supervisord_async.supervise.records.figures import Figures

#: No name or text holds it: a quotation mark in one has a backslash before it.
_UPTIME = '"uptime_seconds":null'
#: What an object ends with, and what stands around the figures there.
_FIGURES = '"cpu_percent":null,"memory_bytes":null}'


class _Kept(NamedTuple):
    """A running process's object, cut where its figures stand, and what it was made from."""

    snapshot: Snapshot
    program: Program
    since: float  #: monotonic: the run's start
    head: str  #: up to the uptime
    middle: str  #: from there to the CPU


class SteadyViews:
    """Writes views as JSON, and keeps those of running processes."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def json(self, processes: Iterable[Process], now: float, wall_now: float, figures: Mapping[str, Figures]) -> bytes:
        """The list of ``processes`` as they are at ``now`` (monotonic), which people call ``wall_now``; ``figures`` by process name."""
        before, self._kept = self._kept, {}
        changing = []  # where in the list, and what
        numbers: list[float | None] = []  # three for each that is kept
        for place, process in enumerate(processes):
            name, snapshot = process.name, process.snapshot
            found = figures.get(name)
            known = before.get(name)
            if known is None or known.snapshot is not snapshot or known.program is not process.program:
                known = _cut(process, now, wall_now)
            if known is None or process.scheduled_at is not None or process.words:
                changing.append((place, msgspec.json.encode(process_view(process, now, wall_now, found)).decode()))
                continue
            self._kept[name] = known
            numbers.append(int((now - known.since) * 1000) / 1000)
            if found is None:
                numbers += (None, None)
            else:
                numbers += (found.cpu_percent, found.memory_bytes)
        objects = _joined(self._kept.values(), numbers)
        for place, text in changing:
            objects.insert(place, text)
        return f"[{','.join(objects)}]".encode()


def _joined(kept: Iterable[_Kept], numbers: list[float | None]) -> list[str]:
    """Whole objects. The numbers are written all at once: one at a time would take longer than all the rest."""
    texts = msgspec.json.encode(numbers).decode()[1:-1].split(",")
    return [
        f'{one.head}{uptime}{one.middle}{cpu},"memory_bytes":{memory}}}'
        for one, uptime, cpu, memory in zip(kept, texts[::3], texts[1::3], texts[2::3], strict=False)
    ]


def _cut(process: Process, now: float, wall_now: float) -> _Kept | None:
    """What may be kept of it; None where more than its figures may change without its snapshot and settings."""
    snapshot = process.snapshot
    if snapshot.state is not State.RUNNING or snapshot.pid is None:
        return None
    view = msgspec.structs.replace(process_view(process, now, wall_now), uptime_seconds=None)
    head, _, middle = msgspec.json.encode(view).decode().removesuffix(_FIGURES).partition(_UPTIME)
    return _Kept(snapshot, process.program, min(snapshot.run_since, now), head + '"uptime_seconds":', middle + '"cpu_percent":')
