"""The checks of ``asupctl doctor``. Each yields findings, with advice; none changes anything.

An *error* keeps a daemon or a program from starting or working; a *warning* may do so later.
"""

from __future__ import annotations

import errno
import importlib.metadata
import importlib.util
import os
import re
import resource
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from supervisord_async.daemon_registry import LOCK_NAME, SOCKET_NAME
from supervisord_async.errors import ConfigError, Problem, SupervisordError
from supervisord_async.system import procfs
from supervisord_async.system.requirements import lacking
from supervisord_async.system.sockets import PATH_LIMIT_BYTES, is_answered
from supervisord_async.system.threads import in_time
from supervisord_async.words import counted, listed

if TYPE_CHECKING:
    from supervisord_async.config.load import Loaded
    from supervisord_async.config.model import Configuration

#: A check that takes longer is taken to wait for a disk that hangs.
TIMEOUT_SECONDS = 10.0
_SILENT = f"cannot be told: a disk, or a name server, has not answered for {TIMEOUT_SECONDS:g} s"
#: The most descriptors that the daemon needs for itself, and for each process (two pipes, a pidfd, two logs).
OWN_FILES, FILES_PER_PROCESS = 64, 8
FREE_BYTES = 64 * 1024 * 1024
INOTIFY_WATCHES = 8192
#: Distributions whose module has a different name.
MODULES = {"pyyaml": "yaml", "python-dotenv": "dotenv", "google-re2": "re2", "prometheus-client": "prometheus_client"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of a check."""

    level: Literal["ok", "warning", "error"]
    check: str  #: a stable word
    message: str
    advice: str = ""  #: what to do; empty if nothing


@dataclass(frozen=True, slots=True)
class Installation:
    """What is examined: a run_dir, and its configuration file, if that is known."""

    run_dir: str
    file: str | None
    socket: str
    daemon_pid: int | None = None  #: of the daemon that holds the lock
    loaded: Loaded | None = None

    @property
    def configuration(self) -> Configuration | None:
        """The sound configuration, if there is one."""
        return self.loaded.configuration if self.loaded is not None else None

    @property
    def lock_path(self) -> str:
        """The run_dir's lock file."""
        return os.path.join(self.run_dir, LOCK_NAME)

    @property
    def hides_lock(self) -> bool:
        """Whether this user may not open the lock, so that whether a daemon holds it is unknown."""
        try:
            os.close(os.open(self.lock_path, os.O_RDONLY | os.O_CLOEXEC))  # as InstanceLock.holder() does
        except PermissionError:
            return True
        except OSError:
            return False
        return False


def examine(run_dir: str, file: str | None) -> list[Finding]:
    """All findings. Blocks: for about 2 seconds if the daemon hangs, and for :data:`TIMEOUT_SECONDS` per check whose disk hangs."""
    from supervisord_async.system.lock import InstanceLock

    found: list[Finding] = []
    loaded = None
    if file is None:
        found.append(Finding("ok", "configuration", "no file was looked at (-c FILE, else programs.yaml here)"))
    else:
        try:
            loaded, findings = in_time(TIMEOUT_SECONDS, _load, file, run_dir)
        except TimeoutError:
            findings = [Finding("error", "configuration", f"{file}: {_SILENT}", "look at what it includes, and at what is mounted there")]
        found += findings
    path = loaded.configuration.daemon.socket if loaded is not None else os.path.join(run_dir, SOCKET_NAME)
    installation = Installation(run_dir, file, path, InstanceLock(os.path.join(run_dir, LOCK_NAME)).holder(), loaded)
    for check in CHECKS:
        try:
            found += in_time(TIMEOUT_SECONDS, _all_of, check, installation)
        except TimeoutError:
            found.append(Finding("error", check.__name__, _SILENT, "look at what is mounted there, and at names of hosts"))
        except OSError as error:  # a check that is impossible here does not prevent the others
            found.append(Finding("warning", check.__name__, f"cannot be told: {error}"))
    return found


def _all_of(check: Callable[[Installation], Iterator[Finding]], installation: Installation) -> list[Finding]:
    return list(check(installation))


def _load(file: str, run_dir: str) -> tuple[Loaded | None, list[Finding]]:
    from supervisord_async.config.check import check
    from supervisord_async.config.load import load

    try:
        loaded = load(file, run_dir=run_dir)
    except ConfigError as error:
        advice = "correct the file; `asupd --check` looks again"
        return None, [Finding("warning" if each.warning else "error", "configuration", _told(each), advice) for each in error.problems]
    problems = (*loaded.warnings, *check(loaded))
    sound = Finding("ok", "configuration", f"{file}: sound, {counted(len(loaded.configuration.programs), 'program')}")
    return loaded, [sound, *map(_of_problem, problems)]


def _told(problem: Problem) -> str:
    """The problem's place and message, without the word "warning": the finding has a level."""
    return str(problem._replace(warning=False))


def _of_problem(problem: Problem) -> Finding:
    text = _told(problem)
    if problem.lacks == "user":
        return Finding("error", "user", text, "make the user, or correct user and group_name; until then the program cannot start")
    if problem.lacks == "root":
        return Finding("error", "user", text, "run the daemon as root, or leave user out; until then the program cannot start")
    if problem.lacks == "executable":
        advice = "install it where the program's user may execute it, or correct command or PATH; until then the program cannot start"
        return Finding("error", "executable", text, advice)
    return Finding("warning", "configuration", text, "see docs/reference.md for the key")


# The machine


def python(_installation: Installation) -> Iterator[Finding]:
    """Which interpreter this is; an older one than this package supports could not even import this."""
    yield Finding("ok", "python", f"Python {'.'.join(map(str, sys.version_info[:3]))} at {sys.executable}")


def dependencies(_installation: Installation) -> Iterator[Finding]:
    """What the package needs is installed."""
    try:
        requirements = importlib.metadata.requires("supervisord_async") or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding("warning", "dependencies", "this checkout is not installed", "run scripts/environment, or pip install -e .")
        return
    missing = []
    for requirement in requirements:
        name, _, marker = requirement.partition(";")
        match = re.match(r"[A-Za-z0-9._-]+", name)
        if match is None or "extra" in marker:
            continue
        module = MODULES.get(match[0].lower().replace("_", "-"), match[0].replace("-", "_"))
        if importlib.util.find_spec(module) is None:
            missing.append(match[0])
    for name in missing:
        optional = name.lower() == "uvloop"
        advice = f"pip install {name}" + (" (without it the daemon runs on the slower stock loop)" if optional else "")
        yield Finding("warning" if optional else "error", "dependencies", f"{name} is not installed", advice)
    if not missing:
        yield Finding("ok", "dependencies", "all installed")


def kernel(_installation: Installation) -> Iterator[Finding]:
    """The kernel has what supervision needs."""
    try:
        lack = lacking()
    except OSError as error:
        yield Finding("error", "kernel", f"cannot be looked at: {error.strerror}", "free some, or raise the limit, and look again")
        return
    if lack is not None:
        yield Finding("error", "kernel", lack.what, lack.advice)
    else:
        yield Finding("ok", "kernel", f"Linux {os.uname().release}: pidfds work")


def threads(_installation: Installation) -> Iterator[Finding]:
    """A thread can be started: the daemon needs one before anything else."""
    try:
        thread = threading.Thread(target=lambda: None)
        thread.start()
    except RuntimeError as error:
        advice = (
            "raise the limit of processes: ulimit -u, TasksMax= in the unit, the container's pids limit; an old container engine refuses "
            "clone3 by its seccomp profile: upgrade it"
        )
        yield Finding("error", "threads", f"{error}: nothing will be supervised", advice)
    else:
        thread.join()
        yield Finding("ok", "threads", "can be started")


def control_groups(installation: Installation) -> Iterator[Finding]:
    """Whether each run has its own cgroup: for the running daemon as it is, else as a daemon started here could do it."""
    from supervisord_async.supervise.runs.run_spec import instance_of
    from supervisord_async.system import cgroups

    instance = instance_of(installation.run_dir)
    homes = cgroups.homes_of(instance)
    if installation.daemon_pid is None and not homes:
        try:
            homes.append(cgroups.ground_of(instance))
        except cgroups.UnusableError as error:
            yield Finding("ok", "cgroups", f"none for a daemon that is started here: {error}")
            return
    if homes:
        yield Finding("ok", "cgroups", f"each run has one below {homes[0]}")
    else:
        yield Finding("ok", "cgroups", "the daemon has made none; its log says why at its start")


def descriptors(installation: Installation) -> Iterator[Finding]:
    """The hard limit of open files is enough, which the daemon makes its soft limit: the running daemon's limit, else ours."""
    hard = _hard_limit_of_files(installation.daemon_pid)
    programs = installation.configuration.programs.values() if installation.configuration is not None else ()
    need = OWN_FILES + FILES_PER_PROCESS * sum(len(program.process_names()) for program in programs)
    if hard != resource.RLIM_INFINITY and hard < need:
        advice = f"raise the hard limit to {need}: LimitNOFILE= in the unit, ulimit -Hn, or limits.conf"
        yield Finding("error", "descriptors", f"at most {hard} open files, and up to {need} may be needed", advice)
    else:
        limit = "no limit of" if hard == resource.RLIM_INFINITY else f"at most {hard}"
        yield Finding("ok", "descriptors", f"{limit} open files, {need} suffice")


def _hard_limit_of_files(daemon_pid: int | None) -> int:
    if daemon_pid is not None:
        with suppress(ProcessLookupError, PermissionError):  # it has gone, or is another user's: ours is the best guess
            return resource.prlimit(daemon_pid, resource.RLIMIT_NOFILE)[1]
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def inotify(installation: Installation) -> Iterator[Finding]:
    """There is an inotify instance left for the daemon, and watches for its trees."""
    instances, watches = (int(Path(f"/proc/sys/fs/inotify/max_user_{each}").read_text()) for each in ("instances", "watches"))
    used = _inotify_instances()
    watching = installation.configuration is None or any(program.watch for program in installation.configuration.programs.values())
    if used >= instances and installation.daemon_pid is None:
        level: Literal["warning", "ok"] = "warning" if watching else "ok"
        advice = f"sysctl fs.inotify.max_user_instances={2 * instances}; until then changes are found by polling"
        yield Finding(level, "inotify", f"all {instances} instances of this user are taken", advice if level == "warning" else "")
    elif watches < INOTIFY_WATCHES and watching:
        advice = f"sysctl fs.inotify.max_user_watches={64 * INOTIFY_WATCHES}; what has no watch is polled"
        yield Finding("warning", "inotify", f"at most {watches} watched directories", advice)
    else:
        yield Finding("ok", "inotify", f"{used} of {instances} instances taken, {watches} watches")


def _inotify_instances() -> int:
    """How many instances this user has, as far as /proc shows them."""
    count = 0
    for pid in procfs.pids():
        try:
            if os.stat(f"/proc/{pid}").st_uid == os.geteuid():
                count += sum(os.readlink(f"/proc/{pid}/fd/{fd}") == "anon_inode:inotify" for fd in os.listdir(f"/proc/{pid}/fd"))
        except OSError:  # it has just ended
            continue
    return count


# The run_dir


def run_dir(installation: Installation) -> Iterator[Finding]:
    """The run_dir can be created and written, but not by everybody, and belongs to this user or root."""
    place = installation.run_dir
    existing = Path(place)
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        what = "is not a directory" if not existing.is_dir() else "is not writable for this user"
        yield Finding("error", "run_dir", f"{existing} {what}", "set daemon.run_dir, change its owner, or run as its user")
        return
    if not Path(place).exists():
        yield Finding("ok", "run_dir", f"{place} does not exist yet; the daemon makes it")
    else:
        found = os.stat(place)
        if found.st_mode & 0o002 and not found.st_mode & 0o1000:
            advice = f"chmod o-w {place}: anybody can replace the socket and the state"
            yield Finding("error", "run_dir", f"{place} is writable for everybody", advice)
        elif found.st_uid not in (0, os.geteuid()):
            advice = "run the daemon as its owner, or change the owner"
            yield Finding("warning", "run_dir", f"{place} belongs to user {found.st_uid}", advice)
        else:
            yield Finding("ok", "run_dir", f"{place} is writable")
    free = shutil.disk_usage(existing).free
    if free < FREE_BYTES:
        yield Finding("warning", "disk", f"{free // 1024} KiB are free at {existing}", "make room: logs and state go there")


def lock(installation: Installation) -> Iterator[Finding]:
    """A daemon that holds the lock answers; without a daemon, no processes of a dead one are left."""
    if installation.hides_lock:
        advice = "look as the user that the daemon runs as, or as root"
        yield Finding(
            "warning", "lock", f"{installation.lock_path} is not readable for this user: whether a daemon runs cannot be told", advice
        )
        return
    from supervisord_async.supervise.recovery.guardian import has_holder

    if installation.daemon_pid is None and has_holder(installation.lock_path):
        advice = "its log has its PID, and `kill PID` stops it"
        words = f"a process holds {installation.lock_path}, but could not write its PID into it (a read-only or full disk)"
        yield Finding("error", "daemon", words, advice)
        return
    if installation.daemon_pid is None:
        yield Finding("ok", "lock", "no daemon holds the run_dir")
        yield from _leftovers(installation)
        return
    from supervisord_async.client import Client

    try:
        with Client(installation.socket, timeout_seconds=2.0) as client:
            health, processes = client.health(), client.processes(figures=False)
    except SupervisordError as error:
        advice = "asupctl shutdown --kill ends it by force; its log says what it did last"
        yield Finding("error", "daemon", f"PID {installation.daemon_pid} holds the run_dir but does not answer: {error}", advice)
    else:
        yield Finding("ok", "daemon", f"PID {installation.daemon_pid} answers, version {health.version}")
        if health.http_trouble is not None:
            advice = "fix that (ss -lptn shows who has a port), then asupctl reexec; metrics and page are missing until then"
            yield Finding("error", "http", f"daemon.http is not served: {health.http_trouble}", advice)
        troubled = [
            each
            for each in processes
            if each.state in ("BACKOFF", "UNKNOWN") or each.name in health.failed or each.health == "unhealthy" or each.flapping
        ]
        if troubled:
            names = listed([each.name for each in troubled])
            yield Finding("warning", "programs", f"{len(troubled)} in trouble: {names}", f"asupctl why {troubled[0].name}")


def _leftovers(installation: Installation) -> Iterator[Finding]:
    from supervisord_async.supervise.recovery import leftovers

    if found := leftovers.find(installation.run_dir):
        pids = listed([str(each.identity.pid) for each in found])
        advice = "start asupd to take them back, or end them with asupctl cleanup --apply"
        words = f"{len(found)} processes of a dead daemon still run" if len(found) > 1 else "a process of a dead daemon still runs"
        yield Finding("warning", "leftovers", f"{words}: {pids}", advice)


def control_socket(installation: Installation) -> Iterator[Finding]:
    """The control socket can be bound, or belongs to the running daemon."""
    path = installation.socket
    if len(os.fsencode(path)) > PATH_LIMIT_BYTES:
        advice = "set daemon.socket to a shorter path, e.g. below /run"
        yield Finding("error", "socket", f"{path} has more than {PATH_LIMIT_BYTES} bytes", advice)
        return
    if installation.daemon_pid is not None or installation.hides_lock or not os.path.lexists(path):
        return
    if not Path(path).is_socket():
        yield Finding("error", "socket", f"{path} is there and is not a socket", "move it away, or set daemon.socket")
    elif is_answered(path):
        yield Finding("error", "socket", f"somebody else listens at {path}", "end it, or set daemon.socket to another path")
    else:
        yield Finding("ok", "socket", f"{path} is left over from a daemon that is gone; the next one replaces it")


def ports(installation: Installation) -> Iterator[Finding]:
    """The addresses that the daemon would bind are free. Not checked while a daemon, which has them itself, seems to run."""
    configuration = installation.configuration
    if configuration is None or installation.daemon_pid is not None or installation.hides_lock:
        return
    wanted: list[tuple[str, socket.SocketKind, tuple[str, int]]] = []
    if configuration.daemon.http is not None:
        wanted.append(("daemon.http", socket.SOCK_STREAM, configuration.daemon.http))
    for program in configuration.programs.values():
        for each in program.sockets:
            if each.kind != "unix":
                kind = socket.SOCK_DGRAM if each.kind == "udp" else socket.SOCK_STREAM
                wanted.append((f"programs.{program.name}.sockets.{each.name}", kind, (each.host, each.port)))
    for key, kind, (host, port) in wanted:
        error = _cannot_bind(kind, host, port)
        if error is None:
            yield Finding("ok", "port", f"{key}: {host}:{port} is free")
        elif error.errno == errno.EADDRINUSE and (left := _left_behind(installation)):
            advice = "start the daemon: it takes them back, with the addresses that they hold"
            yield Finding("warning", "port", f"{key}: {host}:{port} is taken, and programs of a dead daemon still run ({left})", advice)
        else:
            yield Finding("error", "port", f"{key}: cannot bind {host}:{port}: {error.strerror or error}", _advice_on(error, port))


def _left_behind(installation: Installation) -> str:
    from supervisord_async.supervise.recovery import leftovers

    return listed(list(dict.fromkeys(each.name for each in leftovers.find(installation.run_dir))))


def _advice_on(error: OSError, port: int) -> str:
    return {
        errno.EADDRINUSE: f"find who has it (ss -lpn 'sport = :{port}') and end it, or choose another port",
        errno.EACCES: "choose a port from 1024 on, or give CAP_NET_BIND_SERVICE",
        errno.EADDRNOTAVAIL: "choose an address of this machine (ip addr)",
    }.get(error.errno or 0, "correct the address")


def _cannot_bind(kind: socket.SocketKind, host: str, port: int) -> OSError | None:
    """Why the address cannot be bound; None if it can."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host or None, port, type=kind, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            if kind == socket.SOCK_STREAM:
                probe.listen(1)
    except OSError as error:
        return error
    return None


def logs(installation: Installation) -> Iterator[Finding]:
    """Logs can be written where the configuration says."""
    configuration = installation.configuration
    if configuration is None:
        return
    bad = 0
    for program in configuration.programs.values():
        for path in {program.logs.stdout, program.logs.stderr} - {"none", "inherit", "stdout"}:
            folder = Path(path).parent
            while not folder.exists():
                folder = folder.parent
            if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
                bad += 1
                advice = f"make {folder} writable, or set programs.{program.name}.logs"
                yield Finding("error", "log", f"{program.name}: cannot write {path}", advice)
    if not bad:
        yield Finding("ok", "log", "all log directories are writable")


CHECKS: tuple[Callable[[Installation], Iterator[Finding]], ...] = (
    python,
    dependencies,
    kernel,
    threads,
    control_groups,
    descriptors,
    inotify,
    run_dir,
    lock,
    control_socket,
    ports,
    logs,
)
