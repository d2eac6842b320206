"""The one tree of errors.

SupervisordError
├── ConfigError        the configuration is unsound; carries every problem at once
├── SpawnError         a run could not be started; carries the stage and the errno
├── LockHeldError      another daemon holds the run_dir; carries its PID
├── ProbeNotRunError   a probe could not be run, which says nothing about the program
├── HookRefusedError   a hook of on_event did not accept its event
├── DaemonError        the daemon cannot start, or cannot go on: critical
└── CommandError       a command cannot be carried out; its code maps once to HTTP and to exit codes
    ├── UsageError, NotAllowedError, NotFoundError, FailedError, BusyError, UnavailableError, TimedOutError
    └── NoDaemonError  nobody answers at the socket (WentAwayError, OtherDaemonError)

Messages read ``cannot X: why (what to do)``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple


class SupervisordError(Exception):
    """Anything that this package raises on purpose."""


class Problem(NamedTuple):
    """One thing that is wrong, or doubtful, in a configuration; prints as ``FILE:LINE:COLUMN: message``."""

    file: str
    line: int  #: from 1; 0: the whole file
    column: int  #: from 1
    message: str  #: the key, what was expected, what was found, the nearest known key
    warning: bool = False  #: sound enough to run
    lacks: str = ""  #: in a warning: ``user``, ``root`` or ``executable``, if that is lacking here and a start needs it

    @property
    def document(self) -> dict[str, str | int]:
        """The problem as a JSON object."""
        return {"file": self.file, "line": self.line, "column": self.column, "message": self.message, "warning": self.warning}

    def __str__(self) -> str:
        word = "warning: " if self.warning else ""
        return f"{self.file}:{self.line}:{self.column}: {word}{self.message}"


class ConfigError(SupervisordError):
    """The configuration is unsound; ``problems`` has every reason, errors and warnings, in file order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class SpawnError(SupervisordError):
    """A run could not be started.

    ``stage`` is one of ``environment``, ``user``, ``directory``, ``log``, ``limits``, ``hook``, ``socket``, ``notify``, ``heartbeat``,
    ``fork``, ``exec``; ``errno`` is the system's error number, or None if it was no system call that failed.
    """

    def __init__(self, stage: str, errno: int | None, what: str) -> None:
        self.stage, self.errno = stage, errno
        reason = f": {os.strerror(errno)}" if errno else ""
        super().__init__(f"{stage}: {what}{reason}")


class ProbeNotRunError(SupervisordError):
    """A probe could not be run, because a resource is missing or a disk hangs; this says nothing about the program."""


class HookRefusedError(SupervisordError):
    """A hook of ``on_event`` did not accept its event; ``final``: another attempt would be pointless."""

    def __init__(self, words: str, *, final: bool = False) -> None:
        super().__init__(words)
        self.final = final


class LockHeldError(SupervisordError):
    """Another daemon holds the run_dir; ``pid`` is its PID, None if that cannot be read."""

    def __init__(self, path: str, pid: int | None) -> None:
        self.path, self.pid = path, pid
        holder = f"PID {pid}" if pid else "another process"
        super().__init__(f"cannot lock {path}: a daemon is already running there ({holder})")


class DaemonError(SupervisordError):
    """The daemon cannot start, or cannot go on; the message says why and what to do."""


class CommandError(SupervisordError):
    """A command cannot be carried out. ``status`` is its HTTP status, ``exit_code`` asupctl's, ``kind`` a stable word."""

    status = 500
    exit_code = 1
    kind = "failed"


class UsageError(CommandError):
    """The command is malformed: an unknown option, a wrong value, a missing argument."""

    status, exit_code, kind = 400, 2, "usage"


class NotAllowedError(CommandError):
    """The caller may not do this."""

    status, exit_code, kind = 403, 5, "not_allowed"


class NotFoundError(CommandError):
    """No process has that name, or nothing matches the selector, or the path is unknown."""

    status, exit_code, kind = 404, 1, "not_found"


class FailedError(CommandError):
    """The command was carried out and failed for at least one name."""

    status, exit_code, kind = 409, 1, "failed"


class BusyError(CommandError):
    """Too many requests are under way, or the daemon is shutting down."""

    status, exit_code, kind = 503, 1, "busy"


class UnavailableError(CommandError):
    """The answer cannot be given now: its source cannot be read, or the machine lacks the resources."""

    status, exit_code, kind = 503, 1, "unavailable"


class TimedOutError(CommandError):
    """The result did not arrive within the given time."""

    status, exit_code, kind = 504, 6, "timed_out"


class NoDaemonError(CommandError):
    """Nobody answers at the socket."""

    status, exit_code, kind = 502, 4, "no_daemon"


class WentAwayError(NoDaemonError):
    """The daemon closed the connection before it answered."""


class OtherDaemonError(NoDaemonError):
    """The daemon at the socket serves another configuration file than the one given."""
