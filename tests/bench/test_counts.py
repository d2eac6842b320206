"""What must not grow unnoticed: how many calls a start, a status request and a MiB of log take, against figures that are committed.

Counts of calls, of Python's functions and of C's, do not depend on the machine, its load or its clock; what slips in by
scheduling is a few calls, and the least of some rounds is taken. A count above the committed one by more than the margin
fails. Where the work itself grew for a reason, `python -m tests.bench.test_counts` writes the figures anew.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import anyio

from supervisord_async.config.model import Daemon
from supervisord_async.control.counters import Counters
from supervisord_async.control.listener import listening
from supervisord_async.control.operation import Api
from supervisord_async.core.inputs import StartRequested, StopRequested
from supervisord_async.core.state import Cause, State
from supervisord_async.logs.target import Format, Target
from tests.control.conftest import ask, playing, swift
from tests.logs.capturing import captured
from tests.virtual_clock import run_virtually

BASELINE = Path(__file__).with_name("counts.json")
MARGIN = 1.15
ROUNDS = 3
FLEET = 50
#: Four times the programs may cost each of them so much more.
GROWTH = 1.10
MIB = 1 << 20
BATCH_BYTES = 64 * 1024
LINE = b"2026-11-20 12:00:00 INFO some.module a line of a usual length, as programs log them all day\n"


class Calls:
    """How many calls began while it was open, in this thread and in those that began meanwhile."""

    def __init__(self) -> None:
        self.count = 0

    def _see(self, _frame: Any, event: str, _argument: Any) -> None:
        if event in ("call", "c_call"):
            self.count += 1

    def __enter__(self) -> Calls:
        gc.collect()
        gc.disable()
        threading.setprofile(self._see)
        sys.setprofile(self._see)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)
        gc.enable()


async def starts_and_stops(fleet: int) -> dict[str, float]:
    """Calls for each start and each stop, of so many at once, on a fake machine."""
    names = [f"p{number}" for number in range(fleet)]
    async with playing(*(swift(name, autostart=False) for name in names)) as scene:

        async def ordered(input_: Any, state: State) -> float:
            with scene.bus.subscribe(limit=20 * fleet) as records, Calls() as calls:
                left = set(names)
                for name in names:
                    scene.supervisor.processes[name].post(input_)
                while left:
                    record = await records.__anext__()
                    if record.to == state and record.name is not None:
                        left.discard(record.name)
            return calls.count / fleet

        for _ in range(2):  # the first time much is made that stays
            start = await ordered(StartRequested(Cause.OPERATOR), State.RUNNING)
            stop = await ordered(StopRequested(Cause.OPERATOR), State.STOPPED)
        return {"one start": start, "one stop": stop}


async def status(fleet: int, folder: Path) -> dict[str, float]:
    """Calls for each process in the answer to one question about all, asked on a socket."""
    daemon = Daemon(name="shop", run_dir=str(folder), socket=str(folder / "s"))
    async with playing(*(swift(f"p{number}") for number in range(fleet)), daemon=daemon) as scene:
        api = Api(scene.commands, Counters())
        async with listening(daemon, api), await anyio.connect_unix(daemon.socket) as stream:
            counts = []
            for _ in range(3):
                with Calls() as calls:
                    answer = await ask(stream, "GET", "/v1/processes?figures=false")
                assert len(answer.json) == fleet
                counts.append(calls.count / fleet)
        return {"one process in a status": counts[-1]}


async def log(format_: Format, folder: Path) -> dict[str, float]:
    """Calls for each MiB of log, said in batches that fill a small pipe, its log opened and closed."""
    size = 4 * MIB
    batch = LINE * (BATCH_BYTES // len(LINE))
    with Calls() as calls:
        async with captured(Target(str(folder / f"{format_}.log"), max_size_bytes=MIB, format=format_)) as [stream]:
            for _ in range(size // len(batch)):
                stream.say(batch)
                assert await stream.capture.drain()
    return {f"a MiB of {format_} log": calls.count / (size / MIB)}


async def quiet_log(folder: Path) -> dict[str, float]:
    """Calls for each line of a stream that says one now and then."""
    lines = 50
    with Calls() as calls:
        async with captured(Target(str(folder / "quiet.log"))) as [stream]:
            for _ in range(lines):
                stream.say(LINE)
                assert await stream.capture.drain()
    return {"a line alone": calls.count / lines}


def measured(folder: Path) -> dict[str, float]:
    """The least of some rounds of everything, by what was done once."""
    found: dict[str, float] = {}
    for number in range(ROUNDS):
        room = folder / str(number)
        room.mkdir()
        for figures in (
            run_virtually(starts_and_stops, FLEET),
            run_virtually(status, FLEET, room),
            anyio.run(log, "raw", room),
            anyio.run(log, "json", room),
            anyio.run(quiet_log, room),
        ):
            for what, count in figures.items():
                found[what] = min(count, found.get(what, count))
    return found


def test_nothing_takes_more_calls_than_it_did(tmp_path: Path) -> None:
    committed: dict[str, float] = json.loads(BASELINE.read_text())
    found = measured(tmp_path)
    assert found.keys() == committed.keys()
    grown = {what: (committed[what], round(count, 1)) for what, count in found.items() if count > committed[what] * MARGIN}
    assert not grown, "calls, as committed and now; if that is right: python -m tests.bench.test_counts"


def test_a_start_and_a_stop_cost_each_the_same_in_a_larger_fleet() -> None:
    small, large = (run_virtually(starts_and_stops, fleet) for fleet in (FLEET, 4 * FLEET))
    for what, count in large.items():
        assert count < small[what] * GROWTH, what


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        BASELINE.write_text(json.dumps({what: round(count, 1) for what, count in measured(Path(name)).items()}, indent=1) + "\n")
