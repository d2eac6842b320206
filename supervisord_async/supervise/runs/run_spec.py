"""Derives from a program's settings what the system needs to start a run: environment, tag, heartbeat file."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import msgspec

from supervisord_async import wire
from supervisord_async.config.model import Daemon, Limits, Program
from supervisord_async.errors import SpawnError
from supervisord_async.system.credentials import Credentials
from supervisord_async.system.descriptors import RUN_ROOM
from supervisord_async.system.disks import Executable
from supervisord_async.system.spawn import SpawnSpec

_NO_LIMITS = Limits()
#: Separates, in the tag of a command beside a run, the process's name from the command's role.
SIDE = "#"


def instance_of(run_dir: str) -> str:
    """The prefix of the tags of this run_dir's children.

    Derived from its path, not stored: children are recognised even if every file of the run_dir was lost.
    """
    return hashlib.blake2s(os.fsencode(os.path.realpath(run_dir)), digest_size=8).hexdigest()


@cache
def _own_environment() -> dict[str, str]:
    """The environment that we were started with, decoded once, not for each variable of each spawn."""
    return dict(os.environ)


def settings_digest(program: Program) -> str:
    """A digest of the settings with which a run is started: those whose change needs a restart.

    Inherited variables do not count: another daemon may have another environment. Nor do the paths of logs, which only the daemon opens.
    """
    return _with_streams(program, _kind(program.logs.stdout), _kind(program.logs.stderr))


def _with_streams(program: Program, stdout: str, stderr: str) -> str:
    """The digest of a run of ``program`` whose streams were of these kinds when it was started."""
    beats = program.heartbeat and (program.heartbeat.file,)
    return _digest(program, _own_variables(program), (beats, program.notify is not None, stdout, stderr), size=10)


def _kind(where: str) -> str:
    return where if where in ("none", "inherit", "stdout") else "path"


def _possible_kinds(program: Program) -> Iterator[tuple[str, str]]:
    """The kinds of streams with which a run may have been started that goes on with the present ones: those with a pipe can go anywhere
    but to ``inherit``, as at a reload.
    """
    stdout, stderr = program.logs.stdout, program.logs.stderr
    resolved = stdout if stderr == "stdout" else stderr
    firsts = dict.fromkeys((_kind(stdout), "path" if stdout != "inherit" else "inherit"))  # the present ones come first: mostly they fit
    seconds = dict.fromkeys((_kind(stderr), "path" if resolved != "inherit" else _kind(stderr)))
    yield from itertools.product(firsts, seconds)


def has_digest(program: Program, digest: str) -> bool:
    """Whether a run with that :func:`settings_digest` was started with the present settings of ``program``; "" fits all.

    Also true of the shorter digests by earlier versions, which left out heartbeat, notify and logs, and before that variables that
    the file sets to their inherited value; and of all digests while the present settings are not known in full.
    """
    if program.unread or digest == "" or any(digest == _with_streams(program, *kinds) for kinds in _possible_kinds(program)):
        return True
    former = sorted(program.environment.items() - _own_environment().items())
    return digest in (_digest(program, _own_variables(program)), _digest(program, former))


def _own_variables(program: Program) -> list[tuple[str, str]]:
    return [(name, program.environment[name]) for name in program.own_variables]


def _digest(program: Program, environment: list[tuple[str, str]], *more: object, size: int = 8) -> str:
    who = (program.user, program.group_name, program.umask, [f"{key}={value}" for key, value in limits_of(program).items()])
    sockets = (program.sockets,) if program.sockets else ()
    identity = (program.command, program.shell, program.directory, *who, environment, *sockets, *more)
    return hashlib.blake2s(repr(identity).encode(), digest_size=size).hexdigest()


def executable_of(program: Program) -> Executable:
    """The executable, as a spawn looks it up."""
    return Executable(program.command[0], program.directory, program.environment.get("PATH"))


def tag_of(instance: str, name: str, run: int) -> str:
    """The tag that a run's processes carry in their environment as ``ASUP_TAG``."""
    return f"{instance}/{name}/{run}"


def heartbeat_file_of(program: Program, name: str, daemon: Daemon) -> str | None:
    """The heartbeat file: the configured one, else one in run_dir; None without ``heartbeat``, or with ``notify``."""
    if program.heartbeat is None or program.notify is not None:  # with notify WATCHDOG=1 is the beat
        return None
    if program.heartbeat.file is not None:
        return program.heartbeat.file.replace("{replica}", name.rpartition(":")[2] if ":" in name else "0")
    return os.path.join(daemon.run_dir, "heartbeats", name)


