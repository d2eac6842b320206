"""What the end of a run waits for before it is told."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any, cast

import anyio

from supervisord_async.supervise.runs.output import SETTLE_SECONDS, Output, RunOffsets, _Captured
from supervisord_async.system.pipes import Pipe
from tests.virtual_clock import run_virtually


class Stream:
    """A capture whose log hangs for so many seconds."""

    def __init__(self, hangs_seconds: float, *, unsettled: bool = True) -> None:
        self.hangs_seconds = hangs_seconds
        self.unsettled = unsettled
        self.drained: bool | None = None

    async def drain(self, timeout_seconds: float) -> bool:
        with anyio.move_on_after(timeout_seconds) as scope:
            await anyio.sleep(self.hangs_seconds)
        self.drained = not scope.cancelled_caught
        return self.drained


def settled(*streams: Stream) -> float:
    """The seconds that settling took."""

    async def settle() -> float:
        output = Output("web", 0, cast("Any", None))
        output._captured = tuple(_Captured("stdout", cast("Any", None), cast("Any", stream)) for stream in streams)
        begin = anyio.current_time()
        await output.settle()
        return anyio.current_time() - begin

    return run_virtually(settle)


def test_a_log_that_hangs_holds_up_the_end_for_a_moment_and_the_other_stream_not_at_all() -> None:
    hanging, quick = Stream(3600.0), Stream(0.01)
    assert settled(hanging, quick) == SETTLE_SECONDS
    assert (hanging.drained, quick.drained) == (False, True)


def test_silence_is_not_waited_for() -> None:
    silent = Stream(3600.0, unsettled=False)
    assert settled(silent) == 0
    assert silent.drained is None


def test_births_are_noted_with_what_was_written_before() -> None:
    capture = SimpleNamespace(target=SimpleNamespace(path="/x.log"), bytes_written=0, run_started=lambda run: None)
    output = Output("web", 0, cast("Any", None))
    pipe = Pipe.open()
    output._captured = (_Captured("stdout", pipe, cast("Any", capture)),)
    for run in range(1, 10):
        capture.bytes_written = run * 100
        os.set_blocking(pipe.child_fd, False)  # as the run before may have made it
        output.run_started(run)
        assert os.get_blocking(pipe.child_fd)
        capture.bytes_written += 50  # said by its hook
        output.run_started(run)
    assert output.run_offsets == tuple(RunOffsets(run, {"/x.log": run * 100}) for run in (6, 7, 8, 9))
    pipe.close()
