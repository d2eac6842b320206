"""Why a process is in its state: the chain of causes, the rule that decided, how the last run ended, and its last output.

:func:`explain` gathers this into an object, for programs; :func:`lines_of` puts it into lines for people.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from supervisord_async.config.secrets import masked_text, secret_values
from supervisord_async.control import last_output
from supervisord_async.control.last_output import Output
from supervisord_async.control.past_runs import PastRun, past_runs
from supervisord_async.control.rule import fault_keys, ruling
from supervisord_async.control.view import next_iso, state_words, waiting_words
from supervisord_async.control.words import cause_words, exit_phrase, size_words, span
from supervisord_async.core.record import Record
from supervisord_async.core.state import Cause, Health, State
from supervisord_async.jsontext import iso
from supervisord_async.supervise.records.figures import Figures
from supervisord_async.supervise.records.narrate import OUT_OF_MEMORY, detail_words
from supervisord_async.words import counted

if TYPE_CHECKING:
    from supervisord_async.supervise.process import Process
    from supervisord_async.supervise.records.bus import Bus
    from supervisord_async.supervise.records.history import History

#: How many records are examined.
RECORDS = 200
#: How long after a run's end its last lines may still arrive.
LATE_SECONDS = 0.5
#: How many runs the chain of causes goes back.
CHAIN_RUNS = 4
#: How many runs are examined to find the first failure in a row.
MAX_RUNS = 10_000
#: Causes of ends that somebody asked for: these are no failures and do not count for the limit.
_ASKED_FOR = frozenset(("operator", "file_changed", "config_changed", "dependency", "daemon_stop"))


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """One cause in the chain, the newest first."""

    at: str | None
    run: int | None
    cause: str | None
    text: str


class LastEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How the last ended run ended. Unknown members are null."""

    run: int
    earlier_daemon: bool = False  #: the run belonged to an earlier daemon; the present one numbers runs from 1 again
    at: str | None
    cause: str | None
    exit_status: dict[str, Any] | None
    duration_seconds: float | None
    peak_memory_bytes: int | None
    cpu_seconds: float | None


class CheckView(msgspec.Struct, frozen=True, kw_only=True):
    """The last result of readiness, liveness or heartbeat for the present run; or `log`, if its output cannot be written, or `watch`, if
    changes of files are not followed for a while.
    """

    name: str
    health: str
    detail: str  #: what is wrong; empty if nothing is


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """The present state of a process, explained."""

    name: str
    program: str
    state: str
    health: str
    cause: str | None
    by: str | None = None  #: who ordered this state, if an operator did and it is known who
    headline: str
    for_seconds: float  #: how long it has been in this state
    run: int
    pid: int | None
    flapping: bool
    failing_since: str | None  #: when the first of its consecutive failures happened; null below two restarts in a row
    uses: Figures | None  #: what its whole tree uses now; null if not running
    next_at: str | None  #: when the next attempt, or KILL, is due
    checks: list[CheckView]
    chain: list[Link]
    rule: list[str]
    keys: list[str]  #: the keys of the configuration file that would change this, as full paths, most relevant first
    last_end: LastEnd | None
    output: list[Output]
    refused: list[str]  #: the problems of the file on disk, if it was refused: the previous file is then in force
    lines: list[str]  #: all of this for people


