"""One incarnation of a process: its child, its tree, the monitors that live as long as it does, and how it is ended."""

from __future__ import annotations

import logging
import math
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import anyio.lowlevel
from msgspec.structs import replace

from supervisord_async.config.model import Program
from supervisord_async.core.state import Cause, State
from supervisord_async.supervise.background_tasks import BackgroundTasks
from supervisord_async.supervise.host import ChildProcess, ProcessTree, Scope
from supervisord_async.supervise.monitors.context import RunContext
from supervisord_async.supervise.monitors.exit import monitor_exit, post_exit_nowait
from supervisord_async.supervise.monitors.heartbeat import monitor_heartbeat
from supervisord_async.supervise.monitors.probes import monitor_liveness, monitor_readiness
from supervisord_async.supervise.monitors.watchdog import monitor_watchdog
from supervisord_async.supervise.retry import retry_on_shortage
from supervisord_async.supervise.runs.hooks import run_after_exit, run_stop_command
from supervisord_async.supervise.sources.notify import NotifySocket
from supervisord_async.system.child import Ended
from supervisord_async.system.shortage import is_shortage

_log = logging.getLogger(__name__)

#: How long ``after_exit`` may still take once the daemon's end is hastened; less than a shutdown then waits for the kernel.
HASTY_SECONDS = 5.0
#: The monitors of a run besides the exit monitor. Each returns at once if the program does not ask for it.
MONITORS: tuple[Callable[[RunContext], Coroutine[Any, Any, None]], ...] = (
    monitor_heartbeat,
    monitor_readiness,
    monitor_liveness,
    monitor_watchdog,
)


