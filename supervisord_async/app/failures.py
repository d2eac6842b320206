"""Remembers failed tasks: when to try them again, and when to set them aside."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

log = logging.getLogger(__name__)

TaskT = TypeVar("TaskT")
#: How many failing tasks are remembered; beyond that, the one that failed longest ago is forgotten.
REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class WorkerStatistics:
    """The counts of a loop since it was created."""

    rounds: int = 0  #: rounds, except those in which get_tasks failed
    processed: int = 0  #: tasks that succeeded
    failed: int = 0  #: failures; each one counts, also of the same task
    get_tasks_errors: int = 0
    background_errors: int = 0
    background: int = 0  #: jobs running now
    set_aside: int = 0  #: tasks set aside now


@dataclass(frozen=True, slots=True)
class SetAside(Generic[TaskT]):
    """A task that failed too often."""

    task: TaskT
    failures: int
    error: str  #: of the last failure


@dataclass(slots=True)
class _Failing(Generic[TaskT]):
    task: TaskT
    failures: int
    due_at: float  #: monotonic seconds; the task is not tried before


class Failures(Generic[TaskT]):
    """Counts failures by task, and picks the tasks to process. Belongs to the loop; others only read ``set_aside``."""

    def __init__(
        self,
        task_key: Callable[[TaskT], Any],
        backoff: float | None,
        backoff_max: float,
        max_failures: int | None,
        on_set_aside: Callable[[TaskT, Exception], Any] | None,
    ) -> None:
        """The arguments are WorkerLoop's. Raises ValueError for a backoff or limit that is out of range."""
        if backoff is not None and backoff <= 0:
            raise ValueError(f"retry_backoff must be above 0, not {backoff}")
        if max_failures is not None and max_failures < 1:
            raise ValueError(f"max_failures must be 1 or more, not {max_failures}")
        self._task_key = task_key
        self._backoff, self._backoff_max, self._max = backoff, backoff_max, max_failures
        self._on_set_aside = on_set_aside
        self._failing: OrderedDict[Hashable, _Failing[TaskT]] = OrderedDict()
        self.set_aside: OrderedDict[Hashable, SetAside[TaskT]] = OrderedDict()

    def name(self, task: TaskT) -> Hashable:
        """The task's key. If ``task_key`` fails, a substitute, since that must not stop the loop either."""
        try:
            key: Hashable = self._task_key(task)
            hash(key)
        except Exception:
            return f"{type(task).__name__}@{id(task):x}"
        else:
            return key

    def due(self, tasks: Iterable[TaskT], now: float) -> list[TaskT]:
        """The tasks to process at ``now``: those of ``tasks`` that are due, then kept ones that are due and not among them."""
        picked: list[TaskT] = []
        offered: set[Hashable] = set()
        for task in tasks:
            key = self.name(task)
            failing = self._failing.get(key)
            if failing is not None:
                failing.task = task
            if key in self.set_aside or (failing is not None and failing.due_at > now):
                continue
            picked.append(task)
            offered.add(key)
        if self._backoff is not None:
            picked.extend(failing.task for key, failing in list(self._failing.items()) if failing.due_at <= now and key not in offered)
        return picked

    def failed(self, task: TaskT, error: BaseException, now: float) -> None:
        """The task has failed once more in a row, at ``now``; after too many failures it is set aside."""
        key = self.name(task)
        known = self._failing.pop(key, None)
        failures = 1 if known is None else known.failures + 1
        if self._max is not None and failures >= self._max:
            self._put_aside(key, SetAside(task, failures, f"{type(error).__name__}: {error}"), error)
            return
        pause = 0.0 if self._backoff is None else min(self._backoff_max, self._backoff * 2.0 ** min(failures - 1, 1000))
        if self._backoff is not None or self._max is not None:
            self._failing[key] = _Failing(task, failures, now + pause)
            while len(self._failing) > REMEMBERED:
                forgotten, _ = self._failing.popitem(last=False)
                log.warning("too many failing tasks: %r is forgotten", forgotten)

    def _put_aside(self, key: Hashable, entry: SetAside[TaskT], error: BaseException) -> None:
        self.set_aside[key] = entry
        while len(self.set_aside) > REMEMBERED:
            self.set_aside.popitem(last=False)
        log.error("task %r is set aside after %d failures", key, entry.failures)
        if self._on_set_aside is not None and isinstance(error, Exception):
            try:
                self._on_set_aside(entry.task, error)
            except Exception:
                log.exception("on_set_aside failed for task %r", key)

    def succeeded(self, task: TaskT) -> None:
        """The task's failures are forgotten."""
        if self._failing:
            self._failing.pop(self.name(task), None)

    def release(self, key: Hashable) -> bool:
        """The task set aside under ``key`` is processed again, its failures forgotten; False if there is none."""
        entry = self.set_aside.pop(key, None)
        if entry is None:
            return False
        if self._backoff is not None:
            self._failing[key] = _Failing(entry.task, 0, 0.0)
        return True

    def next_due(self) -> float | None:
        """The monotonic time at which the next kept task is due; None if there is none."""
        if self._backoff is None or not self._failing:
            return None
        return min(failing.due_at for failing in list(self._failing.values()))


def key_of(task: Any) -> Any:
    """The default key of a task: its ``id``, else the task itself."""
    if isinstance(task, dict):
        return task["id"]
    identity = getattr(task, "id", None)
    return task if identity is None else identity
