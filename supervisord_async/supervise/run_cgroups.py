"""A cgroup for each run of one daemon, where the machine allows it: made, entered and removed without blocking the loop.

A run is spawned inside its cgroup. To enter one may block for some 10 ms, so a thread does that waiting before the spawn:
once for all spawns that are about to happen, or in advance when some are expected. A single unexpected spawn is delayed by
it. Folders are removed by a thread too, some time after their run is over.

One cgroup per run, not per process: so what an earlier run left behind is distinguished from the current run, even by a daemon
that lost every file. Without cgroups nothing fails: that is reported once, and :mod:`.tree` finds processes by its other means.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress

import anyio

from supervisord_async.supervise.retry import retry_on_shortage
from supervisord_async.system import cgroups
from supervisord_async.system.cgroups import Cgroup, UnusableError
from supervisord_async.system.identity import Identity, is_alive, of
from supervisord_async.system.process_table import ProcessTable
from supervisord_async.system.shortage import is_shortage
from supervisord_async.system.threads import in_thread
from supervisord_async.system.turn_limiter import SPAWNS_A_TURN, TurnLimiter

_log = logging.getLogger("asupd")

#: Folders of runs that are over are collected for this long, then removed together.
SWEEP_SECONDS = 0.1
#: How often removal is tried when the daemon ends: a dying process keeps its folder for a moment, and on a busy machine for a second.
LAST_SWEEPS = 40


class RunCgroups:
    """The cgroups of one daemon's runs, by the runs' tags."""

    def __init__(self, instance: str) -> None:
        self.missing: str | None = None  #: why runs have no cgroups; None if they have
        self._instance = instance
        self._home: str | None = None
        self._known: dict[str, Cgroup] = {}
        self._over: set[Cgroup] = set()  #: to be removed
        self._sweep = anyio.Event()
        self._own = Cgroup("")  #: the daemon's own cgroup, as last seen
        self._moved_at = -1.0
        self._moving: anyio.Event | None = None  #: while a thread moves us; set afterwards
        self._turns = TurnLimiter(SPAWNS_A_TURN)
        self._reported = ""  #: the problem that was reported last; empty once it is solved

    async def open(self) -> None:
        """From now on runs get cgroups, or :attr:`missing` says why not; the cgroups of an earlier daemon's runs are known."""
        self._known = await retry_on_shortage("look for cgroups", lambda: in_thread(self._look))

    def _look(self) -> dict[str, Cgroup]:
        try:
            self._home = cgroups.make_home(self._instance)
            self._own = Cgroup(cgroups.folder_of())
        except (UnusableError, OSError) as error:
            self.missing = str(error)
        found = cgroups.of_instance(self._instance)
        return {tag: cgroup for tag, cgroup in found.items() if not cgroup.remove()}

    @property
    def known(self) -> Mapping[str, Cgroup]:
        """The cgroups of runs that are not over, by tag."""
        return self._known

    def of(self, tag: str) -> Cgroup | None:
        """The cgroup of that run, if it has one."""
        return self._known.get(tag)

    async def prepare(self) -> None:
        """Do in advance what a spawn has to wait for, so that one within some 15 ms waits less. Errors are left to :meth:`make` to report.

        The exact time at which the thread was done is not known, as other threads may delay its report; so :meth:`make` does it once more.
        """
        if self._home is None or self._moving is not None:
            return
        with suppress(OSError, UnusableError):
            await self._move()

    async def make(self, tag: str) -> Cgroup | None:
        """A cgroup for a run that is to be spawned before the loop's next turn; None if it has to do without one."""
        if self._home is None:
            return None
        try:
            await self._warm_up()
            cgroup = self._make(tag)
        except (OSError, UnusableError) as error:
            self._report(error)
            return None
        if cgroup is not None:
            self._known[tag] = cgroup
        return cgroup

    def _make(self, tag: str) -> Cgroup | None:
        """Make a run's cgroup. None: the daemon could not leave another run's, and no further run has one. Raises OSError."""
        if self._home is None:
            return None
        cgroup = cgroups.run_folder(self._home, tag)
        try:
            os.mkdir(cgroup.path)
        except FileExistsError:
            pass  # whatever lives in it belongs to the run of that name
        except FileNotFoundError:  # somebody removed the parent folder while it was empty
            os.makedirs(cgroup.path)
        return cgroup

    @contextmanager
    def forking_into(self, cgroup: Cgroup) -> Iterator[None]:
        """A child forked in this context starts in ``cgroup``, or the log says why not. The context must not await anything."""
        with ExitStack() as stack:
            try:
                stack.enter_context(cgroups.forking_into(cgroup, self._own, self._stranded))
            except OSError as error:
                self._report(error)
            else:
                self._reported = ""
            yield
        self._moved_at = time.monotonic()

    def _stranded(self, error: OSError) -> None:
        self._home = None
        _log.error("degraded: cannot step back out of a run's cgroup: %s; no further run has one", error.strerror)

    def leave(self, tag: str) -> None:
        """The run is over: its folder will be removed as soon as nothing lives in it."""
        cgroup = self._known.pop(tag, None)
        if cgroup is not None:
            self._over.add(cgroup)
            self._sweep.set()

    async def take_in(self, runs: Mapping[str, Iterable[Identity]]) -> None:
        """Living runs that an earlier daemon spawned without a cgroup are moved into one each, as far as possible.

        ``runs`` has the known processes of each run, by tag; their descendants are moved as well. Processes are moved out of our
        own cgroup only: one that is elsewhere was put there on purpose.
        """
        if self._home is not None and runs:
            await retry_on_shortage("put living runs into cgroups", lambda: in_thread(self._take_in, runs))

    def _take_in(self, runs: Mapping[str, Iterable[Identity]]) -> None:
        now = ProcessTable()
        now.everything()
        try:
            for tag, roots in runs.items():
                cgroup = self._make(tag)
                if cgroup is None:
                    return
                self._known[tag] = cgroup
                for process in map(now.stat, now.descendants({root.pid for root in roots if is_alive(root)})):
                    if process is not None and cgroups.is_in(process.pid, self._own):
                        cgroup.take_in(of(process))
        except (OSError, UnusableError) as error:
            self._report(error)

    async def run(self) -> None:
        """Remove the folders of runs that are over, until cancelled."""
        while True:
            await self._sweep.wait()
            await anyio.sleep(SWEEP_SECONDS)
            self._sweep = anyio.Event()
            await self._remove_over()

    async def close(self) -> None:
        """All folders of this instance are removed, except those in which something lives."""
        for attempt in range(LAST_SWEEPS):
            try:
                if await in_thread(self._remove_all):
                    return
            except OSError as error:
                _log.info("cannot remove the cgroups of runs that are over: %s", error)
                return
            await anyio.sleep(SWEEP_SECONDS if attempt > LAST_SWEEPS / 2 else SWEEP_SECONDS / 10)

    def _remove_all(self) -> bool:
        """False if a folder without living processes is left: one is just dying in it, so it is worth another try."""
        cgroups.remove_all(self._instance)
        return not any(not cgroup.pids() for cgroup in cgroups.of_instance(self._instance).values())

    async def _remove_over(self) -> None:
        over = frozenset(self._over)
        try:
            removed = await in_thread(lambda: {cgroup for cgroup in over if cgroup.remove()})
        except OSError:
            return  # a later sweep removes them, or close()
        self._over -= removed  # not where something still lives: at the next sweep

    async def _warm_up(self) -> None:
        """Until the loop's next turn no thread moves us, and moving into a cgroup does not block. One thread does the waiting for all."""
        while self._moving is not None:  # after each wait again: somebody who came between may have begun the next move
            await self._moving.wait()
            await self._turns.turn()  # the forks of all that came meanwhile would together hold the loop for long
        if time.monotonic() - self._moved_at < cgroups.WARM_SECONDS:
            return
        own = await self._move()
        if own is not None:
            self._own, self._moved_at = own, time.monotonic()

    async def _move(self) -> Cgroup | None:
        """A thread has moved us to where we are, which is returned; None if no thread can be started: this time a move blocks the loop.

        Nothing may be forked into a cgroup meanwhile: the thread would find us there, and leave us there.
        """
        self._moving = anyio.Event()
        try:
            return await in_thread(cgroups.warm_up)
        except OSError as error:
            if not is_shortage(error):
                raise
            return None
        finally:
            self._moving.set()
            self._moving = None

    def _report(self, error: Exception) -> None:
        """Log ``error``, unless it is the one that was logged last."""
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        if reason != self._reported:
            self._reported = reason
            _log.warning(
                "degraded: cannot put a run into a cgroup: %s; its processes are found by session, parents and environment", reason
            )
