"""``shutdown``: ends the daemon through its API; if nobody listens there, by a signal to its PID; by force only on request."""

from __future__ import annotations

import math
import os
import signal
import socket
import time
from functools import partial
from typing import TYPE_CHECKING

import click

from supervisord_async.cli.locate import Target
from supervisord_async.cli.locate_run_dir import find_run_dir, run_dir_option
from supervisord_async.cli.options import timeout_option, verb
from supervisord_async.cli.output import print_json, say
from supervisord_async.cli.progress import waiting
from supervisord_async.cli.session import Session
from supervisord_async.daemon_registry import LOCK_NAME, SOCKET_NAME
from supervisord_async.errors import FailedError, NoDaemonError, OtherDaemonError, SupervisordError, TimedOutError, UsageError

if TYPE_CHECKING:
    from supervisord_async.system.identity import Identity

#: A daemon that does not answer within this time hangs, or its machine does.
ANSWER_SECONDS = 5.0
#: Without ``--timeout``: how long a daemon may take to stop (a little more than the default of daemon.stop_timeout), or one that hangs.
STOP_SECONDS, HANGING_SECONDS = 65.0, 10.0
_POLL_SECONDS = 0.05


@verb("shutdown")
@click.option("--wait/--no-wait", default=True, help="Wait until everything has stopped and the daemon is gone (default).")
@timeout_option
@run_dir_option
@click.option("--kill", "kill", is_flag=True, help="If it does not answer, or has not ended in time: send TERM to its PID, finally KILL.")
def shutdown(session: Session, wait: bool, timeout: float | None, run_dir: str | None, kill: bool) -> None:
    """Stop all programs in reverse order, then the daemon.

    A daemon that does not answer is named by its PID; --kill ends it. After a KILL its programs run on: a new daemon
    takes them back, `asupctl cleanup --apply` ends them.
    """
    if kill and not wait:
        raise UsageError("cannot use both --kill and --no-wait: force is the end of waiting")
    if run_dir is not None:
        session.use(Target(os.path.join(os.path.abspath(run_dir), SOCKET_NAME), f"its run_dir would be {run_dir}"))
    pid, done = None, "told to stop"
    try:
        pid, daemon = _ask(session, timeout)
        if wait:
            gone = partial(_wait_gone, session, daemon, STOP_SECONDS if kill and timeout is None else timeout)
            waiting(gone, partial(session.client, timeout_seconds=1.0), (), "STOPPED")
            done = "stopped"
    except OtherDaemonError:
        raise
    except (NoDaemonError, TimedOutError) as error:
        holder = _holder(session, run_dir)
        if holder is None:
            raise
        pid = holder.pid
        done = _by_pid(holder, error, wait=wait, kill=kill, timeout_seconds=timeout)
    if session.json:
        print_json({"done": wait, "pid": pid, "killed": done.startswith("killed")})
    else:
        say(done)


def _ask(session: Session, timeout_seconds: float | None) -> tuple[int | None, Identity | None]:
    """The daemon was told to stop through its API; returns the PID that it has for itself, and its process if we can see it."""
    patience = ANSWER_SECONDS if timeout_seconds is None else min(ANSWER_SECONDS, timeout_seconds)
    with session.client(timeout_seconds=max(patience, 0.2)) as client:
        health = client.health()
        daemon = _daemon(session, health.pid)
        client.shutdown()
    return health.pid, daemon


def _holder(session: Session, run_dir: str | None) -> Identity | None:
    """The process of the daemon that holds the run_dir's lock; None if there is none, or if the run_dir is unknown."""
    from supervisord_async.system.identity import identify
    from supervisord_async.system.lock import InstanceLock

    try:
        pid = InstanceLock(os.path.join(find_run_dir(session, run_dir), LOCK_NAME)).holder()
    except UsageError:
        return None
    return identify(pid) if pid is not None else None


def _by_pid(holder: Identity, error: SupervisordError, *, wait: bool, kill: bool, timeout_seconds: float | None) -> str:
    """Ends a daemon that holds its lock but could not be reached, or does not end; returns the message for the user.

    If nobody listens at its socket, it is sent TERM, which means the same. If it hangs, it is killed with ``kill``; without, the error
    that is raised names its PID.
    """
    from supervisord_async.system.pidfd import send_signal

    pid, hangs = holder.pid, isinstance(error, TimedOutError)
    if hangs and not kill:
        raise TimedOutError(f"{error}; it is PID {pid} (look at its log and at /proc/{pid}/stack; --kill ends it by force)") from error
    try:
        send_signal(holder, signal.SIGTERM)
        if not wait:
            return f"told PID {pid} to stop by TERM: nobody listens at its socket"
        patience = timeout_seconds if timeout_seconds is not None else HANGING_SECONDS if hangs else STOP_SECONDS
        if _gone_within(holder, patience):
            return "stopped"
        if not kill:
            raise TimedOutError(f"PID {pid} was told to stop by TERM and is still there after {patience:g} s (--kill ends it by force)")
        send_signal(holder, signal.SIGKILL)
    except PermissionError as refusal:
        raise FailedError(f"cannot signal PID {pid}: permission denied (run as its user)") from refusal
    if not _gone_within(holder, ANSWER_SECONDS):
        raise FailedError(f"cannot end PID {pid}: it survives KILL, so it hangs in the kernel (see its state in ps)")
    return f"killed PID {pid}; its programs run on (`asupd` takes them back, `asupctl cleanup --apply` ends them)"


def _gone_within(identity: Identity, seconds: float) -> bool:
    from supervisord_async.system.identity import is_alive

    until = time.monotonic() + seconds
    while is_alive(identity):
        if time.monotonic() >= until:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _wait_gone(session: Session, daemon: Identity | None, timeout_seconds: float | None) -> None:
    """The socket no longer answers and the daemon's process has ended; raises TimedOutError if that takes too long."""
    until = math.inf if timeout_seconds is None else time.monotonic() + timeout_seconds
    while _answers(session) or (daemon is not None and not _gone_within(daemon, 0.0)):
        if time.monotonic() > until:
            raise TimedOutError(f"the daemon is still stopping after {timeout_seconds:g} s (it goes on)")
        time.sleep(_POLL_SECONDS)


def _answers(session: Session) -> bool:
    from supervisord_async.system.sockets import is_answered

    try:
        return is_answered(session.target.socket)
    except OSError:
        return False


def _daemon(session: Session, own_pid: int | None) -> Identity | None:
    """The process that listens at the socket, if its own PID is ``own_pid``; None if we see no such process.

    A daemon in a container has another PID outside; the kernel gives us the one that is valid here. The listener may also be a proxy for
    a daemon elsewhere.
    """
    from supervisord_async.system.identity import identify
    from supervisord_async.system.procfs import innermost_pid
    from supervisord_async.system.sockets import peer

    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            probe.connect(session.target.socket)
            pid, _, _ = peer(probe)
    except OSError:
        return None
    return identify(pid) if pid and innermost_pid(pid) == own_pid else None