async def explain(process: Process, bus: Bus, history: History | None, refused: tuple[str, ...], uses: Figures | None = None) -> Why:
    """Why ``process`` is in its state."""
    records = await _records(process.name, bus, history)
    runs = past_runs(records)
    now, wall = anyio.current_time(), time.time()
    s, rule = process.snapshot, ruling(process, now)
    ended = next((past for past in runs if past.ended_at is not None or (past.figures and past.run <= s.ended_run)), None)
    faults = fault_keys(process, ended.end_cause) if ended is not None else ()
    following = _following(runs, ended) if ended is not None else None
    output = (
        await last_output.of(process, ended.run, ended.started_at, _last_moment(ended, following), following.run if following else None)
        if ended is not None
        else []
    )
    secrets = secret_values(process.program)
    output = [msgspec.structs.replace(one, lines=[masked_text(line, secrets) for line in one.lines]) for one in output]
    why = Why(
        name=process.name,
        program=process.program.name,
        state=s.state.value,
        health=s.health.value,
        cause=s.told_cause.value if s.told_cause else None,
        by=s.told_by or None,
        headline=_headline(process, runs, now),
        for_seconds=round(max(0.0, now - s.since), 3),
        run=s.run,
        pid=s.pid,
        flapping=s.flapping,
        failing_since=await _failing_since(process, history),
        uses=uses if s.pid is not None else None,  # figures may be older than the end of their run
        next_at=next_iso(process, now, wall),
        checks=[CheckView(name=check.name, health=check.health.value, detail=check.detail) for check in s.checks]
        + _troubles(records, wall),
        chain=_chain(runs, on_connect=_starts_on_connect(process)),
        rule=list(rule.words),
        keys=[f"programs.{process.program.name}.{key}" for key in dict.fromkeys((*faults, *rule.keys))],
        last_end=_last_end(ended, following) if ended is not None else None,
        output=output,
        refused=list(refused),
        lines=[],
    )
    return msgspec.structs.replace(why, lines=lines_of(why))


async def _failing_since(process: Process, history: History | None) -> str | None:
    s = process.snapshot
    if s.restarts < 2 or history is None:
        return None
    failures = s.restarts + (s.state is State.FATAL)  # in FATAL no restart followed the last failure
    runs = await history.runs(process.name, min(failures + CHAIN_RUNS, MAX_RUNS))
    ended = [run.ended_at for run in runs if run.ended_at is not None and run.end_cause not in _ASKED_FOR]
    return ended[failures - 1] if len(ended) >= failures else None


def _troubles(records: list[Record], wall: float) -> list[CheckView]:
    """A check for each log that, by the last record about it, cannot be written, and for a watch that is suspended at ``wall``."""
    last = {record.data.get("stream"): record for record in records if record.type in ("log_loss", "log_recovered")}
    troubles = [("log", record) for record in last.values() if record.type == "log_loss"]
    watch = next((one for one in reversed(records) if one.data.get("what") in ("suspended", "resumed")), None)
    if watch is not None and wall < watch.at + watch.data.get("seconds", 0.0):
        troubles.append(("watch", watch))
    return [CheckView(name=name, health=Health.UNHEALTHY.value, detail=record.message) for name, record in troubles]


def _following(runs: list[PastRun], ended: PastRun) -> PastRun | None:
    """The run after ``ended``, of the same daemon or of the next one, which numbers runs from 1 again."""
    newer = runs[: runs.index(ended)]
    return newer[-1] if newer else None


def _last_moment(ended: PastRun, following: PastRun | None) -> float | None:
    """Until when lines belong to ``ended``: shortly after its end, but not beyond the start of the next run."""
    started_at = following.started_at if following is not None else None
    if ended.ended_at is None:
        return started_at
    return min(ended.ended_at + LATE_SECONDS, started_at or float("inf"))


async def _records(name: str, bus: Bus, history: History | None) -> list[Record]:
    """The last records of ``name``: those in memory, preceded by older ones from the history."""
    kept = [record for record in bus.since(0)[0] if record.name == name]
    if len(kept) >= RECORDS or history is None:
        return kept[-RECORDS:]
    oldest = kept[0].id if kept else bus.last_id + 1
    return [record for record in await history.last_records(RECORDS, name) if record.id < oldest] + kept


def _headline(process: Process, runs: list[PastRun], now: float) -> str:
    s = process.snapshot
    words = [f"{s.state} for {span(now - s.since)}" if s.run or s.since else str(s.state)]
    if s.run:
        words.append(f"run {s.run}")
    if s.pid is not None:
        words.append(f"pid {s.pid}")
    if s.checks:
        words.append(f"health {s.health}")
    because = _because(process, runs)
    return ", ".join(words) + (f", because {because}" if because else "")


