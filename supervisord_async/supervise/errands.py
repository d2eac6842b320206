"""The tasks of one owner among many in one task group: they fail together, and nobody else with them.

A task group of its own would do the same for an owner. But it has a task that holds it open for as long as it may be
needed, and a thousand owners at rest would hold megabytes of those.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup


class Errands:
    """What one owner has begun and is not over yet; at rest it is nothing.

    An exception in one errand cancels the others. When all of them are over the owner is told, and may begin anew.
    """

    __slots__ = ("_broke", "_cancelled", "_errors", "_scopes", "_tasks")

    def __init__(self, broke: Callable[[Exception], None]) -> None:
        """``broke`` is called with what an errand raised; with a group, where it was more than one."""
        self._broke = broke
        self._tasks: TaskGroup | None = None
        self._scopes: tuple[anyio.CancelScope, ...] = ()  # one for each errand
        self._errors: tuple[Exception, ...] = ()  # that the owner was not told of
        self._cancelled = 0  # how often all were: what has waited for its turn since before then never begins

    @property
    def failing(self) -> bool:
        """One has failed, and others are not over yet."""
        return bool(self._errors)

    def open(self, tasks: TaskGroup) -> None:
        """Errands may begin, as tasks of ``tasks``."""
        self._tasks = tasks

    def close(self) -> None:
        """All are cancelled, and none begins any more."""
        self._tasks = None
        self._cancel()

    def start_soon(self, function: Callable[..., Coroutine[Any, Any, None]], *arguments: object, name: str) -> None:
        """``function(*arguments)`` begins at the loop's next turn, unless this is closed, or failing: then its owner begins anew."""
        if self._tasks is None or self.failing:
            return
        scope = anyio.CancelScope()
        self._scopes += (scope,)
        self._tasks.start_soon(self._run, scope, function, arguments, name=name)

    def start_at(
        self,
        turn: Callable[[Callable[[], None]], None],
        function: Callable[..., Coroutine[Any, Any, None]],
        *arguments: object,
        name: str,
    ) -> None:
        """As :meth:`start_soon`, when ``turn`` calls back what it is given: one of a thousand that wait for theirs is no task yet."""
        if self._tasks is not None and not self.failing:
            turn(partial(self._start_unless_cancelled, self._cancelled, function, arguments, name))

    def _start_unless_cancelled(
        self, since: int, function: Callable[..., Coroutine[Any, Any, None]], arguments: tuple[object, ...], name: str
    ) -> None:
        if self._cancelled == since:
            self.start_soon(function, *arguments, name=name)

    def fail(self, error: Exception) -> None:
        """As if an errand had raised ``error``."""
        self._errors += (error,)
        self._cancel()
        self._tell()

    async def _run(
        self, scope: anyio.CancelScope, function: Callable[..., Coroutine[Any, Any, None]], arguments: tuple[object, ...]
    ) -> None:
        with scope:
            try:
                await function(*arguments)
            except Exception as error:
                self._errors += (error,)
                self._cancel()
            finally:
                self._scopes = tuple(other for other in self._scopes if other is not scope)
                self._tell()

    def _cancel(self) -> None:
        self._cancelled += 1
        for scope in self._scopes:
            scope.cancel()

    def _tell(self) -> None:
        """The owner knows of what failed, once nothing of it goes on."""
        if self._errors and not self._scopes:
            errors, self._errors = self._errors, ()
            self._broke(errors[0] if len(errors) == 1 else ExceptionGroup("several errands failed", errors))
