"""``events``: lists what changed, recently or from now on."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from supervisord_async.cli.options import Whole, complete_names, verb
from supervisord_async.cli.output import STATE_STYLES, colours, complain, print_json, print_json_line, styled, wrapped
from supervisord_async.cli.session import Session
from supervisord_async.cli.since import Since
from supervisord_async.cli.streams import end_with_reader
from supervisord_async.cli.words import local_time, printable
from supervisord_async.client import Event

#: Columns do not grow beyond this; a wider name moves the rest of its line.
_WIDEST = 24
_MAX_EVENTS = 10_000  # the daemon returns no more


@verb("events")
@click.argument("selectors", metavar="[SELECTOR]...", nargs=-1, shell_complete=complete_names)
@click.option("-f", "--follow", is_flag=True, help="Then follow new ones.")
@click.option(
    "-n", "--lines", "limit", type=Whole(min=0), metavar="N", help="How many of the past; default: 20, with -f none, with --since all."
)
@click.option("--since", type=Since(), metavar="TIME", help="From then on: 10m, 2h, 02:30, yesterday, 2026-11-21T14:00.")
def events(session: Session, selectors: tuple[str, ...], follow: bool, limit: int | None, since: str | None) -> None:
    """List what changed, recently or from now on.

    States, health, reloads, refused files, lost logs, the daemon's own life; with names, only events about those.
    """
    wanted = (_MAX_EVENTS if since else 0 if follow else 20) if limit is None else limit
    with session.client() as client:
        past = client.events(*selectors, limit=wanted) if wanted else []
        last_id = past[-1].id if past else None
        if since:
            if limit is None and len(past) == wanted:
                complain(f"these are the last {wanted} events; there may be older ones since then")
            past = [event for event in past if event.at >= since]
        if session.json and not follow:
            print_json([event.document for event in past])
            return
        show = Printer(as_json=session.json)
        show.make_room(past)
        for event in past:
            show(event)
        if follow:
            end_with_reader()
            for event in client.follow_events(*selectors, after=last_id):
                show(event)


class Printer:
    """Prints events in columns that grow with the events printed so far."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._widths = [6, 18]

    def make_room(self, events: Sequence[Event]) -> None:
        """The columns are wide enough for all of ``events``, within bounds."""
        for event in events:
            for column, text in enumerate(_cells(event)[:2]):
                self._widths[column] = min(_WIDEST, max(self._widths[column], len(text)))

    def __call__(self, event: Event) -> None:
        """Print ``event``."""
        if self._as_json:
            print_json_line(event.document)
            return
        on = colours(sys.stdout)
        self.make_room([event])
        who, what, words = _cells(event)
        parts = [
            local_time(event.at),
            styled(who, "bold", on=on) + " " * (self._widths[0] - len(who)),
            styled(what, STATE_STYLES.get(event.to or ""), on=on) + " " * (self._widths[1] - len(what)),
            wrapped(words, begin=sum(self._widths) + 25, indent=21),
        ]
        sys.stdout.write("  ".join(parts).rstrip() + "\n")
        sys.stdout.flush()


def _cells(event: Event) -> tuple[str, str, str]:
    """The name that the event is about, what changed, and the rest of its message."""
    what = f"{event.from_} → {event.to}" if event.from_ and event.to else event.type
    words = event.message
    if event.type == "health":
        what, words = f"health {event.to}", words if words != f"health: {event.to}" else ""
    elif event.type != "state":
        words = words.removeprefix(f"{event.type}: ")
    return printable(event.name or "daemon"), printable(what), printable(words)
