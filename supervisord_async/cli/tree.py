"""Programs and their dependencies as trees: the roots are programs that no other depends on, the branches what each one needs. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from supervisord_async.cli.row import Row
from supervisord_async.cli.words import reason

Graph = Mapping[str, Mapping[str, str]]


@dataclass(slots=True)
class Branch:
    """A program and, as branches, what it needs. ``elsewhere``: what it needs is drawn further up."""

    program: str
    need: str | None  #: the condition that its parent waits for: started, ready, completed, succeeded
    branches: list[Branch] = field(default_factory=list)
    elsewhere: bool = False


def trees_of(graph: Graph, chosen: Sequence[str]) -> list[Branch]:
    """The trees of the ``chosen`` programs; if none, of all that no other depends on. What several need is drawn under the first."""
    needed = {need for needs in graph.values() for need in needs}
    drawn: set[str] = set()

    def branch(program: str, need: str | None) -> Branch:
        needs = graph.get(program, {})
        if program in drawn:
            return Branch(program, need, elsewhere=bool(needs))
        drawn.add(program)
        return Branch(program, need, [branch(name, how) for name, how in needs.items()])

    return [branch(program, None) for program in (chosen or [name for name in graph if name not in needed])]


def rows(trees: Sequence[Branch], processes: Sequence[Row]) -> list[tuple[str, str, str, str, str]]:
    """A row for each branch: its name after the tree's lines, the condition, state, health, reason."""
    members: dict[str, list[Row]] = {}
    for process in processes:
        members.setdefault(process.program, []).append(process)
    return [
        (prefix + branch.program, branch.need or "", *_state_of(members.get(branch.program, []), branch))
        for prefix, branch in _drawn(trees)
    ]


def documents(trees: Sequence[Branch], processes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The trees as nested objects, for programs, with the status of each process."""
    return [
        {
            "program": branch.program,
            "need": branch.need,
            "processes": [process for process in processes if process.get("program") == branch.program],
            "depends_on": documents(branch.branches, processes),
            "elsewhere": branch.elsewhere,
        }
        for branch in trees
    ]


def _drawn(trees: Sequence[Branch], indent: str | None = None) -> Iterator[tuple[str, Branch]]:
    for index, branch in enumerate(trees):
        last = index == len(trees) - 1
        if indent is None:
            yield "", branch
            yield from _drawn(branch.branches, "")
        else:
            yield indent + ("\N{BOX DRAWINGS LIGHT UP AND RIGHT}" if last else "\N{BOX DRAWINGS LIGHT VERTICAL AND RIGHT}") + _DASH, branch
            yield from _drawn(branch.branches, indent + ("   " if last else "\N{BOX DRAWINGS LIGHT VERTICAL}  "))


_DASH = "\N{BOX DRAWINGS LIGHT HORIZONTAL} "


def _state_of(processes: Sequence[Row], branch: Branch) -> tuple[str, str, str]:
    if len(processes) == 1:
        one = processes[0]
        words = [reason(one)] if reason(one) else []
        state, health = one.state, "-" if one.health == "none" else one.health
    else:
        states, healths = Counter(one.state for one in processes), {one.health for one in processes}
        state = ", ".join(f"{count} {name}" for name, count in states.items()) or "-"
        health = next((word for word in ("unhealthy", "starting", "healthy") if word in healths), "-")
        words = []
    if branch.elsewhere:
        words.append("what it needs is above")
    return state, health, "; ".join(words)
