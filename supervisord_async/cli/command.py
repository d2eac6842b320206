"""A click command whose exit code is the right one also where its help, or its errors, cannot be printed (a full disk, no reader)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from supervisord_async.cli import streams


@contextmanager
def errors_told() -> Iterator[None]:
    """An error of click's within is printed, if that is possible, and raises Exit with its exit code."""
    try:
        yield
    except click.ClickException as error:
        try:
            error.show()
        except OSError:  # nobody reads it; the exit code says it too
            streams.silence(sys.stderr)
        raise click.exceptions.Exit(error.exit_code) from error


class Command(click.Command):
    """As click's. Of what the command itself prints, only click's own errors are concerned."""

    def invoke(self, ctx: click.Context) -> Any:
        """As click's; raises Exit instead of an error of click's, which was printed."""
        with errors_told():
            return super().invoke(ctx)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """As click's; raises Exit with the exit code after an error, or if help or version could not be written."""
        try:
            with errors_told():
                return super().make_context(*args, **extra)
        except OSError as error:
            raise click.exceptions.Exit(streams.unwritten(error, self.name or "")) from error
