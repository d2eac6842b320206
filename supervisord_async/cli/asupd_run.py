"""Runs the daemon: in this process, or in the background, waiting until it answers."""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from msgspec.structs import replace

from supervisord_async.cli import early_signals
from supervisord_async.config.model import Configuration, DaemonLog
from supervisord_async.errors import CommandError, DaemonError, Problem, SupervisordError
from supervisord_async.wire import NO_CONTROL_SOCKET
from supervisord_async.words import listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from supervisord_async.cli.plain import DaemonArguments
    from supervisord_async.client import DaemonHealth
    from supervisord_async.config.load_cache import LoadCache
    from supervisord_async.daemon_registry import DaemonPlace
    from supervisord_async.logs.own_log import OwnLog
    from supervisord_async.supervise.recovery.persist import SavedState

_log = logging.getLogger("asupd")

#: How long to wait for a daemon in the background to answer.
ANSWER_SECONDS = 30.0
#: How long to wait for an answer at the socket before asking again; somebody else may be there.
ASKED_SECONDS = 2.0
#: How long the record of where this daemon is may take to be read, or written: it is in a home, whose disk may hang.
RECORD_SECONDS = 1.0
#: The pause before a takeover that failed after a re-exec is tried again.
AGAIN_SECONDS = 1.0
#: How long after the start the modules that only a reload needs are imported.
AT_REST_SECONDS = 3.0


def with_log(configuration: Configuration, arguments: DaemonArguments) -> Configuration:
    """The configuration, its daemon's log changed by what ``arguments`` say about it."""
    given = {"level": arguments.log_level, "format": arguments.log_format, "file": arguments.log_file}
    log = replace(configuration.daemon.log, **{key: value for key, value in given.items() if value is not None})
    return replace(configuration, daemon=replace(configuration.daemon, log=log))


def trial(former: SavedState | None, configuration: Configuration, warnings: tuple[Problem, ...], load_cache: LoadCache) -> None:
    """The code of this process can take over from the daemon that asks: all imports work, and that daemon's state can be read.

    The configuration that was loaded here is kept for the process that takes over. Raises DaemonError if none can.
    """
    from supervisord_async.control import listener, server  # noqa: F401  server alone would import HTTP only later
    from supervisord_async.supervise import daemon, optional_modules  # noqa: F401
    from supervisord_async.supervise.recovery.prepared import Prepared, hand_over
    from supervisord_async.supervise.runs import run_spec
    from supervisord_async.system import requirements

    requirements.require()
    if "_sqlite3" not in dict(optional_modules.missing()):
        from supervisord_async.supervise.records import history  # noqa: F401

    if former is None:
        raise DaemonError("--trial is for a daemon that wants to be replaced")
    if run_spec.instance_of(configuration.daemon.run_dir) != former.instance:
        where = configuration.daemon.run_dir
        raise DaemonError(f"a running daemon cannot move to another run_dir, {where}: stop it with `asupctl shutdown`, then start it again")
    hand_over(Prepared(configuration, warnings, load_cache), former)


def foreground(
    arguments: DaemonArguments, configuration: Configuration, load_cache: LoadCache, former: SavedState | None, told_to_stop: Sequence[int]
) -> int:
    """Runs the daemon in this process; returns its exit code. ``former`` is the state from before a re-exec."""
    from supervisord_async.control import server
    from supervisord_async.logs.echo import Echo
    from supervisord_async.supervise.daemon import serve
    from supervisord_async.supervise.options import Options
    from supervisord_async.supervise.recovery import leftovers
    from supervisord_async.supervise.run_dir import make_run_dir, warn_of_others
    from supervisord_async.system import loop

    _set_up_process(former)
    daemon = configuration.daemon
    if former is None and arguments.run_dir is None:  # the file's run_dir may have changed since its last daemon; --run-dir is deliberate
        leftovers.refuse_elsewhere(configuration.file, daemon.run_dir, _former_place(configuration.file))
    if former is None:
        make_run_dir(daemon.run_dir)
    own = [_own_log(daemon.log)]
    if former is None:
        warn_of_others(daemon.run_dir)

    def follow_log_settings(log: DaemonLog) -> None:
        own.append(_own_log(log))
        own.pop(0).close()

    _remember(configuration)
    names = [name for program in configuration.programs.values() for name in program.process_names()]
    shown = Echo(names=names) if arguments.echo else None
    options = Options(
        file=arguments.file,
        run_dir=arguments.run_dir,
        echo=shown,
        told_to_stop=told_to_stop,
        reopen_own_log=lambda: own[0].reopen(),
        follow_log_settings=follow_log_settings,
        adjust=lambda loaded: with_log(loaded, arguments),
        load_cache=load_cache,
    )
    try:
        server.load_ahead()
        _load_later()
        return loop.run(serve, options, configuration, server.ControlServer, former)
    finally:
        if shown is not None:
            shown.close()
        own[0].close()


