"""The client itself: one method for each operation of the API."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from supervisord_async.client.answers import DaemonHealth, Event, Log, ProcessStatus, Reload, Result, Run, typed
from supervisord_async.client.json_client import JsonClient, as_list, as_object, decoded, joined, path_of, refusal, target_of
from supervisord_async.client.overlap import Overlap, behind
from supervisord_async.client.transport import in_our_words
from supervisord_async.errors import BusyError, CommandError, NoDaemonError, TimedOutError, WentAwayError

if TYPE_CHECKING:
    from supervisord_async.client.exchange import Arriving

Awaited = Literal["ready", "stopped", "exited"]
Stream = Literal["stdout", "stderr"]
T = TypeVar("T")

#: How long the daemon may be away (a re-exec, a quick restart) before a followed stream gives up.
RECONNECT_SECONDS = 15.0
#: A stream that lasted this long was connected, even if it received nothing.
STEADY_SECONDS = 2.0
#: How much longer than the timeout given to the daemon the client waits for its answer.
ANSWER_MARGIN_SECONDS = 10.0
#: How long the client waits for an action without a timeout: longer than the daemon's own bound, which is a day at most.
LONGEST_ACTION_SECONDS = 86_460.0
#: An event stream is never silent for this long; after twice the time the daemon counts as gone.
EVENT_SILENCE_SECONDS = 60.0
#: How many of a log's last lines are fetched before it is followed, to find the place again after a reconnection.
KNOWN_LINES = 2000

_RECONNECT_DELAYS = (0.05, 0.1, 0.2, 0.5, 1.0)


def results_of(document: Any) -> list[Result]:
    """The results in an action's answer."""
    results = [typed(Result, one) for one in as_list(document, "results")]
    late = document.get("timed_out", ()) if isinstance(document, dict) else ()
    return [replace(result, timed_out=True) if result.name in late else result for result in results]


