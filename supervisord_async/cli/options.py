"""What asupctl's verbs have in common for click: ``-c``, ``-s`` and ``--json``, before or after the verb, and shared arguments."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import Any

import click

from supervisord_async.cli.duration import Duration
from supervisord_async.cli.session import Session


class Whole(click.IntRange):
    """A whole number from ``min`` on, with a plain error message."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number; a usage error for anything else."""
        try:
            return int(super().convert(value, param, ctx))
        except click.BadParameter:
            self.fail(f"{value!r}: expected a whole number from {self.min}", param, ctx)


def _remember(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        if value is not None and value is not False:
            setattr(ctx.ensure_object(Session), name, value)

    return callback


def connection_options(function: Any) -> Any:
    """Adds ``-c``, ``-s`` and ``--json``, whose values go into the session."""
    for option in (
        click.option("--json", is_flag=True, expose_value=False, is_eager=True, callback=_remember("json"), help="Print JSON."),
        click.option("-s", "--socket", metavar="SOCKET", type=click.Path(), expose_value=False, is_eager=True, callback=_remember("socket"),
                     help="The daemon's control socket."),
        click.option("-c", "--config", metavar="FILE", type=click.Path(), expose_value=False, is_eager=True, callback=_remember("file"),
                     help="The daemon's configuration file; default: $ASUP_SOCKET's daemon, then programs.yaml here."),
    ):  # fmt: skip
        function = option(function)
    return function


class Verb(click.Command):
    """A command whose usage errors know other tools' options, and say what a missing argument may be."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click's own, but errors say what was probably meant."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            from supervisord_async.cli.other_verbs import option_hint

            hint = option_hint(ctx.info_name or "", error.option_name)
            ctx.fail(f"No such option '{error.option_name}'.{hint}" if hint else error.format_message())
        except click.MissingParameter as error:
            if error.param is not None and error.param.name == "selectors":
                ctx.fail("Missing argument 'SELECTOR...': a name, GROUP:*, a glob such as 'web*', or all.")
            raise
        except click.UsageError as error:
            said, _, names = error.message.removesuffix(")").partition(" (")
            if "unexpected extra argument" not in said:
                raise
            from supervisord_async.cli.other_verbs import names_hint

            ctx.fail(error.message + names_hint(ctx.info_name or "", names))


def verb(name: str) -> Callable[[Callable[..., int | None]], click.Command]:
    """A decorator: the function becomes the verb ``name``; it gets the session first and returns the exit code, or None for 0."""

    def decorate(function: Callable[..., int | None]) -> click.Command:
        def call(**arguments: Any) -> int | None:
            return function(click.get_current_context().ensure_object(Session), **arguments)

        update_wrapper(call, function)
        command: click.Command = click.command(name, cls=Verb)(connection_options(call))
        return command

    return decorate


def complete_names(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[Any]:
    """Live names for the shell; see :mod:`supervisord_async.cli.completion`."""
    from supervisord_async.cli.completion import names

    return names(ctx, incomplete)


selectors_argument = click.argument("selectors", metavar="SELECTOR...", nargs=-1, required=True, shell_complete=complete_names)
name_argument = click.argument("name", metavar="NAME", shell_complete=complete_names)
timeout_option = click.option("--timeout", type=Duration(), metavar="DURATION", help="Wait at most this long, then exit with 6.")
