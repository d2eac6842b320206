"""``status``: a table, JSON or a tree of processes, and exit code 3 if something is missing."""

from __future__ import annotations

import click

from supervisord_async.cli.options import complete_names, verb
from supervisord_async.cli.output import print_json, table
from supervisord_async.cli.processes import MISSING, any_missing, print_refused, show
from supervisord_async.cli.row import Row
from supervisord_async.cli.session import Session
from supervisord_async.cli.tree import documents, rows, trees_of


@verb("status")
@click.argument("selectors", metavar="[SELECTOR]...", nargs=-1, shell_complete=complete_names)
@click.option("--tree", is_flag=True, help="As a tree: under each program what it depends on.")
def status(session: Session, selectors: tuple[str, ...], tree: bool) -> int:
    """Show what runs, and what does not and why.

    Exits with 3 if something that should run does not.
    """
    return _tree(session, selectors) if tree else show(session, selectors)


def _tree(session: Session, selectors: tuple[str, ...]) -> int:
    with session.client() as client:
        refused = client.health().refused
        chosen = list(dict.fromkeys(one.program for one in client.processes(*selectors, figures=False))) if selectors else []
        objects = client.process_documents(figures=session.json)
        processes = [Row(document) for document in objects]
        trees = trees_of(client.dependencies(), chosen)
        missing = any_missing(client, [row for row in processes if not selectors or row.program in chosen])
    if session.json:
        print_json(documents(trees, objects))
        return MISSING if missing else 0
    print_refused(refused)
    if trees:
        table(("NAME", "NEEDED", "STATE", "HEALTH", "DETAIL"), rows(trees, processes))
    else:
        click.echo("no programs")
    return MISSING if missing else 0