def _because(process: Process, runs: list[PastRun]) -> str:
    s = process.snapshot
    before = runs[1] if len(runs) > 1 and runs[0].run == s.run else None
    match s.state:
        case State.WAITING:
            return f"it is {waiting_words(process)}"
        case State.FATAL if s.cause is Cause.RESTART_LIMIT:
            return detail_words(s)
        case State.EXITED | State.BACKOFF if not s.detail:
            return state_words(s)
        case State.RUNNING | State.STARTING if not s.detail and before is not None and before.end_cause == s.cause:
            return f"{_end_reason(before)}, at {_clock(before.ended_at)}"
        case State.RUNNING | State.STARTING if s.detail and before is not None and before.reason == s.detail:
            return f"{s.detail}, at {_clock(before.ended_at)}"
        case State.STOPPED if s.cause is None:
            return "nobody has started it"
        case _:
            return s.detail or (cause_words(s.cause, on_connect=_starts_on_connect(process), by=s.told_by) if s.cause else "")


def _starts_on_connect(process: Process) -> bool:
    return process.program.start_on_connect and not process.program.autostart


def _end_reason(past: PastRun) -> str:
    """Why the run ended, as the reason for the next one."""
    if past.end_cause == "exited":
        return f"run {past.run} {exit_phrase(past.figures.get('exit'))}"
    if past.end_cause == "spawn_failed":
        return f"run {past.run} could not be started: {past.last_word}"
    if past.end_by or past.reason in ("", past.end_cause):
        return cause_words(past.end_cause, by=past.end_by)
    return past.reason


def _chain(runs: list[PastRun], *, on_connect: bool) -> list[Link]:
    """What led here, newest first: one link for each of the last runs. It says why a run began only if the previous link does not."""
    links = []
    for index, past in enumerate(runs[:CHAIN_RUNS]):
        before = runs[index + 1] if index + 1 < len(runs) else None
        told_before = before is not None and before.end_cause == past.start_cause
        because = cause_words(past.start_cause, on_connect=on_connect, by=past.start_by)
        began = "" if told_before or past.start_cause is None else f"because {because}"
        if past.ended_at is not None or past.figures:
            text = _end_words(past) + (f" (it was started {began})" if began else "")
            links.append(Link(at=_iso(past.ended_at), run=past.run, cause=past.end_cause, text=text))
        elif past.started_at is not None:
            text = f"run {past.run} was started" + (f" {began}" if began else "")
            if past.adopted_at is not None:
                text += f"; the present daemon took it over from an earlier one at {_clock(past.adopted_at)}"
            links.append(Link(at=_iso(past.started_at), run=past.run, cause=past.start_cause, text=text))
    return links


def _end_words(past: PastRun) -> str:
    exit_status, uptime = past.figures.get("exit"), past.figures.get("uptime_seconds")
    if exit_status is None and past.end_cause == "spawn_failed":
        return f"run {past.run} could not be started: {past.last_word}"
    if exit_status is None and past.end_cause == "restart_limit":
        return f"run {past.run} could not be started: {past.last_word.rpartition('; last: ')[2]}; the restart limit was reached"
    words = f"run {past.run} {exit_phrase(exit_status)}"
    if OUT_OF_MEMORY in past.last_word:
        words += f" ({OUT_OF_MEMORY})"
    if uptime is not None:
        words += f" after {span(uptime)}"
    if past.end_cause == "restart_limit":
        words += "; the restart limit was reached"
    elif past.end_cause not in (None, "exited", "spawn_failed"):
        words += f"; it was stopped because {_end_reason(past)}"
    return words


