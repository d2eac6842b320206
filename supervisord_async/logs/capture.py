"""The output of one process on one stream, over all its runs: read from its pipe, written to its log.

Theory of operation
-------------------
While a stream is silent, its capture is one descriptor in the loop's poll set: no task, no timer, no buffer. When the pipe
becomes readable the capture asks the writer for a turn: a thread moves what the pipe holds to the log. Then the pipe is left
to fill for a while before it is looked at again, because many small turns cost more than the bytes do. A stream that was quiet
is read at once; the more a turn finds, the sooner the next one comes, and the less, the later, up to :data:`SLOWEST_SECONDS`.

Output waits in the pipe and nowhere else: while a disk is slow the pipe fills and the child blocks, and the daemon's memory does
not grow. When the log *cannot* be written (disk full, directory gone and impossible to make, FIFO without a reader), that is
reported once, and the child must not block for ever. The pipe is enlarged to :data:`.KEPT_BYTES`; whenever it is full, its oldest
half is discarded and counted. Writing is retried, eventually every five seconds; when it works again, that is reported once, with
what was lost (:mod:`.outage`).
"""

from __future__ import annotations

import errno
import logging
import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import anyio

from supervisord_async.logs import mover
from supervisord_async.logs.outage import KEPT_BYTES, Outage
from supervisord_async.logs.sink import Outcome, OutgrownError, Sink
from supervisord_async.logs.target import LossReport, Stream, Target
from supervisord_async.system import transfer
from supervisord_async.system.wakeup import Wakeup

if TYPE_CHECKING:
    from supervisord_async.logs.journal import Journal
    from supervisord_async.logs.spool import Spool
    from supervisord_async.logs.writer import Writer
    from supervisord_async.system.pipes import Pipe

#: How long the pipe is left to fill between two turns: at most, at least, and at first.
SLOWEST_SECONDS = 0.25
FASTEST_SECONDS = 0.001
FIRST_SECONDS = 0.01
#: Longer waits end on multiples of this, so that many streams wake the loop once.
GRID_SECONDS = 0.05
#: A pipe's capacity by default; and while its stream is busy (more would leave the processor's cache before it is moved).
PIPE_BYTES = 64 * 1024
HOT_BYTES = 256 * 1024
#: How long the beginning of a line waits for its end, in formats that work by lines.
HELD_SECONDS = 2.0
#: If nothing is read from a FIFO for this long, it counts as having no reader.
STALL_SECONDS = 5.0
#: The pause before a full FIFO is tried again.
SLOW_SECONDS = 0.02
#: The pause after a bug.
BUG_SECONDS = 10.0
#: How long :meth:`Capture.drain` waits by default, and closing a capture for a turn that is under way.
DRAIN_SECONDS = 5.0

_log = logging.getLogger(__name__)


