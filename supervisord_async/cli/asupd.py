"""The entry point of ``asupd``: arguments in, the daemon's exit code out.

During a re-exec clients wait for the new code to start, so click is imported only for command lines that ``plain`` cannot read.
"""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from supervisord_async.cli import early_signals, streams
from supervisord_async.cli.plain import DaemonArguments, plain_daemon
from supervisord_async.cli.utf8 import forget_coerced_locale, mean_utf8, show_what_can_be_shown
from supervisord_async.errors import ConfigError, DaemonError, LockHeldError
from supervisord_async.system import stop_signals
from supervisord_async.system.descriptors import is_journal
from supervisord_async.wire import ENV_STATE
from supervisord_async.words import counted, shell_word

if TYPE_CHECKING:
    from supervisord_async.config.load_cache import LoadCache
    from supervisord_async.config.model import Configuration
    from supervisord_async.errors import Problem
    from supervisord_async.supervise.recovery.persist import SavedState

#: With Python's defaults garbage collection, which finds next to nothing, takes a sixth of the start of 1,000 programs, a fifth of 2,500's.
GC_THRESHOLDS = (10_000, 20, 20)
#: Set by the shells' completion scripts; see click.shell_completion.
COMPLETION_VARIABLE = "_ASUPD_COMPLETE"
EXIT_UNSOUND = 2
EXIT_CRITICAL = 1
EXIT_LOCKED = 4


def main() -> NoReturn:
    """Run the daemon, or whatever the arguments ask for instead, and end the process with its exit code."""
    early_signals.hold()
    early_signals.interrupt_quietly()
    mean_utf8()
    forget_coerced_locale()
    streams.open_missing()
    show_what_can_be_shown()
    gc.set_threshold(*GC_THRESHOLDS)  # before the file is read
    arguments = plain_daemon(sys.argv[1:]) if COMPLETION_VARIABLE not in os.environ else None
    if arguments is None:
        from supervisord_async.cli.asupd_options import by_click

        by_click(run)
    sys.exit(run(arguments))


def run(arguments: DaemonArguments) -> int:
    """Run the daemon, or whatever ``arguments`` ask for instead; returns the exit code."""
    in_foreground = not (arguments.check or arguments.detach or arguments.trial)
    told_to_stop = stop_signals.note() if in_foreground else []  # before the file is read, which may take long
    try:
        former = _former_self(arguments)
        configuration, warnings, load_cache = _configuration(arguments, former)
    except ConfigError as error:
        for problem in error.problems:
            _complain(str(problem), "warning" if problem.warning else "error")
        _complain(_verdict(arguments, error))
        return EXIT_UNSOUND
    except DaemonError as error:
        _complain(f"asupd: critical: {error}")
        return EXIT_CRITICAL
    for warning in warnings:
        _complain(str(warning), "warning")
    if arguments.check:
        return _say(f"{arguments.file}: sound: {counted(len(configuration.programs), 'program')}, {counted(len(warnings), 'warning')}")
    from supervisord_async.cli import asupd_run

    try:
        if arguments.trial:
            asupd_run.trial(former, configuration, warnings, load_cache)
            return 0
        arguments = arguments._replace(log_file=os.path.abspath(arguments.log_file) if arguments.log_file else None)
        configuration = asupd_run.with_log(configuration, arguments)
        if arguments.detach:
            return asupd_run.detach(arguments, configuration)
        return asupd_run.foreground(arguments, configuration, load_cache, former, told_to_stop)
    except Exception as error:
        if former is not None and not arguments.trial:
            asupd_run.go_on_as_after_a_kill(error)
        return _refused(error, configuration)


def _refused(error: Exception, configuration: Configuration) -> int:
    """The exit code of a daemon that could not start, after reporting why in a sentence; re-raises what is a bug of ours."""
    from supervisord_async.system.shortage import is_shortage

    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, LockHeldError):
        _complain(f"asupd: critical: {error}{_of_the_other(configuration)}")
        return EXIT_LOCKED
    if isinstance(error, OSError) and is_shortage(error):
        _complain(f"asupd: critical: cannot start: {error.strerror} (a limit of this machine, or of ours, is reached; start it again)")
        return EXIT_CRITICAL
    if not isinstance(error, DaemonError):
        raise error
    _complain(f"asupd: critical: {error}")
    return EXIT_CRITICAL


