"""Moves output: a few lanes, each a task with a thread, which serve streams in the order in which they have output.

A turn (:mod:`supervisord_async.logs.mover`) is one trip to a thread, through aiofiles, whatever it does there: splice, rotate,
render. Calm streams whose logs are on one device share a trip. A device that hangs holds up one lane for each log on it, and
nothing else. Lanes are started when there is work; without work there is no task, no timer, no wakeup.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import anyio

from supervisord_async.logs import rotation
from supervisord_async.logs.sink import Outcome, Sink
from supervisord_async.system.threads import DaemonThreads

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from supervisord_async.logs.capture import Capture
    from supervisord_async.logs.target import Target

#: The most lanes at a time.
LANES = 8
#: How many calm streams share a trip. Their logs are on one device: if that hangs, it would hold up each of them anyway.
BATCH = 32
#: A lane without work ends after this.
LANE_IDLE_SECONDS = 30.0

_log = logging.getLogger(__name__)


def _turns(batch: list[tuple[Capture, Sink]]) -> list[Outcome]:
    """One turn of each stream, in a thread."""
    return [_turn(capture, sink) for capture, sink in batch]


def _turn(capture: Capture, sink: Sink) -> Outcome:
    try:
        return capture.move(sink)
    except Exception as error:  # a bug must not end the lane; the stream tries again, as after any failure
        _log.exception("moving the output of %s failed", capture.label)
        return Outcome(error=OSError(None, f"internal error: {error}"))


@cache
def _in_thread(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, to be awaited, in a thread, by aiofiles. That is imported with the first output, so that starts do not wait.

    By then an upgrade may have removed or replaced it, which must not end a running daemon.
    """
    try:
        from aiofiles.ospath import wrap  # type: ignore[attr-defined]  # its stubs forget it
    except (ImportError, OSError) as error:
        _log.warning("degraded: aiofiles cannot be imported: %s; logs are written without it", error)
        return lambda *arguments, executor: executor.run(function, *arguments)
    wrapped: Callable[..., Any] = wrap(function)
    return wrapped


