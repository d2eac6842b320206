"""All that lives of one run: its main process, and what it left behind.

Theory of operation. A run's main process leads a session of its own, and has a tag in its environment that its
descendants inherit. Whatever loses its parent becomes our child, because we are a subreaper. So, for a run that is
our child, all that lives of it is below the main process or below a *stranger* among our children, one that
nobody waits for; a stranger belongs to this run if it is in the run's session or has its tag. When we have no
strangers and the main process is dead, nothing is left; that is the fast path.

For a run that an earlier daemon spawned, or if we are no subreaper, orphans go elsewhere (to init): then all
processes are looked at, by session and tag.

If a run has a cgroup (:mod:`.cgroups`), all that is in it belongs to the run too, and is killed first, by the cgroup. That
finds what evades the other means, and is done at once, however it forks. The other means are still needed: a process that
was moved into its cgroup after it had started may have forked before.

Every signal goes through a pidfd whose process was compared with its identity after it was opened, or to the group
of a child that we have not reaped, whose number therefore is taken. A reused PID is never signalled. As an identity is only
as fine as a tick, some 10 ms, and when PIDs run out one can be reused within that, more is checked: a main process that was
reaped is over whatever /proc says of its PID; a process is signalled only in the session in which it was found; a child
must still have the parent under which it was listed; and a process in the cgroup must be there before and after it is looked at.

What is missed: without a cgroup, a process that leaves the session *and* wipes its environment *and* loses its parent before we
look; and, if we are no subreaper or the run is not our child, one that leaves the session while we may not read its
environment (another user's, and we are not root), once its parent is gone.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

import anyio
import anyio.lowlevel

from supervisord_async.system import orphans, process_table, procfs
from supervisord_async.system.cgroups import Cgroup
from supervisord_async.system.child import Child, watched
from supervisord_async.system.identity import Identity, of
from supervisord_async.system.pidfd import send_signal, wait_dead
from supervisord_async.system.process_table import ProcessTable
from supervisord_async.system.shortage import is_shortage
from supervisord_async.system.signals import group_exists

Scope = Literal["tree", "main"]

#: These are followed by SIGCONT, since a stopped process reacts to nothing but KILL.
_ENDING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGABRT})

_FREEZE_ROUNDS = 20
_KILL_TIMEOUT_SECONDS = 10.0
_KILL_ROUND_SECONDS = 0.25
_QUIET_ROUNDS = 2
_CATCH_SECONDS = 0.05
_CATCH_IDLE_POLLS = 50
#: The longest chain of parents that is followed.
_GENERATIONS = 256

_log = logging.getLogger(__name__)


class Tree:
    """The processes of one run."""

    __slots__ = ("_cgroup", "_child", "_leader", "_orphans_come_to_us", "main", "tag")

    def __init__(
        self,
        main: Identity | None,
        tag: str,
        *,
        ours: bool,
        cgroup: Cgroup | None = None,
        child: Child | None = None,
    ) -> None:
        """The run whose main process is, or was, ``main``, which leads its session, with ``tag`` in its environment.

        ``ours``: whether it is our child. ``child`` is how its end is known for certain. If the main process is not known,
        only what has the tag is found, and what is in the run's ``cgroup``, if it has one.
        """
        self.main = self._leader = main
        self.tag = tag
        self._cgroup = cgroup
        self._child = child
        self._orphans_come_to_us = ours and orphans.gets_orphans()

    @classmethod
    def of(cls, child: Child, tag: str, cgroup: Cgroup | None = None) -> Tree:
        """The tree of a child that leads its own session, as every spawned one does."""
        return cls(child.identity, tag, ours=child.ours, cgroup=cgroup, child=child)

    def led_by(self, child: Child) -> Tree:
        """The same run, with ``child``, another process of it, as its main process."""
        tree = Tree(child.identity, self.tag, ours=child.ours, cgroup=self._cgroup, child=child)
        tree._leader = self._leader
        tree._orphans_come_to_us = self._orphans_come_to_us
        return tree

    @property
    def session(self) -> int:
        """The run's session, which has the PID of the process that the run began with; 0 if that is not known."""
        return self._leader.pid if self._leader is not None else 0

    def has_leftovers(self) -> bool:
        """True if anything of the run but its main process lives. Cheap when nothing does."""
        now = process_table.current()
        if self._orphans_come_to_us and not self._main_lives(now):
            if not now.strangers().settled:
                return True
            if not now.strangers().alive and group_exists(self.session):
                now = ProcessTable()  # look again: most likely zombies, but perhaps one that a sibling's death hid while we read
        return bool(self._leftovers(now))

    def leftovers(self) -> list[Identity]:
        """All that lives of the run but its main process."""
        return self._leftovers(process_table.current())

    def left_behind(self) -> list[str]:
        """The names of the run's living processes but its main process, without those that are just exiting, oldest first."""
        now = process_table.current()
        found = [now.stat(member.pid) for member in self._leftovers(now)]
        return [process.name for process in found if process is not None and not process.dying]

    def members(self) -> list[Identity]:
        """All that lives of the run, its main process first."""
        return self._members(process_table.current())

    def includes(self, pid: int) -> bool:
        """True if that process is of this run, without looking at all others; a zombie may count too."""
        return self._descends(pid) or (self._cgroup is not None and self._cgroup.confines(pid))

    def _descends(self, pid: int) -> bool:
        """Whether the process descends from the main one, is in the run's session, or is an orphan of the run that came to us.

        A tag alone proves nothing, since anybody can put it into an environment: it counts only for what became our child.
        """
        now = ProcessTable()
        ancestor, session_is_ours = now.stat(pid), self._session_is_ours(now)
        for _ in range(_GENERATIONS):
            if ancestor is None or ancestor.pid <= 1:
                break
            if of(ancestor) == self.main or (session_is_ours and ancestor.session == self.session):
                return True
            if ancestor.parent == os.getpid():
                return self._has_tag(ancestor)
            ancestor = now.stat(ancestor.parent)
        return False

    def signal(self, signum: int, scope: Scope = "tree") -> int:
        """Send to the whole tree or the main process alone; return how many processes that were.

        Signals that end a process are followed by SIGCONT, so that stopped processes react. Processes that we may not signal (a
        set-uid program, when we are not root) are skipped and logged.
        """
        now = process_table.current()
        targets = self._members(now)
        if scope == "main":
            targets = [target for target in targets if target == self.main]
        self._send(now, targets, signum, whole_group=scope == "tree")
        if signum in _ENDING:
            self._send(now, targets, signal.SIGCONT, whole_group=scope == "tree")
        return len(targets)

    def signal_known(self, signum: int, scope: Scope = "tree") -> bool:
        """Send to the main process, in ``tree`` to its whole group; False if that is not possible.

        This needs no descriptor, as looking for the others does. :meth:`signal_others` is for when there is one.
        """
        child = self._child
        if child is None or child.ended is not None:
            return False
        leads = scope == "tree" and child.pid in watched and os.getpgid(child.pid) == child.pid
        for number in (signum, signal.SIGCONT) if signum in _ENDING else (signum,):
            try:
                os.killpg(child.pid, number) if leads else child.send_signal(number)
            except PermissionError:
                _log.warning("may not send signal %d to process %d of %s", number, child.pid, self.tag)
                return False
        return True

    def signal_others(self, signum: int) -> None:
        """Send to all that :meth:`signal_known` did not reach: what is neither the main process nor in its group."""
        now = process_table.current()
        known = self.main.pid if self.main is not None else 0
        others = [
            each for each in self._members(now) if (place := now.stat(each.pid)) is not None and known not in (place.pid, place.group)
        ]
        self._send(now, others, signum, whole_group=False)
        if signum in _ENDING:
            self._send(now, others, signal.SIGCONT, whole_group=False)

    async def kill(self, timeout_seconds: float = _KILL_TIMEOUT_SECONDS) -> list[Identity]:
        """Kill all that lives of the run, even if it forks as fast as it can.

        The processes in its cgroup are killed at once. All others that are found are stopped before the first is killed, so
        that no parent dies whose children were not seen; then they are killed, and looked for again until nothing is left.
        After ``timeout_seconds`` returns those that would not die (they hang in the kernel, or we may not kill them);
        normally returns an empty list. Raises OSError if no descriptor is free to look; then what is known was killed.
        """
        try:
            return await self._kill(time.monotonic() + timeout_seconds)
        except OSError as error:
            if is_shortage(error):
                self.signal_known(signal.SIGKILL)
            raise

    async def _kill(self, deadline: float) -> list[Identity]:
        quiet = 0
        while quiet < (1 if self._orphans_come_to_us else _QUIET_ROUNDS):
            await self._kill_cgroup()
            condemned = await self._freeze(deadline)
            if condemned:
                self._send(process_table.current(), condemned, signal.SIGKILL, whole_group=True)
                with anyio.move_on_after(_KILL_ROUND_SECONDS):
                    await _wait_all(condemned)
            quiet = 0 if condemned or not self._is_settled(process_table.current()) else quiet + 1
            if time.monotonic() >= deadline:
                return self._members(ProcessTable())
            if quiet == 0:
                await anyio.lowlevel.checkpoint()
        return []

    async def wait_gone(self) -> None:
        """Return when nothing of the run lives, neither main process nor leftovers; waits on pidfds, without polling."""
        while members := self._members(process_table.current()):
            await _wait_all(members)
            await anyio.lowlevel.checkpoint()

    async def _kill_cgroup(self) -> None:
        """Kill all in the run's cgroup, and wait a moment for the kernel; logged if we may not."""
        if self._cgroup is None or not self._confined():
            return
        try:
            self._cgroup.kill()
        except PermissionError as error:
            _log.warning("may not kill the cgroup of %s: %s", self.tag, error.strerror)
            return
        with anyio.move_on_after(_KILL_ROUND_SECONDS):
            while dying := [of(each) for each in map(procfs.stat, self._confined()) if each is not None and not each.dead]:
                await _wait_all(dying)
                await anyio.lowlevel.checkpoint()

    async def _freeze(self, deadline: float) -> list[Identity]:
        """Stop all that lives of the run, and return it; repeated until a look finds nothing new."""
        frozen: dict[Identity, None] = {}
        for _ in range(_FREEZE_ROUNDS):
            now = process_table.current()
            if not self._is_settled(now):
                self._catch()
                now = ProcessTable()
            fresh = [member for member in self._members(now) if member not in frozen]
            if not fresh:
                break
            self._send(now, fresh, signal.SIGSTOP, whole_group=not frozen)
            frozen.update(dict.fromkeys(fresh))
            await anyio.lowlevel.checkpoint()  # another turn, another process table
            if time.monotonic() >= deadline:
                break
        return list(frozen)

    def _catch(self) -> None:
        """Stop processes that keep replacing themselves by forking, as each becomes our child; continue those not of this run.

        Such a process lives for some microseconds, so there is no time to find out whose it is before it is stopped. Plain
        PIDs are safe here: they are those of our own unreaped children.
        """
        session_is_ours = self._session_is_ours(ProcessTable())
        seen: set[int] = set()
        for pid in orphans.strangers(procfs.children(os.getpid())):
            process = procfs.stat(pid)
            if process is None or process.dead or not self._is_of_run(process, session_is_ours):
                seen.add(pid)
        stopped: set[int] = set()
        idle, until = 0, time.monotonic() + _CATCH_SECONDS
        with _urgency():
            while idle < _CATCH_IDLE_POLLS and time.monotonic() < until:
                newborn = orphans.strangers(procfs.children(os.getpid()), seen | stopped)
                for pid in newborn:
                    with suppress(PermissionError):  # it changed its user; logged when it is to be killed
                        os.kill(pid, signal.SIGSTOP)
                stopped.update(newborn)
                stopped.difference_update([pid for pid in stopped if orphans.reap(pid)])  # as a long list of children is slow to read
                idle = 0 if newborn else idle + 1
        for process in map(procfs.stat, stopped):
            if process is not None and not process.dead and not self._is_of_run(process, session_is_ours):
                with suppress(PermissionError):
                    os.kill(process.pid, signal.SIGCONT)

    def _is_settled(self, now: ProcessTable) -> bool:
        return not self._orphans_come_to_us or now.strangers().settled

    def _send(self, now: ProcessTable, targets: list[Identity], signum: int, *, whole_group: bool) -> None:
        """Send to each target once; to the main process's group as a whole where that is safe, since a fork cannot escape that."""
        group = self._own_group(now) if whole_group and self.main in targets else None
        if group is not None:
            try:
                os.killpg(group, signum)
            except PermissionError:  # all of them changed their user: try, and log, each
                group = None
        for target in targets:
            place = now.stat(target.pid)
            if group is not None and place is not None and place.group == group:
                continue
            try:
                send_signal(target, signum, session=place.session if place is not None else None)
            except PermissionError:
                _log.warning("may not send signal %d to process %d of %s", signum, target.pid, self.tag)

    def _own_group(self, now: ProcessTable) -> int | None:
        """The main process's group, if its number is certain, as its leader is our unreaped child."""
        if self.main is None or self.main.pid not in watched:
            return None
        found = now.stat(self.main.pid)
        return self.main.pid if found is not None and of(found) == self.main and found.group == self.main.pid else None

    def _leftovers(self, now: ProcessTable) -> list[Identity]:
        return [member for member in self._members(now) if member != self.main]

    def _members(self, now: ProcessTable) -> list[Identity]:
        """All that lives of the run, its main process first."""
        roots = self._orphans(now)
        if self.main is not None and self._main_lives(now):
            roots.add(self.main.pid)
        family = now.descendants(roots)
        if confined := self._confined() - family:
            for pid in confined:
                now.stat(pid)
            family |= now.descendants(confined & self._confined())  # those still in it are the ones that were looked at
        found = [now.stat(pid) for pid in family]
        alive = [of(process) for process in found if process is not None and not process.dead and process.pid != os.getpid()]
        return sorted(alive, key=lambda member: (member != self.main, member.start_ticks, member.pid))

    def _confined(self) -> set[int]:
        """The processes in the run's cgroup; none if somebody put us in it too, as then it no longer tells the run from others."""
        pids = self._cgroup.pids() if self._cgroup is not None else set()
        return pids if os.getpid() not in pids else set()

    def _orphans(self, now: ProcessTable) -> set[int]:
        """The processes that belong to this run by session or tag, whoever their parent is by now."""
        candidates = now.related(self.session, self.tag, strangers_only=self._orphans_come_to_us)
        if not candidates:
            return set()
        trusted = self._session_is_ours(now)
        return {process.pid for process in candidates if self._is_of_run(process, trusted)}

    def _is_of_run(self, process: procfs.Stat, session_is_ours: bool) -> bool:
        if process.dead or process.pid == os.getpid():
            return False
        return (session_is_ours and self.session in (process.session, process.group)) or self._has_tag(process)

    def _has_tag(self, process: procfs.Stat) -> bool:
        return self.tag != "" and process_table.tag_of(process) == self.tag  # "" is what all have that nobody supervises

    def _session_is_ours(self, now: ProcessTable) -> bool:
        """False if the session's number was reused by a stranger, which happens only after all of ours is gone."""
        if self._leader is None:
            return False
        found = now.stat(self._leader.pid)
        return found is None or (of(found) == self._leader and not (self._leader == self.main and self._main_is_over()))

    def _main_lives(self, now: ProcessTable) -> bool:
        if self.main is None or self._main_is_over():
            return False
        found = now.stat(self.main.pid)
        return found is not None and not found.dead and of(found) == self.main

    def _main_is_over(self) -> bool:
        """Whether it was reaped. Its identity alone would not do: if PIDs run out, another process may get its PID within the same tick."""
        return self._child is not None and self._child.ended is not None


@contextmanager
def _urgency() -> Iterator[None]:
    """Run with real-time priority, if we may: otherwise a race against many forking processes is lost."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except OSError:  # not root: go on with the usual priority
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


async def _wait_all(members: list[Identity]) -> None:
    """Return when all of these are dead. Uses one descriptor at a time."""
    for member in members:
        await wait_dead(member)
