"""The output of one process: its pipes and captures, one of each per stream, kept across its runs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import anyio

from supervisord_async.config.model import Logs
from supervisord_async.errors import SpawnError
from supervisord_async.logs.capture import Capture
from supervisord_async.logs.target import LossReport, Stream, Target
from supervisord_async.supervise.recovery.persist import SavedStream
from supervisord_async.supervise.recovery.takeover import Inherited
from supervisord_async.supervise.sources.logsearch import LogSearch
from supervisord_async.system.credentials import Credentials
from supervisord_async.system.pipes import Pipe
from supervisord_async.system.shortage import is_shortage

if TYPE_CHECKING:
    from supervisord_async.supervise.shared_context import SharedContext

_log = logging.getLogger("asupd")

#: The end of a run waits no longer than this for its output to be written.
SETTLE_SECONDS = 1.0

#: Of how many runs the beginning in the log files is remembered.
KEPT_OFFSETS = 4

NO_SEARCHES: Mapping[str, LogSearch] = MappingProxyType({})
STREAMS: tuple[Stream, Stream] = ("stdout", "stderr")


class _Captured(NamedTuple):
    """One stream, its pipe, and the capture that reads the pipe."""

    stream: Stream
    pipe: Pipe
    capture: Capture


class RunOffsets(NamedTuple):
    """How many bytes each log file of a process had received when a run began."""

    run: int
    written: Mapping[str, int]


class Output:
    """Where a process's stdout and stderr go."""

    __slots__ = ("_captured", "_logs", "_name", "_replica", "_shared", "run_offsets", "searches", "trouble")

    def __init__(self, name: str, replica: int, shared: SharedContext) -> None:
        self._name = name
        self._replica = replica
        self._shared = shared
        self._captured: tuple[_Captured, ...] = ()  # a tuple, as a dictionary would take most of a kilobyte
        self._logs: Logs | None = None
        self.searches: Mapping[str, LogSearch] = NO_SEARCHES
        self.trouble: str | None = None  #: why one of the logs cannot be written at present
        self.run_offsets: tuple[RunOffsets, ...] = ()  #: of the last :data:`KEPT_OFFSETS` runs

    @property
    def captures(self) -> tuple[Capture, ...]:
        """The captures, the oldest first."""
        return tuple(each.capture for each in self._captured)

    def written(self) -> dict[str, int]:
        """How many bytes of output each log file has received from this daemon, by path."""
        return {path: capture.bytes_written for capture in self.captures if (path := capture.target.path) is not None}

    def open(self, logs: Logs, credentials: Credentials | None) -> tuple[int, int]:
        """The descriptors for the next run's stdout and stderr; raises SpawnError, stage ``log``."""
        self._logs = logs
        try:
            stdout = self._open("stdout", logs.stdout, credentials)
            stderr = stdout if logs.stderr == "stdout" else self._open("stderr", logs.stderr, credentials)
        except OSError as error:
            raise SpawnError("log", error.errno, f"cannot make a pipe for {self._name}") from error
        return stdout, stderr

    def _open(self, stream: Stream, where: str, credentials: Credentials | None) -> int:
        if where == "inherit":
            return STREAMS.index(stream) + 1
        if where == "none" and self._shared.echo is None and not self.searches:
            return self._shared.null_fd
        captured = self._of(stream)
        if captured is not None:
            pipe = captured.pipe
        else:
            pipe = Pipe.open()
            self._capture(stream, pipe, where).start(afresh=True)
        if credentials is not None:
            pipe.give_to(credentials.uid, credentials.gid)
        return pipe.child_fd

    def _of(self, stream: Stream) -> _Captured | None:
        return next((each for each in self._captured if each.stream == stream), None)

    def _capture(self, stream: Stream, pipe: Pipe, where: str) -> Capture:
        capture = Capture(
            pipe,
            self._target(where),
            process_name=self._name,
            stream=stream,
            writer=self._shared.writer,
            journal=self._shared.journal,
            on_loss=self._report,
            echo=self._listener(stream),
        )
        self._captured += (_Captured(stream, pipe, capture),)
        return capture

    def _listener(self, stream: Stream) -> Callable[[bytes], None] | None:
        """What gets a copy of the output; None where nobody asks for one, as it takes time and memory."""
        return partial(self._echo_and_search, stream) if self._shared.echo is not None or self.searches else None

    def _echo_and_search(self, stream: Stream, data: bytes) -> None:
        """Echo ``data``, and search it for the patterns of probes."""
        if self._shared.echo is not None:
            self._shared.echo(self._name, stream, data)
        for search in self.searches.values():
            search.feed(stream, data)

    def search(self, patterns: Sequence[str], *, kept: Mapping[str, LogSearch] = NO_SEARCHES, found: bool = False) -> None:
        """From now on output is searched for these patterns; for a run that is to be spawned, to be called before :meth:`open`.

        The searches of ``kept`` go on; each other pattern is new, and counts as found at once if ``found``.
        """
        self.searches = {each: kept.get(each) or LogSearch(each, found=found) for each in patterns} if patterns else NO_SEARCHES
        for stream, _, capture in self._captured:
            capture.echo = self._listener(stream)

    def inherit(self, logs: Logs, inherited: Inherited) -> None:
        """Go on capturing the run that an earlier daemon left, from the very pipes that it writes to.

        A pipe that the earlier daemon read is read even if the output is not kept any more: else it would fill up, and block the run.
        """
        self._logs = logs
        saved = inherited.saved.streams if inherited.saved is not None else {}
        for number, (stream, where) in enumerate(_wheres(logs), start=1):
            is_kept = where not in ("none", "inherit") and not (stream == "stderr" and logs.stderr == "stdout")
            if not is_kept and stream not in saved:
                continue
            pipe = _inherited_pipe(saved.get(stream), inherited, number)
            if pipe is not None and any(pipe.inode == other.pipe.inode for other in self._captured):
                pipe.close()  # when the run began, its stderr went the same way as its stdout
            elif pipe is not None:
                capture = self._capture(stream, pipe, where)
                capture.start()
                capture.run_started(inherited.snapshot.run)

    def saved(self) -> dict[str, SavedStream]:
        """What a later daemon needs to find the pipes again."""
        return {stream: SavedStream(pipe.inode, pipe.read_fd, pipe.child_fd) for stream, pipe, _ in self._captured}

    def _target(self, where: str) -> Target:
        logs = self._logs
        assert logs is not None  # noqa: S101  set by open, inherit and reconfigure
        path = None if where in ("none", "inherit") else where.replace("{replica}", str(self._replica))
        return Target(path=path, max_size_bytes=logs.max_size_bytes, backups=logs.backups, compress=logs.compress, format=logs.format)

    def reconfigure(self, logs: Logs) -> None:
        """Output captured from now on goes where ``logs`` says."""
        self._logs = logs
        for stream, where in _wheres(logs):
            captured = self._of(stream)
            if captured is not None and where != "inherit":
                captured.capture.reconfigure(self._target(where))

    def run_started(self, run: int) -> None:
        """Output from now on belongs to ``run``. May be called repeatedly for one run, until it is spawned."""
        if not self.run_offsets or self.run_offsets[-1].run != run:
            self.run_offsets = (*self.run_offsets[1 - KEPT_OFFSETS :], RunOffsets(run, self.written()))
        for _, pipe, capture in self._captured:
            pipe.reset_flags()
            capture.run_started(run)

    def reopen(self) -> None:
        """From now on the files that are now at the logs' paths are written."""
        for capture in self.captures:
            capture.reopen()

    @property
    def settled(self) -> bool:
        """Whether all output so far is in the files."""
        return not any(capture.unsettled for capture in self.captures)

    async def settle(self) -> None:
        """Wait until the output of a run that has ended is in the files, at most :data:`SETTLE_SECONDS` for a slow disk.

        Returns at once where nothing is left to write: the next run of a program that died silently is not delayed.
        """
        unsettled = [capture for capture in self.captures if capture.unsettled]
        if unsettled:
            async with anyio.create_task_group() as tasks:  # concurrently: if one hangs, the other is still written
                for capture in unsettled:
                    tasks.start_soon(capture.drain, SETTLE_SECONDS)

    async def drain(self) -> None:
        """All that was in the pipes is in the files."""
        for capture in self.captures:
            await capture.drain()

    async def aclose(self) -> None:
        """All that was in the pipes is in the files, and pipes and files are closed."""
        for _, pipe, capture in self._captured:
            await capture.aclose()
            pipe.close()
        self._captured = ()

    def _report(self, report: LossReport) -> None:
        """Publish a loss of output, or its end."""
        still = (each.capture.trouble for each in self._captured if report.kind == "begin" or each.stream != report.stream)
        self.trouble = next((trouble for trouble in still if trouble is not None), None)
        self._shared.bus.publish(**report.record())


