"""One incarnation of a process: its child, its tree, and the monitors that live as long as it does."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup

from supervisord_async.config.model import Program
from supervisord_async.core.state import Cause
from supervisord_async.supervise.host import ChildProcess, ProcessTree
from supervisord_async.supervise.monitors.context import RunContext
from supervisord_async.supervise.monitors.exit import monitor_exit
from supervisord_async.supervise.monitors.heartbeat import monitor_heartbeat
from supervisord_async.supervise.monitors.probes import monitor_liveness, monitor_readiness
from supervisord_async.system.child import Ended

#: What watches a run beside its exit. Each ends by itself where the program does not ask for it.
MONITORS: tuple[Callable[[RunContext], Coroutine[Any, Any, None]], ...] = (monitor_heartbeat, monitor_readiness, monitor_liveness)


class Run:
    """A live run. ``ended`` says how its main process ended, None while it lives."""

    def __init__(
        self, context: RunContext, on_ended: Callable[[Ended], None], after_exit: Callable[[Run, Ended, Cause], Coroutine[Any, Any, None]]
    ) -> None:
        self.context = context
        self.ended: Ended | None = None
        self._on_ended = on_ended
        self._after_exit = after_exit
        self._scope: anyio.CancelScope | None = None

    @property
    def child(self) -> ChildProcess:
        """The main process."""
        return self.context.child

    @property
    def tree(self) -> ProcessTree:
        """The main process and what descends from it."""
        return self.context.tree

    def watch(self, tasks: TaskGroup) -> None:
        """All monitors watch, in ``tasks``."""
        if self.ended is None:
            tasks.start_soon(self._watch_exit, name=f"exit {self.context.name}")
            self._start_checks(tasks)

    def reconfigure(self, program: Program, tasks: TaskGroup) -> None:
        """The monitors follow the new settings from now on."""
        changed = _monitored(program) != _monitored(self.context.program)
        self.context = replace(self.context, program=program)
        if changed and self.ended is None:
            self.stop_checks()
            self._start_checks(tasks)

    def _start_checks(self, tasks: TaskGroup) -> None:
        """A task for the checks, where the program asks for any: a thousand that ask for none cost nothing."""
        if any(_monitored(self.context.program)):
            tasks.start_soon(self._check, name=f"checks {self.context.name}")

    def stop_checks(self) -> None:
        """Nothing but the exit is watched any more."""
        if self._scope is not None:
            self._scope.cancel()

    async def _watch_exit(self) -> None:
        await monitor_exit(self.context, self._end, self._what_follows)

    def _what_follows(self) -> Callable[[Ended, Cause], Coroutine[Any, Any, None]] | None:
        """The settings of now say whether there is a hook."""
        return partial(self._after_exit, self) if self.context.program.hooks.after_exit is not None else None

    def _end(self, ended: Ended) -> None:
        self.ended = ended
        self.stop_checks()
        self.child.close()
        self._on_ended(ended)

    async def _check(self) -> None:
        """One task for all checks; none where there are none."""
        with anyio.CancelScope() as self._scope:
            async with anyio.create_task_group() as checks:
                for monitor in MONITORS:
                    checks.start_soon(monitor, self.context)


def _monitored(program: Program) -> tuple[object, ...]:
    return program.heartbeat, program.readiness, program.liveness