def _former_self(arguments: DaemonArguments) -> SavedState | None:
    """The state from before the re-exec; in a trial, that of the daemon which asks whether this code could take over; else None.

    If the state cannot be read (an older version was installed again), a trial raises DaemonError, so that the re-exec is refused. After
    a re-exec there is no way back: the result is None, and the daemon goes on as the successor of one that was killed.
    """
    if ENV_STATE not in os.environ:
        return None
    from supervisord_async.supervise.recovery.persist import StateError
    from supervisord_async.supervise.recovery.reexec import inherited_state

    try:
        return inherited_state()
    except (StateError, OSError) as error:
        if arguments.trial:
            raise DaemonError(f"cannot take over the state of the running daemon: {error}") from error
        if isinstance(error, OSError):
            from supervisord_async.cli import asupd_run

            asupd_run.go_on_as_after_a_kill(error)
        _complain(f"degraded: cannot take over the state from before the re-exec: {error}; it goes on as after a kill", "warning")
        return None


def _configuration(arguments: DaemonArguments, former: SavedState | None) -> tuple[Configuration, tuple[Problem, ...], LoadCache]:
    """The configuration and its warnings, as the trial before a re-exec has loaded them, else from the file.

    The file's YAML tree is freed. Raises ConfigError.
    """
    if former is not None and not arguments.trial:
        from supervisord_async.supervise.recovery.prepared import handed_over

        if (found := handed_over(former)) is not None:
            return found
    from supervisord_async.config.load import load
    from supervisord_async.config.load_cache import LoadCache

    load_cache = LoadCache()
    starting = not (arguments.check or arguments.trial)
    loaded = load(arguments.file, run_dir=arguments.run_dir, load_cache=load_cache, starting=starting)
    warnings = loaded.warnings
    if arguments.check:
        from supervisord_async.config.check import check as check_surroundings

        warnings = (*warnings, *check_surroundings(loaded))
    return loaded.configuration, warnings, load_cache


def _say(text: str) -> int:
    """Print ``text``, the answer of a command; returns its exit code."""
    try:
        print(text, flush=True)
    except OSError as error:
        return streams.unwritten(error, "asupd")
    return 0


def _complain(text: str, level: str = "error") -> None:
    if is_journal(2):
        from supervisord_async.logs.own_log import for_journal

        text = for_journal(level, text).decode().removesuffix("\n")
    with suppress(OSError):  # nobody reads it, or the disk is full: no reason not to start, or for another exit code
        os.write(2, f"{text}\n".encode(sys.stderr.encoding, "backslashreplace"))


def _of_the_other(configuration: Configuration) -> str:
    """What to do about the daemon that holds the lock: it serves another file, or this one (or does not answer)."""
    from supervisord_async.cli.locate import other_file

    if other := other_file(configuration.daemon.socket, configuration.file):
        return f"; it runs {other}: give this file a daemon.run_dir of its own"
    control = f"asupctl -c {shell_word(configuration.file)}"
    return f"; `{control} reload` makes it apply a changed file, `{control} shutdown` ends it"


def _verdict(arguments: DaemonArguments, error: ConfigError) -> str:
    errors = counted(sum(not problem.warning for problem in error.problems), "error")
    if arguments.check:
        return f"{arguments.file}: unsound: {errors}{_other_file(arguments.file)}"
    return f"asupd: critical: {errors}; nothing was started{_other_file(arguments.file)}"


def _other_file(file: str) -> str:
    """If ``file`` does not exist: how to name the one that was meant; else empty."""
    if os.path.lexists(file):
        return ""
    stem, suffix = os.path.splitext(file)
    other = stem + {".yaml": ".yml", ".yml": ".yaml"}.get(suffix, suffix)
    return f" (but there is {other}: -c {shell_word(other)})" if os.path.lexists(other) else " (-c FILE names another file)"


if __name__ == "__main__":
    main()
