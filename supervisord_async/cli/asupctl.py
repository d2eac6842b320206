"""The entry point of ``asupctl``. Errors become messages and exit codes.

Exit codes: 0 done; 1 a command failed for at least one name; 2 usage or bad configuration; 3 ``status`` found something
not running that should be; 4 no daemon there; 5 not allowed; 6 timed out; 130 after Ctrl-C; 141 after a broken pipe.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from supervisord_async.cli import streams, utf8, working_directory

if TYPE_CHECKING:
    from supervisord_async.cli.session import Session

#: Set by the shells' completion scripts; see click.shell_completion.
COMPLETION_VARIABLE = "_ASUPCTL_COMPLETE"
INTERRUPTED = 130
#: A short-lived process makes hardly any garbage: collecting it at the usual pace would take a tenth of ``status``.
GARBAGE_THRESHOLD = 50_000


def main() -> NoReturn:
    """Run one verb and end the process with its exit code.

    The interpreter is not torn down: that would take longer than the request, and nothing is left to close.
    """
    gc.set_threshold(GARBAGE_THRESHOLD)
    utf8.mean_utf8()
    streams.open_missing()
    code = run(sys.argv[1:])
    with suppress(OSError):  # the reader has gone
        sys.stderr.flush()
    os._exit(code)


def run(arguments: Sequence[str]) -> int:
    """Runs one call; returns its exit code, once all output has been printed and flushed."""
    try:
        utf8.show_what_can_be_shown()
        code = _invoke(list(arguments))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:  # of our own output, if of a broken pipe: the client turns that of a socket into a NoDaemonError
        if isinstance(error, FileNotFoundError) and working_directory.is_gone():
            return _complain(working_directory.GONE, 2)
        return streams.unwritten(error, "asupctl")


def _invoke(arguments: list[str]) -> int:
    from supervisord_async.cli.plain import plain_status
    from supervisord_async.cli.session import Session

    plain = plain_status(arguments) if COMPLETION_VARIABLE not in os.environ else None
    if plain is None:
        session = Session()
        return _in_our_words(session, lambda: _by_click(arguments, session))
    from supervisord_async.cli.processes import show

    return _in_our_words(plain[0], lambda: show(*plain))


def _by_click(arguments: list[str], session: Session) -> int:
    import click

    from supervisord_async.cli.command import errors_told
    from supervisord_async.cli.group import cli

    if instruction := os.environ.get(COMPLETION_VARIABLE):
        from click.shell_completion import shell_complete

        return shell_complete(cli, {}, "asupctl", COMPLETION_VARIABLE, instruction)
    try:
        with errors_told(), cli.make_context("asupctl", arguments, obj=session) as ctx:
            code = cli.invoke(ctx)
            return code if isinstance(code, int) else 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.Abort:
        return INTERRUPTED


def _in_our_words(session: Session, call: Callable[[], int]) -> int:
    """The exit code of ``call``; if it raised one of our errors, that was printed, and the code is the error's."""
    from supervisord_async.errors import CommandError, ConfigError, NoDaemonError, NotFoundError

    try:
        return call()
    except ConfigError as error:
        return _complain(str(error), 2, begin="")  # messages about a file begin with FILE:LINE:COLUMN
    except NoDaemonError as error:
        advice = session.advice(error)
        return _complain(f"{error}: {advice}" if advice and str(error).startswith("no daemon at") else str(error), error.exit_code)
    except NotFoundError as error:
        only_on_disk = any(str(error).startswith(f"no program '{name}'") for name in session.plan().get("added", ()))
        advice = " (the file has it by now: `asupctl reload` puts that in force)" if only_on_disk else ""
        return _complain(f"{error}{advice}", error.exit_code)
    except CommandError as error:
        return _complain(str(error), error.exit_code)


def _complain(text: str, exit_code: int, *, begin: str = "asupctl: ") -> int:
    from supervisord_async.cli.output import complain

    complain(text, begin=begin)
    return exit_code


if __name__ == "__main__":
    main()
