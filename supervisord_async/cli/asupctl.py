"""``asupctl``: the control client's entry. Verbs are loaded when they are used; errors become messages and exit codes.

Exit codes: 0 done; 1 a command failed for at least one name; 2 usage or bad configuration; 3 ``status`` found something
not running that should be; 4 no daemon there; 5 not allowed; 6 timed out. 130 after Ctrl-C, 141 when nobody reads.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import click

from supervisord_async.cli.session import Session, connection_options
from supervisord_async.errors import CommandError, ConfigError, NoDaemonError

INTERRUPTED, BROKEN_PIPE = 130, 141
COMPLETION_VARIABLE = "_ASUPCTL_COMPLETE"

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
    "shutdown": "daemon",
    "version": "daemon",
    "completion": "completion",
}


class Verbs(click.Group):
    """A group that imports a verb's module when the verb is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Every verb, in the order of the help."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The verb's command; None, which is a usage error, for an unknown one."""
        module = VERBS.get(cmd_name)
        if module is None:
            return None
        command: click.Command = getattr(import_module(f"supervisord_async.cli.verbs.{module}"), cmd_name)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's own, but a misspelt verb is told the nearest one."""
        if args and not args[0].startswith("-") and args[0] not in VERBS:
            from difflib import get_close_matches

            near = get_close_matches(args[0], VERBS, n=1)
            ctx.fail(f"no verb '{args[0]}'" + (f": did you mean '{near[0]}'?" if near else ""))
        return super().resolve_command(ctx, args)


@click.command("asupctl", cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@connection_options
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Talk to a running asupd.

    A SELECTOR is a program's or process's name, group:*, a glob such as 'web*', or all.
    """
    ctx.ensure_object(Session)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one verb and end the process with its exit code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """The exit code of one call, all that it has to say having been printed."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if instruction := os.environ.get(COMPLETION_VARIABLE):
        from click.shell_completion import shell_complete

        return shell_complete(cli, {}, "asupctl", COMPLETION_VARIABLE, instruction)
    try:
        code = _invoke(list(arguments))
        sys.stdout.flush()
        return code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:  # of our own output: the client's sockets speak in NoDaemonErrors
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, sys.stdout.fileno())  # what is still buffered goes nowhere when Python flushes it
        return BROKEN_PIPE


def _invoke(arguments: list[str]) -> int:
    from supervisord_async.cli.output import complain

    session = Session()
    try:
        with cli.make_context("asupctl", arguments, obj=session) as ctx:
            code = cli.invoke(ctx)
            return code if isinstance(code, int) else 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ConfigError as error:
        complain(str(error))
        return 2
    except NoDaemonError as error:
        advice = _advice(session)
        complain(f"{error}: {advice}" if advice and str(error).startswith("no daemon at") else str(error))
        return error.exit_code
    except CommandError as error:
        complain(str(error))
        return error.exit_code


def _advice(session: Session) -> str:
    try:
        return session.target.advice
    except CommandError:
        return ""


if __name__ == "__main__":
    main()
