"""A cgroup for each run of one daemon, where the machine gives any: made, entered and removed without blocking the loop.

A run is born in its cgroup. The kernel would make us wait for that on the loop, so a thread does the waiting before the
birth, once for all who are about to be born, or already when some are expected; a run that begins alone and unexpected begins some
10 ms later for it. Folders are removed by a thread too, some time after their run is over.

One for each run, not one for each process: what an earlier run left can be told from the one that lives, also by a daemon
that lost every file. Nothing fails because there is no cgroup: that is reported once, and the other means of :mod:`.tree` serve.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress

import anyio
import anyio.to_thread

from supervisord_async.supervise.patience import is_want, patiently
from supervisord_async.system import cgroups
from supervisord_async.system.census import Census
from supervisord_async.system.cgroups import Cgroup, UnusableError
from supervisord_async.system.identity import Identity, is_alive, of

_log = logging.getLogger("asupd")

#: Folders of runs that are over are gathered for this long, then removed together.
SWEEP_SECONDS = 0.1
#: How often a folder is tried at the end: a process that is just dying keeps its folder for a moment.
LAST_SWEEPS = 20


class Enclosures:
    """The cgroups of one daemon's runs, by the tags of these."""

    def __init__(self, instance: str) -> None:
        self.missing: str | None = None  #: why runs have no cgroups; None: they have
        self._instance = instance
        self._home: str | None = None
        self._known: dict[str, Cgroup] = {}
        self._over: set[Cgroup] = set()  #: to be removed
        self._sweep = anyio.Event()
        self._own = Cgroup("")  #: where we are ourselves, at the last look
        self._moved_at = -1.0
        self._warming: anyio.Event | None = None
        self._preparing: anyio.Event | None = None
        self._told = ""  #: of what does not work now

    async def open(self) -> None:
        """Runs can have cgroups from now on, or :attr:`missing` says why not; those of an earlier daemon are known."""
        self._known = await patiently("look for cgroups", lambda: anyio.to_thread.run_sync(self._look))

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
        """What the birth of a run waits for is begun, so that one within some 15 ms waits for less. Errors are :meth:`make`'s to report.

        When it was done cannot be told, as other threads may keep ours from saying so; therefore :meth:`make` does it once more.
        """
        if self._home is None or self._preparing is not None or self._warming is not None:
            return
        self._preparing = anyio.Event()
        try:
            with suppress(OSError, UnusableError):
                await anyio.to_thread.run_sync(cgroups.warm_up)
        except RuntimeError as error:
            if not is_want(error):
                raise
        finally:
            self._preparing.set()
            self._preparing = None

    async def make(self, tag: str) -> Cgroup | None:
        """A cgroup for a run that is to be born before the loop turns again; None: it has to do without."""
        if self._home is None:
            return None
        try:
            await self._warm_up()
            cgroup = self._make(tag)
        except (OSError, UnusableError) as error:
            self._tell(error)
            return None
        self._known[tag] = cgroup
        return cgroup

    def _make(self, tag: str) -> Cgroup:
        assert self._home is not None  # noqa: S101  asked before
        cgroup = cgroups.run_folder(self._home, tag)
        try:
            os.mkdir(cgroup.path)
        except FileExistsError:
            pass  # what a run of that name left belongs to it
        except FileNotFoundError:  # somebody removed the empty folder of all
            os.makedirs(cgroup.path)
        return cgroup

    @contextmanager
    def born_in(self, cgroup: Cgroup) -> Iterator[None]:
        """What is forked inside is born in ``cgroup``, or it is reported why not. The loop must not turn meanwhile."""
        with ExitStack() as stack:
            try:
                stack.enter_context(cgroups.born_in(cgroup, self._own, self._stranded))
            except OSError as error:
                self._tell(error)
            else:
                self._told = ""
            yield
        self._moved_at = time.monotonic()

    def _stranded(self, error: OSError) -> None:
        self._home = None
        _log.error("degraded: cannot step back out of a run's cgroup: %s; no further run has one", error.strerror)

    def leave(self, tag: str) -> None:
        """That run is over: its folder will be removed, as soon as nothing lives in it."""
        cgroup = self._known.pop(tag, None)
        if cgroup is not None:
            self._over.add(cgroup)
            self._sweep.set()

    async def take_in(self, runs: Mapping[str, Iterable[Identity]]) -> None:
        """Living runs that an earlier daemon did not put into cgroups are in some, as far as they can be.

        ``runs`` has what is known of each, by tag; all that descends from it comes too. Nobody is moved but from our own
        cgroup: whoever is elsewhere was put there, by itself or somebody else.
        """
        if self._home is not None and runs:
            await anyio.to_thread.run_sync(self._take_in, runs)

    def _take_in(self, runs: Mapping[str, Iterable[Identity]]) -> None:
        now = Census()
        now.everything()
        try:
            for tag, roots in runs.items():
                cgroup = self._make(tag)
                self._known[tag] = cgroup
                for process in map(now.stat, now.descendants({root.pid for root in roots if is_alive(root)})):
                    if process is not None and cgroups.is_in(process.pid, self._own):
                        cgroup.take_in(of(process))
        except (OSError, UnusableError) as error:
            self._tell(error)

    async def run(self) -> None:
        """Remove what is left of runs that are over, until cancelled."""
        while True:
            await self._sweep.wait()
            await anyio.sleep(SWEEP_SECONDS)
            self._sweep = anyio.Event()
            await self._remove_over()

    async def close(self) -> None:
        """No folder of ours is left but those in which something lives."""
        for _ in range(LAST_SWEEPS):
            try:
                if await anyio.to_thread.run_sync(self._remove_all):
                    return
            except (OSError, RuntimeError) as error:
                if not isinstance(error, OSError) and not is_want(error):
                    raise
                _log.info("cannot remove the cgroups of runs that are over: %s", error)
                return
            await anyio.sleep(SWEEP_SECONDS / 10)

    def _remove_all(self) -> bool:
        """False: something just dies in them; whatever lives on is nobody's we could wait for."""
        cgroups.remove_all(self._instance)
        return not any(not cgroup.pids() for cgroup in cgroups.of_instance(self._instance).values())

    async def _remove_over(self) -> None:
        over, self._over = self._over, set()
        try:
            remaining = await anyio.to_thread.run_sync(lambda: {cgroup for cgroup in over if not cgroup.remove()})
        except (OSError, RuntimeError) as error:
            if not isinstance(error, OSError) and not is_want(error):
                raise
            remaining = over  # the end of the daemon removes them, if no other sweep does
        self._over |= remaining  # something lives there: at the next occasion

    async def _warm_up(self) -> None:
        """The next move waits for nothing. One thread waits for all."""
        while self._preparing is not None:
            await self._preparing.wait()
        if time.monotonic() - self._moved_at < cgroups.WARM_SECONDS:
            return
        if self._warming is not None:
            await self._warming.wait()
            return
        self._warming = anyio.Event()
        try:
            self._own = await anyio.to_thread.run_sync(cgroups.warm_up)
            self._moved_at = time.monotonic()
        except RuntimeError as error:
            if not is_want(error):
                raise  # no thread can be started: this once the loop waits
        finally:
            self._warming.set()
            self._warming = None

    def _tell(self, error: Exception) -> None:
        """Reported once, until it works again."""
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        if reason != self._told:
            self._told = reason
            _log.warning("degraded: cannot put a run into a cgroup: %s; it is ended by its session, parents and environment", reason)
