"""Owners of a log that die at a chosen system call, all within one process, so that every place to die can be tried.

A step is a call that changes something which outlives its process. Who is dead takes none any more: after the chosen
step each call raises, so neither ``finally`` nor ``with`` does what a killed process would not have done.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from supervisord_async.logs import mover, rotation
from supervisord_async.logs.journal import Journal
from supervisord_async.logs.sink import Outcome, Sink
from supervisord_async.logs.target import Target
from supervisord_async.system import transfer

#: What changes files and pipes; of the second kind a kill may leave a part.
WHOLE = ("ftruncate", "rename", "unlink", "open", "fsync", "fchmod", "utime")
DIVISIBLE = ("splice", "pwrite", "write")
CAN_FAIL = ("splice", "pwrite", "write", "ftruncate", "rename", "fsync", "fchmod", "utime")


class DeathError(BaseException):
    """The owner is dead."""


class Life:
    """Counts an owner's steps, and ends it before step number ``last`` (None: never), or with half of it done.

    Step number ``fails`` is refused by the disk instead, unless it is one that opens: what cannot be opened is not used.
    """

    def __init__(self, last: int | None = None, *, halfway: bool = False, fails: int | None = None) -> None:
        self.steps = 0
        self.divided = False  #: whether the last step was one that can be half done
        self.calls: list[str] = []
        self._last = last
        self._halfway = halfway
        self._fails = fails
        self._open: set[int] = set()

    @contextmanager
    def lived(self, patch: pytest.MonkeyPatch) -> Iterator[None]:
        """Within, steps are counted; afterwards its descriptors are closed and, if it was so, its death is forgotten."""
        with patch.context() as steps:
            for name in WHOLE + DIVISIBLE:
                steps.setattr(os, name, self._counted(name, getattr(os, name)))
            steps.setattr(os, "close", self._closing(os.close))
            with contextlib.suppress(DeathError):
                yield
        for fd in self._open:
            os.close(fd)
        transfer._of_thread.scratch = None

    @property
    def died(self) -> bool:
        """Whether its last step came."""
        return self._last is not None and self.steps >= self._last

    def _counted(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.died:
                raise DeathError
            self.steps += 1
            self.calls.append(name)
            if self.died:
                if name in DIVISIBLE:
                    self.divided = True
                    if self._halfway:
                        _half(name, step, args, kwargs)
                raise DeathError
            if self.steps == self._fails and name in CAN_FAIL:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            answer = step(*args, **kwargs)
            if name == "open":
                self._open.add(answer)
            return answer

        return call

    def _closing(self, close: Callable[[int], None]) -> Callable[[int], None]:
        def call(fd: int) -> None:
            self._open.discard(fd)
            close(fd)

        return call


def _half(name: str, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if name == "splice":
        source, target, count = args
        args = (source, target, min(count, transfer.pending_bytes(source)) // 2)
        if not args[2]:
            return
    else:
        args = (args[0], args[1][: len(args[1]) // 2], *args[2:])
    step(*args, **kwargs)


def live(pipe_fd: int, target: Target, journal_path: Path, *, last: bool) -> None:
    """What a daemon does for one stream: finish what was left, then move and compress until the pipe is empty.

    What fails is tried again: in another turn, by another compression.
    """
    assert target.path is not None
    journal = Journal.open(str(journal_path))
    sink = Sink(target.path, target)
    waits = journal.spool("web:0", "stdout") if target.format != "raw" else None
    _compress(sink)
    more = True
    while more:
        outcome = Outcome()
        try:
            if waits is not None:
                mover.move_lines(sink, waits, pipe_fd, outcome, run=7, torn=False, echo=False, flush=last, stopped=lambda: False)
            else:
                mover.move_raw(sink, pipe_fd, outcome, torn=False, echo=False, stopped=lambda: False)
            more = outcome.more
        except OSError:
            more = True
        if outcome.rotated:
            _compress(sink)
    if waits is not None:
        waits.close()
    sink.close()


def _compress(sink: Sink) -> None:
    if sink.target.compress:
        with contextlib.suppress(OSError):
            rotation.compress_backups(sink.path, sink.lock)