class RunEnvironment(msgspec.Struct, frozen=True):
    """The environment of one run. Its variables are made on request: a thousand dictionaries, kept to be read once, are megabytes."""

    program: Program  #: as it was when the run began
    name: str
    replica: int
    run: int
    daemon: Daemon
    instance: str
    credentials: Credentials | None

    @property
    def tag(self) -> str:
        """The tag of the run's processes."""
        return tag_of(self.instance, self.name, self.run)

    @property
    def heartbeat_file(self) -> str | None:
        """The heartbeat file, from the settings or from the environment that they give."""
        configured = heartbeat_file_of(self.program, self.name, self.daemon)
        return configured or self.program.environment.get(wire.ENV_HEARTBEAT_FILE)

    def variables(self) -> dict[str, str]:
        """All variables."""
        variables = dict(self.program.environment)
        variables.setdefault("PWD", self.program.directory)  # as after a `cd`: links in it stay, which getcwd() would resolve
        if self.credentials is not None:
            for variable, value in (("HOME", self.credentials.home), ("USER", self.credentials.name), ("LOGNAME", self.credentials.name)):
                variables.setdefault(variable, value)
        variables |= {
            wire.ENV_NAME: self.name,
            wire.ENV_PROGRAM: self.program.name,
            wire.ENV_GROUP: self.program.group,
            wire.ENV_REPLICA: str(self.replica),
            wire.ENV_RUN: str(self.run),
            wire.ENV_SOCKET: self.daemon.socket,
            wire.ENV_TAG: self.tag,
            wire.ENV_SETTINGS: settings_digest(self.program),
        }
        if self.heartbeat_file is not None:
            variables[wire.ENV_HEARTBEAT_FILE] = self.heartbeat_file
        return variables

    def for_side_command(self, role: str) -> dict[str, str]:
        """The variables of a command beside the run (a probe, a hook), with a tag that is never taken for the run's own."""
        own = {name: value for name, value in self.variables().items() if name not in wire.MAIN_PROCESS_ONLY}
        return {**own, wire.ENV_TAG: tag_of(self.instance, f"{self.name}{SIDE}{role}", self.run)}


def prepare_heartbeat_file(environment: RunEnvironment) -> None:
    """The heartbeat file in the run_dir exists and belongs to the run's user; a file that the program configures is left to it.

    Raises SpawnError, stage ``heartbeat``.
    """
    program, path, credentials = environment.program, environment.heartbeat_file, environment.credentials
    if program.heartbeat is None or program.heartbeat.file is not None or path is None:
        return
    try:
        Path(path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if credentials is not None:
                os.fchown(descriptor, credentials.uid, credentials.gid)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise SpawnError("heartbeat", error.errno, f"cannot make {path}") from error


def remove_heartbeat_file(program: Program, name: str, daemon: Daemon) -> None:
    """The process has no heartbeat file in the run_dir; one that the program configures, or that cannot be removed, stays."""
    path = heartbeat_file_of(program, name, daemon)
    if path is not None and program.heartbeat is not None and program.heartbeat.file is None:
        with suppress(OSError):
            os.unlink(path)


def is_side(name: str) -> bool:
    """Whether the name in a tag is of a command beside a run; no process can have such a name."""
    return SIDE in name


def spawn_spec(
    program: Program,
    environment: dict[str, str],
    credentials: Credentials | None,
    stdout: int,
    stderr: int,
    argv: tuple[str, ...] | None = None,
    stdin: int = subprocess.DEVNULL,
) -> SpawnSpec:
    """What the system needs to know to spawn a run, or the command ``argv`` as a run would be.

    A caller that spawns often passes a descriptor of /dev/null as ``stdin``; with the default it is opened each time.
    """
    return SpawnSpec(
        argv=argv or program.command,
        directory=program.directory,
        environment=environment,
        stdout=stdout,
        stderr=stderr,
        stdin=stdin,
        credentials=credentials,
        umask=program.umask,
        limits=limits_of(program) if argv is None else {},
        room=RUN_ROOM if argv is None else 0,
        confined=argv is None and program.stop.ends_all,
    )


def limits_of(program: Program) -> dict[str, str]:
    """The limits that are set at the start of a run, by the launcher's keys; ``limits.memory`` is not among them: a monitor watches it."""
    limits = program.limits
    if limits == _NO_LIMITS:  # as of most programs
        return {}
    values = {
        "open_files": limits.open_files,
        "processes": limits.processes,
        "core_size": limits.core_size_bytes,
        "nice": limits.nice,
        "ionice": limits.ionice,
        "oom_score_adj": limits.oom_score_adj,
        "cpu_affinity": ",".join(map(str, limits.cpu_affinity)) if limits.cpu_affinity is not None else None,
        "no_new_privileges": 1 if limits.no_new_privileges else None,
    }
    return {key: str(value) for key, value in values.items() if value is not None}
