"""``events``: what changed, lately or from now on."""

from __future__ import annotations

import sys

import click

from supervisord_async.cli.output import STATE_STYLES, colours, print_json, print_json_line, styled
from supervisord_async.cli.session import Session, verb
from supervisord_async.cli.words import local_time, printable
from supervisord_async.client import Event


@verb("events")
@click.option("-f", "--follow", is_flag=True, help="Go on with those to come.")
@click.option("-n", "--lines", "limit", type=click.IntRange(min=0), help="How many of the past; default: 20, with -f none.")
def events(session: Session, follow: bool, limit: int | None) -> None:
    """List what changed, lately or from now on.

    States, health, reloads, refused files, losses of logs, the daemon's life.
    """
    wanted = (0 if follow else 20) if limit is None else limit
    with session.client() as client:
        past = client.events(limit=wanted) if wanted else []
        if session.json and not follow:
            print_json([event.document for event in past])
            return
        for event in past:
            _print(event, as_json=session.json)
        if follow:
            for event in client.follow_events(after=past[-1].id if past else None):
                _print(event, as_json=session.json)


def _print(event: Event, *, as_json: bool) -> None:
    if as_json:
        print_json_line(event.document)
        return
    on = colours(sys.stdout)
    what = f"{event.from_} → {event.to}" if event.from_ and event.to else event.type
    parts = [
        local_time(event.at),
        styled(printable(event.name or "daemon"), "bold", on=on),
        styled(printable(what), STATE_STYLES.get(event.to or ""), on=on),
        printable(event.message),
    ]
    sys.stdout.write("  ".join(part for part in parts if part) + "\n")
    sys.stdout.flush()
