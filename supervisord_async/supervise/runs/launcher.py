"""Starts the runs of one process, and reconnects to a run that outlived its daemon."""

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
from supervisord_async.supervise.runs.output import Output
from supervisord_async.supervise.runs.run_spec import RunEnvironment, executable_of, prepare_heartbeat_file, spawn_spec
from supervisord_async.supervise.shared_context import SharedContext
from supervisord_async.supervise.sources.logsearch import LogSearch
from supervisord_async.supervise.sources.notify import NotifySocket
from supervisord_async.system.child import Ended
from supervisord_async.system.credentials import Credentials
from supervisord_async.system.descriptors import room_for_a_run

_log = logging.getLogger(__name__)


class Launcher:
    """Starts the runs of one process, one at a time.

    Arguments:
        post: is called by a run's monitors with their inputs.
        snapshot: returns the process's current snapshot.
    """

    __slots__ = ("_name", "_output", "_post", "_preparing", "_replica", "_shared", "_snapshot")

    def __init__(
        self,
        name: str,
        replica: int,
        output: Output,
        shared: SharedContext,
        *,
        post: Callable[[Input], None],
        snapshot: Callable[[], Snapshot],
    ) -> None:
        self._name = name
        self._replica = replica
        self._output = output
        self._shared = shared
        self._post = post
        self._snapshot = snapshot
        self._preparing: anyio.CancelScope | None = None

    async def begin(self, program: Program, run: int, notify_socket: NotifySocket | None) -> RunContext | None:
        """Spawn ``run``: its main process executes the command, and is not watched yet. ``notify_socket``: None without ``notify``.

        Returns None, with nothing spawned, after :meth:`give_up`. Raises SpawnError, whose stage says what failed.
        """
        if program.unread:
            raise SpawnError("environment", None, f"{program.unread} (it is tried again every few seconds; asupctl reload tries at once)")
        if _is_plain(program) and self._shared.host.has_answered(executable_of(program)):
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
        with room_for_a_run():
            stdout, stderr = self._output.open(program.logs, environment.credentials)
            self._output.run_started(run)
            spec = spawn_spec(program, environment.variables(), environment.credentials, stdout, stderr, stdin=self._shared.null_fd)
            spec = await equip(spec, program, notify_socket, self._shared)
            child = await self._shared.host.spawn(spec)
        return self._context(child, environment, notify_socket, searches, baseline)

    async def _prepare(self, program: Program, run: int) -> tuple[RunEnvironment, Signature]:
        """Do all that may take long before a spawn: look up the user, run the hook, bind sockets, wait for disks. Raises SpawnError.

        Returns the run's environment and the signature of its heartbeat file, None without one.
        """
        host = self._shared.host
        await host.wait_executable(executable_of(program))  # this includes the run_dir, which is used below
        credentials = await self.credentials(program)
        self._output.run_started(run)
        environment = self._environment(program, run, credentials)
        heartbeat_file, baseline = environment.heartbeat_file, None
        if program.heartbeat is not None and heartbeat_file is not None:
            prepare_heartbeat_file(environment)
            baseline = await self._baseline(heartbeat_file)
        if program.hooks.before_start is not None:
            await self._before_start(environment, credentials)
        await self._shared.sockets.open(program, host)  # looks up names
        await host.wait_executable(executable_of(program))
        return environment, baseline

    async def _baseline(self, heartbeat_file: str) -> Signature:
        """The signature that the first heartbeat will change. Raises SpawnError if the disk hangs."""
        try:
            return await self._shared.host.signature(heartbeat_file)
        except TimeoutError as error:
            raise SpawnError("heartbeat", None, str(error)) from None

    async def resume(self, program: Program, run: int, child: ChildProcess, notify_socket: NotifySocket | None) -> RunContext:
        """The context of ``run``, which an earlier daemon spawned and whose main process is ``child``. What fails is logged, not raised."""
        environment = self._environment(program, run, None)
        try:
            environment = self._environment(program, run, await self.credentials(program))  # fails if the user was deleted meanwhile
            prepare_heartbeat_file(environment)
            if notify_socket is not None:
                notify_socket.open(program, environment.credentials)
        except SpawnError as error:
            _log.warning("%s: its run goes on, but %s", self._name, error)
        return self._context(child, environment, notify_socket, self._output.searches, None)

    async def after_exit(self, context: RunContext, ended: Ended, cause: Cause) -> None:
        """Run the hook. If it cannot be run (unknown user, no pipe), that is logged, and the end of the run goes on."""
        program = context.program
        try:
            credentials = await self.credentials(program)
            log, _ = self._output.open(program.logs, credentials)
        except SpawnError as error:
            _log.warning("%s: cannot run after_exit: %s", self._name, error)
            return
        await Hooks(self._name, self._shared.host).after_exit(
            program, context.environment, credentials, log, status=ended.status, cause=cause, pid=context.child.pid
        )

    def give_up(self) -> None:
        """A start that still waits, for its hook, a disk or a name, is cancelled."""
        if self._preparing is not None:
            self._preparing.cancel()

    async def credentials(self, program: Program) -> Credentials | None:
        """The user and groups to run as; None: the daemon's. Raises SpawnError for an unknown user."""
        if program.user is None and program.group_name is None:
            return None
        return await self._shared.host.credentials(program.user, program.group_name)

    async def _before_start(self, environment: RunEnvironment, credentials: Credentials | None) -> None:
        """Run the hook; its output is in the log. Raises SpawnError."""
        program = environment.program
        self._output.search(())  # a probe looks for a line of the program, not of its hook
        log, _ = self._output.open(program.logs, credentials)
        await Hooks(self._name, self._shared.host).before_start(program, environment, credentials, log)
        await self._output.drain()

    def _environment(self, program: Program, run: int, credentials: Credentials | None) -> RunEnvironment:
        shared = self._shared
        return RunEnvironment(program, self._name, self._replica, run, shared.daemon, shared.instance, credentials)

    def _context(
        self,
        child: ChildProcess,
        environment: RunEnvironment,
        notify_socket: NotifySocket | None,
        searches: Mapping[str, LogSearch],
        baseline: Signature,
    ) -> RunContext:
        host = self._shared.host
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
            null_fd=self._shared.null_fd,
            output=self._output,
            heartbeat_file=environment.heartbeat_file,
            heartbeat_baseline=baseline,
            notify_state=notify_socket.state if notify_socket is not None else None,
            searches=searches,
        )


def _is_plain(program: Program) -> bool:
    """Whether there is nothing to prepare, and so nothing to wait for but the disk that the program is on."""
    waits_for_nobody = program.heartbeat is None and program.hooks.before_start is None and not program.sockets
    return program.user is None and program.group_name is None and waits_for_nobody
