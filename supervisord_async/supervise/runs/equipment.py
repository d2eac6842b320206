"""What a run is given besides its command: listening sockets, stored descriptors, and the sd_notify address."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from supervisord_async import wire
from supervisord_async.config.model import Program
from supervisord_async.system.spawn import SpawnSpec

if TYPE_CHECKING:
    from supervisord_async.supervise.shared_context import SharedContext
    from supervisord_async.supervise.sources.notify import NotifySocket


async def equip(spec: SpawnSpec, program: Program, notify_socket: NotifySocket | None, shared: SharedContext) -> SpawnSpec:
    """``spec`` with the descriptors and variables that ``notify``, ``heartbeat`` and ``sockets`` of ``program`` promise its next run.

    ``notify_socket`` is the process's, None without ``notify``. In the run the descriptors are 3, 4, …: sockets in the file's order,
    then those that an earlier run stored. Raises SpawnError, stage ``socket`` or ``notify``.
    """
    environment = dict(spec.environment)
    pid_variables = []
    descriptors = list(await shared.sockets.open(program, shared.host))
    if program.notify is not None and notify_socket is not None:
        environment[wire.ENV_NOTIFY_SOCKET] = notify_socket.open(program, spec.credentials)
        notify_socket.run_begins()
        if program.heartbeat is not None:
            environment[wire.ENV_WATCHDOG_USEC] = str(round(program.heartbeat.timeout_seconds * 1e6))
            pid_variables.append(wire.ENV_WATCHDOG_PID)
        descriptors += [(stored.name, stored.fd) for stored in notify_socket.store.saved()]
    if descriptors:
        environment[wire.ENV_LISTEN_FDS] = str(len(descriptors))
        environment[wire.ENV_LISTEN_FDNAMES] = ":".join(name for name, _ in descriptors)
        pid_variables.append(wire.ENV_LISTEN_PID)
    return replace(spec, environment=environment, listen_fds=tuple(fd for _, fd in descriptors), pid_variables=tuple(pid_variables))
