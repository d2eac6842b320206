"""``cleanup``: shows the processes that a dead daemon left running, and ends them on request."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from supervisord_async.cli.duration import Duration
from supervisord_async.cli.locate_run_dir import find_run_dir, run_dir_option
from supervisord_async.cli.options import verb
from supervisord_async.cli.output import complain, print_json, say, table
from supervisord_async.cli.session import Session
from supervisord_async.daemon_registry import LOCK_NAME, SOCKET_NAME
from supervisord_async.errors import CommandError, FailedError, LockHeldError, SupervisordError
from supervisord_async.system.sockets import is_answered
from supervisord_async.words import counted

if TYPE_CHECKING:
    from supervisord_async.system.tags import Tagged


@verb("cleanup")
@run_dir_option
@click.option("--apply", "apply", is_flag=True, help="End these processes, by their programs' stop settings; default: only show them.")
@click.option("--grace", type=Duration(), metavar="DURATION", help="How long until KILL. [default: each program's own stop.grace_period]")
def cleanup(session: Session, run_dir: str | None, apply: bool, grace: float | None) -> int:
    """Show, or end, the processes that a dead daemon left running.

    Only processes that carry the run_dir's tag count, and nothing is done while a daemon holds its lock. A daemon that starts
    again takes them back instead, so clean up only what should not run on.
    """
    from supervisord_async.system.lock import InstanceLock

    place = find_run_dir(session, run_dir)
    lock = InstanceLock(os.path.join(place, LOCK_NAME))
    try:
        if os.path.isdir(place):
            lock.acquire()
        if not apply:
            lock.release()  # only looking must not keep a daemon from starting
        return _cleanup(session, place, apply=apply, grace_seconds=grace)
    except LockHeldError as error:
        raise FailedError(f"cannot clean up {place}: its daemon lives (PID {error.pid or 'unknown'}); use stop or shutdown") from error
    except CommandError:
        raise
    except SupervisordError as error:
        raise CommandError(str(error)) from error
    finally:
        lock.release()


def _cleanup(session: Session, place: str, *, apply: bool, grace_seconds: float | None) -> int:
    from supervisord_async.supervise.recovery import leftovers

    found = leftovers.find(place)
    daemon = leftovers.daemon_of(found, place)
    if daemon is not None:
        raise FailedError(f"cannot clean up {place}: its daemon lives (PID {daemon}) although the directory was removed; send it TERM")
    entries = [
        {"pid": each.identity.pid, "name": each.name, "run": each.run, "command": leftovers.command_of(each.identity.pid)} for each in found
    ]
    stale = _stale_socket(place)
    remaining: list[Tagged] = []
    if apply:
        remaining = leftovers.end(place, grace_seconds)
    removed = apply and stale is not None and _remove(stale)
    lives = {each.identity.pid for each in remaining}
    if session.json:
        processes = [{**entry, "gone": apply and entry["pid"] not in lives} for entry in entries]
        print_json({"run_dir": place, "applied": apply, "processes": processes, "stale_socket": stale, "remaining": sorted(lives)})
    else:
        _tell(place, entries, stale, apply=apply, removed=removed)
    if remaining:
        pids = ", ".join(map(str, sorted(lives)))
        raise FailedError(f"cannot end {pids}: not ours to signal, or hanging in the kernel (see their state in ps)")
    return 0


def _tell(place: str, entries: list[dict[str, Any]], stale: str | None, *, apply: bool, removed: bool) -> None:
    if not entries and stale is None:
        say(f"nothing is left of a daemon of {place}")
        return
    if entries:
        table(("PID", "NAME", "RUN", "COMMAND"), [(str(each["pid"]), each["name"], str(each["run"]), each["command"]) for each in entries])
    if stale:
        say(f"stale socket: {stale}")
    if apply:
        say(f"ended {counted(len(entries), 'process', 'processes')}{'; removed the stale socket' if removed else ''}")
    else:
        say("nothing was done: --apply ends this; starting asupd takes the processes back instead")


def _remove(stale: str) -> bool:
    """The stale socket is removed. If that fails (a read-only disk), it is reported and no failure: the next daemon removes it."""
    try:
        Path(stale).unlink(missing_ok=True)
    except OSError as error:
        complain(f"cannot remove the stale socket {stale}: {error.strerror}")
        return False
    return True


def _stale_socket(place: str) -> str | None:
    """A control socket's file at which nobody listens; None if there is none. To be called while the lock is held."""
    path = os.path.join(place, SOCKET_NAME)
    if not Path(path).is_socket():
        return None
    try:
        return None if is_answered(path) else path
    except OSError:  # whether somebody listens is unknown
        return None
