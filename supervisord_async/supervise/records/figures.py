"""What each process's whole tree uses: CPU, memory, threads, descriptors, IO. Sampled on request only.

One pass over /proc serves all processes; it is made in a worker thread and kept for :data:`FRESH_SECONDS`. A tree is everything that
descends from the main process, and what else is in its session: orphans, and what named it by MAINPID. Memory that several processes of
a tree share counts once: eight forked workers are not eight times as large.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import NamedTuple, Protocol

import anyio
import msgspec

from supervisord_async.core.state import Snapshot
from supervisord_async.system.threads import in_thread
from supervisord_async.system.usage import PAGE_BYTES, TICKS, Usage, open_files, proportional_bytes, storage_bytes, usages

#: A sample no older than this is reused for the next request.
FRESH_SECONDS = 1.0
#: Main processes that have come since are sampled sooner: after this many times the duration of the last sample.
NEWCOMERS_PART = 10
#: The CPU use is not computed from a sample older than this: the mean since the process started is given instead.
STALE_SECONDS = 30.0
#: In a smaller tree, finding out what is shared is not worth having the kernel visit every page.
SHARING_BYTES = 16 * 1024 * 1024
#: Sharing is measured again after this many seconds, and no sooner than this many times the duration of the last measurement.
SHARING_SECONDS, SHARING_PART = 5.0, 50


class Sampled(Protocol):
    """A process whose figures are wanted: its name, and its snapshot for the main pid."""

    name: str
    snapshot: Snapshot


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What one process's tree uses."""

    cpu_percent: float  #: of one core, since the previous sample; in the first one the mean since the process started
    cpu_seconds: float  #: of all living processes, and of the dead children that they have reaped
    memory_bytes: int  #: resident; memory shared within the tree counts once
    processes: int
    threads: int
    open_files: int | None = None  #: None where it was not asked for, or we may not read it
    read_bytes: int | None = None  #: from storage
    written_bytes: int | None = None


class _Share(NamedTuple):
    """A tree's memory as a fraction of the sum of its processes' resident sizes."""

    part: float
    until: float  #: monotonic: when it is to be measured again


class Sampler:
    """The figures of all processes, as of the last sample."""

    def __init__(self) -> None:
        self.last: dict[str, Figures] = {}
        self._mains: dict[str, int] = {}  #: the processes in ``last``: main pids by process name
        self._at = float("-inf")
        self._again_at = float("-inf")  #: from then on new main processes are sampled
        self._detailed = False
        self._lock = anyio.Lock()
        #: main pid and its start → the tree's CPU ticks, and when they were read
        self._ticks: dict[tuple[int, int], tuple[int, float]] = {}
        self._shares: dict[tuple[int, int], _Share] = {}  #: by the same key

    def known(self, processes: Iterable[Sampled]) -> dict[str, Figures] | None:
        """The last sample, if it is fresh enough for all of ``processes``; else None."""
        now = anyio.current_time()
        if now - self._at >= FRESH_SECONDS:
            return None
        return self.last if now < self._again_at or self._mains == _mains(processes) else None

    async def sample(self, processes: Iterable[Sampled], *, detailed: bool = False) -> dict[str, Figures]:
        """The figures by process name, at most :data:`FRESH_SECONDS` old; ``detailed``: with descriptors and IO.

        Names without a process are absent. Concurrent callers share a pass. While it is fresh, only processes that came since are sampled.
        """
        async with self._lock:
            found = self.known(processes)
            if found is not None and (self._detailed or not detailed):
                return found
            mains, begun = _mains(processes), anyio.current_time()
            if begun - self._at < FRESH_SECONDS and (self._detailed or not detailed):
                stay = {name for name, pid in self._mains.items() if mains.get(name) == pid}
                newcomers = {name: pid for name, pid in mains.items() if name not in stay}
                found = await in_thread(partial(self._measure, newcomers, self._detailed, keep=True)) if newcomers else {}
                self.last = {name: figures for name, figures in self.last.items() if name in stay} | found
            else:
                self.last = await in_thread(partial(self._measure, mains, detailed)) if mains else {}
                self._at, self._detailed = anyio.current_time(), detailed
            self._mains, ended = mains, anyio.current_time()
            self._again_at = ended + NEWCOMERS_PART * (ended - begun)
            return self.last

    async def held_bytes(self, process: Sampled) -> int | None:
        """The memory of its tree now, measured, not scaled from an earlier measurement; None without a process."""
        async with self._lock:
            pid = process.snapshot.pid
            return await in_thread(self._held, pid) if pid is not None else None

    def _held(self, pid: int) -> int | None:
        everything = usages()
        main = everything.get(pid)
        if main is None:
            return None
        self._shares.pop((pid, main.start_ticks), None)
        return self._memory_bytes(main, trees_of({pid}, everything)[pid], time.monotonic(), self._shares)

    def _memory_bytes(self, main: Usage, members: list[Usage], now: float, shares: dict[tuple[int, int], _Share]) -> int:
        """The memory of ``members``. Their share may come from an earlier measurement, and is kept in ``shares``."""
        resident = sum(member.rss_pages for member in members) * PAGE_BYTES
        if len(members) == 1 or resident < SHARING_BYTES:
            return resident
        key = (main.pid, main.start_ticks)
        share = self._shares.get(key)
        if share is None or now >= share.until:
            held = sum(_held_bytes(member) for member in members)
            share = _Share(min(1.0, held / resident), now + max(SHARING_SECONDS, SHARING_PART * (time.monotonic() - now)))
        shares[key] = share
        return int(resident * share.part)

    def _measure(self, mains: Mapping[str, int], detailed: bool, *, keep: bool = False) -> dict[str, Figures]:
        """The figures of ``mains``. The CPU ticks and shares of other processes are forgotten, unless ``keep``."""
        everything, now, boot_now = usages(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME)
        trees = trees_of(set(mains.values()), everything)
        before, self._ticks = self._ticks, dict(self._ticks) if keep else {}
        shares = dict(self._shares) if keep else {}
        found = {}
        for name, pid in mains.items():
            main = everything.get(pid)
            if main is None:
                continue
            members = trees[pid]
            ticks = sum(member.cpu_ticks for member in members)
            self._ticks[pid, main.start_ticks] = (ticks, now)
            percent = _cpu_percent(ticks, now, before.get((pid, main.start_ticks)), boot_now - main.start_ticks / TICKS)
            found[name] = _figures(members, ticks, percent, self._memory_bytes(main, members, time.monotonic(), shares), detailed)
        self._shares = shares
        return found


