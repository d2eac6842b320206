"""``start_on_connect``: a program that is down is started when a client connects to one of its sockets.

The connection waits in the socket's queue; nothing is accepted here. A program that an operator stopped, or that is FATAL,
stays down. One that ends without accepting the connection is not started in a tight loop: the pauses grow as its
``restart.backoff`` says.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NamedTuple

import anyio

from supervisord_async.config.model import Program
from supervisord_async.core.inputs import StartRequested
from supervisord_async.core.policy import backoff_delay
from supervisord_async.core.record import Record
from supervisord_async.core.state import Cause, State
from supervisord_async.errors import SpawnError
from supervisord_async.supervise.fleet.fleet import Fleet
from supervisord_async.supervise.process import Process
from supervisord_async.supervise.shared_context import SharedContext
from supervisord_async.system.wait_condition import WaitCondition

_log = logging.getLogger(__name__)

#: A start this long after the last one begins with no pause again.
CALM_SECONDS = 10.0
#: The pause before a socket that could not be bound is tried again.
BIND_AGAIN_SECONDS = 5.0


def is_armed(process: Process) -> bool:
    """Whether a connection may start it: if it ended by itself, or was never started."""
    snapshot = process.snapshot
    return snapshot.state is State.EXITED or (snapshot.state is State.STOPPED and snapshot.cause is None)


class _Watch(NamedTuple):
    """The task that watches one program."""

    scope: anyio.CancelScope
    news: WaitCondition  #: a process of the program has changed; not any process, as that would wake the tasks of all programs


class Activation:
    """Watches the sockets of all programs with ``start_on_connect``, with a task for each."""

    def __init__(self, shared: SharedContext, fleet: Fleet) -> None:
        self._shared = shared
        self._fleet = fleet
        self._changed = anyio.Event()
        self._watches: dict[str, _Watch] = {}  #: by program

    def reconfigure(self) -> None:
        """Programs were added, removed or changed: the sockets to watch are determined anew."""
        self._changed.set()
        for watch in self._watches.values():
            watch.news.notify()

    def on_record(self, record: Record) -> None:
        """A listener of the bus: the program whose process has changed may be armed, or not any more."""
        process = self._fleet.processes.get(record.name or "")
        if process is not None and (watch := self._watches.get(process.program.name)) is not None:
            watch.news.notify()

    async def run(self) -> None:
        """Watch until cancelled."""
        self._watches.clear()
        async with anyio.create_task_group() as tasks:
            while True:
                wanted = {name: program for name, program in self._programs().items() if program.start_on_connect}
                for name in [name for name in self._watches if name not in wanted]:
                    self._watches.pop(name).scope.cancel()
                for name in wanted:
                    if name not in self._watches:
                        watch = self._watches[name] = _Watch(anyio.CancelScope(), WaitCondition())
                        tasks.start_soon(self._watch, name, watch, name=f"connections {name}")
                await self._changed.wait()
                self._changed = anyio.Event()

    def _programs(self) -> Mapping[str, Program]:
        """The programs that may be started: none during the shutdown."""
        return {} if self._fleet.shutting_down else self._fleet.configuration.programs

    async def _watch(self, name: str, watch: _Watch) -> None:
        attempt, last = 0, float("-inf")
        with watch.scope:
            while True:
                while not (armed := self._armed(name)):
                    await watch.news.wait()
                if not await self._bind(name):
                    continue
                with anyio.move_on_after(60.0):  # look again now and then: the program may have been started, or its sockets replaced
                    if await self._shared.sockets.wait_connection(name):
                        armed = self._armed(name)
                        attempt = attempt + 1 if anyio.current_time() - last < CALM_SECONDS else 0
                        if attempt and armed:
                            await anyio.sleep(min(60.0, backoff_delay(armed[0].policy, attempt - 1, armed[0].snapshot.run)))
                        for process in self._armed(name):
                            process.ask(StartRequested(Cause.AUTOSTART))
                        last = anyio.current_time()
                        with anyio.move_on_after(1.0):  # until its record of STARTING, if that has not come yet
                            while self._armed(name) == armed:
                                await watch.news.wait()

    def _armed(self, name: str) -> list[Process]:
        program, processes = self._programs().get(name), self._fleet.processes
        members = [processes[each] for each in program.process_names() if each in processes] if program is not None else []
        return [process for process in members if is_armed(process)]

    async def _bind(self, name: str) -> bool:
        program = self._programs().get(name)
        if program is None:
            return False
        try:
            await self._shared.sockets.open(program, self._shared.host)
        except SpawnError as error:
            _log.warning("%s: clients cannot connect: %s", name, error)
            await anyio.sleep(BIND_AGAIN_SECONDS)
            return False
        return True
