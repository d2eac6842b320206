"""How the runs of one process begin, and what is reached again of one that outlived its daemon."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import anyio

from supervisord_async.config.model import Program
from supervisord_async.core.inputs import Input
from supervisord_async.core.state import Cause, Snapshot
from supervisord_async.errors import SpawnError
from supervisord_async.supervise.host import ChildProcess, Signature
from supervisord_async.supervise.monitors.context import RunContext
from supervisord_async.supervise.runs.equipment import equip
from supervisord_async.supervise.runs.hooks import Hooks
from supervisord_async.supervise.runs.launch import RunEnvironment, executable_of, prepare_heartbeat_file, spawn_spec
from supervisord_async.supervise.runs.output import Output
from supervisord_async.supervise.senses.logsearch import LogSearch
from supervisord_async.supervise.senses.notify import Voice
from supervisord_async.supervise.surroundings import Surroundings
from supervisord_async.system.child import Ended
from supervisord_async.system.credentials import Credentials

_log = logging.getLogger(__name__)


class Launcher:
    """Begins the runs of one process, one at a time.

    Arguments:
        post: where the monitors of a run put what they find.
        snapshot: the present one of the process.
    """

    __slots__ = ("_around", "_name", "_output", "_post", "_preparing", "_replica", "_snapshot")

    def __init__(
        self,
        name: str,
        replica: int,
        output: Output,
        around: Surroundings,
        *,
        post: Callable[[Input], None],
        snapshot: Callable[[], Snapshot],
    ) -> None:
        self._name = name
        self._replica = replica
        self._output = output
        self._around = around
        self._post = post
        self._snapshot = snapshot
        self._preparing: anyio.CancelScope | None = None

    async def begin(self, program: Program, run: int, voice: Voice | None) -> RunContext | None:
        """The main process of ``run`` executes its command, and nothing watches yet; ``voice`` is heard, if there is one.

        None, and nothing was begun: it was given up. Raises SpawnError, its stage telling what could not be had.
        """
        if _is_plain(program) and self._around.host.has_answered(executable_of(program)):
            environment, baseline = self._environment(program, run, None), None
        else:
            with anyio.CancelScope() as preparing:
                self._preparing = preparing
                try:
                    environment, baseline = await self._prepare(program, run)
                finally:
                    self._preparing = None
            if preparing.cancelled_caught:
                return None
        searches = self._output.search(program.log_patterns())
        stdout, stderr = self._output.open(program.logs, environment.credentials)
        self._output.run_started(run)
        spec = spawn_spec(program, environment.variables(), environment.credentials, stdout, stderr, stdin=self._around.null_fd)
        spec = await equip(spec, program, voice, self._around)
        child = await self._around.host.spawn(spec)
        return self._context(child, environment, voice, searches, baseline)

    async def _prepare(self, program: Program, run: int) -> tuple[RunEnvironment, Signature]:
        """All that may take long has been done: names are looked up, the hook has run, disks have answered. Raises SpawnError.

        With the signature of the file that must change.
        """
        host = self._around.host
        await host.wait_executable(executable_of(program))  # and with it the run_dir, in which much is prepared
        credentials = await self.credentials(program)
        self._output.run_started(run)
        environment = self._environment(program, run, credentials)
        heartbeat_file, baseline = environment.heartbeat_file, None
        if program.heartbeat is not None and heartbeat_file is not None:
            prepare_heartbeat_file(environment)
            baseline = await self._baseline(heartbeat_file)
        if program.hooks.before_start is not None:
            await self._before_start(environment, credentials)
        await host.wait_executable(executable_of(program))
        return environment, baseline

    async def _baseline(self, heartbeat_file: str) -> Signature:
        """What the first beat will differ from. Raises SpawnError: its disk hangs."""
        try:
            return await self._around.host.signature(heartbeat_file)
        except TimeoutError as error:
            raise SpawnError("heartbeat", None, str(error)) from None

    async def resume(self, program: Program, run: int, child: ChildProcess, voice: Voice | None) -> RunContext:
        """The context of ``run``, which an earlier daemon spawned and which lives on in ``child``; what cannot be had of it is reported."""
        environment = self._environment(program, run, None)
        try:
            environment = self._environment(program, run, await self.credentials(program))  # its user may be gone, and it lives
            prepare_heartbeat_file(environment)
            if voice is not None:
                voice.open(program, environment.credentials)
        except SpawnError as error:
            _log.warning("%s: its run goes on, but %s", self._name, error)
        return self._context(child, environment, voice, self._output.searches, None)

    async def after_exit(self, context: RunContext, ended: Ended, cause: Cause) -> None:
        """The hook has ended. What it cannot have (its user, a pipe) is reported, and does not hold the run up."""
        program = context.program
        try:
            credentials = await self.credentials(program)
            log, _ = self._output.open(program.logs, credentials)
        except SpawnError as error:
            _log.warning("%s: cannot run after_exit: %s", self._name, error)
            return
        await Hooks(self._name, self._around.host).after_exit(
            program, context.environment, credentials, log, status=ended.status, cause=cause, pid=context.child.pid
        )

    def give_up(self) -> None:
        """A start that still waits, for its hook or for a disk, begins nothing."""
        if self._preparing is not None:
            self._preparing.cancel()

    async def credentials(self, program: Program) -> Credentials | None:
        """Whom it runs as; None: as the daemon. Raises SpawnError for an unknown user."""
        if program.user is None and program.group_name is None:
            return None
        return await self._around.host.credentials(program.user, program.group_name)

    async def _before_start(self, environment: RunEnvironment, credentials: Credentials | None) -> None:
        """The hook has succeeded and its output is in the log; raises SpawnError."""
        program = environment.program
        self._output.search(())  # what a probe looks for, the program itself must say
        log, _ = self._output.open(program.logs, credentials)
        await Hooks(self._name, self._around.host).before_start(program, environment, credentials, log)
        await self._output.drain()

    def _environment(self, program: Program, run: int, credentials: Credentials | None) -> RunEnvironment:
        around = self._around
        return RunEnvironment(program, self._name, self._replica, run, around.daemon, around.instance, credentials)

    def _context(
        self,
        child: ChildProcess,
        environment: RunEnvironment,
        voice: Voice | None,
        searches: Mapping[str, LogSearch],
        baseline: Signature,
    ) -> RunContext:
        host = self._around.host
        return RunContext(
            name=self._name,
            run=environment.run,
            program=environment.program,
            host=host,
            child=child,
            tree=host.tree(child, environment.tag),
            post=self._post,
            snapshot=self._snapshot,
            environment=environment,
            null_fd=self._around.null_fd,
            output=self._output,
            heartbeat_file=environment.heartbeat_file,
            heartbeat_baseline=baseline,
            voice=voice,
            searches=searches,
        )


def _is_plain(program: Program) -> bool:
    """Whether all there is to wait for is the disk that it is on."""
    return program.user is None and program.group_name is None and program.heartbeat is None and program.hooks.before_start is None
