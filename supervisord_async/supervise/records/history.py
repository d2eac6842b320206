"""The records in ``run_dir/history.db``, which outlive the daemon: written in batches by a thread, bounded, and never fatal.

The bus calls :meth:`History.take` with each record, which only queues it. One task hands batches to a worker thread. What
cannot be written (a full disk, a lock that stays) waits in the queue; the queue is bounded, and drops and counts its oldest records.
A damaged database is moved aside as ``history.db.corrupt-N`` and a new one started; that of a newer version, which is sound and may be
wanted again, as ``history.db.newer-N``. Each problem is reported once when it begins and once when it is over; none affects the
rest of the daemon.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import TypeVar

import anyio

from supervisord_async.core.record import Record
from supervisord_async.core.state import Snapshot
from supervisord_async.errors import UnavailableError
from supervisord_async.supervise.records.history_store import Reader, SchemaError, Store
from supervisord_async.supervise.records.run_entry import RunEntry
from supervisord_async.supervise.retry import retry_on_shortage
from supervisord_async.system.threads import DaemonThreads, in_thread

T = TypeVar("T")

#: Records that may wait to be written.
QUEUE_RECORDS = 20_000
#: The most records in one transaction.
BATCH_RECORDS = 2_000
#: Records are collected this long before they are written.
GATHER_SECONDS = 0.1
#: How long a query waits for the records taken before it to be written.
FRESH_SECONDS = 0.5
#: How long it then waits for the disk; only :data:`FRESH_SECONDS` if the query before had no answer.
ANSWER_SECONDS = 5.0
#: How many queries run at a time; if the disk hangs, no more threads than these hang.
READERS = 4
#: The pauses between attempts while writing fails, the last one repeated.
RETRY_SECONDS = (0.2, 1.0, 5.0)
#: How often the bounds of age and size are enforced.
PRUNE_SECONDS = 600.0
#: After this many records they are enforced in any case.
PRUNE_RECORDS = 20_000
#: How long writing the last records may take at the end.
CLOSE_SECONDS = 5.0
#: How many numbers the bus may still give out after the history was closed.
SPARE_IDS = 100
#: How many damaged files are kept.
CORRUPT_KEPT = 3

_log = logging.getLogger(__name__)


class History:
    """The stored records of one daemon.

    Call :meth:`open` first, then ``bus.listen(history.take)`` and :meth:`run` in a task group, at the end :meth:`aclose`.
    """

    def __init__(self, path: str | Path, *, max_age_seconds: float | None = None, max_size_bytes: int | None = None) -> None:
        self.path = Path(path)
        self.max_age_seconds, self.max_size_bytes = max_age_seconds, max_size_bytes
        self.last_id = 0  #: the number from which the bus continues; set by :meth:`open`
        self.written = 0  #: records written by this daemon
        self.dropped = 0  #: records lost because the queue was full
        self.trouble: str | None = None  #: why nothing can be written at present
        self._left: Mapping[str, Snapshot] = {}  #: what a dead daemon left, until the runs that ended unnoticed are over
        self._left_at: float | None = None  #: when that was found; None: there is nothing to end any more
        self._queue: deque[Record] = deque()
        self._news = anyio.Event()
        self._idle = anyio.Event()
        self._store: Store | None = None
        self._reader = Reader(self.path)
        self._one_writer = anyio.CapacityLimiter(1)
        self._readers = DaemonThreads(READERS, "history")
        self._reported_dropped = 0
        self._unreadable = False  #: the last query failed, and that was reported
        self._seen_id = 0  #: the number of the last record taken
        self._prune_at = 0.0  #: when the bounds are enforced next (monotonic); first: at once
        self._written_id = 0  #: the number of the last record written
        self._wrote = anyio.Event()  #: set at the next write

    async def open(self, unwritten: Iterable[Record] = (), left: Mapping[str, Snapshot] | None = None) -> int:
        """Open the database, or log why that is impossible; returns the number from which the bus continues.

        Those of ``unwritten``, handed over by a re-exec, that are not in the database yet will be written. After a death of the daemon
        ``left`` is what it left of each process: the runs that ended unnoticed are ended before the first record is written. No error of
        the database is raised. Where it cannot be opened or was moved aside, the number is made from the clock, so that numbers still
        rise over restarts.
        """
        self._store = await self._blocking(self._open_store)
        self.last_id = self._store.last_id if self._store is not None else _id_by_clock()
        if left is not None:
            self._left, self._left_at = left, time.time()
        there = self._store.written_id if self._store is not None else 0
        for record in unwritten:
            if record.id > there:  # a batch may have been written just before the re-exec
                self.take(record)
        return self.last_id

    def take(self, record: Record) -> None:
        """Keep ``record``; never waits, never fails."""
        if len(self._queue) >= QUEUE_RECORDS:
            self._queue.popleft()
            self.dropped += 1
        self._queue.append(record)
        self._seen_id = record.id
        self._news.set()

    async def run(self) -> None:
        """Write the records that are taken, until cancelled."""
        await self._write_some()  # at once, though there may be none yet: runs that ended unnoticed do not wait for the first one
        unpruned, attempt = 0, 0
        while True:
            if not self._queue:
                self._idle.set()
                self._idle, self._news = anyio.Event(), anyio.Event()
                with anyio.move_on_after(PRUNE_SECONDS):
                    await self._news.wait()
                await anyio.sleep(GATHER_SECONDS)
            count = await self._write_some()
            attempt = attempt + 1 if count is None else 0
            if count is None:
                await anyio.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS)) - 1])
                continue
            unpruned += count
            if unpruned >= PRUNE_RECORDS or anyio.current_time() >= self._prune_at:
                self._prune_at, unpruned = anyio.current_time() + PRUNE_SECONDS, 0
                await self._blocking(self._prune)

    async def _write_some(self) -> int | None:
        """Write the oldest records; returns how many, None where they could not be written."""
        self._forget_written()
        batch = list(islice(self._queue, BATCH_RECORDS))
        if not await self._blocking(lambda: self._write(batch)):
            return None
        self._forget_written()
        self._wrote.set()
        self._wrote = anyio.Event()
        return len(batch)

    def _forget_written(self) -> None:
        # By number, not by count: a full queue may drop its oldest meanwhile, and a cancellation may come between the write and this.
        while self._queue and self._queue[0].id <= self._written_id:
            self._queue.popleft()

    def unwritten(self) -> list[Record]:
        """The records that were taken and, as far as is known, are not written yet."""
        return [record for record in self._queue if record.id > self._written_id]

    async def flush(self) -> None:
        """Return once all records taken so far are written, however long that fails. :meth:`run` must be running."""
        while self._queue:
            await self._idle.wait()

    async def aclose(self) -> None:
        """Write what can be written in :data:`CLOSE_SECONDS`, and close the file. :meth:`run` must have ended."""
        with anyio.CancelScope(shield=True):
            until = time.monotonic() + CLOSE_SECONDS
            while self._queue and time.monotonic() < until:
                if await self._write_some() is None:
                    break
            if self._queue:
                _log.error("history: %d records are lost with the end of the daemon: %s", len(self._queue), self.trouble)
            await self._blocking(self._close)

    # Queries

    async def runs(self, name: str, limit: int = 50) -> list[RunEntry]:
        """The last ``limit`` runs of ``name``, newest first. Raises UnavailableError where the database cannot be read."""
        return await self._answer(lambda: self._reader.runs(name, limit))

    async def records(self, after_id: int, limit: int = 1000) -> list[Record]:
        """At most ``limit`` records after number ``after_id``, oldest first."""
        return await self._question(lambda: self._reader.records(after_id, limit), [])

    async def last_records(self, limit: int, name: str | None = None) -> list[Record]:
        """The last ``limit`` records, oldest first."""
        return await self._question(lambda: self._reader.last_records(limit, name), [])

    async def totals(self, name: str) -> dict[str, int]:
        """How often ``name`` was started again since the history began, by cause."""
        return await self._question(lambda: self._reader.totals(name), {})

    async def _catch_up(self) -> None:
        """Wait a moment until the records taken so far are written, so that a query finds what its client has just seen happen."""
        newest = self._queue[-1].id if self._queue else 0
        with anyio.move_on_after(FRESH_SECONDS):
            while self._written_id < newest and self.trouble is None:
                await self._wrote.wait()

    async def _question(self, ask: Callable[[], T], nothing: T) -> T:
        """As :meth:`_answer`, but returns ``nothing`` where the database cannot be read."""
        try:
            return await self._answer(ask)
        except UnavailableError:
            return nothing

    async def _answer(self, ask: Callable[[], T]) -> T:
        if self._store is None:
            raise UnavailableError(f"the history cannot be read: {self.trouble or 'it is not open yet'}")
        await self._catch_up()
        try:
            with anyio.fail_after(FRESH_SECONDS if self._unreadable else ANSWER_SECONDS):
                answer = await self._readers.run(ask)
        except TimeoutError:
            raise self._no_answer("its disk does not answer") from None
        except (sqlite3.Error, OSError, ValueError) as error:  # ValueError: nonsense in a row of a damaged page
            raise self._no_answer(error) from error
        if self._unreadable:
            _log.info("history: %s is read again", self.path)
        self._unreadable = False
        return answer

    def _no_answer(self, reason: object) -> UnavailableError:
        """The error to raise; logged if the query before was answered."""
        if not self._unreadable:
            _log.warning("history: cannot read %s: %s", self.path, reason)
        self._unreadable = True
        return UnavailableError(f"the history cannot be read: {self.path}: {reason}")

    # In the worker thread

    async def _blocking(self, function: Callable[[], T]) -> T:
        return await retry_on_shortage("write the history", lambda: in_thread(function, limiter=self._one_writer))

    def _open_store(self) -> Store | None:
        for attempt in range(2):
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                store = Store(self.path)
                if attempt:  # which numbers were given out is known only to the file that was moved aside
                    store.last_id = _id_by_clock()
                return store
            except (sqlite3.OperationalError, OSError) as error:
                self._report(f"cannot open {self.path}: {error}; trying again")
                return None
            except sqlite3.DatabaseError as error:
                self._set_aside_damaged(error)
            except SchemaError as error:
                self._set_aside_newer(error)
        return None

    def _set_aside_damaged(self, error: Exception) -> None:
        """Move the damaged file aside and remove its journal; only the newest :data:`CORRUPT_KEPT` such files are kept."""
        numbers = self._numbers("corrupt")
        aside = self._beside(f".corrupt-{max(numbers, default=0) + 1}")
        try:
            os.replace(self.path, aside)
            for suffix in ("-wal", "-shm"):
                self._beside(suffix).unlink(missing_ok=True)
            for number in sorted(numbers)[: max(0, len(numbers) + 1 - CORRUPT_KEPT)]:
                self._beside(f".corrupt-{number}").unlink(missing_ok=True)
        except OSError as reason:
            self._report(f"{self.path} is damaged ({error}) and cannot be moved aside: {reason}")
            return
        _log.error("history: %s is damaged (%s): moved to %s, a new one is started", self.path, error, aside.name)

    def _set_aside_newer(self, error: SchemaError) -> None:
        """Move the newer version's file aside with its journal; it is never removed, as somebody may go back to that version."""
        aside = self._beside(f".newer-{max(self._numbers('newer'), default=0) + 1}")
        try:
            os.replace(self.path, aside)
            self._beside("-shm").unlink(missing_ok=True)
            if (journal := self._beside("-wal")).exists():
                journal.replace(aside.with_name(f"{aside.name}-wal"))
        except OSError as reason:
            self._report(f"{error} and cannot be moved aside: {reason}")
            return
        _log.warning("history: %s: kept as %s, a new one is started", error, aside.name)

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    def _numbers(self, kind: str) -> list[int]:
        """The numbers N of the files that were moved aside as ``kind``-N."""
        suffixes = [path.name.rpartition("-")[2] for path in self.path.parent.glob(f"{self.path.name}.{kind}-*")]
        return [int(suffix) for suffix in suffixes if suffix.isdigit()]

    def _write(self, batch: list[Record]) -> bool:
        """Write ``batch`` to the database; False where that is impossible for now."""
        if self._store is None or not os.path.exists(self.path):  # not Path.exists, which raises where a folder may not be entered
            self._reopen()
        if self._store is None:
            return False
        try:
            if self._left_at is not None:  # before the first record: that may be the end of one of them
                self._store.end_unseen(self._left, self._left_at)
                self._left, self._left_at = {}, None
            if batch:
                self._store.write(batch)
        except (sqlite3.OperationalError, OSError) as error:
            self._report(f"cannot write {self.path}: {error}; trying again, up to {QUEUE_RECORDS} records wait")
            return False
        except sqlite3.DatabaseError as error:
            self._close()
            self._set_aside_damaged(error)
            return False
        if batch:
            self._written_id = batch[-1].id
            self.written += len(batch)
        self._report_recovery()
        return True

    def _reopen(self) -> None:
        """Close the database and open what is at its path now: after an error, or when somebody removed the file."""
        self._close()
        self._store = self._open_store()

    def limit(self, *, max_age_seconds: float | None, max_size_bytes: int | None) -> None:
        """New bounds apply from now on; what exceeds them is removed soon."""
        self.max_age_seconds, self.max_size_bytes = max_age_seconds, max_size_bytes
        self._prune_at = 0.0
        self._news.set()

    def _prune(self) -> None:
        if self._store is None:
            return
        try:
            self._store.prune(self.max_age_seconds, self.max_size_bytes)
        except sqlite3.Error as error:
            _log.warning("history: cannot prune %s: %s", self.path, error)

    def _close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            try:
                store.close(None if self.dropped else max(self._seen_id, store.last_id) + SPARE_IDS)
            except sqlite3.Error as error:
                _log.warning("history: cannot close %s cleanly: %s", self.path, error)

    def _report(self, trouble: str) -> None:
        if self.trouble is None:
            _log.error("history: %s", trouble)
        self.trouble = trouble

    def _report_recovery(self) -> None:
        if self.trouble is not None:
            _log.warning("history: %s is written again; %d records were dropped", self.path, self.dropped - self._reported_dropped)
            self.trouble, self._reported_dropped = None, self.dropped


def _id_by_clock() -> int:
    """A number greater than any that counting records can have reached."""
    return int(time.time() * 1000)