class Client(JsonClient):
    """Talks to one daemon; connects at the first request. A client belongs to one thread."""

    # -- queries

    def processes(self, *selectors: str, figures: bool = True) -> list[ProcessStatus]:
        """The processes that the selectors name (none: all), in the file's order.

        Args:
            selectors: names, ``group:*``, globs, ``all``.
            figures: whether to include CPU and memory; quicker without.

        Raises NotFoundError for a selector that matches nothing.
        """
        return [typed(ProcessStatus, document) for document in self.process_documents(*selectors, figures=figures)]

    def process(self, name: str) -> ProcessStatus:
        """One process, by its full name."""
        return typed(ProcessStatus, self.request("GET", path_of((name,))))

    def health(self) -> DaemonHealth:
        """The daemon's own identity and state."""
        return typed(DaemonHealth, self.health_document())

    def why(self, name: str) -> dict[str, Any]:
        """Why a process is in its state: ``lines`` for people, the rest for programs."""
        return as_object(self.request("GET", path_of((name,), "why")))

    def history(self, name: str, *, limit: int | None = None) -> list[Run]:
        """The last ``limit`` runs of a process."""
        return [typed(Run, document) for document in as_list(self.history_document(name, limit=limit), "runs")]

    def history_document(self, name: str, *, limit: int | None = None) -> dict[str, Any]:
        """As :meth:`history`, but as the JSON object that was sent: ``runs``, and totals."""
        return as_object(self.request("GET", path_of((name,), "history"), {"limit": limit}))

    def events(self, *selectors: str, limit: int = 100) -> list[Event]:
        """The last ``limit`` events of the processes that the selectors name (none: all events), oldest first."""
        documents = self.request("GET", "/v1/events", {"follow": "false", "limit": limit, "name": joined(selectors)})
        return [Event.from_document(document) for document in as_list(documents, "events")]

    def logs(self, name: str, *, lines: int = 100, stream: Stream = "stdout", since: str | None = None) -> list[str]:
        """The last lines of a process's log; if its lines have timestamps, only those from ``since`` (ISO 8601) on.

        Bytes that are not UTF-8 become surrogate escapes.
        """
        return [line.decode(errors="surrogateescape") for line in self.log(name, lines=lines, stream=stream, since=since).lines]

    def log(self, name: str, *, lines: int = 100, stream: Stream = "stdout", since: str | None = None) -> Log:
        """As :meth:`logs`, but as bytes, and with the log's format and stream."""
        query = {"lines": lines, "stream": stream, "since": since}
        from supervisord_async.client.streams import lines_of

        with self._stream(path_of((name,), "logs"), query, self.timeout_seconds) as answer:
            format_, of = answer.field("asup-log-format") or "raw", answer.field("asup-log-stream") or stream
            return Log(lines=list(lines_of(answer, self.socket_path)), format=format_, stream=of)

    def dependencies(self) -> dict[str, dict[str, str]]:
        """The dependencies of each program, each with its condition: started, ready, completed or succeeded."""
        documents = as_list(self.request("GET", "/v1/dependencies"), "programs")
        return {str(one["name"]): dict(one["depends_on"]) for one in map(as_object, documents)}

    # -- streams

    def follow_events(self, *selectors: str, after: int | None = None, give_up_seconds: float = RECONNECT_SECONDS) -> Iterator[Event]:
        """Every event of what the selectors name, from now on or after the event with id ``after``, also across a re-exec.

        An event of type ``missed`` stands for those that were lost because this reader was too slow.
        Raises NoDaemonError if the daemon stays away for ``give_up_seconds``.
        """
        from supervisord_async.client.streams import server_sent

        last = after

        def once() -> Iterator[Event | None]:
            nonlocal last
            if last is None:  # where to resume, so that events during an absence are not lost even if none came before
                last = max((event.id for event in self.events(limit=1)), default=0)
            headers = {"Accept": "text/event-stream", "Last-Event-ID": str(last)}
            with self._stream("/v1/events", {"name": joined(selectors)}, 2 * EVENT_SILENCE_SECONDS, headers) as answer:
                yield None
                for kind, data in server_sent(answer, self.socket_path):
                    event = Event.from_document({"type": kind, **as_object(decoded(data))})
                    last = event.id or last
                    yield event

        return self._across_absences(once, give_up_seconds)

    def follow_logs(
        self,
        name: str,
        *,
        lines: int = 10,
        stream: Stream = "stdout",
        since: str | None = None,
        give_up_seconds: float = RECONNECT_SECONDS,
    ) -> Iterator[str]:
        """The last lines and every later one, across rotation, restarts and a re-exec of the daemon.

        Raises NoDaemonError if the daemon stays away for ``give_up_seconds``.
        """
        from supervisord_async.client.streams import lines_of

        known: list[bytes] | None = None  # the log's last lines, as far as they have been seen

        def once() -> Iterator[str | None]:
            nonlocal known
            tail = list(self.log(name, lines=KNOWN_LINES, stream=stream).lines)
            yield None
            begins = known is None
            if known is not None:
                missed, known = behind(tail, known), tail
                for line in missed:
                    yield line.decode(errors="surrogateescape")
            query = {"follow": "true", "lines": lines if begins else KNOWN_LINES, "stream": stream, "since": since if begins else None}
            overlap = Overlap(tail)
            with self._stream(path_of((name,), "logs"), query, None) as answer:
                known = tail
                for line in lines_of(answer, self.socket_path):
                    fresh = overlap.fresh(line)
                    known.extend(fresh)
                    del known[:-KNOWN_LINES]
                    # At first all that is sent was asked for; between two requests a program may have printed more than fits into a tail.
                    for each in [line] if begins else fresh:
                        yield each.decode(errors="surrogateescape")

        return self._across_absences(once, give_up_seconds)

    def _across_absences(self, once: Callable[[], Iterator[T | None]], give_up_seconds: float) -> Iterator[T]:
        """Everything that ``once`` yields, called again after each disconnection until the daemon stays away for ``give_up_seconds``.

        A None from ``once`` means that the daemon answers, but has sent nothing yet.
        """
        attempt, connected, away_since = 0, False, time.monotonic()
        while True:
            gone: CommandError | None = None
            began = time.monotonic()
            try:
                for item in once():
                    connected = True
                    if item is not None:
                        attempt = 0
                        yield item
                connected = True
            except (NoDaemonError, BusyError, TimedOutError) as error:
                if not connected:
                    raise  # there was no daemon to begin with: do not wait for one
                gone = error
            if time.monotonic() - began > STEADY_SECONDS and not isinstance(gone, TimedOutError):
                attempt = 0  # the daemon was there, though silent: this is a new absence
            if attempt == 0:
                away_since = time.monotonic()
            elif time.monotonic() - away_since > give_up_seconds:
                raise gone or NoDaemonError(f"the daemon at {self.socket_path} ends the stream again and again")
            time.sleep(_RECONNECT_DELAYS[min(attempt, len(_RECONNECT_DELAYS) - 1)])
            attempt += 1

    # -- commands

    def start(self, *selectors: str, wait: bool = True, timeout_seconds: float | None = None) -> list[Result]:
        """The selected processes are up, or the results say which are not and why; without ``wait`` they have only been told to start.

        Args:
            selectors: names, ``group:*``, globs, ``all``; each process is acted on once, all in parallel.
            wait: whether to wait for the outcome.
            timeout_seconds: how long to wait; None: as long as the programs' own settings allow.

        Raises NotFoundError, before anything is done, for a selector that matches nothing.
        """
        return self.act("start", selectors, wait=wait, timeout_seconds=timeout_seconds)

    def stop(self, *selectors: str, wait: bool = True, timeout_seconds: float | None = None) -> list[Result]:
        """The selected processes are STOPPED; otherwise as :meth:`start`."""
        return self.act("stop", selectors, wait=wait, timeout_seconds=timeout_seconds)

    def restart(self, *selectors: str, wait: bool = True, timeout_seconds: float | None = None) -> list[Result]:
        """A newer run of each selected process is up; otherwise as :meth:`start`."""
        return self.act("restart", selectors, wait=wait, timeout_seconds=timeout_seconds)

    def signal(self, signal: str, *selectors: str) -> list[Result]:
        """The signal, by its name or number, was sent to the selected processes."""
        return self.act("signal", selectors, body={"signal": signal})

    def wait(self, *selectors: str, awaited: Awaited = "ready", timeout_seconds: float | None = None) -> list[Result]:
        """The selected processes are ``ready``, ``stopped`` or ``exited``; one that can no longer become so is not ok.

        The wait goes on across a re-exec or a quick restart of the daemon: it changes nothing, so it can safely be repeated.
        """
        return results_of(self.wait_document(*selectors, awaited=awaited, timeout_seconds=timeout_seconds))

    def wait_document(self, *selectors: str, awaited: str, timeout_seconds: float | None = None) -> dict[str, Any]:
        """As :meth:`wait`, but as the JSON object that was sent."""
        began, left = time.monotonic(), timeout_seconds
        away_since: float | None = None
        while True:
            asked, query = time.monotonic(), {"for": awaited, "timeout": left}
            try:
                return as_object(self.request("POST", path_of(selectors, "wait"), query, silence_seconds=_patience(left)))
            except NoDaemonError as error:
                waited = time.monotonic() - asked > STEADY_SECONDS  # else it went away again at once: still the same absence
                if isinstance(error, WentAwayError) and (waited or away_since is None):
                    away_since = time.monotonic()
                if away_since is None or time.monotonic() - away_since > RECONNECT_SECONDS:
                    raise
            time.sleep(_RECONNECT_DELAYS[1])
            if timeout_seconds is not None:
                left = round(max(0.0, timeout_seconds - (time.monotonic() - began)), 3)

    def scale(self, name: str, replicas: int, *, wait: bool = True, timeout_seconds: float | None = None) -> list[Result]:
        """The program has that many processes; otherwise as :meth:`start`."""
        return self.act("scale", (name,), wait=wait, timeout_seconds=timeout_seconds, body={"replicas": replicas})

    def act(
        self,
        verb: str,
        selectors: Sequence[str],
        *,
        wait: bool = True,
        timeout_seconds: float | None = None,
        body: dict[str, Any] | None = None,
    ) -> list[Result]:
        """The results of one action, in the daemon's order."""
        return results_of(self.act_document(verb, selectors, wait=wait, timeout_seconds=timeout_seconds, body=body))

    def act_document(
        self,
        verb: str,
        selectors: Sequence[str],
        *,
        wait: bool = True,
        timeout_seconds: float | None = None,
        body: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """As :meth:`act`, but as the JSON object that was sent."""
        document = self.request(
            "POST",
            path_of(selectors, verb),
            {"wait": None if wait else "false", "timeout": timeout_seconds},
            body,
            silence_seconds=_patience(timeout_seconds),
        )
        return as_object(document)

    def reload(self, *, plan: bool = False, wait: bool = True, timeout_seconds: float | None = None) -> Reload:
        """The file on disk is in force, and every process that it touched has settled; with ``plan`` nothing was done.

        Args:
            plan: only say what a reload would do.
            wait: whether to wait for the processes that it starts, restarts and stops; each has a result.
            timeout_seconds: how long to wait; None: as long as the programs' own settings allow.

        Raises ConfigError, with every problem, if the file is unsound; then nothing has changed.
        """
        query = {"plan": "true" if plan else None, "wait": None if wait else "false", "timeout": timeout_seconds}
        document = as_object(self.request("POST", "/v1/reload", query, silence_seconds=LONGEST_ACTION_SECONDS))
        results = results_of(document) if "results" in document else []
        warnings = (document.get("plan") or {}).get("warnings", ())
        return Reload(lines=document.get("lines", ()), warnings=warnings, results=results, document=document)

    def reexec(self) -> None:
        """The daemon has been told to replace itself in place."""
        self.request("POST", "/v1/reexec")

    def shutdown(self) -> None:
        """The daemon has been told to stop everything and end."""
        self.request("POST", "/v1/shutdown")

    # -- streams, each on a connection of its own

    @contextmanager
    def _stream(
        self, path: str, query: dict[str, Any], timeout_seconds: float | None, headers: dict[str, str] | None = None
    ) -> Iterator[Arriving]:
        from supervisord_async.client.streams import stream

        with stream(self.socket_path, target_of(path, query), headers or {}, timeout_seconds) as answer:
            if answer.status >= 400:
                with in_our_words(self.socket_path):
                    document = decoded(answer.complete())
                raise refusal(answer.status, document)
            yield answer


def _patience(timeout_seconds: float | None) -> float:
    return LONGEST_ACTION_SECONDS if timeout_seconds is None else timeout_seconds + ANSWER_MARGIN_SECONDS