def _mains(processes: Iterable[Sampled]) -> dict[str, int]:
    return {process.name: pid for process in processes if (pid := process.snapshot.pid) is not None}


def trees_of(mains: set[int], everything: Mapping[int, Usage]) -> dict[int, list[Usage]]:
    """The members of each main process's tree, including itself; each process is in one tree at most."""
    owner: dict[int, int | None] = {pid: pid for pid in mains}
    trees: dict[int, list[Usage]] = {pid: [] for pid in mains}
    sessions = {everything[pid].session: pid for pid in mains if pid in everything}
    sessions.pop(os.getsid(0), None)  # ours is no run's
    for pid in everything:
        path = []
        at: int | None = pid
        while at is not None and at not in owner:
            path.append(at)
            owner[at] = None  # this also ends a cycle, which a pid reused between two reads can make
            usage = everything.get(at)
            at = usage.parent if usage is not None else None
        found = owner.get(at) if at is not None else None
        for member in path:
            owner[member] = found if found is not None or member not in everything else sessions.get(everything[member].session)
    for pid, usage in everything.items():
        main = owner[pid]
        if main is not None:
            trees[main].append(usage)
    return trees


def _held_bytes(member: Usage) -> int:
    """Its proportional size; its resident size where we may not read that."""
    found = proportional_bytes(member.pid)
    return member.rss_pages * PAGE_BYTES if found is None else found


def _cpu_percent(ticks: int, now: float, before: tuple[int, float] | None, age_seconds: float) -> float:
    if before is not None and 0 < now - before[1] < STALE_SECONDS:
        spent, span = ticks - before[0], now - before[1]
    else:
        spent, span = ticks, max(age_seconds, 1.0 / TICKS)
    return round(max(0.0, 100.0 * spent / TICKS / span), 1)  # negative where a dead child's ticks are gone from the sum


def _figures(members: list[Usage], ticks: int, percent: float, memory_bytes: int, detailed: bool) -> Figures:
    files = read = written = None
    if detailed:
        counts = [count for member in members if (count := open_files(member.pid)) is not None]
        storage = [pair for member in members if (pair := storage_bytes(member.pid)) is not None]
        files = sum(counts) if counts else None
        if storage:
            read, written = sum(pair[0] for pair in storage), sum(pair[1] for pair in storage)
    return Figures(
        cpu_percent=percent,
        cpu_seconds=round(ticks / TICKS, 2),
        memory_bytes=memory_bytes,
        processes=len(members),
        threads=sum(member.threads for member in members),
        open_files=files,
        read_bytes=read,
        written_bytes=written,
    )
