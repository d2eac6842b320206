"""The daemon's answers as types. Unknown keys of a newer daemon are ignored, missing ones keep their defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar

from supervisord_async.client.json_client import as_object, problem
from supervisord_async.errors import Problem


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


T = TypeVar("T", bound=_Dataclass)


def typed(kind: type[T], document: Any) -> T:
    """A ``kind``, made from those keys of ``document`` that it knows."""
    known = kind.__dataclass_fields__
    return kind(**{key: value for key, value in as_object(document).items() if key in known})


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStatus:
    """One process; the fields are those of ``asupctl status --json``."""

    name: str
    program: str = ""
    group: str = ""
    state: str = "UNKNOWN"
    health: str = "none"
    pid: int | None = None
    run: int = 0
    uptime_seconds: float | None = None
    restarts: int = 0
    flapping: bool = False
    exit_status: Mapping[str, Any] | None = None  #: {"code": 1}, {"signal": "SIGKILL", "core": false} or {"unknown": true}
    cause: str | None = None
    next_at: str | None = None  #: ISO 8601, UTC: the next attempt, the KILL of a STOPPING process, or the next scheduled start
    description: str = ""
    cpu_percent: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of an action for one process; if ``ok`` is False, ``message`` says why it failed."""

    name: str
    ok: bool = False
    state: str | None = None
    cause: str | None = None
    message: str = ""
    timed_out: bool = False  #: not ok because the time ran out; the action may still succeed


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """The last lines of a log, as the bytes in the file.

    ``format`` is ``raw``, ``timestamp`` or ``json``; ``stream`` is the stream whose file it is: ``stdout`` also for a
    standard error that goes to the same file.
    """

    lines: Sequence[bytes] = ()
    format: str = "raw"
    stream: str = "stdout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One record of the daemon; ``document`` is the whole object as it was sent."""

    id: int = 0
    at: str = ""  #: ISO 8601, UTC
    type: str = ""
    name: str | None = None
    from_: str | None = None
    to: str | None = None
    cause: str | None = None
    run: int | None = None
    message: str = ""
    document: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_document(cls, document: Any) -> Event:
        """The event that a JSON object describes."""
        known = {key: value for key, value in as_object(document).items() if key != "document"}
        return typed(cls, {**known, "from_": known.get("from"), "document": document})


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run in a process's history; ``ended_at`` is None until it has ended."""

    run: int = 0
    cause: str | None = None  #: why it was started
    started_at: str | None = None
    ended_at: str | None = None
    duration_seconds: float | None = None
    exit_status: Mapping[str, Any] | None = None
    peak_memory_bytes: int | None = None
    cpu_seconds: float | None = None
    end_cause: str | None = None
    end_detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """What a reload did, or with ``plan`` would do: ``lines`` for people, ``document`` for programs.

    ``results`` has one entry for each process that it touched.
    """

    lines: Sequence[str] = ()
    warnings: Sequence[str] = ()  #: of the file, as ``FILE:LINE:COLUMN: warning: …``
    results: Sequence[Result] = ()
    document: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonHealth:
    """The daemon's identity and state, and the problems of the file on disk if it refused that file."""

    status: str = "ok"
    pid: int | None = None
    version: str = ""
    started_at: str | None = None  #: ISO 8601, UTC; changes with a re-exec
    uptime_seconds: float | None = None
    file: str | None = None
    run_dir: str | None = None
    refused: Sequence[Any] = ()
    failed: Sequence[str] = ()  #: the names of processes that are FATAL, or EXITED after a failure
    http_trouble: str | None = None  #: why daemon.http is not served

    @property
    def problems(self) -> list[Problem]:
        """``refused`` as problems, which print as FILE:LINE:COLUMN: message."""
        return [problem(document) for document in self.refused]
