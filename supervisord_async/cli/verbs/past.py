"""``why`` and ``history``: what led to the present state, and what came before."""

from __future__ import annotations

import click

from supervisord_async.cli.output import print_json, table
from supervisord_async.cli.session import Session, name_argument, verb
from supervisord_async.cli.words import duration, exit_words, local_time, printable_line, size
from supervisord_async.client import Run
from supervisord_async.client.answers import typed


@verb("why")
@name_argument
def why(session: Session, name: str) -> None:
    """Explain a process's state.

    The chain of causes, the rule that decided, the last output, the key to turn.
    """
    with session.client() as client:
        document = client.why(name)
    if session.json:
        print_json(document)
        return
    for line in document.get("lines", []):
        click.echo(printable_line(str(line)))


@verb("history")
@name_argument
@click.option("-n", "--lines", "limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many runs.")
def history(session: Session, name: str, limit: int) -> None:
    """List a process's runs: cause, duration, end, peak memory."""
    with session.client() as client:
        document = client.history_document(name, limit=limit)
    if session.json:
        print_json(document)
        return
    runs = [typed(Run, one) for one in document.get("runs", [])]
    if not runs:
        click.echo("no runs yet")
        return
    rows = [
        (
            str(run.run),
            local_time(run.started_at),
            duration(run.duration_seconds) or "-",
            size(run.peak_memory_bytes) or "-",
            duration(run.cpu_seconds) or "-",
            (run.cause or "-").replace("_", " "),
            _end(run),
        )
        for run in runs
    ]
    table(("RUN", "STARTED", "DURATION", "PEAK", "CPU", "CAUSE", "END"), rows)


def _end(run: Run) -> str:
    if run.ended_at is None:
        return "still running" if run.exit_status is None else exit_words(run.exit_status)
    cause = (run.end_cause or "").replace("_", " ")
    detail = run.end_detail or ""
    words = [exit_words(run.exit_status), cause if cause != "exited" else ""]
    return "; ".join([*(word for word in words if word and word not in detail), *([detail] if detail else [])])
