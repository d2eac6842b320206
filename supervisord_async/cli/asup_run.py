"""``asup-run [OPTIONS] COMMAND [ARGS…]``: one command under supervision, without any file.

A thin layer over :class:`~supervisord_async.supervise.single.Single`: options become a program's settings, records become
lines on stderr, and the outcome becomes the exit code.
"""

from __future__ import annotations

import gc
import os
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from supervisord_async import __version__, wire
from supervisord_async.cli import early_signals, working_directory
from supervisord_async.cli.command import Command
from supervisord_async.cli.duration import Duration
from supervisord_async.cli.streams import open_missing
from supervisord_async.cli.utf8 import forget_coerced_locale, mean_utf8
from supervisord_async.errors import DaemonError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from supervisord_async.config.model import Heartbeat, Program
    from supervisord_async.core.record import Record

#: The longest delay before a restart, and how long a run must be up for the count to start over.
MAX_DELAY_SECONDS = 60.0
HEARTBEAT_OPTIONS = ("timeout", "initial_check_delay", "heartbeat_file")


def main() -> NoReturn:
    """Run the command, and end the process with its exit code, without the interpreter's tear-down."""
    early_signals.interrupt_quietly()
    gc.set_threshold(50_000)  # imported modules stay: collecting garbage among them would take a tenth of the start
    mean_utf8()
    forget_coerced_locale()
    open_missing()
    code = 1
    try:
        cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    with suppress(OSError):  # the reader, of --help say, has gone
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


@click.command(
    "asup-run",
    cls=Command,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "allow_interspersed_args": False,
        "max_content_width": 100,
        "show_default": True,
    },
    options_metavar="[OPTIONS]",
)
@click.option(
    "--timeout",
    type=Duration(more=True),
    default=20,
    metavar="SECONDS",
    help="Restart when the heartbeat file has not changed for this long.",
)
@click.option(
    "--initial-check-delay", type=Duration(), default=0, metavar="SECONDS", help="Check the heartbeat only this long after each start."
)
@click.option("--heartbeat-file", default="heartbeat.txt", metavar="PATH", help="The file that the command changes.")
@click.option("--no-heartbeat", is_flag=True, help="Expect no heartbeat.")
@click.option("--grace-period", type=Duration(), default=5, metavar="SECONDS", help="How long after TERM until KILL.")
@click.option(
    "--stop-scope",
    type=click.Choice(["tree", "mixed"]),
    default="tree",
    help="What gets the stop signal: all processes at once, or the main process first, and the rest after it has ended.",
)
@click.option(
    "--max-restarts",
    type=click.IntRange(min=-1),
    default=-1,
    metavar="COUNT",
    help="Give up after this many consecutive restarts; -1: never.",
)
@click.option(
    "--backoff-factor",
    type=Duration(),
    default=1,
    metavar="SECONDS",
    help="Wait factor × 2^restarts before a restart, restarts counted from 0.",
)
@click.option(
    "--max-delay",
    type=Duration(more=True),
    metavar="SECONDS",
    help="The longest wait; a run that is up for this long resets the count. [default: 60, or the factor if that is more]",
)
@click.option(
    "--restart-on", type=click.Choice(["always", "on-failure", "never"]), default="on-failure", help="Which ends are followed by a restart."
)
@click.option("--watch", multiple=True, metavar="PATH", help="Restart when PATH, or what is in it, changes. Repeatable.")
@click.option("--ignore", multiple=True, metavar="PATTERN", help="Changes below --watch that do not count (gitignore). Repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Events as JSON, one object a line, on stderr.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", help="How much to say on stderr.")
@click.version_option(__version__, "--version", prog_name="asup-run", message="%(prog)s %(version)s")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def cli(context: click.Context, /, as_json: bool, log_level: str, **options: Any) -> None:  # fmt: skip
    """Run COMMAND, watch it, and restart it when it fails or its heartbeat stops.

    Signals (INT, TERM, HUP, USR1, USR2, QUIT) reach the command; stdin, stdout, stderr and the terminal are its own.
    Ends with the command's exit code: 128+n if signal n ended it, 127 or 126 if it cannot be executed. Ends with 128+n when
    told to stop by signal n, with 1 when it gives up on a heartbeat. Options end where the command begins.

    SECONDS are 5, 0.5, 500ms, 1m30s or 2h. A command that succeeds is not run again, unless --restart-on always; one
    that fails is restarted, until asup-run is told to stop, or up to --max-restarts.
    """
    chosen = {name for name in HEARTBEAT_OPTIONS if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT}
    if chosen and options["no_heartbeat"]:
        raise click.UsageError(f"--no-heartbeat contradicts --{min(chosen).replace('_', '-')}")
    _check_patterns(options["ignore"])
    sys.exit(_supervise(options, as_json=as_json, log_level=log_level, demanded=bool(chosen)))


def _check_patterns(patterns: tuple[str, ...]) -> None:
    """Raises click.UsageError for an invalid pattern."""
    for pattern in patterns:
        from supervisord_async.config.patterns import compile_ignored

        try:
            compile_ignored((pattern,))
        except ValueError:
            raise click.UsageError(f"--ignore {pattern!r}: expected a pattern as in .gitignore") from None


