"""Live names for the shell's completion: programs, processes, groups. Quick, and silent about errors."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

from supervisord_async.cli.session import Session
from supervisord_async.errors import SupervisordError

#: How long to wait for the daemon, while the user waits at a prompt.
TIMEOUT_SECONDS = 1.0


def names(ctx: click.Context, incomplete: str) -> list[Any]:
    """The names that complete ``incomplete``; none if no daemon answers in time."""
    try:
        with _session(ctx).client(timeout_seconds=TIMEOUT_SECONDS) as client:
            processes = client.processes(figures=False)
    except (SupervisordError, OSError):
        return []
    found: dict[str, str] = {"all": "every program"}
    for process in processes:
        found.setdefault(process.program or process.name, process.description)
    for process in processes:
        found.setdefault(process.name, process.state)
        if process.group and process.group != process.program:
            found.setdefault(f"{process.group}:*", "group")
    given = set(ctx.params.get("selectors") or ())
    return [CompletionItem(name, help=text or None) for name, text in found.items() if name.startswith(incomplete) and name not in given]


def _session(ctx: click.Context) -> Session:
    """The context's session. Completion makes contexts without running the command, so there may be none yet."""
    return ctx.find_object(Session) or Session()
