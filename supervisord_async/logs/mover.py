"""One turn of moving a stream's output from its pipe to its log. Runs in a thread; the loop never waits for a disk."""

from __future__ import annotations

import time
from collections.abc import Callable

from supervisord_async.logs.formats import LINE_BYTES, whole_lines
from supervisord_async.logs.sink import Outcome, Sink
from supervisord_async.logs.spool import BOUND_BYTES, Spool
from supervisord_async.system import transfer

#: The most that one system call moves, which is all that a busy stream's pipe holds. The pipe is locked meanwhile, and its writer
#: waits. Less would take more calls and more contention for the lock; more would leave the processor's cache.
CHUNK_BYTES = 256 * 1024
#: The same for lines, of which the rendering costs more than any call.
SPOOL_CHUNK_BYTES = 64 * 1024
#: The most that is rendered at once: empty lines become eighty times as long in JSON.
BATCH_BYTES = 2 * LINE_BYTES
#: A turn ends after this much, so that others have theirs; a stream busy enough for a large pipe has at least this long.
TURN_BYTES = 16 * 1024 * 1024
TURN_SECONDS = 0.1
#: How long a turn waits for more of a stream that fills its pipe. The thread sleeps in the kernel meanwhile: a reader that tries again
#: at once contends with the writer for the pipe's lock, and both spin; one that is woken by the writer runs beside it …
LINGER_SECONDS = 0.001
#: … but only if at least this much has come since the last wait.
LINGER_BYTES = 32 * 1024


def move_raw(
    sink: Sink, pipe_fd: int, outcome: Outcome, *, torn: bool, echo: bool, seconds: float = 0.0, stopped: Callable[[], bool]
) -> None:
    """Move what the pipe holds to the log, byte for byte, at most a turn's worth. Raises OSError; then the rest is still in the pipe.

    ``torn``: output was lost before this, so the log gets a newline first, if it needs one. While there is more, the turn lasts
    for ``seconds`` or :data:`TURN_BYTES`, whichever takes longer.
    """
    since_linger = 0
    until = time.monotonic() + seconds
    while (outcome.moved < TURN_BYTES or time.monotonic() < until) and not stopped():
        size = sink.ready()
        if torn:
            size += 0 if sink.ends_line(size) else sink.write(b"\n", size)
            torn = False
        room = CHUNK_BYTES
        if sink.may_rotate():
            over = size - sink.target.max_size_bytes
            if over >= 0:
                if over >= LINE_BYTES or sink.ends_line(size) or not transfer.splices():  # without tee, the pipe cannot be peeked at
                    outcome.rotated = sink.rotate() or outcome.rotated
                    continue
                line = transfer.peek(pipe_fd, LINE_BYTES)
                if not line:
                    return
                room = line.find(b"\n") + 1 or len(line)
            else:
                room = min(room, -over)
        moved = sink.take(pipe_fd, room, size, outcome, echo=echo)
        since_linger += moved
        if moved < room:
            if since_linger < LINGER_BYTES:
                return
            since_linger = 0
            transfer.is_readable(pipe_fd, LINGER_SECONDS)
    outcome.more = True


def move_lines(
    sink: Sink, spool: Spool, pipe_fd: int, outcome: Outcome, *, run: int, torn: bool, echo: bool, flush: bool, stopped: Callable[[], bool]
) -> None:
    """Move what the pipe holds to the log, as lines in its format, at most a turn's worth. Raises OSError: the rest is in pipe and spool.

    A line without its end stays in the spool (``outcome.held``), except with ``flush`` once the pipe is empty.
    """
    format_ = sink.target.format
    outcome.rotated = spool.append(sink) or outcome.rotated
    spool.describe(sink.path, format_)
    if torn:
        spool.end_line()
    seen = 0  # bytes moved since the last wait
    while outcome.moved < TURN_BYTES and not stopped():
        moved = spool.take(pipe_fd, SPOOL_CHUNK_BYTES)
        outcome.moved += moved
        if echo and moved:
            outcome.echoed.append(spool.newest(moved))
        empty = moved < SPOOL_CHUNK_BYTES and (moved > 0 or spool.waiting_bytes < BOUND_BYTES)
        while (data := spool.read(BATCH_BYTES)) and not stopped():
            all_of_it = format_ == "raw" or (flush and empty and not moved and len(data) == spool.waiting_bytes)
            count = len(data) if all_of_it else whole_lines(data)
            if not count:
                break
            spool.begin(count, format_, time.time_ns() // 1_000_000, run)
            outcome.rotated = spool.append(sink) or outcome.rotated
        if empty:
            seen += moved
            if not moved or (seen < LINGER_BYTES and not flush):
                break
            if flush:  # look again, as the rest of a line may have come meanwhile
                continue
            seen = 0
            transfer.is_readable(pipe_fd, LINGER_SECONDS)
    else:
        outcome.more = True
    outcome.held = spool.waiting_bytes > 0


def discard(pipe_fd: int, outcome: Outcome, count: int) -> None:
    """Throw away about the oldest ``count`` bytes of the pipe, up to a line's end, and count them in ``outcome``."""
    outcome.discarded, outcome.discarded_lines = transfer.discard(pipe_fd, count)
