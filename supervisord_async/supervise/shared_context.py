"""What all processes of one daemon share, handed to each of them, so that no process needs to know the supervisor."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from supervisord_async.config.model import Daemon, Program
from supervisord_async.core.inputs import RestartRequested
from supervisord_async.logs.journal import Journal
from supervisord_async.logs.writer import Writer
from supervisord_async.supervise.fleet.sockets import SocketRegistry
from supervisord_async.supervise.host import Host
from supervisord_async.supervise.records.bus import Bus
from supervisord_async.supervise.sources.filewatch.watching import FileWatching


class SharedContext(msgspec.Struct, frozen=True):
    """The shared parts of one daemon."""

    daemon: Daemon
    instance: str  #: the prefix of the tags of this daemon's children
    host: Host
    bus: Bus
    files: FileWatching
    writer: Writer
    null_fd: int  #: /dev/null, open for writing
    journal: Journal
    committed: Callable[[], None]  #: called after each change that the next daemon has to know, above all of a snapshot; must not block
    waits_for: Callable[[Program], str]  #: which dependencies of a program are not met, in words
    shut_down: Callable[[str], None]  #: ends the daemon, as a program's restart limit demands
    remembered: Callable[[], Awaitable[None]]  #: waits until all that was committed so far is saved, or cannot be soon
    roll: Callable[[str, RestartRequested], bool] = lambda *_: False  #: True: a rolling restart takes care of the process's request
    sockets: SocketRegistry = msgspec.field(default_factory=SocketRegistry)
    written_paths: Callable[[], tuple[str, ...]] = tuple  #: run_dir, logs and heartbeat files: writes to them do not count as file changes
    spawned: Callable[[str], None] = lambda _program: None  #: called when a run of a program gets its process: there is no record of that
    echo: Callable[[str, str, bytes], None] | None = None  #: is given process name, stream and bytes