class Writer:
    """Serves captures. Nothing is written before :meth:`run`; output waits in the pipes until then."""

    def __init__(self) -> None:
        """There is no task or thread yet."""
        self._threads = DaemonThreads(LANES, "log")
        self._packer = DaemonThreads(1, "log-gzip")
        self._queue: deque[Capture] = deque()
        self._idle: list[anyio.Event] = []
        self._lanes = 0
        self._tasks: TaskGroup | None = None
        self._sinks: dict[str, Sink] = {}
        self._users: dict[Sink, int] = {}  # how many captures have opened it
        self._busy: set[Sink] = set()  # those with a turn under way
        self._waiting: dict[Sink, deque[Capture]] = {}  # captures whose sink is busy
        self._to_compress: dict[str, Sink] = {}
        self._compressing = False
        self._over = False
        self._stopped: anyio.Event | None = None

    @property
    def ended(self) -> bool:
        """Whether :meth:`run` is over, so that no more turns are served."""
        return self._over

    def open_sink(self, path: str, target: Target) -> Sink:
        """The only sink of ``path``, to be given back by :meth:`close_sink`. The latest ``target`` applies to all its users."""
        sink = self._sinks.get(path)
        if sink is None:
            sink = self._sinks[path] = Sink(path, target)
        sink.target = target
        self._users[sink] = self._users.get(sink, 0) + 1
        return sink

    def close_sink(self, sink: Sink) -> None:
        """``sink`` has one user less; its file is closed once it has none and no turn is under way."""
        self._users[sink] -= 1
        self._close_unused(sink)

    def _close_unused(self, sink: Sink) -> None:
        if not self._users.get(sink) and sink not in self._busy:
            self._users.pop(sink, None)
            if self._sinks.get(sink.path) is sink:
                del self._sinks[sink.path]
            sink.close()

    def submit(self, capture: Capture) -> None:
        """``capture`` will have a turn, and then gets its outcome. It must not be waiting for one already."""
        self._queue.append(capture)
        if self._idle:
            self._idle.pop().set()
        elif self._tasks is not None and self._lanes < LANES:
            self._start_lane()

    def _start_lane(self) -> None:
        assert self._tasks is not None  # noqa: S101
        self._lanes += 1
        self._tasks.start_soon(self._lane, name="log lane")

    async def run(self) -> None:
        """Serve until cancelled, or until :meth:`aclose`; a turn under way then is finished by its thread, but its outcome is ignored."""
        self._stopped = anyio.Event()
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                for _ in range(min(LANES, len(self._queue))):
                    self._start_lane()
                self._start_compression()
                await self._stopped.wait()
                tasks.cancel_scope.cancel()
        finally:
            self._tasks, self._stopped = None, None
            self._over = True

    async def aclose(self) -> None:
        """No further turn begins, and each thread ends after its current one. Close the captures first."""
        if self._stopped is not None:
            self._stopped.set()
        self._threads.shutdown()
        self._packer.shutdown()

    async def _lane(self) -> None:
        try:
            while True:
                while self._queue:
                    if batch := self._next_batch():
                        await self._serve(batch)
                news = anyio.Event()
                self._idle.append(news)
                with anyio.move_on_after(LANE_IDLE_SECONDS):
                    await news.wait()
                    continue
                if news in self._idle:
                    self._idle.remove(news)
                    return
        finally:
            self._lanes -= 1

    def _next_batch(self) -> list[tuple[Capture, Sink]]:
        """The next stream, and calm ones after it on the same device. One whose log has a turn under way is put aside until that ends."""
        batch: list[tuple[Capture, Sink]] = []
        while self._queue and len(batch) < BATCH:
            capture = self._queue[0]
            sink = capture.sink
            if sink in self._busy:
                self._waiting.setdefault(sink, deque()).append(self._queue.popleft())
                continue
            shares = capture.calm and sink.regular and sink.fd >= 0
            if batch and not (shares and batch[0][0].calm and batch[0][1].regular and batch[0][1].dev == sink.dev):
                break
            self._busy.add(sink)
            batch.append((self._queue.popleft(), sink))
            if not shares:
                break
        return batch

    async def _serve(self, batch: list[tuple[Capture, Sink]]) -> None:
        """Give each stream its turn, all in one trip to a thread."""
        try:
            outcomes = await _in_thread(_turns)(batch, executor=self._threads)
        except OSError as error:  # no thread can be started now
            outcomes = [Outcome(error=error) for _ in batch]
        for (capture, sink), outcome in zip(batch, outcomes, strict=True):
            self._busy.discard(sink)
            if outcome.rotated and sink.target.compress:
                self.compress(sink)
            if waiting := self._waiting.get(sink):
                self.submit(waiting.popleft())
                if not waiting:
                    del self._waiting[sink]
            capture.turn_ended(outcome)
            self._close_unused(sink)

    def compress(self, sink: Sink) -> None:
        """The backups of ``sink`` will be compressed by a thread of their own, one log at a time."""
        self._to_compress[sink.path] = sink
        self._start_compression()

    def _start_compression(self) -> None:
        if self._to_compress and not self._compressing and self._tasks is not None:
            self._compressing = True
            self._tasks.start_soon(self._compress, name="log compression")

    async def _compress(self) -> None:
        try:
            while self._to_compress:
                path, sink = self._to_compress.popitem()
                try:
                    await _in_thread(rotation.compress_backups)(sink.real_path, sink.lock, executor=self._packer)
                except (OSError, ImportError) as error:  # gzip is loaded when it is needed, and there may be no thread now
                    reason = error.strerror if isinstance(error, OSError) else error
                    _log.warning("cannot compress the backups of %s: %s (they stay as they are)", path, reason)
                except Exception:
                    _log.exception("compressing the backups of %s failed because of a bug (they stay as they are)", path)
        finally:
            self._compressing = False
