"""Processes that are being removed: each is stopped, its last output is written to its logs, and then it is removed.

Until then it stays among the processes, so that its stop is visible, and no other process of its name is started.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import anyio

from supervisord_async.core.inputs import StopRequested
from supervisord_async.core.state import DOWN, Cause
from supervisord_async.supervise.fleet.fleet import Fleet
from supervisord_async.system.wait_condition import WaitCondition

if TYPE_CHECKING:
    from supervisord_async.core.record import Record
    from supervisord_async.supervise.process import Process

#: How often to look without a record: there is none when what an earlier daemon left has been taken over.
POLL_SECONDS = 1.0
#: Garbage is collected after so many removals, or as many as there are processes left if these are more. Else it would pile up for years:
#: the parts of a process refer to each other, and a daemon at rest makes so little garbage that Python does not look at what is old.
COLLECTED_REMOVALS = 100


class Removals:
    """The processes of one daemon that are being removed."""

    def __init__(self, fleet: Fleet, gone: Callable[[Process], None]) -> None:
        """``gone`` is called with each process once nothing of it is left."""
        self._fleet, self._gone = fleet, gone
        self._conditions: dict[str, WaitCondition] = {}  #: notified of each record of the process
        self._ends: dict[Process, anyio.Event] = {}
        self._uncollected = 0  #: how many were removed since garbage was collected

    def __contains__(self, name: str) -> bool:
        return name in self._conditions

    def begin(self, process: Process) -> None:
        """The process will be stopped and then removed."""
        self._conditions[process.name] = WaitCondition()
        self._ends[process] = anyio.Event()

        async def remove() -> None:
            try:
                await self._remove(process)
            finally:  # in any case: nobody waits in vain if the daemon ends meanwhile, and after a bug the next reload begins anew
                del self._conditions[process.name]
                self._ends.pop(process).set()

        self._fleet.start_task(remove, f"remove {process.name}")

    def on_record(self, record: Record) -> None:
        """A listener of the bus: wake the task that waits for the process to be down."""
        if record.name in self._conditions:
            self._conditions[record.name].notify()

    async def wait_gone(self, processes: Iterable[Process]) -> None:
        """Return once none of ``processes`` is being removed any more, or the daemon ends."""
        for process in processes:
            if process in self._ends:
                await self._ends[process].wait()

    async def _remove(self, process: Process) -> None:
        asked = None
        while process.snapshot.state not in DOWN or process.snapshot.wanted or not process.settled:
            if asked is None or (process.snapshot.wanted and process.snapshot is not asked):  # somebody started it meanwhile
                asked = process.snapshot
                process.ask(StopRequested(Cause.CONFIG_CHANGED))
            await self._conditions[process.name].wait(anyio.current_time() + POLL_SECONDS)
        process.dismiss()  # before anything is awaited: a run that began now would be nobody's
        await process.output.aclose()
        process.close_notify_socket()
        process.remove_heartbeat_file()
        self._gone(process)
        self._uncollected += 1
        if self._uncollected >= max(COLLECTED_REMOVALS, len(self._fleet.processes)):
            self._uncollected = 0
            gc.collect()
