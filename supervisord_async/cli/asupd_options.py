"""The command line of ``asupd`` for click: help, version, mistakes, and every form that ``plain`` does not read."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click

from supervisord_async import __version__
from supervisord_async.cli.command import Command
from supervisord_async.cli.plain import LOG_FORMATS, LOG_LEVELS, DaemonArguments
from supervisord_async.words import shell_word

#: Options of other daemons, and what is used here.
_OTHERS = {
    "-n --nodaemon --no-daemon --foreground --no-detach": "It stays in the foreground unless -d is given.",
    "-D --daemon --daemonize --background -b": "-d goes to the background.",
    "-f --file --conf --configuration": "-c names the file.",
    "-t -T --test --validate --dry-run --configtest": "--check says what is wrong with the file, and starts nothing.",
    "-l --logfile": "--log-file names the daemon's own log.",
}


class _DaemonCommand(Command):
    """The command ``asupd``, which knows other daemons' options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click's own, but an unknown option of theirs is answered by ours."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            ours = next((what for theirs, what in _OTHERS.items() if error.option_name in theirs.split()), None)
            if ours is None:
                raise
            ctx.fail(f"No such option '{error.option_name}'. {ours}")


@click.command("asupd", cls=_DaemonCommand, context_settings={"help_option_names": ["-h", "--help"], "allow_extra_args": True})
@click.option("-c", "--config", "file", metavar="FILE", default="programs.yaml", show_default=True, help="The list of programs.")
@click.option("-d", "--detach", is_flag=True, help="Go to the background; returns once the control socket answers.")
@click.option("--check", is_flag=True, help="Say what is wrong with FILE and exit: 0 sound, 2 not.")
@click.option("--echo", is_flag=True, help="Print the programs' output too, prefixed.")
@click.option("--run-dir", metavar="DIR", help="Lock, socket, state, history and logs; overrides daemon.run_dir.")
@click.option("--log-level", type=click.Choice(LOG_LEVELS), help="Overrides daemon.log.level.")
@click.option("--log-format", type=click.Choice(LOG_FORMATS), help="Overrides daemon.log.format.")
@click.option("--log-file", metavar="FILE", help="Overrides daemon.log.file; with --detach by default RUN_DIR/asupd.log.")
@click.option("--trial", is_flag=True, hidden=True)
@click.version_option(__version__, "--version", prog_name="asupd", message="%(prog)s %(version)s")
@click.pass_context
def asupd(ctx: click.Context, /, **options: Any) -> NoReturn:
    """Start the programs that FILE lists, watch them, and restart them by their policies.

    HUP reloads FILE; TERM, INT and QUIT stop everything, a second one at once; USR1 reopens logs; USR2 replaces the
    daemon in place.

    Exits with 0: everything was stopped; 1: it could not start, or not stop everything, or ended as a program had failed;
    2: usage, or FILE is unsound; 4: a daemon is already running there.
    """
    if ctx.args:
        ctx.fail(f"Got unexpected extra argument ({ctx.args[0]}). {_meant(ctx.args[0])}")
    sys.exit(ctx.obj(DaemonArguments(**options)))


def _meant(word: str) -> str:
    """What to write instead of ``word``, an argument that ``asupd`` does not take."""
    if word == "start":
        return "Without a word the daemon starts, with -d in the background; `asupctl start NAME` starts a program."
    if "." in word or "/" in word:
        return f"A file is named by -c: asupd -c {shell_word(word)}"
    return f"The daemon takes options alone; a running one is told by asupctl: `asupctl {word}`."


def by_click(run: Callable[[DaemonArguments], int]) -> NoReturn:
    """Ends the process: with the code that ``run`` returns, or after printing help, the version, or a usage error."""
    asupd.main(obj=run)
    raise AssertionError("click ends the process")
