"""What is known of other processes during one turn of the loop, shared by all callers in that turn.

When 500 runs end at once, each has to find out what it left behind; so /proc is read once, not 500 times.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable

import msgspec

from supervisord_async import wire
from supervisord_async.system import oom, orphans, procfs

_TAGS_LIMIT = 16384
_STRANGER_ROUNDS = 20

#: The tag in a process's environment, by PID, start and session. A process keeps its environment, so an entry stays true.
_tags: dict[tuple[int, int, int], str] = {}


class Strangers(msgspec.Struct, frozen=True):
    """Our living children that nobody waits for."""

    alive: tuple[procfs.Stat, ...]
    settled: bool  #: False: they come and go faster than we can look, so some may be missing here


class _Ties:
    """Living processes by session, group and tag: a thousand runs that each looked at all processes would take quadratic time."""

    def __init__(self, processes: Iterable[procfs.Stat]) -> None:
        self.by_number: dict[int, list[procfs.Stat]] = {}
        self.by_tag: dict[str, list[procfs.Stat]] = {}
        for process in processes:
            if process.dead:
                continue
            for number in {process.session, process.group}:
                self.by_number.setdefault(number, []).append(process)
            if tag := tag_of(process):
                self.by_tag.setdefault(tag, []).append(process)


class ProcessTable:
    """A view of the processes, filled on demand and never updated: make a new one instead."""

    def __init__(self) -> None:
        self._stats: dict[int, procfs.Stat | None] = {}
        self._children: dict[int, set[int]] = {}
        self._everything: dict[int, procfs.Stat] | None = None
        self._strangers: Strangers | None = None
        self._ties: dict[bool, _Ties] = {}  #: of the strangers alone, and of everything
        self._oom_kills: tuple[int | None] | None = None
        self._listed = procfs.can_list_children()

    def stat(self, pid: int) -> procfs.Stat | None:
        """One process, dead or alive; None if it is gone."""
        if pid not in self._stats:
            self._stats[pid] = procfs.stat(pid)
        return self._stats[pid]

    def children(self, pid: int) -> set[int]:
        """The direct children of one process, zombies too."""
        if self._everything is None and self._listed:
            if pid not in self._children:
                self._children[pid] = procfs.children(pid)
            return self._children[pid]
        self.everything()
        return self._children.get(pid, set())

    def own_children(self) -> set[int]:
        """Our direct children, zombies too."""
        return self.children(os.getpid())

    def strangers(self) -> Strangers:
        """The orphans that came to us.

        One that dies while we look may leave a child that comes to us only after that. So the look is repeated until none
        died during it: the children of those that were dead before have come already.
        """
        if self._strangers is None:
            self._strangers = self._find_strangers()
        return self._strangers

    def related(self, session: int, tag: str, *, strangers_only: bool) -> list[procfs.Stat]:
        """The living processes in the session or group of that number, or with that tag; some perhaps twice."""
        if strangers_only not in self._ties:
            self._ties[strangers_only] = _Ties(self.strangers().alive if strangers_only else self.everything().values())
        ties = self._ties[strangers_only]
        return [*ties.by_number.get(session, ()), *ties.by_tag.get(tag, ())]

    def oom_kills(self) -> int | None:
        """As :func:`.oom.kills`, read once; raises OSError as well."""
        if self._oom_kills is None:
            self._oom_kills = (oom.kills(),)
        return self._oom_kills[0]

    def _find_strangers(self) -> Strangers:
        dead: set[int] = set()
        lingering: set[int] = set()  # those that were exiting in every look so far: they hang in that
        children = self.own_children()
        for look in range(_STRANGER_ROUNDS):
            alive, dying = [], set()
            gone = len(dead)
            for pid in orphans.strangers(children, dead):
                process = self._look(pid)
                if process is None:
                    dead.add(pid)
                    continue
                alive.append(process)
                if process.dying and not tag_of(process):
                    dying.add(pid)
            lingering = dying if look == 0 else lingering & dying
            patient = look == _STRANGER_ROUNDS - 1 and dying == lingering
            if len(dead) == gone and (not dying or patient):
                return Strangers(tuple(alive), settled=True)
            children = procfs.children(os.getpid()) if self._listed else ProcessTable().own_children()
        return Strangers((), settled=False)

    def _look(self, pid: int) -> procfs.Stat | None:
        """A living process, its state read after its tag; None for a dead one."""
        process = procfs.stat(pid)
        if process is not None and not process.dead and not tag_of(process):
            process = procfs.stat(pid)  # has it no tag, or did it just begin to exit?
        if process is None or process.dead:
            return None
        self._stats[pid] = process
        return process

    def everything(self) -> dict[int, procfs.Stat]:
        """All processes."""
        if self._everything is None:
            self._everything = procfs.snapshot()
            self._stats.update(self._everything)
            by_parent = procfs.children_by_parent(self._everything)
            self._children = {pid: set(children) for pid, children in by_parent.items()}
        return self._everything

    def descendants(self, roots: set[int]) -> set[int]:
        """``roots`` with all their descendants.

        A listed child whose parent has changed is skipped until the next look: its PID may be another process's by now.
        """
        found: set[int] = set()
        pending = list(roots)
        while pending:
            pid = pending.pop()
            if pid not in found:
                found.add(pid)
                pending.extend(child for child in self.children(pid) if (born := self.stat(child)) is not None and born.parent == pid)
        return found


def tag_of(process: procfs.Stat) -> str | None:
    """The run that the process's environment names (:data:`.wire.ENV_TAG`); "" for none, None if unreadable."""
    key = (process.pid, process.start_ticks, process.session)
    tag = _tags.get(key)
    if tag is None:
        tag = procfs.environment_value(process.pid, wire.ENV_TAG)
        if tag is not None:
            if len(_tags) >= _TAGS_LIMIT:
                _tags.clear()
            _tags[key] = tag
    return tag


#: The process table of the current turn of the loop; empty until it is needed.
_turn: list[ProcessTable] = []


def current() -> ProcessTable:
    """The process table of this turn of the loop; without a running loop, a new one."""
    if not _turn:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return ProcessTable()
        _turn.append(ProcessTable())
        loop.call_soon(_turn.clear)
    return _turn[0]
