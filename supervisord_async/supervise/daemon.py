"""The daemon's lifetime: it locks the run_dir, wires all parts, handles signals, and releases everything in the end.

Failures here are of three kinds: *critical* (the daemon does not start, DaemonError says why), *degraded* (it goes on
without something, and names what is lost), *transient* (the part concerned retries with a backoff).
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

import anyio

from supervisord_async import __version__
from supervisord_async.config.model import Configuration, Program
from supervisord_async.daemon_registry import LOCK_NAME
from supervisord_async.errors import CommandError, ConfigError, DaemonError
from supervisord_async.logs.journal import Journal
from supervisord_async.logs.writer import Writer
from supervisord_async.supervise import optional_modules, service_manager
from supervisord_async.supervise.control_plane import ControlPlane, Listeners, MakeControl
from supervisord_async.supervise.fleet.sockets import SocketRegistry
from supervisord_async.supervise.keep_running import keep_running
from supervisord_async.supervise.loading import loader
from supervisord_async.supervise.machine_host import MachineHost
from supervisord_async.supervise.options import Options
from supervisord_async.supervise.records.bus import Bus
from supervisord_async.supervise.records.log_lines import log_record
from supervisord_async.supervise.records.on_event import EventHooks
from supervisord_async.supervise.recovery import ending, persist, takeover
from supervisord_async.supervise.recovery.guardian_process import GuardianProcess
from supervisord_async.supervise.recovery.persist import SavedState, Saver
from supervisord_async.supervise.recovery.reexec import Replacement
from supervisord_async.supervise.recovery.takeover import Inherited, holders, reconcile
from supervisord_async.supervise.retry import retry_on_shortage
from supervisord_async.supervise.run_cgroups import RunCgroups
from supervisord_async.supervise.run_dir import make_run_dir, set_aside_false_socket
from supervisord_async.supervise.run_dir_repair import RunDirRepair
from supervisord_async.supervise.runs import run_spec
from supervisord_async.supervise.runs.output import STREAMS
from supervisord_async.supervise.service_manager import ServiceStatus
from supervisord_async.supervise.shared_context import SharedContext
from supervisord_async.supervise.sources.filewatch.watching import FileWatching
from supervisord_async.supervise.supervisor import Supervisor
from supervisord_async.supervise.written_paths import WrittenPaths
from supervisord_async.system import descriptors, identity, orphans, signals, tags
from supervisord_async.system.identity import Identity
from supervisord_async.system.lock import InstanceLock
from supervisord_async.system.shortage import is_shortage
from supervisord_async.system.stop_signals import ECHO_SECONDS, STOPS
from supervisord_async.system.threads import in_thread
from supervisord_async.wire import NO_CONTROL_SOCKET
from supervisord_async.words import counted

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from supervisord_async.supervise.records.history import History

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_log = logging.getLogger("asupd")

HEARD = STOPS | {signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
#: By then every program has its captures, so output that a former daemon left unfinished without one belongs to a program that is gone.
SWEEP_AFTER_SECONDS = 5.0
#: The pause before a control socket that could not be made is tried again.
CONTROL_RETRY_SECONDS = 5.0
#: How long commands of ``on_event`` that still run may take when the daemon ends.
QUIET_SECONDS = 2.0


async def serve(options: Options, configuration: Configuration, make_control: MakeControl, former: SavedState | None = None) -> int:
    """Supervise until asked to stop; returns the exit code.

    ``former`` is the state of this process before a re-exec; after one the daemon goes on even if the run_dir cannot be used.
    Raises LockHeldError and DaemonError, before anything of another daemon is touched.
    """
    run_dir = configuration.daemon.run_dir
    try:
        trouble = make_run_dir(run_dir)
    except DaemonError as error:
        if former is None:
            raise
        trouble = str(error)
    if trouble:
        _log.error("degraded: no run_dir: %s", trouble)
    lock = InstanceLock(os.path.join(run_dir, LOCK_NAME))
    if former is not None and former.descriptors.get("lock"):
        lock.inherit(former.descriptors["lock"][0])
    else:
        lock.acquire()
    _become_parent_of_orphans()
    set_aside_false_socket(configuration.daemon.socket, run_dir)
    try:
        async with orphans.reaping():
            return await Daemon(options, configuration, lock).run(make_control, former)
    finally:
        lock.release()


class Daemon:
    """The parts of one daemon, and how they are connected."""

    def __init__(self, options: Options, configuration: Configuration, lock: InstanceLock) -> None:
        self._options = options
        self._configuration = configuration
        self._lock = lock
        self._file = os.path.realpath(options.file)
        self._run_dir = configuration.daemon.run_dir
        self._instance = run_spec.instance_of(self._run_dir)
        self._writer = Writer()
        self._journal = Journal.open(os.path.join(self._run_dir, "output"))
        self._sockets = SocketRegistry()
        self._run_cgroups = RunCgroups(self._instance)
        self._host = MachineHost(self._run_cgroups)
        self._bus = Bus(starting=self._host.starting)
        self._files = FileWatching(self._bus)
        self._null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._listeners: Listeners | None = None  # None while the API is not served
        self._history: History | None = None  # None where no history can be kept
        self._guardian = GuardianProcess(self._instance, lock.path, self._null_fd)
        self._guardian.follow(configuration.daemon.on_death)
        self._saver = Saver(self._run_dir, self.state)
        self._run_dir_repair = RunDirRepair(
            lock,
            configuration.daemon.socket,
            os.path.join(self._run_dir, persist.FILE_NAME),
            renew_socket=self._renew_socket,
            save_anew=self._saver.changed,
            polls=configuration.daemon.http_tls is not None,  # its certificate may be renewed
        )
        self._event_hooks = EventHooks(
            lambda: self._supervisor.configuration, self._program_of, MachineHost(), instance=self._instance, null_fd=self._null_fd
        )
        self._supervisor = Supervisor(
            configuration, loader(options, self._run_dir), self._shared_context, lambda: self._replacement.prepare(), self._follow_settings
        )
        self._replacement = Replacement(
            self._supervisor,
            self._bus,
            self._guardian,
            lock,
            state=self.state,
            listeners=lambda: self._listeners,
            history=lambda: self._history,
            heard=HEARD,
        )

    def _shared_context(self, supervisor: Supervisor) -> SharedContext:
        return SharedContext(
            daemon=self._configuration.daemon,
            instance=self._instance,
            host=self._host,
            bus=self._bus,
            files=self._files,
            writer=self._writer,
            journal=self._journal,
            null_fd=self._null_fd,
            committed=self._saver.changed,
            remembered=self._saver.caught_up,
            sockets=self._sockets,
            waits_for=lambda program: supervisor.dependencies.waits_for(program),
            spawned=lambda program: supervisor.dependencies.release(program),
            roll=lambda name, request: supervisor.restarts.roll(name, request),
            written_paths=WrittenPaths(lambda: supervisor.configuration),
            shut_down=lambda why: supervisor.request_shutdown(exit_code=1, why=why),
            echo=self._options.echo,
        )

    def _program_of(self, name: str) -> Program | None:
        process = self._supervisor.processes.get(name)
        return process.program if process is not None else None

    def state(self) -> SavedState:
        """Everything that the next daemon needs, as it is now."""
        return SavedState(
            boot_id=identity.boot_id(),
            instance=self._instance,
            file=self._file,
            run_dir=self._run_dir,
            last_record_id=self._bus.last_id,
            processes=tuple(process.saved() for process in self._supervisor.processes.values()),
            sockets=self._sockets.saved(),
            scaled=dict(self._supervisor.scaled),
            stopping=self._supervisor.stops.unfinished,
            rolls=self._supervisor.rolling.unfinished,
            watched_until_ns=self._files.caught_up_ns(),
            stop_settings=persist.stop_settings(self._supervisor.configuration.programs.values()),
        )

    async def run(self, make_control: MakeControl, former: SavedState | None) -> int:
        """Take over what an earlier daemon left, supervise, and stop everything; returns the exit code."""
        self._host.look_ahead(run_spec.executable_of(program) for program in self._configuration.programs.values() if program.autostart)
        inherited = await self._take_over(former)
        async with self._keep_history(former, inherited), anyio.create_task_group() as tasks:
            self._begin(tasks, make_control(self._supervisor, self._history), former)
            self._publish_start(inherited, by_reexec=former is not None)
            self._stop_if_told()  # then nothing is started, and what lives is stopped
            code = await self._supervisor.run(inherited)
            await self._event_hooks.drain(QUIET_SECONDS)
            left = self._supervisor.still_up
            outcome = f"could not end {', '.join(left)}" if left else "everything is down"
            self._bus.publish("daemon", message=f"{outcome}; ending with {code}", data={"what": "stopped"})
            self._bus.close()
            await self._writer.aclose()
            await self._run_cgroups.close()
            tasks.cancel_scope.cancel()
        await in_thread(persist.forget, self._run_dir)
        os.close(self._null_fd)
        return code

    def _begin(self, tasks: TaskGroup, control: ControlPlane, former: SavedState | None) -> None:
        """The daemon's own tasks have begun, in ``tasks``."""
        self._bus.listen(log_record)
        self._bus.listen(self._event_hooks.on_record)
        tasks.start_soon(self._handle_signals_until_exit, name="signals")
        if former is not None:
            self._saver.changed()  # the last changes before the re-exec were handed over in memory, and are in no file yet
        tasks.start_soon(keep_running, "saving the state", self._saver.run, name="state")
        if self._journal.unfinished:
            tasks.start_soon(keep_running, "finishing old logs", self._sweep_journal, name="journal")
        tasks.start_soon(keep_running, "keeping the guardian", self._guardian.run, name="guardian")
        tasks.start_soon(self._writer.run, name="logs")
        tasks.start_soon(keep_running, "serving the API", partial(self._keep_control, control, former), name="control")
        self._bus.listen(self._run_dir_repair.on_record)
        tasks.start_soon(keep_running, "looking after the run_dir", self._run_dir_repair.run, name="run_dir")
        tasks.start_soon(keep_running, "removing cgroups", self._run_cgroups.run, name="cgroups")
        tasks.start_soon(keep_running, "re-executing", self._replacement.run, name="re-exec")
        tasks.start_soon(keep_running, "running on_event", self._event_hooks.run, name="on_event")
        tasks.start_soon(keep_running, "the watchdog's beat", service_manager.beat, name="watchdog")
        service_status = ServiceStatus(self._supervisor)
        self._bus.listen(service_status.on_record)
        tasks.start_soon(keep_running, "telling the service manager", service_status.run, name="service status")

    def _publish_start(self, inherited: dict[str, Inherited], *, by_reexec: bool) -> None:
        """Publish which daemon started, where, and what it found alive; log what this machine lacks."""
        alive = sum(slot.main is not None for slot in inherited.values())
        adopted = f", {counted(alive, 'run')} found alive" if inherited else ""
        who = f"asupd {__version__} {'re-executed' if by_reexec else 'started'}, pid {os.getpid()}"
        message = f"{who}, {counted(len(self._configuration.programs), 'program')}, run_dir {self._run_dir}{adopted}"
        self._bus.publish("daemon", message=message, data={"what": "reexec" if by_reexec else "started", "pid": os.getpid()})
        optional_modules.report_missing(no_cgroups=self._run_cgroups.missing)

    async def _take_over(self, former: SavedState | None) -> dict[str, Inherited]:
        """What an earlier daemon of this run_dir, or this one before a re-exec, left behind, by process name."""
        saved, ended = former, False
        if saved is None:
            saved, complaints = await _patiently(persist.load, self._run_dir)
            for complaint in complaints:
                _log.warning("degraded: %s; living programs are found by their environment", complaint)
            if ended := ending.is_begun(self._run_dir):
                saved = await _patiently(takeover.take_note_of_ending, self._run_dir, saved)
        if saved is not None:
            self._bus.resume(saved.last_record_id, saved.recent)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._run_cgroups.open, name="cgroups")  # concurrently, as it mostly waits for the kernel
            marked = await _patiently(tags.marked, self._instance)
            if saved is not None and saved.instance != self._instance:  # the run_dir was moved: living tags have the former path's digest
                marked += await _patiently(tags.marked, saved.instance)
        living = await self._without_side_commands(await _patiently(tags.completed, marked, self._run_cgroups.known))
        living = await takeover.without_impostors(living, self._configuration.programs, self._host.credentials)
        inherited = reconcile(saved, living, identity.boot_id(), by_reexec=former is not None)
        if ended:
            inherited = takeover.finish_ending(inherited, time.monotonic())
        await self._move_into_cgroups(inherited, living)
        if saved is not None and identity.is_same_boot(saved.boot_id, identity.boot_id()):
            # like other requests of an operator, scaling lasts until a reboot
            self._supervisor.keep_scaled(saved.scaled)
            self._supervisor.stops.inherit(saved.stopping)
            self._supervisor.rolling.inherit(saved.rolls)
            self._sockets.inherit(saved.sockets, holders(inherited), by_reexec=former is not None)
        await self._sockets.find(self._configuration.programs.values(), holders(inherited))
        return inherited

    async def _move_into_cgroups(self, inherited: dict[str, Inherited], living: list[tags.Tagged]) -> None:
        """Runs that an earlier daemon started without a cgroup are moved into one each, unless their ``stop.scope`` is ``main``."""
        unconfined: dict[str, list[Identity]] = {}
        for name, slot in inherited.items():
            program = self._configuration.programs.get(name.partition(":")[0])
            tag = run_spec.tag_of(self._instance, name, slot.snapshot.run)
            if slot.main is None or program is None or not program.stop.ends_all or self._run_cgroups.of(tag) is not None:
                continue
            unconfined[tag] = [slot.main, *(each.identity for each in living if (each.name, each.run) == (name, slot.snapshot.run))]
        await self._run_cgroups.take_in(unconfined)

    async def _without_side_commands(self, living: list[tags.Tagged]) -> list[tags.Tagged]:
        """``living`` without the probes and hooks that a former daemon started: these are killed, as nothing waits for their results."""
        for name, run in {(process.name, process.run) for process in living if run_spec.is_side(process.name)}:
            await self._host.kill_strays(run_spec.tag_of(self._instance, name, run))
        return [process for process in living if not run_spec.is_side(process.name)]

    @asynccontextmanager
    async def _keep_history(self, former: SavedState | None, inherited: dict[str, Inherited]) -> AsyncIterator[None]:
        """While in this context, records are written to the history, if one can be kept."""
        try:
            from supervisord_async.supervise.records.history import History
        except ImportError:
            yield  # optional_modules.py reports it at the start
            return
        limits = self._configuration.daemon.history
        history = History(
            os.path.join(self._run_dir, "history.db"), max_age_seconds=limits.max_age_seconds, max_size_bytes=limits.max_size_bytes
        )
        try:
            if former is not None:  # which has said what its last number was
                await history.open(former.unwritten)
            else:
                last_id = await history.open(left={name: slot.snapshot for name, slot in inherited.items()})
                self._bus.last_id = max(self._bus.last_id, last_id)
        except Exception as error:
            _log.warning("degraded: no history (%s); records live only as long as the daemon", error, exc_info=True)
            yield
            return
        self._history = history
        self._bus.listen(history.take)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_running, "writing the history", history.run, name="history")
            yield
            tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await history.aclose()

    async def _keep_control(self, control: ControlPlane, former: SavedState | None) -> None:
        """Serve the API, and retry for ever when that fails."""
        trouble = ""
        while True:
            trouble = await self._serve_control(control, former, trouble)
            await anyio.sleep(CONTROL_RETRY_SECONDS)
            former = None

    async def _serve_control(self, control: ControlPlane, former: SavedState | None, trouble: str) -> str:
        """Serve the API until that fails. Returns why it failed, and logs it unless it is the same ``trouble`` as last time."""

        def serving(listeners: Listeners) -> None:
            if trouble:
                _log.info("the control socket is there now")
            self._listeners = listeners
            descriptors.sd_notify(f"READY=1\nMAINPID={os.getpid()}")

        inherited = former.descriptors.pop("listening", []) if former is not None else []
        try:
            await control.serve(inherited=inherited, on_serving=serving)
        except Exception as error:
            if str(error) != trouble:
                expected = isinstance(error, DaemonError) or is_shortage(error)
                _log.error("%s%s", NO_CONTROL_SOCKET, error, exc_info=None if expected else error)
                descriptors.sd_notify(f"READY=1\nSTATUS=no control socket\nMAINPID={os.getpid()}")  # the programs run, so the service is up
            return str(error)
        finally:
            self._listeners = None
        return ""

    async def _renew_socket(self) -> None:
        if self._listeners is not None:
            await self._listeners.renew()

    def _follow_settings(self, configuration: Configuration) -> None:
        """Those of the daemon's own settings that a reload can change apply from now on."""
        self._options.follow_log_settings(configuration.daemon.log)
        self._guardian.follow(configuration.daemon.on_death)
        if self._history is not None:
            limits = configuration.daemon.history
            self._history.limit(max_age_seconds=limits.max_age_seconds, max_size_bytes=limits.max_size_bytes)

    async def _sweep_journal(self) -> None:
        """Finish writing the output that a former daemon had captured of programs that are gone."""
        await anyio.sleep(SWEEP_AFTER_SECONDS)
        await self._journal.sweep([(name, stream) for name in self._supervisor.processes for stream in STREAMS])

    # Signals

    def _stop_if_told(self) -> None:
        """A stop signal that came before there was a handler shuts the daemon down."""
        if self._options.told_to_stop and not self._supervisor.shutting_down:
            self._supervisor.request_shutdown(why=signals.name(self._options.told_to_stop[0]))

    async def _handle_signals_until_exit(self) -> None:
        try:
            await self._handle_signals()
        finally:
            for number in HEARD:  # so that a late signal does not kill a daemon that is ending cleanly
                signal.signal(number, signal.SIG_IGN)

    async def _handle_signals(self) -> None:
        async with signals.receive(HEARD) as received, anyio.create_task_group() as tasks:
            self._stop_if_told()  # one may have come since that was asked last
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)  # they were blocked during the re-exec, or since the start
            told: tuple[int, float] | None = None
            async for signum in received:
                match signum:
                    case signal.SIGHUP:
                        tasks.start_soon(self._reload)
                    case signal.SIGUSR1:
                        self._options.reopen_own_log()
                        self._supervisor.reopen_logs()
                    case signal.SIGUSR2:
                        tasks.start_soon(self._ask_for_reexec)
                    case _:
                        now = anyio.current_time()
                        if told is None or signum != told[0] or now - told[1] > ECHO_SECONDS:
                            self._supervisor.request_shutdown(why=signals.name(signum))
                        told = told or (signum, now)

    async def _reload(self) -> None:
        try:
            await self._supervisor.reload()
        except ConfigError as error:
            for problem in error.problems:
                _log.error("%s", problem)
        except OSError as error:
            _log.error("cannot reload: %s; everything stays as it was", error)
        except Exception:
            _log.exception("cannot reload; everything stays as it was")

    async def _ask_for_reexec(self) -> None:
        try:
            await self._supervisor.reexec()
        except CommandError as error:
            self._bus.publish("daemon", message=str(error), data={"what": "reexec_refused"})
        except Exception:
            _log.exception("cannot re-exec; this code stays in service")


async def _patiently(function: Callable[[*Ts], T], *arguments: *Ts) -> T:
    """What ``function`` returns, called in a thread; a takeover depends on it, so this waits while no thread can be started."""
    return await retry_on_shortage("take over what lives", lambda: in_thread(function, *arguments))


def _become_parent_of_orphans() -> None:
    try:
        orphans.become_subreaper()
    except OSError as error:
        _log.warning(
            "degraded: no subreaper (%s); what programs double-fork away is found by its session and environment only", error.strerror
        )