class Capture:
    """Moves a pipe's bytes to a log, until :meth:`aclose`."""

    __slots__ = (
        "_again",
        "_capacity",
        "_closed",
        "_delay",
        "_flush",
        "_flush_now",
        "_journal",
        "_listening_since",
        "_on_loss",
        "_outage",
        "_pipe",
        "_process_name",
        "_run",
        "_spool",
        "_stalled_since",
        "_stream",
        "_torn",
        "_turn",
        "_turns",
        "_waiters",
        "_wakeup",
        "_writer",
        "bytes_lost",
        "bytes_written",
        "echo",
        "sink",
        "target",
    )

    def __init__(
        self,
        pipe: Pipe,
        target: Target,
        *,
        process_name: str,
        stream: Stream,
        writer: Writer,
        journal: Journal,
        on_loss: Callable[[LossReport], None],
        echo: Callable[[bytes], None] | None = None,
    ) -> None:
        """Nothing is read before :meth:`start`.

        ``pipe`` is closed by its owner, after :meth:`aclose`. ``on_loss`` and ``echo`` are called on the loop; ``echo`` gets what was
        written, as the child's own bytes.
        """
        self.target = target
        self.sink: Sink = writer.open_sink(target.path or os.devnull, target)
        self.bytes_written = 0  #: bytes of the child that went to the log
        self.bytes_lost = 0  #: bytes of the child that were thrown away because the log could not be written
        self._pipe = pipe
        self._process_name = process_name
        self._stream: Stream = stream
        self._writer = writer
        self._on_loss = on_loss
        self.echo = echo  #: may change at any time
        self._journal = journal
        self._spool: Spool | None = None
        self._wakeup = Wakeup(pipe.read_fd, self._readable)
        self._run = 0
        self._turn = False  # a turn is requested, or under way
        self._turns = 0  # how many turns were requested
        self._again = False  # another turn is wanted when this one is over
        self._flush = self._flush_now = False  # whether the next turn, the current turn, writes even a line without its end
        self._closed = False
        self._waiters: tuple[_Waiter, ...] = ()
        self._capacity = PIPE_BYTES
        self._delay = FIRST_SECONDS
        self._listening_since = 0.0
        self._stalled_since: float | None = None  # since when nothing was read from the FIFO; None: it is not stalled
        self._outage: Outage | None = None  # None while the log can be written
        self._torn = False  # output was lost, perhaps within a line

    @property
    def calm(self) -> bool:
        """True if it has so little output that its turns are short."""
        return self._delay >= GRID_SECONDS

    @property
    def trouble(self) -> str | None:
        """Why the log cannot be written at present; None if it can."""
        return None if self._outage is None else self._outage.error.strerror or str(self._outage.error)

    @property
    def unsettled(self) -> bool:
        """True if there is output that can still be written to the log: in the pipe, under way, or a line without its end."""
        held = not self._turn and self._spool is not None and self._spool.waiting_bytes > 0
        return self._outage is None and not self._closed and (self._turn or held or transfer.is_readable(self._pipe.read_fd))

    @property
    def label(self) -> str:
        """Whose output it is, for messages."""
        return f"{self._process_name} ({self._stream})"

    def start(self, *, afresh: bool = False) -> None:
        """From now on output is written, after what an earlier daemon left of this stream, if any.

        ``afresh``: the pipe is a new one, so an incomplete line that was left is not continued, but ended.
        """
        if self.target.compress and self.target.path is not None:
            self._writer.compress(self.sink)  # the backups that a killed daemon had not compressed yet
        left = self._journal.has_left(self._process_name, self._stream)
        self._torn = left and afresh  # the rest of an incomplete line was lost with the old pipe
        (self._ask if left else self._listen)()

    def run_started(self, run: int) -> None:
        """Output read from now on is labelled with ``run``. Call :meth:`drain` before, so that the earlier run's output has been read."""
        self._run = run

    def reopen(self) -> None:
        """From now on output is written to whatever file is at the path, which is made if there is none. Never waits."""
        self.sink.reopen = True
        self._ask()

    def reconfigure(self, target: Target) -> None:
        """Output read from now on goes where ``target`` says, in its format."""
        if target.path == self.target.path:
            compress = target.compress and not self.target.compress
            self.sink.prune = self.sink.prune or target.backups < self.target.backups
            self.sink.reopen = self.sink.reopen or self.sink.prune
            self.target = self.sink.target = target
            if compress:
                self._writer.compress(self.sink)
        else:
            old = self.sink
            self.target = target
            self.sink = self._writer.open_sink(target.path or os.devnull, target)
            self._writer.close_sink(old)
        if self._outage is not None:
            self._outage.hasten()
        self._ask()

    async def drain(self, timeout_seconds: float = DRAIN_SECONDS) -> bool:
        """Write all that is in the pipe now to the log, even a line without its end. Returns False if that failed, or took too long."""
        if self._writer.ended:
            return False
        waiter = _Waiter(self._turns + 1)
        self._waiters += (waiter,)
        self._ask(flush=True)
        try:
            with anyio.move_on_after(timeout_seconds):
                await waiter.event.wait()
            return waiter.drained
        finally:
            self._waiters = tuple(other for other in self._waiters if other is not waiter)

    async def aclose(self) -> None:
        """As :meth:`drain`; then nothing more is read, and the pipe may be closed. What could not be written is lost, and reported."""
        if self._closed:
            return
        with anyio.CancelScope(shield=True):
            await self.drain()
        if not await self._stop():
            return
        if self._outage is not None:
            self._lose_the_rest(self._outage)
        self._writer.close_sink(self.sink)
        if self._spool is not None:
            self._spool.close()

    async def _stop(self) -> bool:
        """End all turns. Returns False if one hangs in its thread, so that its log and spool must stay open."""
        self._closed = True
        self._wakeup.disarm()
        if self._turn and not self._writer.ended:
            waiter = _Waiter(self._turns)
            self._waiters += (waiter,)
            with anyio.move_on_after(DRAIN_SECONDS, shield=True):
                await waiter.event.wait()
        return not self._turn

    # The loop's part

    def _listen(self, timeout_seconds: float | None = None) -> None:
        self._listening_since = self._wakeup.now()
        if timeout_seconds is None:
            self._wakeup.arm()
        else:
            self._wakeup.arm_for(timeout_seconds, self._held_long)

    def _readable(self) -> None:
        if self._wakeup.now() - self._listening_since > self._delay:  # it was quiet: go back to the first delay
            self._delay = FIRST_SECONDS
        self._ask()

    def _held_long(self) -> None:
        self._ask(flush=True)

    def _ask(self, *, flush: bool = False) -> None:
        """Request a turn; with ``flush``, one that writes even a line without its end."""
        self._flush = self._flush or flush
        if self._turn:
            self._again = True
        elif not self._closed:
            self._wakeup.disarm()
            self._turn = True
            self._turns += 1
            self._again = False
            self._flush_now, self._flush = self._flush, False
            self._writer.submit(self)

    def turn_ended(self, outcome: Outcome) -> None:
        """Called by the writer with the result of a turn: decide when the next one comes."""
        self._turn = False
        try:
            self._decide(outcome)
        except Exception:
            _log.exception("deciding on the output of %s failed because of a bug; going on in %g s", self.label, BUG_SECONDS)
            self._wakeup.call_after(BUG_SECONDS, self._ask_again)

    def _decide(self, outcome: Outcome) -> None:
        self.bytes_written += outcome.moved
        self._echo_all(outcome.echoed)
        if self._outage is not None and self._outage.makes_room:
            self._made_room(self._outage, outcome)
            return
        if self._closed:
            self._wake_waiters(outcome)
            return
        if outcome.error is not None and outcome.error.errno == errno.EAGAIN and self._is_only_slow(outcome):
            self._wakeup.call_after(SLOW_SECONDS, self._ask_again)
            return
        self._wake_waiters(outcome)
        if outcome.error is not None:
            self._failed(outcome, outcome.error)
        else:
            self._succeeded(outcome)
        if any(not waiter.event.is_set() for waiter in self._waiters):
            self._ask(flush=True)

    def _is_only_slow(self, outcome: Outcome) -> bool:
        """Whether the reader of the full FIFO is merely slow: it has read something within :data:`STALL_SECONDS`."""
        now = self._wakeup.now()
        if outcome.moved:
            self._stalled_since = None
            self._torn = False
            self._recovered()
            return True
        if self._stalled_since is None:
            self._stalled_since = now
        return self._outage is None and now - self._stalled_since < STALL_SECONDS

    def _ask_again(self) -> None:
        self._ask(flush=bool(self._waiters))

    def _succeeded(self, outcome: Outcome) -> None:
        self._stalled_since = None
        self._torn = False
        self._recovered()
        self._adapt(outcome.moved)
        if outcome.more or self._again:
            self._ask()
            return
        due = self._wakeup.now() + self._delay
        if self.calm:
            due = math.ceil(due / GRID_SECONDS) * GRID_SECONDS
        self._wakeup.call_after(due - self._wakeup.now(), self._listen_for_end if outcome.held else self._listen)

    def _listen_for_end(self) -> None:
        self._listen(HELD_SECONDS)

    def _adapt(self, moved: int) -> None:
        """Empty a pipe that was half full sooner, and enlarge it; leave one that was nearly empty to fill for longer."""
        if moved >= self._capacity // 2:
            self._delay = FASTEST_SECONDS
            if self._capacity < HOT_BYTES:
                self._capacity = max(self._pipe.grow(HOT_BYTES), PIPE_BYTES)
        elif moved < self._capacity // 3:
            self._delay = min(self._delay * 2, SLOWEST_SECONDS)
            if self._capacity > PIPE_BYTES and self.calm and moved < PIPE_BYTES // 2:
                self._capacity = max(self._pipe.grow(PIPE_BYTES), PIPE_BYTES)  # give it back: each user's pipe memory is limited

    def _echo_all(self, chunks: list[bytes]) -> None:
        for chunk in chunks:
            if self.echo is not None:
                try:
                    self.echo(chunk)
                except Exception:  # the log goes on without the echo
                    _log.exception("echoing the output of %s failed; no more of it is echoed", self.label)
                    self.echo = None

    def _wake_waiters(self, outcome: Outcome) -> None:
        """Wake those who wait for the turn that has ended, or for an earlier one: it has moved all that they wait for, or failed."""
        for waiter in self._waiters:
            if waiter.turn <= self._turns:
                waiter.drained = outcome.error is None
                waiter.event.set()

    # While the log cannot be written

    def _failed(self, outcome: Outcome, error: OSError) -> None:
        now = self._wakeup.now()
        if self._outage is None:
            self._outage = Outage(error, now)
            self._capacity = max(self._pipe.grow(KEPT_BYTES), PIPE_BYTES)
            self._report(self._outage, "begin")
        else:
            self._outage.failed_again(now, progress=outcome.moved > 0)
        if outcome.discarded:  # taken from the pipe before writing failed: see transfer.carry
            self.bytes_lost += outcome.discarded
            self._outage.lost(outcome.discarded, outcome.discarded_lines)
            self._torn = True
        self._look_later(self._outage)

    def _look_later(self, outage: Outage) -> None:
        self._wakeup.call_after(outage.pause(self._wakeup.now()), self._look)

    def _look(self) -> None:
        """While the log cannot be written: retry when that is due, and keep the pipe from filling up, which would block the child."""
        outage = self._outage
        if outage is None or outage.is_retry_due(self._wakeup.now()):
            self._ask()
        elif transfer.is_full(self._pipe.child_fd):
            outage.makes_room = True
            self._ask()
        else:
            outage.looked()
            self._look_later(outage)

    def _made_room(self, outage: Outage, outcome: Outcome) -> None:
        self.bytes_lost += outcome.discarded
        outage.made_room(outcome.discarded, outcome.discarded_lines)
        self._torn = self._torn or outcome.discarded > 0
        if self._closed:
            self._wake_waiters(outcome)
        elif self._again:
            self._ask()
        else:
            self._look_later(outage)

    def _recovered(self) -> None:
        if self._outage is not None:
            outage, self._outage = self._outage, None
            self._report(outage, "written again")

    def _lose_the_rest(self, outage: Outage) -> None:
        """Before the pipe is closed: count what could not be written as lost, and report it."""
        outcome = Outcome()
        mover.discard(self._pipe.read_fd, outcome, KEPT_BYTES)
        waiting = self._spool.waiting_bytes if self._spool is not None and not self._spool.survives else 0
        self.bytes_lost += outcome.discarded + waiting
        outage.lost(outcome.discarded + waiting, outcome.discarded_lines)
        self._outage = None
        self._report(outage, "given up")

    def _report(self, outage: Outage, kind: Literal["begin", "written again", "given up"]) -> None:
        report = outage.report(kind, self._process_name, self._stream, self.target.path or os.devnull)
        try:
            self._on_loss(report)
        except Exception:  # a listener's bug must not stop the log
            _log.exception("reporting that %s", report.message)

    # The thread's part

    def move(self, sink: Sink) -> Outcome:
        """One turn, in a thread: move what the pipe holds to ``sink``, or discard part of it if that was decided."""
        outcome = Outcome()
        if self._outage is not None and self._outage.makes_room:
            mover.discard(self._pipe.read_fd, outcome, self._capacity // 2)
            return outcome
        try:
            while not self._move_all(sink, outcome):
                outcome.rotated = True
        except transfer.LostError as error:
            outcome.error, outcome.discarded, outcome.discarded_lines = error, len(error.data), error.data.count(b"\n")
        except OSError as error:
            outcome.error = error
        return outcome

    def _move_all(self, sink: Sink, outcome: Outcome) -> bool:
        """Move what the pipe holds. Returns False if the log had reached a file's maximum size, below max_size, and was rotated."""
        pipe_fd, echo = self._pipe.read_fd, self.echo is not None
        try:
            if sink.reopen:
                sink.ready()
            spool = self._spool_for(sink)
            if spool is not None:
                flush = self._flush_now or sink.target.format == "raw"
                mover.move_lines(
                    sink, spool, pipe_fd, outcome, run=self._run, torn=self._torn, echo=echo, flush=flush, stopped=self._is_closed
                )
                self._retire(sink)
            else:
                seconds = mover.TURN_SECONDS if self._capacity >= HOT_BYTES and not echo else 0.0  # the copy for an echo takes memory
                mover.move_raw(sink, pipe_fd, outcome, torn=self._torn, echo=echo, seconds=seconds, stopped=self._is_closed)
        except OutgrownError:
            if not (sink.may_rotate() and sink.rotate()):
                raise
            return False
        return True

    def _is_closed(self) -> bool:
        return self._closed

    def _spool_for(self, sink: Sink) -> Spool | None:
        """The spool, if the format needs one, or an earlier daemon left something in one."""
        if self._spool is None and (sink.target.format != "raw" or self._journal.has_left(self._process_name, self._stream)):
            self._spool = self._journal.spool(self._process_name, self._stream)
        return self._spool

    def _retire(self, sink: Sink) -> None:
        """Close the spool if it is empty and no longer needed."""
        if self._spool is not None and sink.target.format == "raw" and not self._spool.waiting_bytes:
            self._spool.close()
            self._spool = None


class _Waiter:
    """A caller that waits for the end of the turn with this number, or a later one."""

    __slots__ = ("drained", "event", "turn")

    def __init__(self, turn: int) -> None:
        self.turn = turn
        self.event = anyio.Event()
        self.drained = False
