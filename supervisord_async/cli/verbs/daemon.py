"""``web``, ``reexec``, ``version``: about the daemon itself."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from supervisord_async import __version__
from supervisord_async.cli.duration import Duration
from supervisord_async.cli.options import verb
from supervisord_async.cli.output import print_json, say
from supervisord_async.cli.session import Session
from supervisord_async.client import DaemonHealth
from supervisord_async.errors import CommandError, NoDaemonError, TimedOutError

if TYPE_CHECKING:
    from supervisord_async.system.identity import Identity

#: A re-exec takes a fraction of a second: one that has not happened by then never will.
REEXEC_SECONDS = 30.0
_POLL_SECONDS = 0.05


@verb("web")
def web(session: Session) -> None:
    """Print the address of the daemon's page, with its token."""
    with session.client() as client:
        document = client.request("GET", "/v1/web")
    if session.json:
        print_json(document)
    else:
        say(str(document["url"]))


@verb("reexec")
@click.option("--wait/--no-wait", default=True, help="Wait until the new daemon answers (default).")
@click.option("--timeout", type=Duration(), metavar="DURATION", default=REEXEC_SECONDS, help="Wait at most this long; default: 30s.")
def reexec(session: Session, wait: bool, timeout: float) -> None:
    """Replace the daemon in place; programs go on running."""
    with session.client() as client:
        before = client.health()
        process = _process_of(before)  # identified before the re-exec, which it may not survive
        client.reexec()
    after = _new_daemon(session, before, process, timeout) if wait else None
    if session.json:
        print_json({"done": after is not None, "pid": before.pid, "version": after.version if after else None})
    else:
        say(f"re-executed, pid {after.pid}, version {after.version}" if after else "told to re-execute")


def _process_of(daemon: DaemonHealth) -> Identity | None:
    """The daemon's process, which keeps its PID across a re-exec; None if it is in another PID namespace."""
    from supervisord_async.system.identity import identify

    return identify(daemon.pid) if daemon.pid is not None else None


def _new_daemon(session: Session, before: DaemonHealth, process: Identity | None, timeout_seconds: float) -> DaemonHealth:
    from supervisord_async.system.identity import is_alive

    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if process is not None and not is_alive(process):
            raise NoDaemonError(f"the daemon, pid {process.pid}, died while it was to re-execute (a new one takes its programs over)")
        try:
            with session.client(timeout_seconds=1.0) as client:
                now = client.health()
            # Uptimes cannot be compared: that of a young daemon may be the shorter one.
            if now.started_at != before.started_at and now.pid == before.pid:
                return now
        except NoDaemonError:
            session.look_again()
        except CommandError:
            pass  # it is re-executing
        time.sleep(_POLL_SECONDS)
    raise TimedOutError(f"the daemon has not re-executed within {timeout_seconds:g} s (its log says why)")


@verb("version")
def version(session: Session) -> None:
    """Print the versions of asupctl and of the daemon."""
    daemon: DaemonHealth | None = None
    with suppress(CommandError), session.client(timeout_seconds=2.0) as client:
        daemon = client.health()
    if session.json:
        print_json({"asupctl": __version__, "asupd": daemon.version if daemon else None, "pid": daemon.pid if daemon else None})
        return
    say(f"asupctl {__version__}")
    if daemon:
        say(f"asupd {daemon.version} (pid {daemon.pid}{f', {daemon.file}' if daemon.file else ''})")