class Run:
    """A run. ``ended`` says how its main process ended; None while that lives."""

    __slots__ = (
        "_after_exit",
        "_after_exit_deadline",
        "_background",
        "_notify_socket",
        "_over",
        "_receiving",
        "_scope",
        "_stop_command",
        "_stop_command_over",
        "context",
        "ended",
    )

    def __init__(self, context: RunContext, notify_socket: NotifySocket | None) -> None:
        """``notify_socket``: None without ``notify``."""
        self.context = context
        self._notify_socket = notify_socket
        self.ended: Ended | None = None
        self._background: BackgroundTasks | None = None  # None while it is not watched
        self._scope: anyio.CancelScope | None = None
        self._receiving: anyio.CancelScope | None = None
        self._stop_command: anyio.CancelScope | None = None
        self._stop_command_over: anyio.Event | None = None
        self._after_exit: anyio.CancelScope | None = None
        self._after_exit_deadline = math.inf
        self._over: anyio.Event | None = None  # made by the first call of _wait_ended

    @property
    def child(self) -> ChildProcess:
        """The main process."""
        return self.context.child

    @property
    def tree(self) -> ProcessTree:
        """The main process and its descendants."""
        return self.context.tree

    @property
    def tag(self) -> str:
        """The tag that its processes carry in their environment."""
        return self.context.environment.tag

    def change_main(self, child: ChildProcess) -> None:
        """``child``, a process of this run, is its main process from now on; the former one is like any other process of it."""
        former = self.child
        former.forget(self._main_ended)
        self.context = replace(self.context, child=child, tree=self.tree.led_by(child))
        former.close()
        if self.ended is None:
            child.on_end(self._main_ended)

    def watch(self, background: BackgroundTasks) -> None:
        """All monitors run, as tasks of ``background``. If the main process has ended already, that is handled now."""
        self._background = background
        self.child.on_end(self._main_ended)
        if self.ended is None:
            if self._notify_socket is not None:
                self._receiving = anyio.CancelScope()  # not in the task: the run may end before that begins
                background.start_soon(self._receive, self._notify_socket, self._receiving, name=f"notify {self.context.name}")
            self._start_checks(background)

    def unwatch(self) -> None:
        """The end of the main process is ignored until the run is watched again; for when the tasks that watched it have failed."""
        self.child.forget(self._main_ended)
        self._background = None

    def reconfigure(self, program: Program) -> None:
        """The monitors follow the new settings, from now on or from when it is watched."""
        changed = _monitored(program) != _monitored(self.context.program)
        self.context = replace(self.context, program=program)
        if changed and self.ended is None:
            output, begun = self.context.output, self.context.snapshot().state is not State.STARTING
            output.search(program.log_patterns(), kept=output.searches, found=begun)  # a line may have been printed already
            self.context = replace(self.context, searches=output.searches)
            if self._background is not None:
                self._stop_checks()
                self._start_checks(self._background)

    def _start_checks(self, background: BackgroundTasks) -> None:
        """Start a task for the checks, if the program has any: a thousand programs without checks need no tasks."""
        if any(_monitored(self.context.program)):
            self._scope = anyio.CancelScope()  # not in the task: the checks may be stopped before that begins
            background.start_soon(self._check, self._scope, name=f"checks {self.context.name}")

    def _stop_checks(self) -> None:
        """The checks are cancelled; only the exit is still watched."""
        if self._scope is not None:
            self._scope.cancel()

    async def signal(self, signum: int, scope: Scope) -> None:
        """Send ``signum`` to what lives of the run, within ``scope``; to what is known of it at once, if no descriptor is free to look."""
        known = False

        async def send() -> None:
            nonlocal known
            try:
                if known:
                    self.tree.signal_others(signum)
                else:
                    self.tree.signal(signum, scope)
            except OSError as error:
                known = known or (is_shortage(error) and self.tree.signal_known(signum, scope))
                if not known or scope == "tree":
                    raise

        await retry_on_shortage(f"signal {self.context.name}", send)

    async def terminate(self) -> None:
        """Ask what lives of the run to exit, as the program's ``stop`` settings say."""
        self._stop_checks()
        program, stop = self.context.program, self.context.program.stop
        audience = stop.audience(led=self.ended is None)
        if self.context.snapshot().cause is Cause.HEARTBEAT_MISSED and program.notify is not None:
            await self.signal(signal.SIGABRT, audience)  # as systemd does: a core dump shows where the program hangs
            return
        if stop.command is not None and self.ended is None:
            await self._stop_by(stop.command)
        await self.signal(stop.signal, audience)

    async def _stop_by(self, command: tuple[str, ...]) -> None:
        """Run ``stop.command``, until KILL is due at most; the run is not over before that.

        Many such commands only ask (``kill -USR1``, ``curl …/shutdown``): one that exited with 0 has the whole grace period to take
        effect before a signal follows.
        """
        self._stop_command_over = anyio.Event()
        try:
            with anyio.CancelScope() as self._stop_command:
                if await run_stop_command(self.context, command):
                    await self._wait_ended()
        finally:
            self._stop_command_over.set()

    async def kill(self) -> None:
        """Send KILL to all that still lives of the run; with ``stop.scope: main`` to its main process only."""
        if self._stop_command is not None:
            self._stop_command.cancel()
        if self.context.program.stop.ends_all:
            await retry_on_shortage(f"kill {self.context.name}", self.tree.kill)
        else:
            await self.signal(signal.SIGKILL, "main")

    def hasten(self) -> None:
        """``after_exit`` will be over :data:`HASTY_SECONDS` from now: it is ended then."""
        self._after_exit_deadline = anyio.current_time() + HASTY_SECONDS
        if self._after_exit is not None:
            self._after_exit.deadline = self._after_exit_deadline

    async def _wait_ended(self) -> None:
        """Return once the main process has ended; if another one took its place (MAINPID), that one."""
        if self.ended is None:
            self._over = self._over or anyio.Event()
            await self._over.wait()

    async def _receive(self, notify_socket: NotifySocket, scope: anyio.CancelScope) -> None:
        """Act on the run's sd_notify messages as long as its main process lives, also while it stops."""
        with scope:
            await notify_socket.listen(self)

    def _main_ended(self, ended: Ended) -> None:
        """Handle the end of the main process. As a callback, it needs a task only where the run's end has to wait for something."""
        assert self._background is not None  # noqa: S101  only called while it is watched
        if self._background.failing:
            return  # called again when the run is watched again
        try:
            if self._notify_socket is None:
                self._end(ended)
                if post_exit_nowait(self.context, ended, self._what_follows()):
                    self.context.host.forget(self.tag)
                    return
            self._background.start_soon(self._finish, self.child, ended, name=f"exit {self.context.name}")
        except Exception as error:
            self._background.fail(error)

    async def _finish(self, child: ChildProcess, ended: Ended) -> None:
        """Finish the run, unless one of its last messages made another process than ``child`` the main one."""
        notify_socket = self._notify_socket
        if notify_socket is not None:
            while child is self.child and await notify_socket.drain(self):
                await anyio.lowlevel.checkpoint()
            if child is not self.child:
                return
            self._end(ended)
        await monitor_exit(self.context, ended, self._what_follows())
        self.context.host.forget(self.tag)

    def _what_follows(self) -> Callable[[Ended, Cause], Coroutine[Any, Any, None]] | None:
        """What to await when nothing of the run lives: a ``stop.command`` that still runs, then the ``after_exit`` hook; None: nothing."""
        busy = self._stop_command_over is not None and not self._stop_command_over.is_set()
        return self._follow if busy or self.context.program.hooks.after_exit is not None else None

    async def _follow(self, ended: Ended, cause: Cause) -> None:
        if self._stop_command_over is not None:
            await self._stop_command_over.wait()
        with anyio.CancelScope(deadline=self._after_exit_deadline) as self._after_exit:
            await run_after_exit(self.context, ended, cause)
        if self._after_exit.cancelled_caught:
            _log.warning("%s: after_exit took too long for the daemon's end, and was ended", self.context.name)

    def _end(self, ended: Ended) -> None:
        self.ended = ended
        if self._over is not None:
            self._over.set()
        self._stop_checks()
        if self._receiving is not None:
            self._receiving.cancel()
        self.child.close()

    async def _check(self, scope: anyio.CancelScope) -> None:
        """Run all checks until ``scope`` is cancelled."""
        with scope:
            async with anyio.create_task_group() as checks:
                for monitor in MONITORS:
                    checks.start_soon(monitor, self.context)


def _monitored(program: Program) -> tuple[object, ...]:
    return program.heartbeat, program.readiness, program.liveness, program.notify