def _set_up_process(former: SavedState | None) -> None:
    """Make this process fit for a daemon, whatever it inherited. Raises DaemonError if this machine lacks what supervision needs."""
    from supervisord_async.system import descriptors, heap, oom, requirements, signals

    requirements.require()
    heap.return_large_blocks()
    descriptors.open_missing_stdio()
    descriptors.close_inherited(keep=former.all_descriptors() if former is not None else ())
    descriptors.raise_limit(former.open_files if former is not None else 0)
    oom.keep_protection()
    if former is None:
        signals.reset_inherited(early_signals.SIGNALS)
    os.umask(0o022)


def go_on_as_after_a_kill(error: Exception) -> NoReturn:
    """Runs our code again under the same PID, without the state saved before the re-exec, with which the takeover failed.

    The daemon must not end here: nobody would supervise the running programs. As the trial before the re-exec succeeded, what fails now is
    mostly a shortage of descriptors or memory, which passes.
    """
    from supervisord_async.supervise.recovery.reexec import new_code

    if not isinstance(error, (OSError, SupervisordError)):
        traceback.print_exception(error)
    why = str(error) or type(error).__name__
    print(f"asupd: degraded: cannot take over after the re-exec: {why}; it goes on as after a kill", file=sys.stderr, flush=True)
    time.sleep(AGAIN_SECONDS)
    os.execv(sys.executable, new_code())  # noqa: S606  ourselves


def _remember(configuration: Configuration) -> None:
    """From now on commands that are given only the file find the daemon's run_dir and socket."""
    from supervisord_async.daemon_registry import remember
    from supervisord_async.system.threads import in_time

    daemon = configuration.daemon
    try:
        in_time(RECORD_SECONDS, remember, configuration.file, daemon.run_dir, daemon.socket)
    except TimeoutError:
        _log.warning("degraded: cannot remember the run_dir of %s: the disk of the record does not answer", configuration.file)
    except OSError as error:
        _log.warning("degraded: cannot remember the run_dir of %s: %s", configuration.file, error.strerror)


def _former_place(file: str) -> DaemonPlace | None:
    """Where the last daemon of ``file`` was; None if that is not known, or its record's disk does not answer."""
    from supervisord_async.daemon_registry import recall
    from supervisord_async.system.threads import in_time

    with suppress(TimeoutError):
        return in_time(RECORD_SECONDS, recall, file)
    return None


def _load_later() -> None:
    """A thread will import what only a reload needs, soon after the start, so that code installed later is not mixed with ours."""

    def load() -> None:
        for name in ("supervisord_async.config.load", "supervisord_async.config.diff"):
            try:
                importlib.import_module(name)
            except (ImportError, OSError) as error:
                _log.warning("degraded: %s cannot be imported: %s; a reload tries again", name, error)

    later = threading.Timer(AT_REST_SECONDS, load)
    later.daemon = True
    with suppress(RuntimeError):  # no thread can be started: the reload imports it
        later.start()


def _own_log(log: DaemonLog) -> OwnLog:
    from supervisord_async.logs.own_log import OwnLog

    own = OwnLog(path=log.file, level=log.level, format=log.format)
    own.install()
    return own


