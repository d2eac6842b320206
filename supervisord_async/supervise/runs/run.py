"""One incarnation of a process: its child, its tree, and the monitors that live as long as it does."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import anyio.lowlevel
from msgspec.structs import replace

from supervisord_async.config.model import Program
from supervisord_async.core.state import Cause
from supervisord_async.supervise.errands import Errands
from supervisord_async.supervise.host import ChildProcess, ProcessTree, Scope
from supervisord_async.supervise.monitors.context import RunContext
from supervisord_async.supervise.monitors.exit import monitor_exit, told_at_once
from supervisord_async.supervise.monitors.heartbeat import monitor_heartbeat
from supervisord_async.supervise.monitors.notify import monitor_watchdog
from supervisord_async.supervise.monitors.probes import monitor_liveness, monitor_readiness
from supervisord_async.supervise.patience import patiently
from supervisord_async.supervise.runs.launcher import Launcher
from supervisord_async.supervise.senses.notify import Voice
from supervisord_async.system.child import Ended

#: What watches a run beside its exit. Each ends by itself where the program does not ask for it.
MONITORS: tuple[Callable[[RunContext], Coroutine[Any, Any, None]], ...] = (
    monitor_heartbeat,
    monitor_readiness,
    monitor_liveness,
    monitor_watchdog,
)


class Run:
    """A live run. ``ended`` says how its main process ended, None while it lives."""

    __slots__ = (
        "_beside",
        "_beside_over",
        "_errands",
        "_hearing",
        "_launcher",
        "_on_ended",
        "_over",
        "_scope",
        "context",
        "ended",
        "session",
    )

    def __init__(self, context: RunContext, on_ended: Callable[[Ended], None], launcher: Launcher) -> None:
        self.context = context
        self.session = context.child.pid  #: that every process of the run was born in, whatever its main process is
        self.ended: Ended | None = None
        self._on_ended = on_ended
        self._launcher = launcher
        self._errands: Errands | None = None
        self._scope: anyio.CancelScope | None = None
        self._hearing: anyio.CancelScope | None = None
        self._beside: anyio.CancelScope | None = None
        self._beside_over: anyio.Event | None = None
        self._over: anyio.Event | None = None  # made when somebody waits for the end

    @property
    def child(self) -> ChildProcess:
        """The main process."""
        return self.context.child

    @property
    def tree(self) -> ProcessTree:
        """The main process and what descends from it."""
        return self.context.tree

    @property
    def tag(self) -> str:
        """What its processes carry in their environment."""
        return self.context.environment.tag

    def become(self, child: ChildProcess) -> None:
        """``child``, a process of this run, is its main process from now on; the former one is one of many."""
        former = self.child
        former.forget(self._main_ended)
        self.context = replace(self.context, child=child, tree=self.tree.led_by(child))
        former.close()
        if self.ended is None:
            child.on_end(self._main_ended)

    def watch(self, errands: Errands) -> None:
        """All monitors watch, as tasks of ``errands``. Where the main process has ended already, that is acted on now."""
        self._errands = errands
        self.child.on_end(self._main_ended)
        if self.ended is None:
            if self.context.voice is not None:
                self._hearing = anyio.CancelScope()  # here: the run may be over before the task begins
                errands.start_soon(self._hear, self.context.voice, self._hearing, name=f"notify {self.context.name}")
            self._start_checks(errands)

    def neglect(self) -> None:
        """An end of the main process is not acted on, until the run is watched again. The tasks that watched it are over."""
        self.child.forget(self._main_ended)

    def reconfigure(self, program: Program, errands: Errands) -> None:
        """The monitors follow the new settings from now on."""
        changed = _monitored(program) != _monitored(self.context.program)
        self.context = replace(self.context, program=program)
        if changed and self.ended is None:
            self.stop_checks()
            self._start_checks(errands)

    def _start_checks(self, errands: Errands) -> None:
        """A task for the checks, where the program asks for any: a thousand that ask for none cost nothing."""
        if any(_monitored(self.context.program)):
            self._scope = anyio.CancelScope()  # here: they may be stopped before the task begins
            errands.start_soon(self._check, self._scope, name=f"checks {self.context.name}")

    def stop_checks(self) -> None:
        """Nothing but the exit is watched any more."""
        if self._scope is not None:
            self._scope.cancel()

    async def signal(self, signum: int, scope: Scope) -> None:
        """What lives of the scope was sent ``signum``."""

        async def send() -> None:
            self.tree.signal(signum, scope)

        await patiently(f"signal {self.context.name}", send)

    async def beside(self, command: Coroutine[Any, Any, None]) -> None:
        """``command``, which is to end the run, has come to its end, or to :meth:`give_up_beside`; the run is not over before it."""
        self._beside_over = anyio.Event()
        try:
            with anyio.CancelScope() as self._beside:
                await command
        finally:
            self._beside_over.set()

    async def wait_ended(self) -> None:
        """The main process has ended; where another one took its place (MAINPID), that one."""
        if self.ended is None:
            self._over = self._over or anyio.Event()
            await self._over.wait()

    def give_up_beside(self) -> None:
        """What goes on beside the run ends at once."""
        if self._beside is not None:
            self._beside.cancel()

    async def _hear(self, voice: Voice, scope: anyio.CancelScope) -> None:
        """What the run says is heeded as long as its main process lives, also while it stops."""
        with scope:
            await voice.listen(self)

    def _main_ended(self, ended: Ended) -> None:
        """Called by the child: until now no task waited for it, and where nothing is to be awaited now none ever does."""
        assert self._errands is not None  # noqa: S101  called while it is watched
        if self._errands.failing:
            return  # it is called again when the run is watched again
        try:
            if self.context.voice is None:
                self._end(ended)
                if told_at_once(self.context, ended, self._what_follows()):
                    self.context.host.forget(self.tag)
                    return
            self._errands.start_soon(self._finish, self.child, ended, name=f"exit {self.context.name}")
        except Exception as error:
            self._errands.fail(error)

    async def _finish(self, child: ChildProcess, ended: Ended) -> None:
        """The run is over, unless its last word names another main process than ``child``."""
        voice = self.context.voice
        if voice is not None:
            while child is self.child and voice.drain(self):
                await anyio.lowlevel.checkpoint()
            if child is not self.child:
                return
            self._end(ended)
        await monitor_exit(self.context, ended, self._what_follows())
        self.context.host.forget(self.tag)

    def _what_follows(self) -> Callable[[Ended, Cause], Coroutine[Any, Any, None]] | None:
        """What is to be awaited when nothing of the run lives: a ``stop.command`` that still runs, and the hook of the present settings."""
        acts = self._beside_over is not None and not self._beside_over.is_set()
        return self._follow if acts or self.context.program.hooks.after_exit is not None else None

    async def _follow(self, ended: Ended, cause: Cause) -> None:
        if self._beside_over is not None:
            await self._beside_over.wait()
        if self.context.program.hooks.after_exit is not None:
            await self._launcher.after_exit(self.context, ended, cause)

    def _end(self, ended: Ended) -> None:
        self.ended = ended
        if self._over is not None:
            self._over.set()
        self.stop_checks()
        if self._hearing is not None:
            self._hearing.cancel()
        self.child.close()
        self._on_ended(ended)

    async def _check(self, scope: anyio.CancelScope) -> None:
        """One task for all checks; none where there are none."""
        with scope:
            async with anyio.create_task_group() as checks:
                for monitor in MONITORS:
                    checks.start_soon(monitor, self.context)


def _monitored(program: Program) -> tuple[object, ...]:
    return program.heartbeat, program.readiness, program.liveness, program.notify
