"""The tasks of one owner in a task group that many owners share: when one fails, that owner's other tasks are cancelled, and no others.

A task group for each owner would do the same, but every task group needs a task to hold it open: megabytes for a thousand
owners at rest.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from anyio import TaskHandle
from anyio.abc import TaskGroup

_GOING = (TaskHandle.Status.PENDING, TaskHandle.Status.CANCELLING)


class BackgroundTasks:
    """The unfinished tasks of one owner.

    An exception in one of them cancels the others. Once all of them are over the owner is told, and may start new ones.
    """

    __slots__ = ("_broke", "_cancelled", "_errors", "_going", "_handles", "_tasks")

    def __init__(self, broke: Callable[[Exception], None]) -> None:
        """``broke`` is called with the exception of a failed task; with an exception group if several failed."""
        self._broke = broke
        self._tasks: TaskGroup | None = None
        self._handles: tuple[TaskHandle[None], ...] = ()  # of the unfinished tasks, and perhaps of some finished ones
        self._going = 0  # the number of unfinished tasks
        self._errors: tuple[Exception, ...] = ()  # not yet reported to the owner
        self._cancelled = 0  # how often all were cancelled: a task that waited for its turn at that time never begins

    @property
    def failing(self) -> bool:
        """True when a task has failed and others are not over yet."""
        return bool(self._errors)

    def open(self, tasks: TaskGroup) -> None:
        """From now on they may begin, as tasks of ``tasks``."""
        self._tasks = tasks

    def close(self) -> None:
        """All tasks are cancelled, and none begins any more."""
        self._tasks = None
        self._cancel()

    def start_soon(self, function: Callable[..., Coroutine[Any, Any, None]], *arguments: object, name: str) -> None:
        """``function(*arguments)`` begins at the loop's next turn; not if this is closed or :attr:`failing`."""
        if self._tasks is None or self.failing:
            return
        going = tuple(handle for handle in self._handles if handle.status in _GOING)
        self._handles = (*going, self._tasks.start_soon(self._run, function, arguments, name=name))
        self._going += 1

    def start_at(
        self,
        turn: Callable[[Callable[[], None]], None],
        function: Callable[..., Coroutine[Any, Any, None]],
        *arguments: object,
        name: str,
    ) -> None:
        """As :meth:`start_soon`, once ``turn`` calls the callback that it is given. Until then there is no task: thousands may wait."""
        if self._tasks is not None and not self.failing:
            turn(partial(self._start_unless_cancelled, self._cancelled, function, arguments, name))

    def _start_unless_cancelled(
        self, since: int, function: Callable[..., Coroutine[Any, Any, None]], arguments: tuple[object, ...], name: str
    ) -> None:
        if self._cancelled == since:
            self.start_soon(function, *arguments, name=name)

    def fail(self, error: Exception) -> None:
        """As if a task had raised ``error``."""
        self._errors += (error,)
        self._cancel()
        self._report()

    async def _run(self, function: Callable[..., Coroutine[Any, Any, None]], arguments: tuple[object, ...]) -> None:
        try:
            await function(*arguments)
        except Exception as error:
            self._errors += (error,)
            self._cancel()
        finally:
            self._going -= 1
            if not self._going:
                self._handles = ()
            self._report()

    def _cancel(self) -> None:
        self._cancelled += 1
        for handle in self._handles:
            handle.cancel()

    def _report(self) -> None:
        """Report the failures to the owner, once all of its tasks are over."""
        if self._errors and not self._going:
            errors, self._errors = self._errors, ()
            self._broke(errors[0] if len(errors) == 1 else ExceptionGroup("several background tasks failed", errors))
