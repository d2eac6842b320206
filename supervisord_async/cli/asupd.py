"""``asupd -c programs.yaml``: arguments in, a daemon's exit code out.

A daemon that is replaced waits for every millisecond of its successor's start, so click is loaded only for what is not plain.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn

from supervisord_async.cli.plain import DaemonArguments, plain_daemon
from supervisord_async.cli.streams import open_missing
from supervisord_async.errors import ConfigError, DaemonError, LockHeldError

#: Of 1,000 programs' start a sixth went into looking for garbage, of 2,500's a fifth; there is next to none.
GC_THRESHOLDS = (10_000, 20, 20)
#: The shell's completion sets it; see click.shell_completion.
COMPLETION_VARIABLE = "_ASUPD_COMPLETE"
EXIT_UNSOUND = 2
EXIT_CRITICAL = 1
EXIT_LOCKED = 4


def main() -> NoReturn:
    """Be the daemon, or do what the arguments say instead, and end the process with its exit code."""
    open_missing()
    gc.set_threshold(*GC_THRESHOLDS)  # before the file is read
    arguments = plain_daemon(sys.argv[1:]) if COMPLETION_VARIABLE not in os.environ else None
    if arguments is None:
        from supervisord_async.cli.asupd_options import by_click

        by_click(run)
    sys.exit(run(arguments))


def run(arguments: DaemonArguments) -> int:
    """The exit code of the daemon, or of what was asked for instead."""
    from supervisord_async.config.load import load
    from supervisord_async.config.recollection import Recollection

    recollection = Recollection()
    file, run_dir = arguments.file, arguments.run_dir
    try:
        loaded = load(file, run_dir=run_dir, recollection=recollection)
    except ConfigError as error:
        for problem in error.problems:
            _complain(str(problem))
        _complain(_count(error))
        return EXIT_UNSOUND
    warnings = loaded.warnings
    if arguments.check:
        from supervisord_async.config.check import check as check_surroundings

        warnings = (*warnings, *check_surroundings(loaded))
    for warning in warnings:
        _complain(str(warning))
    if arguments.check:
        print(f"{file}: sound: {_counted(len(loaded.configuration.programs), 'program')}, {_counted(len(warnings), 'warning')}")
        return 0
    from supervisord_async.cli import asupd_run

    log_file = os.path.abspath(arguments.log_file) if arguments.log_file else None
    overrides = {"level": arguments.log_level, "format": arguments.log_format, "file": log_file}
    configuration = asupd_run.with_log(loaded.configuration, overrides)
    del loaded, warnings  # with the whole YAML tree behind them
    try:
        if arguments.trial:
            asupd_run.trial()
            return 0
        if arguments.detach:
            return asupd_run.detach(configuration, file, run_dir, overrides)
        return asupd_run.foreground(configuration, file, run_dir, overrides, recollection, echo=arguments.echo)
    except (DaemonError, LockHeldError) as error:
        _complain(f"asupd: critical: {error}")
        return EXIT_LOCKED if isinstance(error, LockHeldError) else EXIT_CRITICAL


def _complain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _count(error: ConfigError) -> str:
    errors = sum(not problem.warning for problem in error.problems)
    return f"asupd: critical: {_counted(errors, 'error')}; nothing was started"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


if __name__ == "__main__":
    main()