def _last_end(past: PastRun, following: PastRun | None) -> LastEnd:
    figures = past.figures
    return LastEnd(
        run=past.run,
        earlier_daemon=following is not None and following.run <= past.run,
        at=_iso(past.ended_at),
        cause=past.end_cause,
        exit_status=figures.get("exit"),
        duration_seconds=figures.get("uptime_seconds"),
        peak_memory_bytes=figures.get("max_rss_bytes"),
        cpu_seconds=figures.get("cpu_seconds"),
    )


def _iso(at: float | None) -> str | None:
    return iso(at) if at is not None else None


def lines_of(why: Why) -> list[str]:
    """The explanation as lines for people, about one screen; times are in the daemon's local time zone.

    Whoever prints them has to neutralise control characters.
    """
    lines = [f"{why.name}: {why.headline}", *(f"  {words}" for words in _present(why))]
    if why.checks:
        lines += ["", "checks", *(f"  {check.name}: {check.health}{check.detail and f': {check.detail}'}" for check in why.checks)]
    if why.rule:
        lines += ["", "decided by", *(f"  {words}" for words in why.rule)]
    if why.chain:
        lines += ["", "what led here, newest first", *(f"  {_local(link.at)}  {link.text}" for link in why.chain)]
    if why.last_end is not None and (figures := _figures_words(why.last_end)):
        lines += ["", figures]
    for output in why.output:
        lines += ["", f"last output of {_whose(output)} ({output.stream})", *(f"  {line}" for line in output.lines)]
    if why.keys:
        lines += ["", "to change it: " + ", ".join(why.keys)]
    if why.state in (State.STOPPED, State.FATAL):
        lines += ["", f"to start it: asupctl start {why.name}"]
    if why.refused:
        lines += ["", "the file on disk was refused; what runs is the file before", *(f"  {problem}" for problem in why.refused[:5])]
    return lines


def _present(why: Why) -> Iterator[str]:
    """What is true at this moment, besides the headline."""
    if why.flapping:
        yield "it is flapping: five or more automatic restarts without a calm time in between"
    if why.failing_since is not None:
        yield f"in trouble since {_local(why.failing_since)}"
    if why.uses is not None:
        yield f"it uses {_use_words(why.uses)}"
    if why.next_at is not None:
        words = {State.STOPPING: "KILL", State.BACKOFF: "next attempt", State.FATAL: "next attempt"}
        yield f"{words.get(State(why.state), 'next scheduled start')} at {_local(why.next_at)}"


def _figures_words(end: LastEnd) -> str:
    """How the last run ended, in figures; empty if it never had a process."""
    if end.exit_status is None:
        return ""
    parts = [f"how {_whose(end)} ended: {exit_phrase(end.exit_status)}"]
    if end.duration_seconds is not None:
        parts.append(f"up {span(end.duration_seconds)}")
    if end.peak_memory_bytes is not None:
        parts.append(f"peak memory {size_words(end.peak_memory_bytes)}")
    if end.cpu_seconds is not None:
        parts.append(f"CPU {end.cpu_seconds:.2f} s")
    return ", ".join(parts)


def _use_words(uses: Figures) -> str:
    files = "" if uses.open_files is None else f", {counted(uses.open_files, 'open file')}"
    processes, threads = counted(uses.processes, "process", "processes"), counted(uses.threads, "thread")
    return f"{uses.cpu_percent:.1f} % CPU, {size_words(uses.memory_bytes)} of memory, {processes}, {threads}{files}"


def _whose(end: LastEnd | Output) -> str:
    return f"run {end.run}" + (" of an earlier daemon" if end.earlier_daemon else "")


def _local(at: str | None) -> str:
    """A moment in local time, as ``history`` and ``events`` show it."""
    return datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M:%S") if at else "?" * 19


def _clock(at: float | None) -> str:
    """Wall time ``at`` as the time of day; with the date, unless that is today."""
    if at is None:
        return "an unknown time"
    moment = datetime.fromtimestamp(at, UTC).astimezone()
    return moment.strftime("%H:%M:%S" if moment.date() == datetime.now(UTC).astimezone().date() else "%Y-%m-%d %H:%M:%S")
