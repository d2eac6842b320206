"""Durations on a command line, spelt as in configuration files."""

from __future__ import annotations

from typing import Any

import click


class Duration(click.ParamType[float]):
    """``5s``, ``1m30s``, ``500ms`` or a number of seconds; 0 is allowed unless ``more``."""

    name = "duration"

    def __init__(self, *, more: bool = False) -> None:
        self._more = more

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The duration in seconds; a usage error for anything else."""
        from supervisord_async.config.units import parse_duration

        try:
            seconds = parse_duration(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)
        if self._more and seconds == 0:
            self.fail(f"{value!r}: expected more than 0", param, ctx)
        return seconds
