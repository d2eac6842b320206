"""``why`` and ``history``: what led to the present state, and what came before."""

from __future__ import annotations

import re

import click

from supervisord_async.cli.options import Whole, name_argument, verb
from supervisord_async.cli.output import print_json, table, wrapped
from supervisord_async.cli.session import Session
from supervisord_async.cli.words import duration, exit_words, local_time, printable_line, size
from supervisord_async.client import Run
from supervisord_async.client.answers import typed

#: The part of a detail that the row shows anyway: how long the run was up.
_AFTER = re.compile(r"( after|, up) [0-9.]+ s(?=;|$)")


@verb("why")
@name_argument
def why(session: Session, name: str) -> None:
    """Explain a process's state.

    Shows the chain of causes, the rule that decided, the last output, and the keys that would change it.
    """
    with session.client() as client:
        document = client.why(name)
    if session.json:
        print_json(document)
        return
    for line in document.get("lines", []):
        text = printable_line(str(line))
        inset = len(text) - len(text.lstrip(" "))
        click.echo(" " * inset + wrapped(text[inset:], begin=inset, indent=inset + 2))


@verb("history")
@name_argument
@click.option("-n", "--lines", "limit", type=Whole(min=1), metavar="N", default=20, show_default=True, help="How many runs.")
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
    """How and why it ended, without repetition: ``exited with 3; restart 6 in 4.2 s``, ``killed by SIGTERM; its heartbeat stopped``."""
    how = exit_words(run.exit_status)
    if run.ended_at is None and run.exit_status is None:
        return "still running" if run.end_cause is None else f"stopping; {_reason(run)}"
    if run.end_cause == "spawn_failed":
        how = "not started"
    detail = _AFTER.sub("", _reason(run), count=1)
    return "; ".join(part for part in ("" if detail.startswith(how) else how, detail) if part)


def _reason(run: Run) -> str:
    cause = (run.end_cause or "").replace("_", " ").removeprefix("exited")
    detail = run.end_detail or ""
    if detail.startswith("stopping (") and detail.endswith(")"):
        detail = detail[len("stopping (") : -1]
    return cause if detail in ("", run.end_cause, "stopped") else "; ".join(reversed(detail.split("; last: ", 1)))
