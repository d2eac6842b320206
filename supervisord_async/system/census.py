"""What is known of other processes during one turn of the loop, shared by all who ask in it.

When 500 runs end at once, each asks what it left behind; they look at /proc once, not 500 times.
"""

from __future__ import annotations

import asyncio
import os

import msgspec

from supervisord_async import wire
from supervisord_async.system import oom, orphans, procfs

_TAGS_LIMIT = 16384
_STRANGER_ROUNDS = 20

#: The tag in a process's environment, by PID, start and session: it is inherited, so what was once seen stays true.
_tags: dict[tuple[int, int, int], str] = {}


class Strangers(msgspec.Struct, frozen=True):
    """The living children of ours that nobody waits for."""

    alive: tuple[procfs.Stat, ...]
    settled: bool  #: False: they come and go faster than they can be looked at, so somebody lives that is not here


class Census:
    """A view of the processes that is filled as it is asked, and never corrected: throw it away instead."""

    def __init__(self) -> None:
        self._stats: dict[int, procfs.Stat | None] = {}
        self._children: dict[int, set[int]] = {}
        self._everything: dict[int, procfs.Stat] | None = None
        self._strangers: Strangers | None = None
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
        """Orphans that came to us.

        One that dies while we look may have left a child that comes to us after we looked. So the look is repeated
        until nobody died in it: what was dead before it began had left all that it leaves.
        """
        if self._strangers is None:
            self._strangers = self._find_strangers()
        return self._strangers

    def oom_kills(self) -> int | None:
        """As :func:`.oom.kills`; raises OSError as well."""
        if self._oom_kills is None:
            self._oom_kills = (oom.kills(),)
        return self._oom_kills[0]

    def _find_strangers(self) -> Strangers:
        dead: set[int] = set()
        lingering: set[int] = set()  # those that were about to exit in every look: they hang in it
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
            children = procfs.children(os.getpid()) if self._listed else Census().own_children()
        return Strangers((), settled=False)

    def _look(self, pid: int) -> procfs.Stat | None:
        """A process that lives, looked at after its tag was; None for a dead one."""
        process = procfs.stat(pid)
        if process is not None and not process.dead and not tag_of(process):
            process = procfs.stat(pid)  # none, or did it begin to exit this instant?
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

        A child that has lost its parent since it was listed is left to the next look: its PID may be another process's by now.
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


#: The present turn's census, if anybody asked in it.
_turn: list[Census] = []


def current() -> Census:
    """The census of this turn of the loop; a new one where no loop runs."""
    if not _turn:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return Census()
        _turn.append(Census())
        loop.call_soon(_turn.clear)
    return _turn[0]
