"""``logs``: what programs printed. On a terminal their control characters are spelt out; a pipe gets the bytes as they are."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from supervisord_async.cli.merge import merged
from supervisord_async.cli.options import Whole, selectors_argument, verb
from supervisord_async.cli.output import colours, complain, print_json, print_json_line, say, styled
from supervisord_async.cli.session import Session
from supervisord_async.cli.since import Since
from supervisord_async.cli.streams import end_with_reader
from supervisord_async.cli.words import printable, printable_line
from supervisord_async.client.answers import Log
from supervisord_async.errors import CommandError, FailedError, NoDaemonError, UsageError
from supervisord_async.words import listed

if TYPE_CHECKING:
    from supervisord_async.client.api import Client

#: The most processes to follow at once: each needs a connection and a thread.
MAX_FOLLOWED = 64
#: How many lines may wait for a slow terminal before no more are read from the daemon.
WAITING_LINES = 1000
DEFAULT_LINES = 100
_ALL_LINES = 100_000  # the daemon returns no more
_PREFIX_STYLES = ("cyan", "green", "yellow", "bold", "red")
_SGR = re.compile(r"\x1b\[[0-9;:]*m")


@verb("logs")
@selectors_argument
@click.option("-f", "--follow", is_flag=True, help="Then follow new output, across rotation and restarts.")
@click.option("-n", "--lines", type=Whole(min=0), metavar="N", help=f"How many lines of each; default: {DEFAULT_LINES}, with --since all.")
@click.option("--stderr", is_flag=True, help="Standard error's log, if it has its own.")
@click.option("--since", type=Since(), metavar="TIME", help="From then on: 10m, 2h, 02:30, yesterday, 2026-11-21T14:00.")
def logs(session: Session, selectors: tuple[str, ...], follow: bool, lines: int | None, stderr: bool, since: str | None) -> int:
    """Print what programs printed.

    With several programs, each line begins with a name. Lines are sorted by time if the logs have timestamps
    (logs.format timestamp or json); else one log follows the other.
    """
    try:
        return _logs(session, selectors, follow, lines, stderr=stderr, since=since)
    except NoDaemonError as error:
        raise NoDaemonError(f"{error}{_of_the_last(session)}") from error.__cause__


def _of_the_last(session: Session) -> str:
    """Where the logs of a daemon are that is no longer there, unless the file has a place of its own for them; empty if there are none."""
    folder = os.path.join(os.path.dirname(session.target.socket), "logs")
    return f", the logs of the last one are in {folder}" if os.path.isdir(folder) else ""


def _logs(session: Session, selectors: tuple[str, ...], follow: bool, lines: int | None, *, stderr: bool, since: str | None) -> int:
    with session.client() as client:
        names = [process.name for process in client.processes(*selectors, figures=False)]
        query: dict[str, Any] = {
            "lines": lines if lines is not None else _ALL_LINES if since else DEFAULT_LINES,
            "stream": "stderr" if stderr else "stdout",
            "since": since,
        }
        if follow:
            end_with_reader()
            if stderr or since:
                heads = _read(client, names, query | {"lines": 0}, tell=False)
                _say_shared(heads if stderr else {})
                _say_timeless(heads if since else {})
            elif lines != 0 and sys.stderr.isatty():
                _say_empty(client, _read(client, names, query | {"lines": 1}, tell=False))
            for name, line in _followed(session, selectors, names, query):
                _print(name, line, names, query["stream"], as_json=session.json)
                sys.stdout.flush()
            return 0
        logs = _read(client, names, query)
        if lines != 0 and not since and sys.stderr.isatty():
            _say_empty(client, logs)
    _say_shared(logs if stderr else {})
    _say_timeless(logs if since else {})
    ordered = merged(logs)
    if session.json:
        print_json([_document(name, _text(line), query["stream"]) for name, line in ordered or _one_after_the_other(logs)])
    elif ordered is not None:
        for name, raw in ordered:
            _print(name, _text(raw), names, query["stream"], as_json=False)
    else:
        for name, log in logs.items():
            if len(names) > 1:
                say(f"==> {name} <==")
            for raw in log.lines:
                _print(name, _text(raw), names, query["stream"], as_json=False)
    return 0 if len(logs) == len(names) else 1


def _read(client: Client, names: Sequence[str], query: Mapping[str, Any], *, tell: bool = True) -> dict[str, Log]:
    """The logs by name. Of several, those that are not files are left out, and reported if ``tell``; a single one raises FailedError."""
    logs = {}
    for name in names:
        try:
            logs[name] = client.log(name, **query)
        except FailedError as error:
            if len(names) == 1:
                raise
            if tell:
                complain(str(error))
    return logs


def _one_after_the_other(logs: Mapping[str, Log]) -> Iterator[tuple[str, bytes]]:
    return ((name, line) for name, log in logs.items() for line in log.lines)


def _say_shared(logs: Mapping[str, Log]) -> None:
    """Report the programs whose standard error has no log of its own."""
    shared = [name for name, log in logs.items() if log.stream != "stderr"]
    if shared:
        complain(f"standard error of {listed(shared)} goes where standard output goes: this is both (logs.stderr: a path of its own)")


def _say_timeless(logs: Mapping[str, Log]) -> None:
    """Report the programs whose lines have no timestamps."""
    timeless = [name for name, log in logs.items() if log.format == "raw"]
    if timeless:
        complain(f"lines of {listed(timeless)} have no times: older ones are shown as well (logs.format: timestamp, or json)")


def _say_empty(client: Client, logs: Mapping[str, Log]) -> None:
    """Report that all the logs are empty, and where the output is, or what may hold it back."""
    if not logs or any(log.lines for log in logs.values()):
        return
    errors: dict[str, Log] = {}
    with suppress(FailedError):
        errors = _read(client, list(logs), {"lines": 1, "stream": "stderr"}, tell=False)
    if spoken := [name for name, log in errors.items() if log.stream == "stderr" and log.lines]:
        complain(f"nothing on standard output yet; standard error is shown by `asupctl logs --stderr {spoken[0]}`", begin="")
    else:
        complain("nothing yet (to a log many programs print in blocks: Python does, without -u or PYTHONUNBUFFERED=1)", begin="")


def _text(line: bytes) -> str:
    return line.decode(errors="surrogateescape")


def _document(name: str, line: str, stream: str) -> dict[str, str]:
    return {"name": name, "stream": stream, "line": line.encode(errors="surrogateescape").decode(errors="replace")}


def _print(name: str, line: str, names: list[str], stream: str, *, as_json: bool) -> None:
    if as_json:
        print_json_line(_document(name, line, stream))
        return
    prefix = ""
    if len(names) > 1:
        width = max(len(one) for one in names)
        style = _PREFIX_STYLES[names.index(name) % len(_PREFIX_STYLES)]
        prefix = styled(f"{printable(name):<{width}} | ", style, on=colours(sys.stdout))
    if sys.stdout.isatty():
        sys.stdout.write(f"{prefix}{printable_line(_SGR.sub('', line))}\n")
        return
    data = f"{prefix}{line}\n".encode(errors="surrogateescape")
    sys.stdout.flush()
    sys.stdout.buffer.write(data)


def _followed(session: Session, selectors: tuple[str, ...], names: list[str], query: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The lines of ``names``, and of what ``selectors`` name later, as they are printed; ends, or raises, when the last log does."""
    if len(names) == 1 and selectors == tuple(names):
        with session.client() as client:
            for line in client.follow_logs(names[0], **query):
                yield names[0], line
        return
    if len(names) > MAX_FOLLOWED:
        raise UsageError(f"cannot follow {len(names)} logs at once: at most {MAX_FOLLOWED}")
    yield from _Followers(session, selectors, names, query).lines()


