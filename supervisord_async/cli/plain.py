"""Parses plain command lines of ``asupctl status`` and ``asupd`` without click, whose import takes as long as everything else.

What is parsed here means the same to click; anything that is not plain (another verb or option, help, completion, a mistake)
is left to click.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from supervisord_async.cli.session import Session

LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")


class DaemonArguments(NamedTuple):
    """The arguments of ``asupd``."""

    file: str = "programs.yaml"
    detach: bool = False
    check: bool = False
    echo: bool = False
    run_dir: str | None = None
    log_level: str | None = None  #: one of :data:`LOG_LEVELS`; None: the file's
    log_format: str | None = None  #: one of :data:`LOG_FORMATS`; None: the file's
    log_file: str | None = None
    trial: bool = False  #: only check whether this code could take over at a re-exec; see recovery.reexec


#: Options with a value, in each spelling, and the attribute that they set.
_STATUS_VALUES = {"-c": "file", "--config": "file", "-s": "socket", "--socket": "socket"}
_DAEMON_VALUES = {
    "-c": "file",
    "--config": "file",
    "--run-dir": "run_dir",
    "--log-level": "log_level",
    "--log-format": "log_format",
    "--log-file": "log_file",
}
_DAEMON_FLAGS = {"-d": "detach", "--detach": "detach", "--check": "check", "--echo": "echo", "--trial": "trial"}


def plain_status(arguments: Sequence[str]) -> tuple[Session, list[str]] | None:
    """The session and the selectors of a plain ``status``; None for anything else."""
    session, words = Session(), list[str]()
    rest = iter(arguments)
    for argument in rest:
        if argument == "--json":
            session.json = True
        elif name := _STATUS_VALUES.get(argument):
            value = next(rest, None)
            if value is None or value.startswith("-"):
                return None
            setattr(session, name, value)
        elif argument.startswith("-"):
            return None
        else:
            words.append(argument)
    return (session, words[1:]) if words[:1] == ["status"] else None


def plain_daemon(arguments: Sequence[str]) -> DaemonArguments | None:
    """The arguments of a plain ``asupd`` command line; None for anything else."""
    given: dict[str, Any] = {}
    rest = iter(arguments)
    for argument in rest:
        if flag := _DAEMON_FLAGS.get(argument):
            given[flag] = True
        elif name := _DAEMON_VALUES.get(argument):
            value = next(rest, None)
            if value is None or value.startswith("-"):
                return None
            given[name] = value
        else:
            return None
    if given.get("log_level", "info") not in LOG_LEVELS or given.get("log_format", "text") not in LOG_FORMATS:
        return None
    return DaemonArguments(**given)
