"""The history's database: its schema, writing, pruning and queries. Blocking; called in worker threads only.

One file, ``run_dir/history.db``, in WAL mode where the filesystem allows it (:func:`journal_mode`): readers do not block the writer,
and a batch is one transaction. Each run has a row of its own, kept up to date from the ``state`` records, so that queries about runs
need not replay records.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from supervisord_async.core.record import Record
from supervisord_async.core.state import RUN_ENDED, Cause, ExitStatus, Snapshot
from supervisord_async.jsontext import iso, json_bytes, json_value
from supervisord_async.supervise.records.narrate import exit_json
from supervisord_async.supervise.records.run_entry import RunEntry
from supervisord_async.system.mounts import mounts

SCHEMA_VERSION = 1
#: This many numbers are reserved at a time, so that none given out before a crash, but not written, is given out again.
RESERVED_IDS = 100_000
#: How long a write or a query waits for somebody else's lock.
BUSY_SECONDS = 5.0
#: sqlite's page cache; its default of 2 MiB would be a twentieth of the daemon's memory, for pages that the kernel caches anyway.
CACHE_KIB = 256
#: When the file is too big, the oldest 1/8 of all records is deleted at a time.
_SHRINK_PART = 8

#: Filesystems that never overwrite in place.
_WRITTEN_ELSEWHERE = frozenset({"bcachefs", "btrfs", "f2fs", "nilfs2", "zfs"})

_SCHEMA = """
CREATE TABLE records (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, type TEXT NOT NULL, name TEXT, from_ TEXT, to_ TEXT, cause TEXT, run INTEGER,
    message TEXT NOT NULL, data TEXT NOT NULL
);
CREATE INDEX records_by_name ON records (name, id);
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, run INTEGER NOT NULL, cause TEXT, detail TEXT NOT NULL, started_at REAL NOT NULL,
    running_at REAL, ended_at REAL, end_cause TEXT, end_detail TEXT, exit TEXT, pid INTEGER, uptime_seconds REAL, max_rss_bytes INTEGER,
    cpu_seconds REAL
);
CREATE INDEX runs_by_name ON runs (name, id);
CREATE TABLE totals (name TEXT NOT NULL, cause TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (name, cause)) WITHOUT ROWID;
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""


def journal_mode(folder: Path) -> str:
    """``WAL``; ``TRUNCATE`` where WAL's index, which sqlite maps into memory, could kill the process by SIGBUS when the disk is full.

    That is where writing to a mapped page may need new room on the disk: on a filesystem that never overwrites in place, or whose
    blocks are smaller than a page, so that a part of a page may not be allocated yet.
    """
    real = os.path.realpath(folder)
    kinds = {mount.point: mount.kind for mount in mounts() if f"{real}/".startswith(f"{mount.point.rstrip('/')}/")}
    kind = kinds[max(kinds, key=len)] if kinds else ""
    return "TRUNCATE" if kind in _WRITTEN_ELSEWHERE or os.statvfs(real).f_bsize < os.sysconf("SC_PAGESIZE") else "WAL"


#: The condition for runs that may be deleted: all but a process's last one while its end is not recorded, as that is still to come.
_OVER = "(ended_at IS NOT NULL OR id < (SELECT max(id) FROM runs AS newer WHERE newer.name = runs.name))"


class SchemaError(Exception):
    """The file was written by a newer version."""


