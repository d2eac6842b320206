"""The daemon's lifetime: one run_dir locked, everything wired, signals heard, everything released.

What may fail here is sorted: *critical* (the daemon does not begin, DaemonError says why), *degraded* (it goes on
without, and says by name what is lost), *transient* (retried with backoff by whoever owns it).
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import anyio
import anyio.to_thread

from supervisord_async import __version__
from supervisord_async.config.load import Loaded, load
from supervisord_async.config.model import Configuration
from supervisord_async.core.record import Record
from supervisord_async.errors import ConfigError, DaemonError
from supervisord_async.logs.journal import Journal
from supervisord_async.logs.writer import Writer
from supervisord_async.supervise.bus import Bus
from supervisord_async.supervise.launch import instance_of
from supervisord_async.supervise.machine_host import MachineHost
from supervisord_async.supervise.monitors.files import FileWatching
from supervisord_async.supervise.supervisor import Supervisor
from supervisord_async.supervise.surroundings import Surroundings
from supervisord_async.system import signals
from supervisord_async.system.lock import InstanceLock
from supervisord_async.system.orphans import become_subreaper, reap_orphans

if TYPE_CHECKING:
    from supervisord_async.supervise.history import History

_log = logging.getLogger("asupd")

HEARD = frozenset({signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2})
LEVELS = {
    "log_loss": logging.ERROR,
    "config_refused": logging.ERROR,
    "flapping": logging.WARNING,
    "watch": logging.WARNING,
    "supervision": logging.ERROR,
}
STATE_LEVELS = {"FATAL": logging.ERROR, "UNKNOWN": logging.ERROR, "BACKOFF": logging.WARNING}


class ControlPlane(Protocol):
    """What serves the API; made by the layer above."""

    async def __call__(self, supervisor: Supervisor, history: History | None, *, on_serving: Callable[[], None]) -> None:
        """Serve until cancelled; ``on_serving`` once the socket answers."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says beside the file."""

    file: str
    run_dir: str | None = None
    echo: Callable[[str, str, bytes], None] | None = None
    reopen_own_log: Callable[[], None] = lambda: None
    on_serving: Callable[[], None] = lambda: None


def loader(options: Options) -> Callable[[], Awaitable[Loaded]]:
    """Loads the file anew each time, off the loop."""

    def read() -> Loaded:
        return load(options.file, os.environ, run_dir=options.run_dir)

    async def run() -> Loaded:
        return await anyio.to_thread.run_sync(read)

    return run


async def serve(options: Options, configuration: Configuration, control: ControlPlane) -> int:
    """Supervise until told to stop; returns the exit code. Raises LockHeldError, DaemonError: then nothing was touched."""
    daemon = configuration.daemon
    make_run_dir(daemon.run_dir)
    async with AsyncExitStack() as stack:
        stack.enter_context(InstanceLock(os.path.join(daemon.run_dir, "asupd.lock")))
        _prepare_process()
        history = await _open_history(configuration)
        bus = Bus(last_id=history.last_id if history is not None else 0)
        bus.listen(_log_record)
        null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        stack.callback(os.close, null_fd)
        writer = Writer()
        files = FileWatching(bus)
        journal = Journal.open(os.path.join(daemon.run_dir, "output.journal"))

        def surroundings(supervisor: Supervisor) -> Surroundings:
            return Surroundings(
                daemon=daemon,
                instance=instance_of(daemon.run_dir),
                host=MachineHost(),
                bus=bus,
                files=files,
                writer=writer,
                null_fd=null_fd,
                journal=journal,
                committed=lambda process: None,
                shut_down=lambda why: supervisor.request_shutdown(exit_code=1, why=why),
                echo=options.echo,
            )

        supervisor = Supervisor(configuration, loader(options), surroundings)
        async with anyio.create_task_group() as tasks:
            if history is not None:
                tasks.start_soon(history.run, bus, name="history")
            tasks.start_soon(_heed_signals, supervisor, options, name="signals")
            tasks.start_soon(reap_orphans, name="orphans")
            tasks.start_soon(_serve_control, control, supervisor, history, options, name="control")
            message = f"asupd {__version__} started, pid {os.getpid()}, {len(configuration.programs)} programs, run_dir {daemon.run_dir}"
            bus.publish("daemon", message=message, data={"what": "started", "pid": os.getpid()})
            code = await supervisor.run()
            bus.publish("daemon", message=f"everything is down; ending with {code}", data={"what": "stopped"})
            bus.close()
            if history is not None:
                await history.aclose()
            tasks.cancel_scope.cancel()
        await writer.aclose()
        if journal is not None:
            journal.close()
        return code


def make_run_dir(path: str) -> None:
    """The run_dir exists; raises DaemonError where it cannot be made or used."""
    try:
        os.makedirs(path, mode=0o755, exist_ok=True)
    except OSError as error:
        raise DaemonError(f"cannot make the run_dir {path}: {error.strerror} (set daemon.run_dir, or pass --run-dir)") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise DaemonError(f"cannot write in the run_dir {path}: permission denied (set daemon.run_dir, or pass --run-dir)")


def _prepare_process() -> None:
    try:
        become_subreaper()
    except OSError as error:
        _log.warning("degraded: no subreaper (%s); what programs double-fork away is found by its environment only", error.strerror)


async def _open_history(configuration: Configuration) -> History | None:
    from supervisord_async.supervise.history import History  # noqa: PLC0415  sqlite3 is not needed to say --help

    try:
        return await History.open(configuration.daemon)
    except Exception as error:
        _log.warning("degraded: no history (%s); records live only as long as the daemon", error, exc_info=True)
        return None


async def _serve_control(control: ControlPlane, supervisor: Supervisor, history: History | None, options: Options) -> None:
    try:
        await control(supervisor, history, on_serving=options.on_serving)
    except Exception:
        _log.exception("degraded: no control socket; signals still work")


async def _heed_signals(supervisor: Supervisor, options: Options) -> None:
    async with signals.receive(HEARD) as received:
        async with anyio.create_task_group() as tasks:
            async for signum in received:
                match signum:
                    case signal.SIGHUP:
                        tasks.start_soon(_reload, supervisor)
                    case signal.SIGUSR1:
                        options.reopen_own_log()
                        supervisor.reopen_logs()
                    case signal.SIGUSR2:
                        supervisor.request_reexec()
                    case _:
                        supervisor.request_shutdown(why=signals.name(signum))


async def _reload(supervisor: Supervisor) -> None:
    try:
        await supervisor.reload()
    except ConfigError as error:
        for problem in error.problems:
            _log.error("%s", problem)
    except Exception:
        _log.exception("cannot reload; everything stays as it was")


def _log_record(record: Record) -> None:
    """The daemon's log is a function of the records."""
    level = STATE_LEVELS.get(record.to or "", logging.INFO) if record.type == "state" else LEVELS.get(record.type, logging.INFO)
    if _log.isEnabledFor(level):
        transition = f"{record.from_} → {record.to}: " if record.type == "state" else ""
        _log.log(level, "%s%s", transition, record.message, extra={"process": record.name, "record": record})


def started_seconds_ago(supervisor: Supervisor) -> float:
    """The daemon's age, for people."""
    return time.time() - supervisor.started_at
