"""What ``--check`` says of a sound file on this machine: users, groups and executables that are not there.

Warnings, never errors: they may appear before the program starts, and another machine may have them.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
from collections.abc import Callable, Iterator

from supervisord_async.config.document import Path
from supervisord_async.config.load import Loaded
from supervisord_async.config.model import Program
from supervisord_async.config.place import Origin, Report
from supervisord_async.errors import Problem


def check(loaded: Loaded) -> tuple[Problem, ...]:
    """Warnings about ``loaded`` that depend on the machine; those of the load itself come on top. Blocks on look-ups."""
    report = Report()
    for name, program in loaded.configuration.programs.items():
        origin = Origin(loaded.origins[name].places, report)
        _check_identity(program, origin)
        for sub, command in _commands(program):
            _check_executable(program, command[0], sub, origin)
    return report.sorted()


def _commands(program: Program) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Every command of ``program``, all of which are run alike, and where it is written."""
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
            origin.warning(("user",), f"there is no user '{program.user}' here")
        elif os.geteuid() not in (0, uid):
            origin.warning(("user",), f"only root can run a program as another user; this is user {os.geteuid()}")
    if program.group_name is not None and _number(program.group_name, lambda name: grp.getgrnam(name).gr_gid) is None:
        origin.warning(("group_name",), f"there is no group '{program.group_name}' here")


def _number(name: str, look_up: Callable[[str], int]) -> int | None:
    """The id of ``name``, which may be one already; None where there is none."""
    if name.isascii() and name.isdigit():
        return int(name)
    try:
        return look_up(name)
    except (KeyError, ValueError):
        return None


def _check_executable(program: Program, executable: str, sub: Path, origin: Origin) -> None:
    """It is found as the spawn finds it: in the program's own PATH, seen from its own directory."""
    if "/" in executable:
        path = os.path.join(program.directory, executable)
        if not os.path.isdir(program.directory):
            return  # said by the load
        if not os.path.isfile(path):
            origin.warning(sub, f"there is no {path} here")
        elif not os.access(path, os.X_OK):
            origin.warning(sub, f"{path} is not executable; chmod +x, or name its interpreter")
        return
    search = os.pathsep.join(
        os.path.join(program.directory, part) for part in program.environment.get("PATH", os.defpath).split(os.pathsep)
    )
    if shutil.which(executable, path=search) is None:
        origin.warning(sub, f"there is no '{executable}' in the program's PATH")
