"""What is remembered of failing tasks, by itself: no loop, and the time as it is said."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from supervisord_async.app.failures import Failures, key_of


def failures(**settings: Any) -> Failures[Any]:
    given = {"task_key": key_of, "backoff": None, "backoff_max": 60.0, "max_failures": None, "on_set_aside": None}
    return Failures(**(given | settings))


def test_a_task_is_known_by_its_id_else_by_itself() -> None:
    assert key_of({"id": 7, "other": 1}) == 7
    assert key_of(SimpleNamespace(id="seven")) == "seven"
    assert key_of("task") == "task"
    without: dict[str, int] = {"other": 1}
    assert str(failures().name(without)).startswith("dict@")  # it has no name, and must not stop anybody


def test_what_was_set_aside_is_due_again_once_it_is_released() -> None:
    """Also where nobody gives the task a second time, as long as failed tasks are kept."""
    kept = failures(backoff=10.0, max_failures=1)
    kept.failed("task", ValueError("no"), now=100.0)
    assert kept.due([], 200.0) == [] and list(kept.set_aside) == ["task"]
    assert kept.release("task") and not kept.release("task")
    assert kept.due([], 200.0) == ["task"]


def test_without_a_backoff_a_released_task_comes_when_it_is_given_again() -> None:
    given = failures(max_failures=1)
    given.failed("task", ValueError("no"), now=100.0)
    assert given.due(["task"], 200.0) == []
    assert given.release("task")
    assert given.due([], 200.0) == []
    assert given.due(["task"], 200.0) == ["task"]
