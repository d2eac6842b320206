"""What ``status`` shows: the table of processes, the line above it, and whether something is missing.

Every call of ``asupctl status`` imports this, so it works on plain JSON objects, and imports neither click nor the typed
answers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from supervisord_async.cli.output import colours, print_json, styled, table
from supervisord_async.cli.row import Row
from supervisord_async.cli.words import duration, printable, reason
from supervisord_async.client.json_client import problem

if TYPE_CHECKING:
    from supervisord_async.cli.session import Session
    from supervisord_async.client.json_client import JsonClient

MISSING = 3
HEAD = ("NAME", "STATE", "HEALTH", "PID", "UPTIME", "RESTARTS", "DETAIL")


def show(session: Session, selectors: Sequence[str]) -> int:
    """Prints the processes that ``selectors`` name (none: all). Returns the exit code: 3 if something is missing, else 0."""
    with session.json_client() as client:
        refused = () if session.json else client.health_document().get("refused", ())
        documents = client.process_documents(*selectors, figures=session.json)
        rows = [Row(document) for document in documents]
        missing = any_missing(client, rows)
    if session.json:
        print_json(documents)
    else:
        print_refused(refused)
        print_processes(rows)
    return MISSING if missing else 0


def any_missing(client: JsonClient, rows: Iterable[Row]) -> bool:
    """Whether something that should run does not.

    STOPPED is not missing: somebody wanted it, or it was never started. Nor is STOPPING, if an operator, a reload or the
    daemon's shutdown asked for it. EXITED is missing if the job failed, about which the daemon is asked only if nothing else decides.
    """
    ended = set()
    for row in rows:
        match row.state:
            case "RUNNING" | "STOPPED":
                pass
            case "STOPPING" if row.cause in ("operator", "daemon_stop", "config_changed"):
                pass
            case "EXITED":
                ended.add(row.name)
            case _:
                return True
    return bool(ended) and not ended.isdisjoint(client.health_document().get("failed", ()))


def print_processes(rows: Sequence[Row]) -> None:
    """Print the table of processes."""
    if not rows:
        sys.stdout.write("no programs\n")
        return
    cells = [
        (
            row.name,
            row.state,
            "-" if row.health == "none" else row.health,
            str(row.pid) if row.pid else "-",
            duration(row.uptime_seconds) or "-",
            str(row.restarts),
            reason(row),
        )
        for row in rows
    ]
    table(HEAD, cells)


def print_refused(refused: Sequence[Any]) -> None:
    """If the file on disk was refused, print its first problem in one line, and how many more there are."""
    problems = [found for found in map(problem, refused) if not found.warning]
    if not problems:
        return
    more = f" (and {len(problems) - 1} more: see `asupctl reload --plan`)" if len(problems) > 1 else ""
    line = f"the file on disk was refused, the configuration before it stays in force: {printable(str(problems[0]))}{more}"
    sys.stdout.write(styled(line, "red", on=colours(sys.stdout)) + "\n")
