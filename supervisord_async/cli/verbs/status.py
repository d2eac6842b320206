"""``status``: the table, or the objects, and exit code 3 for what is missing."""

from __future__ import annotations

from collections.abc import Sequence

import click

from supervisord_async.cli.output import colours, print_json, styled, table
from supervisord_async.cli.session import Session, complete_names, verb
from supervisord_async.cli.words import duration, printable, reason
from supervisord_async.client import Client, DaemonHealth, ProcessStatus
from supervisord_async.client.answers import typed
from supervisord_async.errors import NotFoundError

MISSING = 3
HEAD = ("NAME", "STATE", "HEALTH", "PID", "UPTIME", "RESTARTS", "CAUSE")


@verb("status")
@click.argument("selectors", metavar="[SELECTOR]...", nargs=-1, shell_complete=complete_names)
@click.option("--tree", is_flag=True, help="As a tree: below each program what it depends on.")
def status(session: Session, selectors: tuple[str, ...], tree: bool) -> int:
    """Show what runs, and what does not and why.

    Exits with 3 if something does not run that should.
    """
    if tree:
        return _tree(session, selectors)
    with session.client() as client:
        if session.json:
            documents = client.process_documents(*selectors)
            print_json(documents)
            return MISSING if any_missing(client, [typed(ProcessStatus, document) for document in documents]) else 0
        health = client.health()
        processes = client.processes(*selectors, figures=False)
        missing = any_missing(client, processes)
    _print_refused(health)
    print_processes(processes)
    return MISSING if missing else 0


def _tree(session: Session, selectors: tuple[str, ...]) -> int:
    from supervisord_async.cli.tree import documents, grown, rows

    with session.client() as client:
        health = client.health()
        chosen = list(dict.fromkeys(one.program for one in client.processes(*selectors, figures=False))) if selectors else []
        objects = client.process_documents(figures=session.json)
        processes = [typed(ProcessStatus, document) for document in objects]
        trees = grown(client.dependencies(), chosen)
        shown = [process for process in processes if not selectors or process.program in chosen]
        missing = any_missing(client, shown)
    if session.json:
        print_json(documents(trees, objects))
        return MISSING if missing else 0
    _print_refused(health)
    if trees:
        table(("NAME", "NEEDED", "STATE", "HEALTH", "CAUSE"), rows(trees, processes))
    else:
        click.echo("no programs")
    return MISSING if missing else 0


def any_missing(client: Client, processes: Sequence[ProcessStatus]) -> bool:
    """Whether something that should run does not.

    STOPPED is what somebody wanted, or was never started; so is a stop in progress that an operator asked for. EXITED is
    missing if it ended badly: the job is not done. Which codes are good is asked for only if nothing else decides.
    """
    doubtful = []
    for process in processes:
        match process.state:
            case "RUNNING" | "STOPPED":
                pass
            case "STOPPING" if process.cause in ("operator", "daemon_stop", "config_changed"):
                pass
            case "EXITED":
                doubtful.append(process)
            case _:
                return True
    return any(not _ended_well(client, process) for process in doubtful)


def _ended_well(client: Client, process: ProcessStatus) -> bool:
    """By code 0 or another of its ``success_exit_codes``; or nobody knows how."""
    status = process.exit_status or {"code": 0}
    if "code" not in status:
        return bool(status.get("unknown"))
    if status["code"] == 0:
        return True
    try:
        restart = client.config(process.program).get("restart") or {}
    except NotFoundError:
        restart = {}  # it was removed from the file meanwhile
    return isinstance(restart, dict) and status["code"] in restart.get("success_exit_codes", ())


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
