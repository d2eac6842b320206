"""The processes of one daemon and the configuration that they follow: what the parts of this folder share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import anyio

from supervisord_async.config.model import Configuration, Program
from supervisord_async.supervise.process import Process

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from supervisord_async.supervise.recovery.takeover import Inherited
    from supervisord_async.supervise.shared_context import SharedContext

_log = logging.getLogger(__name__)


class Fleet:
    """The processes of one daemon, by name."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.processes: dict[str, Process] = {}  #: in file order; those that are being removed come last
        self.shutdown_requested = anyio.Event()
        self._running: tuple[TaskGroup, SharedContext] | None = None

    @property
    def shutting_down(self) -> bool:
        """Whether the daemon was asked to end."""
        return self.shutdown_requested.is_set()

    def open(self, tasks: TaskGroup, shared: SharedContext) -> None:
        """From now on processes can be added; they, and other tasks about them, run in ``tasks``."""
        self._running = tasks, shared

    def add(self, program: Program, names: Iterable[str], inherited: Mapping[str, Inherited] = MappingProxyType({})) -> list[Process]:
        """Add processes with these ``names``, supervised but not started, and return them."""
        assert self._running is not None  # noqa: S101  only called while running
        tasks, shared = self._running
        added = []
        for name in names:
            replica = int(name.rpartition(":")[2]) if ":" in name else 0
            process = Process(name, replica, program, shared)
            if name in inherited:
                process.inherit(inherited[name])
            self.processes[name] = process
            added.append(process)
            process.begin(tasks)
        return added

    def sort(self) -> None:
        """Put ``processes`` in the order of the present configuration."""
        order = [name for program in self.configuration.programs.values() for name in program.process_names()]
        rank = {name: number for number, name in enumerate(order)}
        self.processes = dict(sorted(self.processes.items(), key=lambda item: rank.get(item[0], len(rank))))

    def start_task(self, function: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """``function`` runs as a task; a bug in it ends that task alone."""

        async def run() -> None:
            try:
                await function()
            except Exception:
                _log.exception("%s failed because of a bug", name)

        assert self._running is not None  # noqa: S101  only called while running
        self._running[0].start_soon(run, name=name)
