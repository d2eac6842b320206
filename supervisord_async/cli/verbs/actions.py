"""``start``, ``stop``, ``restart``, ``signal``, ``wait``, ``scale``: commands whose answer is a result for each name."""

from __future__ import annotations

import sys
from typing import Any

import click

from supervisord_async.cli.options import Whole, name_argument, selectors_argument, timeout_option, verb
from supervisord_async.cli.output import complain, print_json, say
from supervisord_async.cli.progress import waiting
from supervisord_async.cli.results import exit_code, print_results
from supervisord_async.cli.session import Session
from supervisord_async.client.api import results_of

#: The signals that a shell completes: those that operators send.
SIGNALS = ("HUP", "INT", "TERM", "USR1", "USR2", "KILL", "QUIT", "STOP", "CONT", "WINCH", "ABRT")

no_wait_option = click.option("--no-wait", is_flag=True, help="Return once the daemon has accepted the command.")


@verb("start")
@selectors_argument
@no_wait_option
@timeout_option
def start(session: Session, selectors: tuple[str, ...], no_wait: bool, timeout: float | None) -> int:
    """Start programs and wait until they run, or a job is done."""
    return _act(session, "start", selectors, "RUNNING", wait=not no_wait, timeout_seconds=timeout)


@verb("stop")
@selectors_argument
@no_wait_option
@timeout_option
def stop(session: Session, selectors: tuple[str, ...], no_wait: bool, timeout: float | None) -> int:
    """Stop programs and wait until nothing of them is left."""
    return _act(session, "stop", selectors, "STOPPED", wait=not no_wait, timeout_seconds=timeout)


@verb("restart")
@selectors_argument
@no_wait_option
@timeout_option
def restart(session: Session, selectors: tuple[str, ...], no_wait: bool, timeout: float | None) -> int:
    """Restart programs and wait until newer runs are up."""
    return _act(session, "restart", selectors, "RUNNING", wait=not no_wait, timeout_seconds=timeout)


@verb("signal")
@click.argument(
    "signal_name", metavar="SIGNAL", shell_complete=lambda *asked: [name for name in SIGNALS if name.startswith(asked[2].upper())]
)
@selectors_argument
def signal(session: Session, signal_name: str, selectors: tuple[str, ...]) -> int:
    """Send a signal (HUP, SIGUSR1, 12 ...) to programs."""
    if not _is_signal(signal_name) and len(selectors) == 1 and _is_signal(selectors[0]):
        raise click.UsageError(f"the signal comes first: asupctl signal {selectors[0]} {signal_name}")
    return _act(session, "signal", selectors, "", body={"signal": signal_name})


def _is_signal(word: str) -> bool:
    from supervisord_async.config.units import parse_signal

    try:
        parse_signal(word)
    except ValueError:
        return False
    return True


@verb("wait")
@selectors_argument
@click.option("--for", "awaited", type=click.Choice(["ready", "stopped", "exited"]), required=True, help="What to wait for.")
@timeout_option
def wait(session: Session, selectors: tuple[str, ...], awaited: str, timeout: float | None) -> int:
    """Wait until programs are ready, stopped or exited.

    Ready is RUNNING and not unhealthy, or a job that ended well. FATAL ends the waiting for ready or exited with 1.
    """
    goal = "RUNNING" if awaited == "ready" else "STOPPED"

    def request() -> dict[str, Any]:
        with session.client() as client:
            return client.wait_document(*selectors, awaited=awaited, timeout_seconds=timeout)

    return _report(session, "wait for", waiting(request, session.client, selectors, goal))


@verb("scale")
@name_argument
@click.argument("replicas", metavar="N", type=Whole(min=0))
@no_wait_option
@timeout_option
def scale(session: Session, name: str, replicas: int, no_wait: bool, timeout: float | None) -> int:
    """Change how many processes a program has.

    Waits until the new ones run and the others are gone.
    """
    return _act(session, "scale", (name,), "", wait=not no_wait, timeout_seconds=timeout, body={"replicas": replicas})


def _act(session: Session, action: str, selectors: tuple[str, ...], goal: str, **how: Any) -> int:
    def request() -> dict[str, Any]:
        with session.client() as client:
            return client.act_document(action, selectors, **how)

    waits = goal and how.get("wait", True)
    document = waiting(request, session.client, selectors, goal) if waits else request()
    code = _report(session, action, document)
    if action in ("start", "restart") and sys.stderr.isatty() and not session.json:
        _say_what_is_stale(session, {result.name.partition(":")[0] for result in results_of(document)})
    return code


def _say_what_is_stale(session: Session, programs: set[str]) -> None:
    """Report those of ``programs`` for which the file on disk has other settings by now; nothing if that cannot be told soon."""
    for change in session.plan().get("changed", ()):
        if change["program"] in programs:
            keys = ", ".join(change["keys"])
            complain(f"{change['program']} has other settings in the file by now ({keys}): `asupctl reload` puts them in force")


def _report(session: Session, action: str, document: dict[str, Any]) -> int:
    results = results_of(document)
    if session.json:
        print_json(document)
    elif results:
        print_results(action, results)
    else:
        say("nothing to do")
    return exit_code(results)
