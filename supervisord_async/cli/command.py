"""A click command that says why its help or version cannot be printed (a full disk, no reader), instead of a traceback."""

from __future__ import annotations

from typing import Any

import click

from supervisord_async.cli import streams


class Command(click.Command):
    """As click's own, but an error of printing help or version is told. Errors of the command's own work are not touched."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """As click's; raises Exit with the exit code if help or version could not be written."""
        try:
            return super().make_context(*args, **extra)
        except OSError as error:
            end = streams.unwritten(error, self.name or "")
            if end is None:
                raise
            raise click.exceptions.Exit(end) from error
