"""The API's JSON answers, except those for processes and events (``view``) and for ``why``."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from supervisord_async.control.commands import Result
from supervisord_async.control.view import EventView
from supervisord_async.supervise.records.run_entry import RunEntry


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a command for each process that it named."""

    results: list[Result]


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon has accepted the command and will carry it out."""

    accepted: Literal[True]


class Reload(msgspec.Struct, frozen=True, kw_only=True):
    """What a reload did, or would do."""

    applied: bool
    lines: list[str]  #: for people
    plan: Any  #: for programs
    results: list[Result]  #: for each process that it touched


class HistoryAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The runs of a process, newest first."""

    name: str
    restarts_total: int  #: since the history began, of every cause
    restarts_by_cause: dict[str, int]
    runs: list[RunEntry]


class EventsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Past records, oldest first."""

    events: list[EventView]


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What one program depends on."""

    name: str
    depends_on: dict[str, str]  #: program → started, ready, completed or succeeded


class Dependencies(msgspec.Struct, frozen=True, kw_only=True):
    """All programs, in file order."""

    programs: list[Needs]


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """The page's address, which contains the token: whoever has it can use the page."""

    url: str


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """Whether every autostart program is ready."""

    ready: bool
    not_ready: list[str]


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon's own state."""

    status: Literal["ok"] = "ok"
    name: str
    version: str
    api: str
    pid: int
    started_at: str
    uptime_seconds: float
    shutting_down: bool
    file: str  #: of the configuration
    run_dir: str
    refused: list[dict[str, Any]]  #: the problems of the file on disk if the last reload refused it; else empty
    processes: int
    failed: list[str]  #: the names of those that are FATAL, or EXITED after a failure
    last_event_id: int
    http_trouble: str | None  #: why daemon.http is not served
    history_trouble: str | None  #: why records cannot be kept at present
    history_dropped: int