def detach(arguments: DaemonArguments, configuration: Configuration) -> int:
    """Starts a daemon in the background. Returns 0 once it answers; if it ends, its exit code, after printing its messages.

    Raises DaemonError if it runs but does not answer.
    """
    from supervisord_async.supervise.run_dir import make_run_dir
    from supervisord_async.system import own_python

    daemon = configuration.daemon
    if trouble := make_run_dir(daemon.run_dir):
        raise DaemonError(f"cannot go to the background: {trouble}; without -d it runs all the same")
    log_file = daemon.log.file or os.path.join(daemon.run_dir, "asupd.log")
    log_begins = os.path.getsize(log_file) if os.path.isfile(log_file) else 0
    command = own_python.command("supervisord_async.cli.asupd", "-c", arguments.file, "--log-file", log_file)
    for option, value in (("--run-dir", arguments.run_dir), ("--log-level", arguments.log_level), ("--log-format", arguments.log_format)):
        if value:
            command += [option, value]
    complaints = Path(daemon.run_dir) / "asupd.stderr"
    child = _in_background(command, complaints)
    until = time.monotonic() + ANSWER_SECONDS
    why = ""
    while time.monotonic() < until and not (why := _why_unreachable(log_file, log_begins)):
        if child.poll() is not None:
            words = complaints.read_text(errors="replace") or f"asupd: the daemon ended with {child.returncode}: see {log_file}\n"
            sys.stderr.write(words)
            return child.returncode or 1
        if (health := _health(daemon.socket, child.pid)) is not None:
            complaints.unlink(missing_ok=True)
            if health.http_trouble is not None:
                sys.stderr.write(f"asupd: warning: daemon.http is not served: {health.http_trouble}\n")
            if unkept := _unkept(configuration):
                sys.stderr.write(f"asupd: warning: in the background nobody keeps what goes to the daemon's own output: {unkept}\n")
            return 0
        time.sleep(0.02)
    why = why or f"no answer at {daemon.socket} after {ANSWER_SECONDS:g} s"
    what = f"the daemon (pid {child.pid}) supervises, but cannot be asked: {why}"
    raise DaemonError(f"{what} (kill {child.pid} stops it; its log is {log_file})")


def _unkept(configuration: Configuration) -> str:
    """The logs, by key, that are the daemon's own standard output or error, which lead nowhere in the background; empty if none are."""
    from supervisord_async.logs.target import STANDARD_STREAMS

    own = {"inherit", *STANDARD_STREAMS}
    programs = configuration.programs.items()
    return listed(
        [f"programs.{name}.logs.{key}" for name, program in programs for key in ("stdout", "stderr") if getattr(program.logs, key) in own]
    )


def _in_background(command: list[str], complaints: Path) -> subprocess.Popen[bytes]:
    """The command runs in its own session, with its stderr in the file ``complaints``. Raises DaemonError."""
    from supervisord_async.system import own_python

    try:
        with complaints.open("wb") as stderr:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True)
    except OSError as error:
        complaints.unlink(missing_ok=True)
        why = own_python.refusal(error) if error.filename == sys.executable else str(error)
        raise DaemonError(f"cannot go to the background: {why}; without -d it runs as it is") from error


def _health(socket: str, pid: int) -> DaemonHealth | None:
    """The health of the daemon with that PID; None if it does not answer there yet."""
    from supervisord_async.client import Client

    try:
        with Client(socket, timeout_seconds=ASKED_SECONDS) as client:
            health = client.health()
    except CommandError:
        return None
    return health if health.pid == pid else None


def _why_unreachable(log_file: str, begins: int) -> str:
    """Why the daemon has no control socket, from its log after offset ``begins``; empty if the log does not say so."""
    try:
        with open(log_file, "rb") as log:
            log.seek(begins)
            text = log.read(65536).decode(errors="replace")
    except OSError:  # not created yet
        return ""
    return next((line.partition(NO_CONTROL_SOCKET)[2] for line in text.splitlines() if NO_CONTROL_SOCKET in line), "")
