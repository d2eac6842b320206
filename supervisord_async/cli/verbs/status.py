"""``status``: the table, or the objects, and exit code 3 for what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from supervisord_async.cli.output import colours, print_json, styled, table
from supervisord_async.cli.session import Session, complete_names, verb
from supervisord_async.cli.words import duration, printable, reason
from supervisord_async.client import DaemonHealth, ProcessStatus

MISSING = 3
HEAD = ("NAME", "STATE", "HEALTH", "PID", "UPTIME", "RESTARTS", "CAUSE")


@verb("status")
@click.argument("selectors", metavar="[SELECTOR]...", nargs=-1, shell_complete=complete_names)
def status(session: Session, selectors: tuple[str, ...]) -> int:
    """Show what runs, and what does not and why.

    Exits with 3 if something does not run that should.
    """
    with session.client() as client:
        if session.json:
            documents = client.process_documents(*selectors)
            print_json(documents)
            return MISSING if any(is_missing(document) for document in documents) else 0
        health = client.health()
        processes = client.processes(*selectors, figures=False)
    _print_refused(health)
    print_processes(processes)
    missing = any(_missing(one.state, one.cause, one.exit_status) for one in processes)
    return MISSING if missing else 0


def is_missing(document: dict[str, Any]) -> bool:
    """Whether the process should run and does not, from its JSON object."""
    return _missing(str(document.get("state")), document.get("cause"), document.get("exit_status"))


def _missing(state: str, cause: str | None, exit_status: Any) -> bool:
    """STOPPED is what somebody wanted, or was never started; so is a stop in progress that an operator asked for.

    EXITED is missing unless it ended with 0: a job that is done.
    """
    if state in ("RUNNING", "STOPPED"):
        return False
    if state == "STOPPING":
        return cause not in ("operator", "daemon_stop", "config_changed")
    if state == "EXITED":
        return bool((exit_status or {}).get("code", 0))
    return True


def print_processes(processes: Sequence[ProcessStatus]) -> None:
    """The table of processes on standard output."""
    if not processes:
        click.echo("no programs")
        return
    rows = [
        (
            one.name,
            one.state,
            "-" if one.health == "none" else one.health,
            str(one.pid) if one.pid else "-",
            duration(one.uptime_seconds) or "-",
            str(one.restarts),
            reason(one),
        )
        for one in processes
    ]
    table(HEAD, rows)


def _print_refused(health: DaemonHealth) -> None:
    problems = [problem for problem in health.problems if not problem.warning]
    if not problems:
        return
    import sys

    more = f" (and {len(problems) - 1} more: see `asupctl reload --plan`)" if len(problems) > 1 else ""
    line = f"refused, still running what it said before: {printable(str(problems[0]))}{more}"
    click.echo(styled(line, "red", on=colours(sys.stdout)))
