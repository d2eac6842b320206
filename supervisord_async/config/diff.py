"""The difference between two configurations, and what it means for each program: a restart, or a change in place. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from supervisord_async.config.model import Configuration, Logs, Program
from supervisord_async.jsontext import json_bytes, json_value

#: Settings whose change needs a restart: a process has them from its start.
NEEDS_RESTART = frozenset(
    {
        "command",
        "shell",
        "environment",
        "environment_files",
        "user",
        "group_name",
        "directory",
        "umask",
        "limits",
        "sockets",
        "notify",
        "heartbeat",
        "heartbeat.file",
        "logs.stdout",
        "logs.stderr",
    }
)
#: Parts of those settings that only the daemon uses, and that change in place.
IN_PLACE = frozenset({"limits.memory", "notify.start_timeout"})
#: Settings of the daemon that take effect at its next start; the others take effect at once.
NEXT_START = frozenset({"name", "socket", "socket_mode", "socket_group", "http", "http_token_file", "http_tls", "http_insecure"})
#: The file's keys of those model fields whose name is not just the key with a unit appended.
_FILE_KEYS = {
    "unread": "environment_files",
    "start_seconds": "start_seconds",
    "stop.grace_seconds": "stop.grace_period",
    "restart.retry_after_seconds": "restart.on_limit.retry_after",
}


class ProgramChange(msgspec.Struct, frozen=True, kw_only=True):
    """One program whose settings differ.

    ``keys`` are all that changed, by their names in the file; ``in_place`` those that need no restart. With ``restart``
    the remaining processes are restarted. A change of ``replicas`` shows as added and removed processes.
    """

    program: str
    restart: bool
    keys: tuple[str, ...]
    in_place: tuple[str, ...]
    starts: bool = False  #: ``autostart`` has become true: processes that are down are started, unless somebody stopped them
    added_processes: tuple[str, ...] = ()
    removed_processes: tuple[str, ...] = ()

    @property
    def needing(self) -> tuple[str, ...]:
        """The changed settings that need a restart."""
        return tuple(key for key in self.keys if key not in self.in_place and key != "replicas")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a reload does. ``daemon_keys`` take effect at the daemon's next start, ``daemon_in_place`` at once.

    ``warnings`` are those of loading the new file, each ``FILE:LINE:COLUMN: warning: …``.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[ProgramChange, ...] = ()
    unchanged: int = 0
    daemon_keys: tuple[str, ...] = ()
    daemon_in_place: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def started(self) -> frozenset[str]:
        """The programs whose ``autostart`` has become true."""
        return frozenset(change.program for change in self.changed if change.starts)

    def restarted(self) -> dict[str, tuple[str, ...]]:
        """The programs whose remaining processes are restarted, each with the settings that need it."""
        return {change.program: change.needing for change in self.changed if change.restart}

    def describe(self) -> tuple[str, ...]:
        """One line per thing that happens, for people; the last one counts the unchanged programs."""
        lines = [f"+ {name} added" for name in self.added]
        lines += [f"- {name} removed" for name in self.removed]
        for change in self.changed:
            lines += _lines(change)
        if self.daemon_in_place:
            lines.append(f"~ daemon in place: {', '.join(self.daemon_in_place)}")
        if self.daemon_keys:
            # with a new socket `asupctl reexec` is no advice: it would wait for the answer at the old one
            how = "" if "socket" in self.daemon_keys else " (`asupctl reexec` is one)"
            lines.append(f"! daemon at the next start{how}: {', '.join(self.daemon_keys)}")
        if self.unchanged or not lines:
            lines.append(f"= {self.unchanged} unchanged")
        return tuple(lines)

    def to_json(self) -> dict[str, Any]:
        """The plan as plain data."""
        data: dict[str, Any] = json_value(json_bytes(self))
        return data


def diff(old: Configuration, new: Configuration, has_it: Callable[[Program], bool] = lambda program: False) -> Plan:
    """The plan that leads from ``old`` to ``new``; programs are matched by name.

    ``has_it`` tells of a program whose environment files only the present daemon could not read whether all its runs began with them.
    """
    changed = []
    unchanged = 0
    for name, program in new.programs.items():
        before = old.programs.get(name)
        if before is program or before == program:
            unchanged += 1
        elif before is not None:
            change = _change(before, program)
            if before.unread and set(change.needing) <= {"environment", "environment_files"} and has_it(program):
                change = msgspec.structs.replace(change, restart=False, in_place=change.keys)
            if change.keys:
                changed.append(change)
            else:
                unchanged += 1
    daemon = _differing(old.daemon, new.daemon)
    return Plan(
        added=tuple(name for name in new.programs if name not in old.programs),
        removed=tuple(name for name in old.programs if name not in new.programs),
        changed=tuple(changed),
        unchanged=unchanged,
        daemon_keys=tuple(key for key in daemon if _first(key) in NEXT_START),
        daemon_in_place=tuple(key for key in daemon if _first(key) not in NEXT_START),
    )


def completed(old: Configuration, new: Configuration) -> Configuration:
    """``old`` with the environments of ``new`` for programs that lacked an environment file in ``old`` and are otherwise as they were."""
    found = {}
    for name, program in old.programs.items():
        if program.unread and name in new.programs:
            fresh = new.programs[name]
            if fresh == msgspec.structs.replace(program, environment=fresh.environment, own_variables=fresh.own_variables, unread=""):
                found[name] = fresh
    return msgspec.structs.replace(old, programs=old.programs | found)


def _lines(change: ProgramChange) -> list[str]:
    lines = []
    if change.restart:
        lines.append(f"~ {change.program} restart: {', '.join(change.needing)}")
    if change.in_place:
        lines.append(f"~ {change.program} in place: {', '.join(change.in_place)}")
    if change.starts:
        lines.append(f"+ {change.program} started, unless somebody stopped it")
    for word, sign, names in (("added", "+", change.added_processes), ("removed", "-", change.removed_processes)):
        if names:
            shown = ", ".join(names) if len(names) <= 4 else f"{names[0]} … {names[-1]} ({len(names)})"
            lines.append(f"{sign} {shown} {word}")
    return lines


def _change(old: Program, new: Program) -> ProgramChange:
    before, after = old.process_names(), new.process_names()
    kept = set(before) & set(after)
    keys = tuple(key for key in _differing(old, new) if not _follows(key, old, new, kept=bool(kept)))
    in_place = tuple(key for key in keys if key != "replicas" and (not needs_restart(key, new) or _is_redirected(key, old.logs, new.logs)))
    needing = [key for key in keys if key != "replicas" and key not in in_place]
    return ProgramChange(
        program=new.name,
        restart=bool(needing and kept),
        keys=keys,
        in_place=in_place,
        starts=new.autostart and not old.autostart,
        added_processes=tuple(name for name in after if name not in set(before)),
        removed_processes=tuple(name for name in before if name not in set(after)),
    )


def _follows(key: str, old: Program, new: Program, *, kept: bool) -> bool:
    """Whether a difference only follows from another and is not reported: new process names have new logs, a new user a new HOME."""
    if key == "own_variables":
        return True
    if key in ("logs.stdout", "logs.stderr"):
        return not kept
    if key == "environment" and old.user != new.user:
        left_out = {"HOME", "USER", "LOGNAME"}
        before, after = ({name: value for name, value in of.environment.items() if name not in left_out} for of in (old, new))
        return before == after
    return False


def needs_restart(key: str, program: Program) -> bool:
    """Whether a running process of ``program`` has to be restarted for a change of ``key``."""
    if key in IN_PLACE:
        return False
    if key == "heartbeat.timeout":
        return program.notify is not None  # the process was given it as WATCHDOG_USEC
    return key in NEEDS_RESTART or _first(key) in NEEDS_RESTART - {"heartbeat"}


def _is_redirected(key: str, old: Logs, new: Logs) -> bool:
    """Whether ``key`` is a stream with a pipe of its own, which the daemon goes on reading: only what it does with the output changes."""
    if key == "logs.stdout":
        before, after = old.stdout, new.stdout
    elif key == "logs.stderr":
        before, after = old.stderr, new.stdout if new.stderr == "stdout" else new.stderr
    else:
        return False
    return before not in ("none", "inherit", "stdout") and after != "inherit"


def _first(key: str) -> str:
    return key.partition(".")[0]


def _differing(old: Any, new: Any, prefix: str = "") -> list[str]:
    """The file's keys of the settings in which two structs of one type differ, nested ones included."""
    keys = []
    for field in new.__struct_fields__:
        before, after = getattr(old, field), getattr(new, field)
        if before == after:
            continue
        if isinstance(before, msgspec.Struct) and type(before) is type(after):
            keys += _differing(before, after, f"{prefix}{field}.")
        else:
            keys.append(_file_key(f"{prefix}{field}"))
    return keys


def _file_key(field: str) -> str:
    return _FILE_KEYS.get(field) or field.removesuffix("_seconds").removesuffix("_bytes")
