"""One incarnation of a process: its child, its tree, and the monitors that live as long as it does."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import anyio
from anyio.abc import TaskGroup

from supervisord_async.config.model import Program
from supervisord_async.core.inputs import Input
from supervisord_async.supervise.host import ChildProcess, Host, ProcessTree, Signature
from supervisord_async.supervise.monitors.context import RunContext
from supervisord_async.supervise.monitors.exit import monitor_exit
from supervisord_async.supervise.monitors.heartbeat import monitor_heartbeat
from supervisord_async.system.child import Ended

#: What watches a run beside its exit. Each ends by itself where the program does not ask for it.
MONITORS: tuple[Callable[[RunContext], Coroutine[Any, Any, None]], ...] = (monitor_heartbeat,)


class Run:
    """A live run. ``ended`` says how its main process ended, None while it lives."""

    def __init__(self, context: RunContext, on_ended: Callable[[Ended], None]) -> None:
        self.context = context
        self.ended: Ended | None = None
        self._on_ended = on_ended
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
            tasks.start_soon(self._check, name=f"checks {self.context.name}")

    def reconfigure(self, program: Program, tasks: TaskGroup) -> None:
        """The monitors follow the new settings from now on."""
        changed = _monitored(program) != _monitored(self.context.program)
        self.context = _with_program(self.context, program)
        if changed and self.ended is None:
            self.stop_checks()
            tasks.start_soon(self._check, name=f"checks {self.context.name}")

    def stop_checks(self) -> None:
        """Nothing but the exit is watched any more."""
        if self._scope is not None:
            self._scope.cancel()

    async def _watch_exit(self) -> None:
        await monitor_exit(self.context, self._end)

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
    return (program.heartbeat,)


def _with_program(context: RunContext, program: Program) -> RunContext:
    return replace(context, program=program)


def new_run(
    *,
    name: str,
    run: int,
    program: Program,
    host: Host,
    child: ChildProcess,
    tag: str,
    post: Callable[[Input], None],
    on_ended: Callable[[Ended], None],
    heartbeat_file: str | None,
    heartbeat_baseline: Signature,
) -> Run:
    """The run whose main process is ``child``."""
    context = RunContext(
        name=name,
        run=run,
        program=program,
        host=host,
        child=child,
        tree=host.tree(child, tag),
        post=post,
        heartbeat_file=heartbeat_file,
        heartbeat_baseline=heartbeat_baseline,
    )
    return Run(context, on_ended)
