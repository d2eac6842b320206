"""Views of many processes, asked for again and again: of one whose state has not changed, only the figures are made anew.

A table of a thousand running programs that somebody refreshes costs a third of what a thousand new views would. Nothing
here is true by itself: what is kept holds only with the very snapshot and settings that it was made from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from msgspec.structs import replace

from supervisord_async.control.view import ProcessView, process_view
from supervisord_async.core.state import Snapshot, State

if TYPE_CHECKING:
    from supervisord_async.config.model import Program
    from supervisord_async.supervise.process import Process
    from supervisord_async.supervise.records.figures import Figures


class SteadyViews:
    """Makes views, and keeps those of running processes."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Snapshot, Program, ProcessView]] = {}

    def of(self, processes: Iterable[Process], now: float, wall_now: float, figures: Mapping[str, Figures]) -> list[ProcessView]:
        """All of ``processes`` as they are at ``now`` (monotonic), which people call ``wall_now``; ``figures`` by process name."""
        views = []
        kept, self._kept = self._kept, {}
        for process in processes:
            name, snapshot, program = process.name, process.snapshot, process.program
            found = figures.get(name)
            known = kept.get(name)
            if known is not None and known[0] is snapshot and known[1] is program and _is_steady(process):
                view = replace(
                    known[2],
                    uptime_seconds=round(now - snapshot.run_since, 3),
                    cpu_percent=found.cpu_percent if found is not None else None,
                    memory_bytes=found.memory_bytes if found is not None else None,
                )
                self._kept[name] = known
            else:
                view = process_view(process, now, wall_now, found)
                if _is_steady(process):
                    self._kept[name] = (snapshot, program, view)
            views.append(view)
        return views


def _is_steady(process: Process) -> bool:
    """All that is shown of it but its figures follows from its snapshot and settings."""
    snapshot = process.snapshot
    return snapshot.state is State.RUNNING and snapshot.pid is not None and process.scheduled_at is None and not process.voice.words
