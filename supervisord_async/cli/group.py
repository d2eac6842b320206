"""The command ``asupctl`` with its global options; a verb's module is imported when the verb is used."""

from __future__ import annotations

from importlib import import_module

import click

from supervisord_async import __version__
from supervisord_async.cli.options import connection_options
from supervisord_async.cli.session import Session

#: Each verb's module under ``cli.verbs``, in the order of the help.
VERBS = {
    "status": "status",
    "start": "actions",
    "stop": "actions",
    "restart": "actions",
    "signal": "actions",
    "wait": "actions",
    "scale": "actions",
    "reload": "configuration",
    "config": "configuration",
    "logs": "logs",
    "events": "events",
    "why": "past",
    "history": "past",
    "top": "screen",
    "web": "daemon",
    "reexec": "daemon",
    "shutdown": "shutdown",
    "doctor": "doctor",
    "cleanup": "cleanup",
    "version": "daemon",
    "completion": "completion",
}


class Verbs(click.Group):
    """A group that imports a verb's module when the verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Every verb, in the order of the help."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The verb's command; None for an unknown one, which click reports as a usage error."""
        module = VERBS.get(cmd_name)
        if module is None:
            return None
        command: click.Command = getattr(import_module(f"supervisord_async.cli.verbs.{module}"), cmd_name)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's own, but the error for an unknown verb says which one was probably meant."""
        if args and not args[0].startswith("-") and args[0] not in VERBS:
            from supervisord_async.cli.other_verbs import hint

            ctx.fail(f"no verb '{args[0]}'{hint(args[0], args[1:], tuple(VERBS))}")
        return super().resolve_command(ctx, args)


@click.command("asupctl", cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@connection_options
@click.version_option(__version__, "--version", prog_name="asupctl", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Talk to a running asupd.

    A SELECTOR is a program's or process's name, GROUP:*, a glob such as 'web*', or all.

    Exits with 0: done; 1: failed for a name; 2: usage, or an unsound file; 3: `status` misses something; 4: no daemon there;
    5: not allowed; 6: timed out.
    """
    ctx.ensure_object(Session)