class _Followers:
    """A thread for each log that is followed, and one that notices what ``selectors`` name later, which is appended to ``names``."""

    def __init__(self, session: Session, selectors: tuple[str, ...], names: list[str], query: dict[str, Any]) -> None:
        from queue import Queue

        self._session, self._selectors, self._names, self._query = session, selectors, names, query
        self._followed: set[str] = set()
        #: A line, what ended a log, or None where a run of it begins.
        self._queue: Queue[tuple[str, str | Exception | None]] = Queue(WAITING_LINES)

    def lines(self) -> Iterator[tuple[str, str]]:
        for name in self._names:
            self._begin(name, self._query["lines"])
        self._in_thread(self._notice_starts)
        while self._followed:
            name, item = self._queue.get()
            if isinstance(item, str):
                yield name, item
            elif item is not None:
                self._end(name, item)
            elif name not in self._followed and len(self._followed) < MAX_FOLLOWED:
                self._names += [] if name in self._names else [name]
                self._begin(name, DEFAULT_LINES)

    def _begin(self, name: str, lines: int) -> None:
        self._followed.add(name)
        self._in_thread(self._follow, name, lines)

    def _end(self, name: str, error: Exception) -> None:
        self._followed.remove(name)
        if not self._followed or not isinstance(error, CommandError):
            raise error
        complain(f"{name}: {error}")

    def _in_thread(self, run: Callable[..., None], *arguments: Any) -> None:
        from threading import Thread

        Thread(target=run, args=arguments, daemon=True).start()

    def _follow(self, name: str, lines: int) -> None:
        try:
            with self._session.client() as client:
                for line in client.follow_logs(name, **(self._query | {"lines": lines})):
                    self._queue.put((name, line))
        except Exception as error:  # raised or reported by the reader of the queue
            self._queue.put((name, error))

    def _notice_starts(self) -> None:
        with suppress(CommandError), self._session.client() as client:  # who follows a log tells what is wrong
            for event in client.follow_events(*self._selectors):
                if event.name is not None and event.to == "STARTING":
                    self._queue.put((event.name, None))
