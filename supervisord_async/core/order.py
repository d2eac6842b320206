"""The order of starts, pure: what a program needs of a dependency, and whether that need is met.

A need is judged over all processes of the dependency: it is met when each of them meets it, lost when one of them can no longer
meet it unless somebody starts it, and open otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from supervisord_async.core.machine import succeeded
from supervisord_async.core.policy import Policy
from supervisord_async.core.state import Cause, Health, Snapshot, State


class Need(StrEnum):
    """What must be true of a dependency before a dependent starts."""

    STARTED = "started"  #: it has a process, or had one that ended successfully
    READY = "ready"  #: it is RUNNING (which, with a probe, means ready), and not unhealthy
    COMPLETED = "completed"  #: it exited by itself
    SUCCEEDED = "succeeded"  #: it exited by itself, successfully


class Outlook(StrEnum):
    """Whether a need is met, may still be met, or is lost."""

    MET = "met"
    OPEN = "open"
    LOST = "lost"  #: it will not be met unless somebody starts the dependency


_WORDS = {Need.STARTED: "to be started", Need.READY: "to be ready", Need.COMPLETED: "to complete", Need.SUCCEEDED: "to succeed"}


class Verdict(NamedTuple):
    """The outlook of a need, and the reason in words (empty when met)."""

    outlook: Outlook
    words: str


Member = tuple[str, Snapshot, Policy]


def judge(need: Need, members: Iterable[Member]) -> Verdict:
    """Judge ``need`` over the processes (name, snapshot, policy) of the dependency; the first one that fails it gives the words."""
    waiting: Verdict | None = None
    for name, snapshot, policy in members:
        outlook = _outlook(need, snapshot, policy)
        if outlook is Outlook.LOST:
            return Verdict(outlook, f"{name} is {snapshot.state}, it was {_WORDS[need]}")
        if outlook is Outlook.OPEN and waiting is None:
            waiting = Verdict(outlook, f"{name} {_WORDS[need]} (it is {_state_of(snapshot)})")
    return waiting or Verdict(Outlook.MET, "")


def _state_of(s: Snapshot) -> str:
    if s.health is Health.UNHEALTHY:
        return f"{s.state}, unhealthy"
    return "STOPPED by an operator" if s.state is State.STOPPED and s.cause is Cause.OPERATOR else s.state


def _outlook(need: Need, s: Snapshot, p: Policy) -> Outlook:
    met = False
    match need:
        case Need.STARTED:
            met = (s.pid is not None and s.state in (State.STARTING, State.RUNNING)) or _exited_well(s, p)
        case Need.READY:
            met = s.is_ready
        case Need.COMPLETED:
            met = s.state is State.EXITED
        case Need.SUCCEEDED:
            met = _exited_well(s, p)
    if met:
        return Outlook.MET
    return Outlook.LOST if s.state in (State.EXITED, State.FATAL) else Outlook.OPEN


def _exited_well(s: Snapshot, p: Policy) -> bool:
    return s.state is State.EXITED and succeeded(s, p)


def dependents(graph: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
    """The direct dependents of each program that has any; ``graph`` maps a program to what it depends on."""
    found: dict[str, set[str]] = {}
    for name, needs in graph.items():
        for need in needs:
            found.setdefault(need, set()).add(name)
    return found


def with_dependencies(names: Sequence[str], graph: Mapping[str, Iterable[str]]) -> list[str]:
    """``names`` and everything they depend on, each once, dependencies first."""
    ordered: dict[str, None] = {}
    path: list[tuple[str, Iterator[str]]] = []  # a stack of our own: a chain of all programs would exceed Python's recursion limit
    for first in names:
        if first not in ordered:
            path.append((first, iter(graph.get(first, ()))))
        while path:
            name, needs = path[-1]
            need = next((each for each in needs if each not in ordered), None)
            if need is None:
                ordered[name] = None
                path.pop()
            else:
                path.append((need, iter(graph.get(need, ()))))
    return list(ordered)
