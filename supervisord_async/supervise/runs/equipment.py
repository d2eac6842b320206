"""What a run is given besides its command: listening sockets, stored descriptors, and the sd_notify address."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from msgspec.structs import replace

from supervisord_async import wire
from supervisord_async.config.model import Program
from supervisord_async.errors import SpawnError
from supervisord_async.system.spawn import SpawnSpec

if TYPE_CHECKING:
    from supervisord_async.supervise.shared_context import SharedContext
    from supervisord_async.supervise.sources.notify import NotifySocket


@asynccontextmanager
async def equipped(
    spec: SpawnSpec, program: Program, notify_socket: NotifySocket | None, shared: SharedContext
) -> AsyncIterator[SpawnSpec]:
    """``spec`` with the descriptors and variables that ``notify``, ``heartbeat`` and ``sockets`` of ``program`` promise its next run.

    ``notify_socket`` is the process's, None without ``notify``. In the run the descriptors are 3, 4, …: sockets in the file's order,
    then those that an earlier run stored. They are duplicates, open while in this context: a spawn may have to wait, and a reload close
    the sockets meanwhile, whose numbers then become other files' of ours. Raises SpawnError, stage ``socket`` or ``notify``.
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
    with ExitStack() as duplicates:
        listen_fds = tuple(_duplicate(fd, duplicates) for _, fd in descriptors)
        yield replace(spec, environment=environment, listen_fds=listen_fds, pid_variables=tuple(pid_variables))


def _duplicate(fd: int, duplicates: ExitStack) -> int:
    """A duplicate of ``fd``, which ``duplicates`` will close."""
    try:
        duplicate = os.dup(fd)
    except OSError as error:
        raise SpawnError("socket", error.errno, "cannot duplicate a socket") from error
    duplicates.callback(os.close, duplicate)
    return duplicate
