"""``asupctl``: the control client's entry. Errors become messages and exit codes.

Exit codes: 0 done; 1 a command failed for at least one name; 2 usage or bad configuration; 3 ``status`` found something
not running that should be; 4 no daemon there; 5 not allowed; 6 timed out. 130 after Ctrl-C, 141 when nobody reads.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from supervisord_async.cli import here, streams, utf8

if TYPE_CHECKING:
    from supervisord_async.cli.session import Session

#: The shell's completion scripts set it; see click.shell_completion.
COMPLETION_VARIABLE = "_ASUPCTL_COMPLETE"
INTERRUPTED = 130
#: A short life makes hardly any garbage: looking for it at the usual pace would take a tenth of ``status``.
GARBAGE_THRESHOLD = 50_000


def main() -> NoReturn:
    """Run one verb and end the process with its exit code.

    The interpreter is not torn down piece by piece: that takes longer than asking the daemon, and nothing is left to close.
    """
    gc.set_threshold(GARBAGE_THRESHOLD)
    utf8.mean_utf8()
    streams.open_missing()
    code = run(sys.argv[1:])
    with suppress(OSError):  # nobody to tell
        sys.stderr.flush()
    os._exit(code)


def run(arguments: Sequence[str]) -> int:
    """The exit code of one call, all that it has to say having been printed and flushed."""
    try:
        utf8.show_what_can_be_shown()
        code = _invoke(list(arguments))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:  # of our own output, if of a broken pipe: the client's sockets speak in NoDaemonErrors
        if isinstance(error, FileNotFoundError) and here.is_gone():
            return _complain(here.GONE, 2)
        end = streams.unwritten(error, "asupctl")
        if end is None:
            raise
        return end


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

    from supervisord_async.cli.group import cli

    if instruction := os.environ.get(COMPLETION_VARIABLE):
        from click.shell_completion import shell_complete

        return shell_complete(cli, {}, "asupctl", COMPLETION_VARIABLE, instruction)
    try:
        with cli.make_context("asupctl", arguments, obj=session) as ctx:
            code = cli.invoke(ctx)
            return code if isinstance(code, int) else 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code


def _in_our_words(session: Session, call: Callable[[], int]) -> int:
    """The exit code of ``call``, an error of our own having been told."""
    from supervisord_async.errors import CommandError, ConfigError, NoDaemonError

    try:
        return call()
    except ConfigError as error:
        return _complain(str(error), 2, begin="")  # what is said about a file begins with FILE:LINE:COLUMN
    except NoDaemonError as error:
        advice = session.advice(error)
        return _complain(f"{error}: {advice}" if advice and str(error).startswith("no daemon at") else str(error), error.exit_code)
    except CommandError as error:
        return _complain(str(error), error.exit_code)


def _complain(text: str, exit_code: int, *, begin: str = "asupctl: ") -> int:
    from supervisord_async.cli.output import complain

    complain(text, begin=begin)
    return exit_code


if __name__ == "__main__":
    main()
