"""The memory monitor: compares the resident size of whole trees with ``limits.memory``, in one pass over /proc for all programs.

It sleeps while no process with such a limit runs. Memory that processes of a tree share counts once, where we may read
``/proc/PID/smaps_rollup``. An estimate never leads to a restart: the tree is measured first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import anyio

from supervisord_async.core.inputs import Faulted
from supervisord_async.core.record import Record
from supervisord_async.core.state import Cause, State
from supervisord_async.supervise.records.bus import Bus
from supervisord_async.supervise.records.figures import Sampler

if TYPE_CHECKING:
    from supervisord_async.supervise.process import Process

_log = logging.getLogger(__name__)

#: The pause between two measurements, while a process with a limit runs.
INTERVAL_SECONDS = 2.0
_MIB = 1024 * 1024


class MemoryWatch:
    """Posts a fault for every run whose tree exceeds its limit."""

    def __init__(self, bus: Bus, processes: Callable[[], Iterable[Process]], sampler: Sampler | None = None) -> None:
        self._processes = processes
        self._sampler = sampler or Sampler()
        self._news = anyio.Event()
        bus.listen(self._on_record)

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            self._news = anyio.Event()
            if limited := self._limited():
                try:
                    await self._measure(limited)
                except OSError as error:  # for example no free descriptor, or no thread; the next time there may be one
                    _log.warning("cannot measure memory: %s", error.strerror or error)
            else:
                await self._news.wait()
            await anyio.sleep(INTERVAL_SECONDS)  # also after news: programs without limits may start many times a second

    def _on_record(self, record: Record) -> None:
        if record.type in ("reload", "scale") or (record.type == "state" and record.to in (State.STARTING, State.RUNNING)):
            self._news.set()

    def _limited(self) -> list[Process]:
        return [
            process
            for process in self._processes()
            if process.program.limits.memory_bytes is not None and process.snapshot.state in (State.STARTING, State.RUNNING)
        ]

    async def _measure(self, limited: list[Process]) -> None:
        runs = {process.name: process.snapshot.run for process in limited if process.snapshot.pid is not None}
        figures = await self._sampler.sample(limited)
        for process in limited:
            limit, found = process.program.limits.memory_bytes, figures.get(process.name)
            if limit is None or found is None or process.name not in runs or found.memory_bytes <= limit:
                continue
            held = await self._sampler.held_bytes(process)
            if held is None or held <= limit:
                continue
            detail = f"{found.processes} processes hold" if found.processes > 1 else "it holds"
            detail += f" {held / _MIB:.1f} MiB, more than limits.memory ({limit / _MIB:.1f} MiB)"
            process.post(Faulted(runs[process.name], Cause.MEMORY_LIMIT, detail))
