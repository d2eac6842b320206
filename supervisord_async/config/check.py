"""What ``--check`` says about a sound file on this machine: users, groups and executables that do not exist.

These are warnings, never errors: what is missing may appear before the program starts, or exist on another machine.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath

from supervisord_async.config.document import Path
from supervisord_async.config.load import Loaded
from supervisord_async.config.model import Program
from supervisord_async.config.path_kinds import PathKind, kinds_of
from supervisord_async.config.place import Origin, Report
from supervisord_async.config.secrets import masked_text, secret_values
from supervisord_async.config.values import ASSIGNMENT
from supervisord_async.errors import Problem, SpawnError
from supervisord_async.system.credentials import Credentials, lookup
from supervisord_async.system.disks import Executable
from supervisord_async.system.spawn import forbidding

#: The commands without which a start fails.
_NEEDED_TO_START: tuple[Path, ...] = (("command",), ("hooks", "before_start"))


def check(loaded: Loaded) -> tuple[Problem, ...]:
    """Warnings about ``loaded`` that depend on the machine, in addition to those of the load itself. Blocks on look-ups."""
    report = Report()
    programs = loaded.configuration.programs
    kinds = kinds_of(path for program in programs.values() for path in _looked_at(program))
    for name, program in programs.items():
        origin = Origin(loaded.origins[name].places, report)
        _check_identity(program, origin)
        if kinds[program.directory] is PathKind.FOLDER:
            _check_entrance(program, origin)
        for sub, command in _commands(program):
            _check_executable(program, command[0], sub, origin, kinds)
    return report.sorted()


def _looked_at(program: Program) -> Iterator[str]:
    """The paths that the checks below look at."""
    yield program.directory
    for _, command in _commands(program):
        yield from _candidates(program, command[0])


def _candidates(program: Program, executable: str) -> Iterator[str]:
    """Where a spawn looks for ``executable``."""
    return Executable(executable, program.directory, program.environment.get("PATH")).files()


def _commands(program: Program) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Every command of ``program``, each with its key; all are looked up and executed in the same way."""
    yield ("command",), program.command
    beside: tuple[tuple[Path, tuple[str, ...] | None], ...] = (
        (("stop", "command"), program.stop.command),
        (("hooks", "before_start"), program.hooks.before_start),
        (("hooks", "after_exit"), program.hooks.after_exit),
        (("readiness", "command"), program.readiness.command if program.readiness else None),
        (("liveness", "command"), program.liveness.command if program.liveness else None),
    )
    yield from ((sub, command) for sub, command in beside if command is not None)


def _check_identity(program: Program, origin: Origin) -> None:
    if program.user is not None:
        uid = _number(program.user, lambda name: pwd.getpwnam(name).pw_uid)
        if uid is None:
            beside = "; a group is named by group_name" if ":" in program.user else ""
            origin.warning(("user",), f"there is no user '{program.user}' here{beside}", lacks="user")
        elif os.geteuid() not in (0, uid):
            origin.warning(("user",), f"only root can run a program as another user; this is user {os.geteuid()}", lacks="root")
    if program.group_name is not None and _number(program.group_name, lambda name: grp.getgrnam(name).gr_gid) is None:
        origin.warning(("group_name",), f"there is no group '{program.group_name}' here", lacks="user")


def _check_entrance(program: Program, origin: Origin) -> None:
    """Warn of a directory that the program's user may not enter: the program starts there all the same, as root enters it."""
    try:
        if (who := lookup(program.user, program.group_name)) is None:
            return
        closed = _closed(program.directory, who)
    except (SpawnError, OSError):
        return
    if closed is not None:
        words = f"{who.name} may not enter {closed}: the program will run there, but find files by absolute paths alone"
        origin.warning(("directory",), words)


def _closed(directory: str, who: Credentials) -> str | None:
    """The first folder on the way into ``directory`` that ``who`` may not enter; None if there is none. Raises OSError."""
    folders = map(str, (*reversed(PurePath(directory).parents), directory))
    return next((folder for folder in folders if not who.may_execute(folder)), None)


def _forbidding(program: Program, path: str) -> str:
    """What keeps the program's user from executing ``path``; empty if permissions do not, or if it has none or an unknown one.

    A path below a directory that is closed on the way is not judged: it is executed from inside.
    """
    try:
        who = lookup(program.user, program.group_name)
        if who is None or (path.startswith(program.directory) and _closed(program.directory, who)):
            return ""
    except (SpawnError, OSError):
        return ""
    return forbidding(path, who)


def _number(name: str, look_up: Callable[[str], int]) -> int | None:
    """The id of ``name``, which may itself be a number; None if there is none."""
    if name.isascii() and name.isdigit():
        return int(name)
    try:
        return look_up(name)
    except (KeyError, ValueError):
        return None


def _check_executable(program: Program, executable: str, sub: Path, origin: Origin, kinds: Mapping[str, PathKind]) -> None:
    candidates = {path: kinds[path] for path in _candidates(program, executable)}
    if kinds[program.directory] is PathKind.SILENT:
        return  # that was reported by the load
    if found := [path for path, kind in candidates.items() if kind is PathKind.EXECUTABLE]:
        forbidden = [_forbidding(program, path) for path in found]
        if all(forbidden):
            words = masked_text(f"{found[0]}: {forbidden[0]}", secret_values(program))
            origin.warning(sub, words, lacks="executable" if sub in _NEEDED_TO_START else "")
        return
    if ASSIGNMENT.match(executable):
        return  # reported by the load
    silent = next((path for path, kind in candidates.items() if kind is PathKind.SILENT), None)
    if silent is not None:
        words = f"cannot look at {silent}: its disk does not answer"
    elif "/" not in executable:
        words = f"there is no '{executable}' in the program's PATH"
    elif kinds[program.directory] is not PathKind.FOLDER:
        return  # reported by the load
    else:
        (path, kind), *_ = candidates.items()
        words = {
            PathKind.OTHER: f"{path} is not executable; chmod +x, or name its interpreter",
            PathKind.FOLDER: f"{path} is a folder, and cannot be executed",
        }.get(kind, f"there is no {path} here")
    if " " in executable and silent is None:
        words += "; is the whole command in quotes?"
    lacks = "executable" if sub in _NEEDED_TO_START and silent is None else ""
    origin.warning(sub, masked_text(words, secret_values(program)), lacks=lacks)