class Store:
    """An open database, to be used by one thread at a time, for writing."""

    def __init__(self, path: Path) -> None:
        """Open or create it. Raises sqlite3.Error or OSError where it cannot be used, SchemaError where a newer version wrote it."""
        self.path = path
        self.reserved = 0
        self._db = _connect(path)
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        mode = journal_mode(self.path.parent)
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise SchemaError(f"{self.path} was written by a newer asupd (schema {version}, this one knows {SCHEMA_VERSION})")
        if version == 0:
            self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            self._db.execute(f"PRAGMA journal_mode = {mode}")
            self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        self._db.execute(f"PRAGMA journal_mode = {mode}")
        self._db.execute("PRAGMA synchronous = NORMAL")  # a power cut may cost the last batch, never the file
        self._db.execute(f"PRAGMA journal_size_limit = {4 * 1024 * 1024}")
        self._db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        last = self.written_id = int(self._db.execute("SELECT coalesce(max(id), 0) FROM records").fetchone()[0])  #: the newest record's
        row = self._db.execute("SELECT value FROM meta WHERE key = 'reserved'").fetchone()
        self.last_id: int = max(last, row[0] if row else 0)
        self._reserve(self.last_id + RESERVED_IDS)

    def _reserve(self, up_to: int) -> None:
        self._db.execute("INSERT INTO meta VALUES ('reserved', ?) ON CONFLICT DO UPDATE SET value = excluded.value", (up_to,))
        self.reserved = up_to

    def write(self, records: Sequence[Record]) -> None:
        """Write all of ``records``; raises sqlite3.Error, and then has written none of them."""
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            if records[-1].id > self.reserved - RESERVED_IDS // 2:
                self._reserve(records[-1].id + RESERVED_IDS)
            db.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", map(_row, records))
            for record in records:
                if record.type == "state" and record.name is not None:
                    _keep_run(db, record)
                elif record.type == "adopted":
                    _keep_adopted(db, record)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def end_unseen(self, left: Mapping[str, Snapshot], found_at: float) -> None:
        """End the runs that are over without that having been written: the daemon was killed too soon after it, or the machine lost power.

        ``left`` is what a former daemon left of each process, as was found at ``found_at``. A run that is not over there goes on, or its
        end is still to be told.
        """
        newest = "id = (SELECT max(id) FROM runs AS newer WHERE newer.name = runs.name)"
        unended = self._db.execute(f"SELECT id, name, run, {newest} FROM runs WHERE ended_at IS NULL").fetchall()  # noqa: S608  ours
        for id_, name, run, is_newest in unended:
            last = left.get(name, Snapshot())
            is_last = is_newest and last.run == run
            if is_last and last.state not in RUN_ENDED:
                continue
            over = last.since if is_last else last.run_since if last.run > run else 0.0  # at the latest when a newer one began
            at = time.time() - (time.monotonic() - over) if over else found_at  # then nobody knows when: it had ended by that time
            exit_status = last.exit if is_last and last.cause is not Cause.SPAWN_FAILED else ExitStatus()
            self._db.execute(
                "UPDATE runs SET ended_at = max(started_at, ?), exit = coalesce(exit, ?) WHERE id = ?",
                (at, json_bytes(exit_json(exit_status)).decode() if exit_status is not None else None, id_),
            )

    def prune(self, max_age_seconds: float | None, max_size_bytes: int | None, *, now: float | None = None) -> int:
        """Delete what exceeds the bounds, except runs that go on; returns how many records that were. Names without runs have no totals."""
        db, gone = self._db, 0
        if max_age_seconds is not None:
            before = (time.time() if now is None else now) - max_age_seconds
            gone += db.execute("DELETE FROM records WHERE at < ?", (before,)).rowcount
            db.execute(f"DELETE FROM runs WHERE coalesce(ended_at, started_at) < ? AND {_OVER}", (before,))  # noqa: S608  ours
        if max_size_bytes is not None:
            gone += self._shrink(max_size_bytes)
        if gone:
            db.execute("DELETE FROM totals WHERE name NOT IN (SELECT name FROM runs)")
            db.executescript("PRAGMA incremental_vacuum")  # execute() would do its first step only, one page
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return gone

    def _shrink(self, max_size_bytes: int) -> int:
        db, gone = self._db, 0
        while self._used_bytes() > max_size_bytes:
            first, last = db.execute("SELECT min(id), max(id) FROM records").fetchone()
            if first is None:
                break
            count = db.execute("SELECT count(*) FROM records").fetchone()[0]
            row = db.execute("SELECT id FROM records ORDER BY id LIMIT 1 OFFSET ?", (max(1, count // _SHRINK_PART),)).fetchone()
            until = row[0] if row else last + 1
            gone += db.execute("DELETE FROM records WHERE id < ?", (until,)).rowcount
            db.execute(f"DELETE FROM runs WHERE id < ? AND {_OVER}", (until,))  # noqa: S608  ours
        return gone

    def _used_bytes(self) -> int:
        pages, free, size = (self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size"))
        return int((pages - free) * size)

    def close(self, last_id: int | None = None) -> None:
        """Close the file; with ``last_id``, the numbers reserved beyond it may be given out again."""
        try:
            if last_id is not None:
                self._reserve(last_id)
        finally:
            self._db.close()


def _connect(path: Path) -> sqlite3.Connection:
    fresh = not path.exists()
    db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        if fresh:
            path.chmod(0o600)  # sqlite gives its -wal and -shm files the mode of the database
    except BaseException:
        db.close()
        raise
    return db


def _row(record: Record) -> tuple[Any, ...]:
    data = json_bytes(record.data).decode() if record.data else "{}"
    return (record.id, record.at, record.type, record.name, record.from_, record.to, record.cause, record.run, record.message, data)


def _keep_run(db: sqlite3.Connection, record: Record) -> None:
    """Bring the run's row up to date with a ``state`` record."""
    name, run, data = record.name, record.run, record.data
    if record.to == "STARTING":
        db.execute(
            "INSERT OR REPLACE INTO runs (id, name, run, cause, detail, started_at) VALUES (?, ?, ?, ?, ?, ?)",
            (record.id, name, run, record.cause, record.message, record.at),
        )
        if run is not None and run > 1:  # the previous run is over by now; if a restart ended it, this record has the cause
            _end_run(db, record, run - 1)
            _count(db, record)
        return
    if record.to == "RUNNING":
        db.execute(
            "UPDATE runs SET running_at = coalesce(running_at, ?), pid = coalesce(?, pid) WHERE id = "
            "(SELECT max(id) FROM runs WHERE name = ? AND run = ?) AND ended_at IS NULL",
            (record.at, data.get("pid"), name, run),
        )
    elif record.to in RUN_ENDED and run:
        _end_run(db, record, run)
    elif record.to == "STOPPING" and run:  # the cause of its end is known; it has not ended yet
        _end_run(db, record, run, over=False)


def _keep_adopted(db: sqlite3.Connection, record: Record) -> None:
    """Complete the row of a run whose daemon died before it had written all of it.

    If there is none, add it, and end the row of the run before it, whose exit status is not known.
    """
    name, run, data = record.name, record.run, record.data
    known = db.execute("SELECT ended_at FROM runs WHERE name = ? AND run = ? ORDER BY id DESC LIMIT 1", (name, run)).fetchone()
    if known != (None,):
        began = record.at - data.get("uptime_seconds", 0.0)
        db.execute("UPDATE runs SET ended_at = ? WHERE name = ? AND ended_at IS NULL", (began, name))
        db.execute(
            "INSERT INTO runs (id, name, run, detail, started_at) VALUES (?, ?, ?, ?, ?)", (record.id, name, run, record.message, began)
        )
    db.execute(
        "UPDATE runs SET running_at = coalesce(running_at, ?), pid = coalesce(pid, ?) WHERE name = ? AND run = ? AND ended_at IS NULL",
        (record.at - data["running_seconds"] if "running_seconds" in data else None, data.get("pid"), name, run),
    )


def _end_run(db: sqlite3.Connection, record: Record, run: int, *, over: bool = True) -> None:
    data = record.data
    exit_status = data.get("exit")
    db.execute(
        "UPDATE runs SET ended_at = CASE WHEN ? THEN ? ELSE ended_at END, end_cause = coalesce(end_cause, ?), "
        "end_detail = coalesce(end_detail, ?), exit = coalesce(exit, ?), uptime_seconds = coalesce(uptime_seconds, ?), "
        "max_rss_bytes = coalesce(max_rss_bytes, ?), cpu_seconds = coalesce(cpu_seconds, ?), pid = coalesce(pid, ?) "
        "WHERE id = (SELECT max(id) FROM runs WHERE name = ? AND run = ?) AND ended_at IS NULL",
        (
            over,
            record.at,
            record.cause,
            record.message,
            msgspec.json.encode(exit_status).decode() if exit_status is not None else None,
            data.get("uptime_seconds"),
            data.get("max_rss_bytes"),
            data.get("cpu_seconds"),
            data.get("ended_pid", data.get("pid")),  # a run that is told to stop still has it
            record.name,
            run,
        ),
    )


def _count(db: sqlite3.Connection, record: Record) -> None:
    sql = "INSERT INTO totals VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET count = count + 1"
    db.execute(sql, (record.name, record.cause or ""))


class Reader:
    """Queries, each on a connection of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def runs(self, name: str, limit: int) -> list[RunEntry]:
        """The last ``limit`` runs of ``name``, newest first."""
        rows = self._ask(
            "SELECT name, run, cause, started_at, running_at, ended_at, end_cause, end_detail, exit, pid, uptime_seconds, max_rss_bytes, "
            "cpu_seconds FROM runs WHERE name = ? ORDER BY id DESC LIMIT ?",
            (name, limit),
        )
        return [_entry(row) for row in rows]

    def records(self, after_id: int, limit: int) -> list[Record]:
        """At most ``limit`` records after ``after_id``, oldest first."""
        return [_record(row) for row in self._ask("SELECT * FROM records WHERE id > ? ORDER BY id LIMIT ?", (after_id, limit))]

    def last_records(self, limit: int, name: str | None = None) -> list[Record]:
        """The last ``limit`` records, oldest first, of one name or of all."""
        if name is None:
            rows = self._ask("SELECT * FROM records ORDER BY id DESC LIMIT ?", (limit,))
        else:
            rows = self._ask("SELECT * FROM records WHERE name = ? ORDER BY id DESC LIMIT ?", (name, limit))
        return [_record(row) for row in reversed(rows)]

    def totals(self, name: str) -> dict[str, int]:
        """How often ``name`` was started again since the history began, by cause."""
        return dict(self._ask("SELECT cause, count FROM totals WHERE name = ?", (name,)))

    def _ask(self, sql: str, arguments: tuple[Any, ...]) -> list[Any]:
        db = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            return db.execute(sql, arguments).fetchall()
        finally:
            db.close()


def _record(row: tuple[Any, ...]) -> Record:
    id_, at, type_, name, from_, to, cause, run, message, data = row
    return Record(id=id_, at=at, type=type_, name=name, from_=from_, to=to, cause=cause, run=run, message=message, data=json_value(data))


def _entry(row: tuple[Any, ...]) -> RunEntry:
    name, run, cause, started, running, ended, end_cause, end_detail, exit_, pid, uptime, rss, cpu = row
    duration = uptime if uptime is not None else (round(ended - started, 3) if ended is not None else None)
    return RunEntry(
        name=name,
        run=run,
        cause=cause,
        started_at=_iso(started) or "",
        running_at=_iso(running),
        ended_at=_iso(ended),
        end_cause=end_cause,
        end_detail=end_detail,
        exit_status=msgspec.json.decode(exit_) if exit_ is not None else None,
        pid=pid,
        duration_seconds=duration,
        peak_memory_bytes=rss,
        cpu_seconds=cpu,
    )


def _iso(at: float | None) -> str | None:
    return iso(at) if at is not None else None
