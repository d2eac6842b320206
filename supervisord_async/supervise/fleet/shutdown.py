"""The shutdown: an orderly stop of all processes, in bounded time."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from supervisord_async.core.inputs import StopRequested
from supervisord_async.core.state import DOWN, Cause, State
from supervisord_async.supervise.fleet.dependencies import Dependencies
from supervisord_async.supervise.fleet.fleet import Fleet
from supervisord_async.supervise.fleet.stopping import OrderlyStop
from supervisord_async.supervise.records.bus import Bus
from supervisord_async.words import listed

if TYPE_CHECKING:
    from supervisord_async.supervise.process import Process

#: How long the kernel may take to end what was killed.
KILL_WAIT_SECONDS = 5.0
#: How often to look without a record, as a lost record must not stall the shutdown.
POLL_SECONDS = 1.0
#: Whoever waits longer than this for the end, at a terminal or with a journal, is told what for.
TELL_SECONDS = 3.0
#: So many processes are named.
NAMED = 5

_log = logging.getLogger(__name__)


class Shutdown:
    """One daemon's shutdown; nothing happens before :meth:`run`."""

    def __init__(self, bus: Bus, fleet: Fleet, dependencies: Dependencies) -> None:
        self._bus = bus
        self._fleet = fleet
        self._dependencies = dependencies
        self._hasten = anyio.Event()
        self._hastened_at: float | None = None
        self._up: list[Process] = []  #: those that were not down when all were last looked at

    def hasten(self) -> None:
        """From now on stops have no grace period, and do not wait for dependents."""
        self._hasten.set()

    async def run(self, timeout_seconds: float) -> None:
        """Stop all processes; returns once they are down, or the kernel did not end them in time. Hastened after ``timeout_seconds``."""
        stop = OrderlyStop(list(self._fleet.processes.values()), self._dependencies.dependents, StopRequested(Cause.DAEMON_STOP))
        changed: set[str] | None = None
        with self._bus.subscribe() as records:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._hasten_after, timeout_seconds)
                tasks.start_soon(self._tell_who_is_left)
                while True:
                    if self._hastened_at is not None:
                        stop.tell_all(anyio.current_time())
                    elif stop.pending:
                        stop.tell_free(anyio.current_time(), changed)
                    await anyio.lowlevel.checkpoint()  # lets processes that are down take the request, for which there is no record
                    if self._all_down() and not stop.pending:
                        break
                    changed = await records.wait_for_names(POLL_SECONDS)
                    if self._kernel_is_late():
                        break
                tasks.cancel_scope.cancel()
        for process in self._fleet.processes.values():
            if process.snapshot.state not in DOWN:
                _log.error("%s: still %s, pid %s, at the end", process.name, process.snapshot.state, process.snapshot.pid)

    async def _hasten_after(self, timeout_seconds: float) -> None:
        with anyio.move_on_after(timeout_seconds):
            await self._hasten.wait()
        self._hastened_at = anyio.current_time()
        for process in self._fleet.processes.values():
            process.hasten()

    async def _tell_who_is_left(self) -> None:
        await anyio.sleep(TELL_SECONDS)
        left = [f"{one.name} (pid {one.snapshot.pid})" for one in self._fleet.processes.values() if one.snapshot.state is State.STOPPING]
        if left and self._hastened_at is None:
            _log.info("still waiting for %s; one more TERM or INT kills at once", listed(left, NAMED))

    def _kernel_is_late(self) -> bool:
        return self._hastened_at is not None and anyio.current_time() > self._hastened_at + KILL_WAIT_SECONDS

    def _all_down(self) -> bool:
        """Whether all are down. Only those that were up the last time are checked, and all again once these are down, so that the
        checks of a whole shutdown take linear time.
        """
        while self._up and _is_down(self._up[-1]):
            self._up.pop()
        if not self._up:
            self._up = [process for process in self._fleet.processes.values() if not _is_down(process)]
        return not self._up


def _is_down(process: Process) -> bool:
    return process.snapshot.state in DOWN and process.settled