@contextmanager
def _beginning() -> Iterator[None]:
    """Reports an error from before the command runs in a sentence and ends asup-run; re-raises what is a bug of ours."""
    from supervisord_async.system.shortage import is_shortage

    try:
        yield
    except DaemonError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        if not is_shortage(error):
            raise
        raise click.ClickException(f"cannot start: {error.strerror} (a limit of this machine, or of ours, is reached)") from error


def _supervise(options: dict[str, Any], *, as_json: bool, log_level: str, demanded: bool) -> int:
    import signal

    from supervisord_async.supervise.single import Single, Streams
    from supervisord_async.system import loop, requirements, signals

    if working_directory.is_gone():
        raise click.UsageError(working_directory.GONE)
    with _beginning():
        requirements.require()
        streams = Streams.ours()
    nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    signals.reset_inherited()
    if nohup:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    heartbeat = None if options["no_heartbeat"] else heartbeat_of(options)
    program = program_of(options, heartbeat, demanded=demanded)

    async def supervise() -> int:
        with _beginning():
            single = Single(program, streams, presumed=None if demanded else heartbeat)
        single.bus.listen(tell)
        return await single.run()

    gc.freeze()
    gc.set_threshold(700)  # long-running from here on
    tell, finish = _json_lines(log_level) if as_json else _text_lines(log_level)
    try:
        return loop.run(supervise, kind="asyncio")  # for one child uvloop is not worth its import
    finally:
        finish()


def heartbeat_of(options: dict[str, Any]) -> Heartbeat:
    """The heartbeat that the options describe, be they given or defaults."""
    from supervisord_async.config.model import Heartbeat

    return Heartbeat(
        file=os.path.abspath(options["heartbeat_file"]),
        timeout_seconds=options["timeout"],
        initial_delay_seconds=options["initial_check_delay"],
    )


def program_of(options: dict[str, Any], heartbeat: Heartbeat | None, *, demanded: bool) -> Program:
    """The settings that the options describe; ``heartbeat`` is watched from the start only if an option ``demanded`` it."""
    from supervisord_async.config.model import Backoff, Logs, Program, Restart, Stop, Watch
    from supervisord_async.core.policy import RestartPolicy

    command: tuple[str, ...] = options["command"]
    factor: float = options["backoff_factor"]
    cap = options["max_delay"] if options["max_delay"] is not None else max(MAX_DELAY_SECONDS, factor)
    name = Path(command[0]).name or command[0]
    watched = tuple(os.path.abspath(path) for path in options["watch"])
    return Program(
        name=name,
        command=command,
        group=name,
        directory=os.getcwd(),
        environment={**os.environ, **({wire.ENV_HEARTBEAT_FILE: heartbeat.file} if heartbeat is not None and heartbeat.file else {})},
        start_seconds=0.0,
        restart=Restart(
            policy=RestartPolicy(options["restart_on"]),
            max_restarts=options["max_restarts"],
            backoff=Backoff(initial_seconds=factor, factor=2.0, max_seconds=cap, jitter=0.0),
            reset_after_seconds=cap,
        ),
        stop=Stop(grace_seconds=options["grace_period"], scope=options["stop_scope"]),
        heartbeat=heartbeat if demanded else None,
        watch=(Watch(paths=watched, ignore=options["ignore"]),) if watched else (),
        logs=Logs(stdout="inherit", stderr="inherit"),
    )


# Output

_SEVERITY = ("debug", "info", "warning", "error")


def _severity(record: Record) -> str:
    if record.type == "state":
        return {"FATAL": "error", "UNKNOWN": "error", "BACKOFF": "warning"}.get(record.to or "", "info")
    if record.type == "daemon":
        return {"no_heartbeat": "warning", "note": "warning", "gave_up": "error"}.get(record.data.get("what", ""), "info")
    return {"flapping": "warning", "watch": "warning", "supervision": "error"}.get(record.type, "info")


def _text_lines(level: Any) -> tuple[Callable[[Record], None], Callable[[], None]]:
    """A function that writes records as lines of text on stderr, among other log lines; and one that finishes."""
    import logging

    from supervisord_async.logs.own_log import LEVELS, OwnLog

    own = OwnLog(level=level)
    own.install()
    log = logging.getLogger("asup-run")

    def tell(record: Record) -> None:
        transition = f"{record.from_} → {record.to}: " if record.type == "state" else ""
        log.log(LEVELS[_severity(record)], "%s%s", transition, record.message, extra={"subject": record.name or "asup-run"})

    return tell, own.close


def _json_lines(level: Any) -> tuple[Callable[[Record], None], Callable[[], None]]:
    """A function that writes records as the API's events, one JSON object a line, on stderr; and one that finishes."""
    from supervisord_async.control.view import event_view
    from supervisord_async.jsontext import json_bytes
    from supervisord_async.logs.own_log import OwnLog
    from supervisord_async.logs.writer_thread import WriterThread

    own = OwnLog(level=level, format="json")
    own.install()
    writer = WriterThread(fd=2, lost=lambda count: b'{"type": "lost", "count": %d}\n' % count)

    def tell(record: Record) -> None:
        if _SEVERITY.index(_severity(record)) >= _SEVERITY.index(level):
            writer.put(json_bytes(event_view(record)) + b"\n")

    def finish() -> None:
        writer.close()
        own.close()

    return tell, finish


if __name__ == "__main__":
    main()