def _wheres(logs: Logs) -> tuple[tuple[Stream, str], ...]:
    """Where each stream goes: to a path, ``none`` or ``inherit``."""
    return (("stdout", logs.stdout), ("stderr", logs.stdout if logs.stderr == "stdout" else logs.stderr))


def _inherited_pipe(saved: SavedStream | None, inherited: Inherited, number: int) -> Pipe | None:
    """The pipe of a stream: by our own descriptors after a re-exec, else by those of the living run. None: there is none to go on with."""
    if saved is not None and _is_pipe(saved.read_fd, saved.inode) and _is_pipe(saved.child_fd, saved.inode):
        pipe = Pipe(saved.read_fd, saved.child_fd)
        pipe.set_inheritable(False)
        return pipe
    if inherited.main is None:
        return None
    try:
        pipe = Pipe.reopen(inherited.main.pid, number)
    except OSError as error:
        if is_shortage(error):
            _log.error("degraded: cannot read what run %d of %s says: %s", inherited.snapshot.run, inherited.name, error.strerror)
        return None  # the run has closed or redirected the stream (or the error is logged): there is nothing to capture
    if saved is not None and not _is_pipe(pipe.read_fd, saved.inode):
        pipe.close()
        return None
    return pipe


def _is_pipe(descriptor: int, inode: int) -> bool:
    try:
        return descriptor >= 0 and os.fstat(descriptor).st_ino == inode
    except OSError:
        return False
