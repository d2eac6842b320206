"""The supervision of all processes of one daemon, from its start to its shutdown: it turns plans into ordinary inputs.

Decisions are left to the state machine: this posts inputs and listens to records. Requests to the daemon as a whole
(reload, shut down, reopen logs) arrive here too, by signal or through the API.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import anyio
from anyio.abc import TaskGroup
from msgspec.structs import replace

from supervisord_async.config.model import Configuration, Logs, Program
from supervisord_async.core.inputs import RestartRequested, StartRequested, StopRequested
from supervisord_async.core.record import Record
from supervisord_async.core.state import DOWN, Cause, Snapshot, State
from supervisord_async.errors import ConfigError, FailedError, NotFoundError, Problem
from supervisord_async.supervise.fleet.activation import Activation
from supervisord_async.supervise.fleet.dependencies import Dependencies
from supervisord_async.supervise.fleet.exit_when import exit_for
from supervisord_async.supervise.fleet.fleet import Fleet
from supervisord_async.supervise.fleet.removal import Removals
from supervisord_async.supervise.fleet.restarts import Restarts
from supervisord_async.supervise.fleet.rolling import Rolling
from supervisord_async.supervise.fleet.scaling import rescaled
from supervisord_async.supervise.fleet.selectors import not_found, select
from supervisord_async.supervise.fleet.shutdown import Shutdown
from supervisord_async.supervise.fleet.stopping import OrderlyStops
from supervisord_async.supervise.keep_running import keep_running
from supervisord_async.supervise.monitors.memory import MemoryWatch
from supervisord_async.supervise.monitors.schedule import ScheduleWatch
from supervisord_async.supervise.process import Process
from supervisord_async.supervise.records.bus import Bus
from supervisord_async.supervise.recovery.takeover import Inherited
from supervisord_async.supervise.shared_context import SharedContext
from supervisord_async.words import counted

if TYPE_CHECKING:
    from supervisord_async.config.diff import Plan
    from supervisord_async.config.load import Loaded

_log = logging.getLogger(__name__)

#: How many warnings about a file become records at a reload; the answer to the request has all of them.
WARNINGS = 20
#: How many changes the message of a reload names; its data, and the answer to the request, have all of them.
CHANGES = 20
#: How often environment files are tried again that could not be read when the daemon started.
READ_AGAIN_SECONDS = 10.0
Loader = Callable[..., Awaitable["Loaded"]]  #: takes ``starting``, as :func:`.load.load`


class Supervisor:
    """Supervises the processes of one daemon."""

    def __init__(
        self,
        configuration: Configuration,
        load: Loader,
        shared_context: Callable[[Supervisor], SharedContext],
        reexec: Callable[[], Awaitable[None]],
        follow_settings: Callable[[Configuration], None] = lambda configuration: None,
    ) -> None:
        self._fleet = Fleet(configuration)
        self.refused: tuple[Problem, ...] = ()
        self.scaled: Mapping[str, int] = {}  #: programs that were scaled, with their present number of processes
        self.started_at = time.time()
        self._since = time.monotonic()
        self.exit_code = 0
        self.dependencies = Dependencies(self._fleet)
        self._follow_settings = follow_settings  #: called when a reload changes the daemon's own settings
        self.reexec = reexec  #: replaces the daemon by the installed code; raises FailedError where that is impossible
        self._load = load
        self._shared = shared_context(self)
        self.rolling = Rolling(self.bus, self._fleet, self._shared.committed)
        self.restarts = Restarts(self._fleet, self.dependencies, self.rolling)
        self.removals = Removals(self._fleet, self._forget)
        self._started_when_back: set[str] = set()  #: names of processes being removed that are to be started once they are added again
        self.stops = OrderlyStops(self.bus, self._fleet, self.dependencies, self._shared.committed)
        self._schedules = ScheduleWatch(
            self.bus, lambda: self.processes.values(), configuration.daemon.run_dir, active=lambda: not self.shutting_down
        )
        self._activation = Activation(self._shared, self._fleet)
        self._reload_lock = anyio.Lock()
        self._reloads_asked = 0
        self._reloads_done = 0
        self._reload_outcome: Plan | ConfigError | None = None
        self._shutdown = Shutdown(self.bus, self._fleet, self.dependencies)

    @property
    def configuration(self) -> Configuration:
        """The configuration that is followed now."""
        return self._fleet.configuration

    @property
    def processes(self) -> dict[str, Process]:
        """All processes by name, in file order; those that are being removed come last."""
        return self._fleet.processes

    @property
    def bus(self) -> Bus:
        """The records of this daemon."""
        return self._shared.bus

    @property
    def uptime_seconds(self) -> float:
        """How long this daemon has been up, whatever was done to the wall clock meanwhile; a re-exec makes it 0."""
        return time.monotonic() - self._since

    async def remembered(self) -> None:
        """Return once all that was decided so far is saved, and so outlives the daemon; also if saving takes too long."""
        await self._shared.remembered()

    @property
    def still_up(self) -> tuple[str, ...]:
        """The names of processes that are not down; after :meth:`run` those that could not be ended."""
        return tuple(name for name, process in self.processes.items() if process.snapshot.state not in DOWN)

    @property
    def shutting_down(self) -> bool:
        """Whether the daemon was asked to end."""
        return self._fleet.shutting_down

    # Lifetime

    async def run(self, inherited: dict[str, Inherited] | None = None) -> int:
        """Supervise until a shutdown was requested and everything is down; returns the daemon's exit code.

        It is not 0 if something could not be ended.
        ``inherited`` is what an earlier daemon left, by process name: its processes are taken over, and those that the file
        no longer lists are stopped.
        """
        inherited = inherited or {}
        async with anyio.create_task_group() as tasks:
            try:
                self._begin(tasks, inherited)
                await self._fleet.shutdown_requested.wait()
                await self._shutdown.run(self.configuration.daemon.stop_timeout_seconds)
                await self._close_logs()
            finally:
                for process in self.processes.values():
                    process.dismiss()
            tasks.cancel_scope.cancel()
        for process in self.processes.values():
            process.close_notify_socket()
        self._shared.sockets.close()
        return self.exit_code or int(bool(self.still_up))

    def _begin(self, tasks: TaskGroup, inherited: dict[str, Inherited]) -> None:
        """All processes are supervised, those with ``autostart`` are asked to start, and the tasks that they share have begun."""
        self._fleet.open(tasks, self._shared)
        tasks.start_soon(keep_running, "file watching", self._shared.files.run, name="file watching")
        tasks.start_soon(keep_running, "measuring memory", MemoryWatch(self.bus, lambda: self.processes.values()).run, name="memory")
        tasks.start_soon(keep_running, "starting by schedule", self._schedules.run, name="schedules")
        tasks.start_soon(keep_running, "watching for connections", self._activation.run, name="connections")
        for program in self.configuration.programs.values():
            self._fleet.add(program, program.process_names(), inherited)
        self.bus.listen(self.dependencies.on_record)
        self.bus.listen(self.restarts.on_record)
        self.bus.listen(self._activation.on_record)
        self.bus.listen(self._consider_exit)
        self.bus.listen(self.removals.on_record)
        self._autostart(
            process for process in self.processes.values() if process.name not in inherited or inherited[process.name].begins_anew
        )
        self._remove_unlisted(inherited)
        self.rolling.resume()
        self.stops.resume()
        self.dependencies.reconsider()
        tasks.start_soon(keep_running, "reading environment files again", self._read_missing_files, name="environment files")

    def request_shutdown(self, *, exit_code: int = 0, why: str = "asked to", by: str = "") -> None:
        """Everything will be stopped, and the daemon end, as ``by`` ordered. A second request has what is left killed at once."""
        if self.shutting_down:
            self._shutdown.hasten()
            return
        self._fleet.shutdown_requested.set()
        self.exit_code = exit_code
        self.bus.publish("daemon", message=f"stopping everything ({why}{_by(by)})", data={"what": "stopping", **_given(by)})

    async def _close_logs(self) -> None:
        """All output is in the logs. Those whose disk is slow are closed concurrently, so that all take no longer than one."""
        async with anyio.create_task_group() as tasks:
            for process in self.processes.values():
                if process.output.settled:
                    await process.output.aclose()
                else:
                    tasks.start_soon(process.output.aclose)

    def _consider_exit(self, record: Record) -> None:
        """End the daemon if ``daemon.exit_when`` says so after ``record``, which :class:`Dependencies` has acted on before."""
        when = self.configuration.daemon.exit_when
        if when != "never" and not self.shutting_down:
            end = exit_for(when, record, self.processes.values(), self.dependencies.is_stuck)
            if end is not None:
                self._exit(*end)

    def _exit(self, code: int, why: str) -> None:
        """The daemon will end; not at once, so that every listener first gets the record that it ends for."""

        async def exit_() -> None:
            if not self.shutting_down:
                self.request_shutdown(exit_code=code, why=why)

        self._fleet.start_task(exit_, "exit_when")

    # Processes

    def _remove_unlisted(self, inherited: dict[str, Inherited]) -> None:
        """Processes of an earlier daemon that the file no longer lists are taken over in order to be stopped."""
        for name, slot in inherited.items():
            if name not in self.processes:
                owner = name.partition(":")[0]  # the program's real name: a reload that lists it again takes the process back
                program = Program(name=owner, command=("?",), group=owner, directory="/", logs=Logs(stdout="none"))
                self._fleet.add(program, [name], inherited)
                self.removals.begin(self.processes[name])
                _log.warning("%s: not in %s any more; stopping run %d", name, self.configuration.file, slot.snapshot.run)

    def _autostart(self, processes: Iterable[Process]) -> None:
        for process in processes:
            if process.program.autostart and not self.shutting_down:
                process.ask(StartRequested(Cause.AUTOSTART))

    def _forget(self, process: Process) -> None:
        """The process is removed; if the configuration lists it again by now, a new one is added in its place."""
        del self.processes[process.name]
        ordered = process.name in self._started_when_back
        self._started_when_back.discard(process.name)
        program = self.configuration.programs.get(process.program.name)
        if program is not None and process.name in program.process_names() and not self.shutting_down:
            returned = self._fleet.add(program, [process.name])  # a later reload or scale brought it back
            if process.snapshot.cause is Cause.OPERATOR:  # and an operator stopped it while it was going
                returned[0].ask(StopRequested(by=process.snapshot.by))
            elif program.autostart:
                self._autostart(returned)
            elif ordered:
                returned[0].ask(StartRequested())
            process.hand_over(returned[0])
            self._fleet.sort()
            self.dependencies.reconsider()

    def select(self, selectors: Sequence[str]) -> list[Process]:
        """The processes that ``selectors`` name, each once, in file order.

        Raises NotFoundError, with the nearest name, for one that selects nothing.
        """
        return select(selectors, self.processes.values(), self.configuration.programs)

    # Reload

    async def plan(self) -> Plan:
        """What a reload of the file on disk would do; raises ConfigError where the file is unsound."""
        return self._planned(await self._load())

    def _planned(self, loaded: Loaded) -> Plan:
        from supervisord_async.config.diff import diff

        return replace(diff(self.configuration, loaded.configuration, self._began_with), warnings=tuple(map(str, loaded.warnings)))

    async def reload(self, by: str = "") -> Plan:
        """Apply what has changed in the file on disk, as ``by`` ordered; returns what was done.

        Requests that come while a reload is under way share the next one. Raises ConfigError where the file is unsound:
        then nothing has changed but ``refused``.
        """
        self._reloads_asked += 1
        ticket = self._reloads_asked
        async with self._reload_lock:
            if self._reloads_done < ticket:
                asked = self._reloads_asked
                self._reload_outcome = await self._reload_once(by)
                self._reloads_done = asked  # only now: one that broke is nobody else's answer
        if isinstance(self._reload_outcome, ConfigError):
            raise ConfigError(self._reload_outcome.problems)
        assert self._reload_outcome is not None  # noqa: S101  set by this call, or by the one that served its ticket too
        return self._reload_outcome

    async def _reload_once(self, by: str) -> Plan | ConfigError:
        self._fleet.start_task(self._shared.host.prepare, "prepare spawns")  # while the file loads, which may lead to new processes
        try:
            loaded = await self._load()
        except ConfigError as error:
            self.refused = error.problems
            message = f"refused {self.configuration.file}: {counted(len(error.problems), 'problem')}; everything stays as it was"
            self.bus.publish(
                "config_refused", message=message, data={"problems": [str(problem) for problem in error.problems], **_given(by)}
            )
            return ConfigError(error.problems)  # without the traceback, which would keep all that was loaded until the next reload
        self.refused = ()
        plan = self._planned(loaded)
        for warning in plan.warnings[:WARNINGS]:
            self.bus.publish("config_warning", message=warning)
        if not self.shutting_down:
            self.scaled = {}
            self._apply(plan, loaded.configuration)
        changes = plan.describe()
        told = changes if len(changes) <= CHANGES else (*changes[:CHANGES], f"and {len(changes) - CHANGES} more")
        message = f"reloaded{_by(by)}: " + "; ".join(told)
        self.bus.publish("reload", message=message, data={"plan": plan.to_json(), **_given(by)})
        return plan

    def _began_with(self, program: Program) -> bool:
        """Whether all processes of ``program`` have runs that were started with those of its settings whose change needs a restart."""
        return all(process.began_with(program) for process in self.dependencies.members(program.name))

    async def _read_missing_files(self) -> None:
        """Until no program lacks an environment file: each that can be read by now is applied, and nothing else of the file on disk."""
        while any(program.unread for program in self.configuration.programs.values()):
            await anyio.sleep(READ_AGAIN_SECONDS)
            from supervisord_async.config.diff import completed, diff

            async with self._reload_lock:
                try:
                    configuration = completed(self.configuration, (await self._load(starting=True)).configuration)
                except ConfigError:  # the file is being edited; a reload will say what is wrong with it
                    continue
                plan = diff(self.configuration, configuration, self._began_with)
                if plan.changed and not self.shutting_down:
                    self._apply(plan, configuration)
                    names = ", ".join(change.program for change in plan.changed)
                    self.bus.publish("reload", message=f"environment files can be read now: {names}", data={"plan": plan.to_json()})

    def _apply(self, plan: Plan, configuration: Configuration) -> None:
        self._fleet.configuration = configuration
        if plan.daemon_in_place:
            self._follow_settings(configuration)
        programs = configuration.programs
        kept = {name for program in programs.values() for name in program.process_names()}
        for process in list(self.processes.values()):
            if process.name not in kept and process.name not in self.removals:
                self.removals.begin(process)
        self._change([process for name, process in self.processes.items() if name in kept and name not in self.removals], plan)
        now_autostarting = plan.started()
        idle = [process for process in self.processes.values() if process.program.name in now_autostarting and is_idle(process.snapshot)]
        added = []
        for program in programs.values():
            added += self._fleet.add(program, [name for name in program.process_names() if name not in self.processes])
        self._autostart([*idle, *added])  # after the restarts, so that a new program waits for the new run of a dependency
        self._fleet.sort()
        self.dependencies.reconsider()
        self._shared.sockets.retain(programs)
        self._activation.reconfigure()

    def _change(self, processes: Sequence[Process], plan: Plan) -> None:
        """``processes`` have their new settings, and are asked to restart where a change needs that.

        Dependencies are asked first: processes decide in that order, so no dependent takes a dependency's run that is about to
        end for the new one.
        """
        programs, restarted = self.configuration.programs, plan.restarted()
        asked: dict[RestartRequested, list[Process]] = {}
        changed = []
        for process in processes:
            program = programs[process.program.name]
            if process.program is not program and process.program != program:  # ``is``: an unchanged program mostly is the same object
                changed.append(process)
        for process in self.dependencies.in_start_order(changed):
            program = programs[process.program.name]
            process.reconfigure(program)
            if program.name in restarted:
                detail = "configuration changed: " + ", ".join(restarted[program.name])
                asked.setdefault(RestartRequested(Cause.CONFIG_CHANGED, detail), []).append(process)
        self.restarts.request(asked)

    def scale(self, name: str, replicas: int, by: str = "") -> tuple[list[Process], list[Process], bool]:
        """The program ``name`` has this many processes until the next reload, or until the daemon shuts down, as ``by`` ordered.

        Returns the added processes, the removed ones, and whether the added ones are started: they are if the program has
        ``autostart``, has a process that is wanted up, or had none at all. Raises NotFoundError, and FailedError where processes
        would share a file.
        """
        from supervisord_async.config.diff import diff

        program = self.configuration.programs.get(name)
        if program is None:
            one = self.processes.get(name)
            if one is not None:
                raise NotFoundError(f"{name!r} is one process of {one.program.name!r}: scale that")
            raise not_found(name, self.processes.values(), self.configuration.programs)
        before = {process.name: process for process in self.dependencies.members(name)}
        programs = self.configuration.programs | {name: rescaled(program, replicas)}
        configuration = replace(self.configuration, programs=programs)
        plan = diff(self.configuration, configuration)
        self._apply(plan, configuration)
        after = {process.name: process for process in self.dependencies.members(name)}
        added = [process for process in after.values() if process is not before.get(process.name)]
        starts = program.autostart or not before or any(process.snapshot.wanted for process in before.values())
        if starts and not program.autostart:
            for process in added:
                if process.name in self.removals:
                    self._started_when_back.add(process.name)
                else:
                    process.ask(StartRequested(by=by))
            self.dependencies.pull(added, by_operator=True)
        if plan.changed:
            self.scaled = {**self.scaled, name: replicas}
            message = f"{name}: scaled{_by(by)} from {program.replicas} to {replicas} until the next reload"
            self.bus.publish("scale", message=message, data={"program": name, "from": program.replicas, "to": replicas, **_given(by)})
        return added, [process for process in before.values() if process.name not in after], starts

    def keep_scaled(self, scaled: Mapping[str, int]) -> None:
        """Programs have the number of processes to which they were scaled under an earlier daemon; to be called before :meth:`run`."""
        for name, replicas in scaled.items():
            program = self.configuration.programs.get(name)
            if program is None:
                continue
            try:
                programs = self.configuration.programs | {name: rescaled(program, replicas)}
            except FailedError as error:  # the file was edited meanwhile
                _log.warning("%s", error)
                continue
            self._fleet.configuration = replace(self.configuration, programs=programs)
            self.scaled = {**self.scaled, name: replicas}

    # Logs

    def reopen_logs(self) -> None:
        """Every log is reopened: from now on it is written to the file that is now at its path."""
        for process in self.processes.values():
            process.output.reopen()


def _by(by: str) -> str:
    """Who gave an order, as a part of a sentence; empty if that is not known."""
    return f" by {by}" if by else ""


def _given(by: str) -> dict[str, str]:
    """The same as a member of a record's data."""
    return {"by": by} if by else {}


def is_idle(snapshot: Snapshot) -> bool:
    """Whether it is down because nothing has started it yet; neither because an operator stopped it, nor because it ended."""
    return snapshot.state is State.STOPPED and snapshot.cause is not Cause.OPERATOR
