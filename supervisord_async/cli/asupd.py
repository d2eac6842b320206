"""``asupd -c programs.yaml``: arguments in, a daemon's exit code out."""

from __future__ import annotations

import gc
import os
import sys

import click

from supervisord_async import __version__
from supervisord_async.errors import ConfigError, DaemonError, LockHeldError

#: Of 1,000 programs' start a sixth went into looking for garbage, of 2,500's a fifth; there is next to none.
GC_THRESHOLDS = (10_000, 20, 20)
EXIT_UNSOUND = 2
EXIT_CRITICAL = 1
EXIT_LOCKED = 4


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-c", "--config", "file", metavar="FILE", default="programs.yaml", show_default=True, help="The list of programs.")
@click.option("-d", "--detach", is_flag=True, help="Go to the background; returns once the control socket answers.")
@click.option("--check", is_flag=True, help="Say what is wrong with FILE and exit: 0 sound, 2 not.")
@click.option("--echo", is_flag=True, help="Print the programs' output too, prefixed.")
@click.option("--run-dir", metavar="DIR", help="Lock, socket, state, history and logs; overrides daemon.run_dir.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="Overrides daemon.log.level.")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Overrides daemon.log.format.")
@click.option("--log-file", metavar="FILE", help="Overrides daemon.log.file; with --detach by default RUN_DIR/asupd.log.")
@click.option("--trial", is_flag=True, hidden=True)
@click.version_option(__version__, prog_name="asupd")
def main(
    file: str,
    detach: bool,
    check: bool,
    echo: bool,
    run_dir: str | None,
    log_level: str | None,
    log_format: str | None,
    log_file: str | None,
    trial: bool,
) -> None:
    """Start the programs that FILE lists, watch them, and restart them by their policies.

    HUP reloads FILE; TERM, INT and QUIT stop everything, a second one at once; USR1 reopens logs; USR2 replaces the
    daemon in place.
    """
    gc.set_threshold(*GC_THRESHOLDS)  # before the file is read: a daemon that is replaced waits for every millisecond of this
    from supervisord_async.config.load import load
    from supervisord_async.config.recollection import Recollection

    recollection = Recollection()
    try:
        loaded = load(file, run_dir=run_dir, recollection=recollection)
    except ConfigError as error:
        for problem in error.problems:
            click.echo(str(problem), err=True)
        click.echo(_count(error), err=True)
        sys.exit(EXIT_UNSOUND)
    warnings = loaded.warnings
    if check:
        from supervisord_async.config.check import check as check_surroundings

        warnings = (*warnings, *check_surroundings(loaded))
    for warning in warnings:
        click.echo(str(warning), err=True)
    if check:
        click.echo(f"{file}: sound: {len(loaded.configuration.programs)} programs, {len(warnings)} warnings")
        return
    from supervisord_async.cli import asupd_run

    overrides = {"level": log_level, "format": log_format, "file": os.path.abspath(log_file) if log_file else None}
    configuration = asupd_run.with_log(loaded.configuration, overrides)
    del loaded, warnings  # with the whole YAML tree behind them
    if trial:
        asupd_run.trial()
        return
    try:
        if detach:
            sys.exit(asupd_run.detach(configuration, file, run_dir, overrides))
        sys.exit(asupd_run.foreground(configuration, file, run_dir, overrides, recollection, echo=echo))
    except LockHeldError as error:
        click.echo(f"asupd: critical: {error}", err=True)
        sys.exit(EXIT_LOCKED)
    except DaemonError as error:
        click.echo(f"asupd: critical: {error}", err=True)
        sys.exit(EXIT_CRITICAL)


def _count(error: ConfigError) -> str:
    errors = sum(not problem.warning for problem in error.problems)
    return f"asupd: critical: {errors} error{'s' if errors != 1 else ''}; nothing was started"


if __name__ == "__main__":
    main()
