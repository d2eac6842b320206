"""What all processes of one daemon share, handed to each; no process knows the supervisor."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from supervisord_async.config.model import Daemon
from supervisord_async.core.inputs import RestartRequested
from supervisord_async.logs.journal import Journal
from supervisord_async.logs.writer import Writer
from supervisord_async.supervise.fleet.sockets import SocketRegistry
from supervisord_async.supervise.host import Host
from supervisord_async.supervise.records.bus import Bus
from supervisord_async.supervise.senses.filewatch.watching import FileWatching

if TYPE_CHECKING:
    from supervisord_async.supervise.process import Process


class Surroundings(msgspec.Struct, frozen=True):
    """One daemon's shared parts."""

    daemon: Daemon
    instance: str  #: what the tags of this daemon's children begin with
    host: Host
    bus: Bus
    files: FileWatching
    writer: Writer
    null_fd: int  #: /dev/null, open for writing
    journal: Journal
    committed: Callable[[Process], None]  #: called after each change of a snapshot; must not block
    waits_for: Callable[[Process], str]  #: whom a WAITING process waits for, in words
    shut_down: Callable[[str], None]  #: a program's limit ends the daemon
    remembered: Callable[[], Awaitable[None]]  #: what was committed until now is saved, or cannot be soon
    roll: Callable[[Process, RestartRequested], bool] = lambda *_: False  #: whether a rolling restart takes care of that one
    sockets: SocketRegistry = msgspec.field(default_factory=SocketRegistry)
    written_paths: Callable[[], tuple[str, ...]] = tuple  #: logs and heartbeats of all: what is written there is no change of a source
    spawned: Callable[[Process], None] = lambda _process: None  #: called when a run of it has a process, of which no record tells
    echo: Callable[[str, str, bytes], None] | None = None  #: process name, stream, bytes
