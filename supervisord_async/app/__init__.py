"""The library for applications: what a program can do for its own supervision, with or without a daemon.

Heartbeats, state that survives a restart, orderly shutdown, restart on a source change, a main loop that survives failing
tasks. Importing this package imports none of its parts: each name is imported at its first use. None of them imports the
daemon, an event loop or a parser.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from supervisord_async.app.heartbeat import Heartbeat
    from supervisord_async.app.restarter import ProcessRestarter, get_process_restarter, is_restart, load_restart_state_if_available
    from supervisord_async.app.shutdown import ComponentReport, GracefulShutdownManager, Outcome
    from supervisord_async.app.state import StateSerializer, get_state_serializer
    from supervisord_async.app.watcher import FileChangeWatcher
    from supervisord_async.app.worker import WorkerLoop, WorkerStatistics

__all__ = [
    "ComponentReport",
    "FileChangeWatcher",
    "GracefulShutdownManager",
    "Heartbeat",
    "Outcome",
    "ProcessRestarter",
    "StateSerializer",
    "WorkerLoop",
    "WorkerStatistics",
    "get_process_restarter",
    "get_state_serializer",
    "is_restart",
    "load_restart_state_if_available",
]

_HOMES = {
    "Heartbeat": "heartbeat",
    "StateSerializer": "state",
    "get_state_serializer": "state",
    "ComponentReport": "shutdown",
    "GracefulShutdownManager": "shutdown",
    "Outcome": "shutdown",
    "FileChangeWatcher": "watcher",
    "ProcessRestarter": "restarter",
    "get_process_restarter": "restarter",
    "is_restart": "restarter",
    "load_restart_state_if_available": "restarter",
    "WorkerLoop": "worker",
    "WorkerStatistics": "worker",
}


def __getattr__(name: str) -> Any:
    """The name, imported from its module. Raises AttributeError if there is none."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
