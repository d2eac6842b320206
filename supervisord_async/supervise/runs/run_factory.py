"""Makes the runs of one process: starts them, and reconnects to one that outlived its daemon."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import anyio

from supervisord_async.config.model import Program
from supervisord_async.core.inputs import Input
from supervisord_async.core.state import Snapshot
from supervisord_async.errors import SpawnError
from supervisord_async.supervise.host import ChildProcess, Signature
from supervisord_async.supervise.monitors.context import RunContext
from supervisord_async.supervise.recovery.persist import SavedNotifySocket
from supervisord_async.supervise.retry import retry_on_shortage
from supervisord_async.supervise.runs.equipment import equipped
from supervisord_async.supervise.runs.hooks import run_before_start
from supervisord_async.supervise.runs.output import Output
from supervisord_async.supervise.runs.run import Run
from supervisord_async.supervise.runs.run_spec import RunEnvironment, executable_of, prepare_heartbeat_file, spawn_spec, tag_of
from supervisord_async.supervise.shared_context import SharedContext
from supervisord_async.supervise.sources.notify import NotifySocket
from supervisord_async.system.credentials import Credentials
from supervisord_async.system.descriptors import room_for_a_run
from supervisord_async.system.identity import Identity

_log = logging.getLogger(__name__)


class RunFactory:
    """Makes the runs of one process, one at a time.

    Arguments:
        post: is called by a run's monitors with their inputs.
        snapshot: returns the process's current snapshot.
    """

    __slots__ = ("_name", "_output", "_post", "_preparing", "_replica", "_shared", "_snapshot", "notify_socket")

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
        self.notify_socket: NotifySocket | None = None  #: of all runs; None until one has ``notify``, as most have not

    def inherit_notify_socket(self, saved: SavedNotifySocket) -> None:
        """After a re-exec: go on with the socket of the runs before it."""
        self.notify_socket = NotifySocket(self._name, self._shared)
        self.notify_socket.inherit(saved)

    async def begin(self, program: Program, run: int) -> Run | None:
        """Spawn ``run``: its main process executes the command, and is not watched yet.

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
        self._output.search(program.log_patterns())
        notify_socket = self._notify_socket_for(program)
        with room_for_a_run():
            stdout, stderr = self._output.open(program.logs, environment.credentials)
            self._output.run_started(run)
            spec = spawn_spec(program, environment.variables(), environment.credentials, stdout, stderr, stdin=self._shared.null_fd)
            async with equipped(spec, program, notify_socket, self._shared) as spec:
                child = await self._shared.host.spawn(spec)
        return self._run(child, environment, baseline)

    async def _prepare(self, program: Program, run: int) -> tuple[RunEnvironment, Signature]:
        """Do all that may take long before a spawn: look up the user, run the hook, bind sockets, wait for disks. Raises SpawnError.

        Returns the run's environment and the signature of its heartbeat file, None without one.
        """
        host = self._shared.host
        await host.wait_executable(executable_of(program))  # this includes the run_dir, which is used below
        credentials = await host.credentials(program.user, program.group_name)
        self._output.run_started(run)
        environment = self._environment(program, run, credentials)
        heartbeat_file, baseline = environment.heartbeat_file, None
        if program.heartbeat is not None and heartbeat_file is not None:
            prepare_heartbeat_file(environment)
            baseline = await self._baseline(heartbeat_file)
        if program.hooks.before_start is not None:
            await self._before_start(environment, program.hooks.before_start)
        await self._shared.sockets.open(program, host)  # looks up names
        await host.wait_executable(executable_of(program))
        return environment, baseline

    async def _baseline(self, heartbeat_file: str) -> Signature:
        """The signature that the first heartbeat will change. Raises SpawnError if the disk hangs."""
        try:
            return await self._shared.host.signature(heartbeat_file)
        except TimeoutError as error:
            raise SpawnError("heartbeat", None, str(error)) from None

    async def resume(self, program: Program, run: int, main: Identity) -> Run:
        """``run``, which an earlier daemon spawned and whose main process is ``main``; not watched yet.

        Raises ProcessLookupError where ``main`` is gone. Whatever else fails is logged.
        """
        host = self._shared.host

        async def adopt() -> ChildProcess:
            return host.adopt(main)

        child = await retry_on_shortage(f"adopt {self._name}", adopt)
        environment = self._environment(program, run, None)
        try:
            credentials = await host.credentials(program.user, program.group_name)  # fails if the user was deleted meanwhile
            environment = self._environment(program, run, credentials)
            prepare_heartbeat_file(environment)
            if (notify_socket := self._notify_socket_for(program)) is not None:
                notify_socket.open(program, credentials)
        except SpawnError as error:
            _log.warning("%s: its run goes on, but %s", self._name, error)
        return self._run(child, environment, None)

    async def kill_strays(self, run: int, grace_seconds: float = 0.0) -> None:
        """Nothing of ``run`` lives any more; what still lived after ``grace_seconds`` was killed."""
        tag = tag_of(self._shared.instance, self._name, run)
        await retry_on_shortage(f"kill what is left of {self._name}", partial(self._shared.host.kill_strays, tag, grace_seconds))

    def give_up(self) -> None:
        """A start that still waits, for its hook, a disk or a name, is cancelled."""
        if self._preparing is not None:
            self._preparing.cancel()

    async def _before_start(self, environment: RunEnvironment, command: tuple[str, ...]) -> None:
        """Run the hook; its output is in the log. Raises SpawnError."""
        self._output.search(())  # a probe looks for a line of the program, not of its hook
        log, _ = self._output.open(environment.program.logs, environment.credentials)
        await run_before_start(self._shared.host, environment, command, log)
        await self._output.drain()

    def _notify_socket_for(self, program: Program) -> NotifySocket | None:
        if program.notify is None:
            return None
        self.notify_socket = self.notify_socket or NotifySocket(self._name, self._shared)
        return self.notify_socket

    def _environment(self, program: Program, run: int, credentials: Credentials | None) -> RunEnvironment:
        shared = self._shared
        return RunEnvironment(program, self._name, self._replica, run, shared.daemon, shared.instance, credentials)

    def _run(self, child: ChildProcess, environment: RunEnvironment, baseline: Signature) -> Run:
        host, notify_socket = self._shared.host, self._notify_socket_for(environment.program)
        context = RunContext(
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
            searches=self._output.searches,
        )
        return Run(context, notify_socket)


def _is_plain(program: Program) -> bool:
    """Whether there is nothing to prepare, and so nothing to wait for but the disk that the program is on."""
    waits_for_nobody = program.heartbeat is None and program.hooks.before_start is None and not program.sockets
    return program.user is None and program.group_name is None and waits_for_nobody
