"""Run as a program: kill the owner of a capture again and again while numbered lines flow, and let a last one finish.

Forks instead of starting interpreters, so that hundreds of kills take seconds. Prints one JSON object.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import anyio

from supervisord_async.logs.capture import Capture
from supervisord_async.logs.journal import Journal
from supervisord_async.logs.target import Format, LossReport, Target
from supervisord_async.logs.writer import Writer
from supervisord_async.system.pipes import Pipe


def line(number: int) -> bytes:
    """A numbered line whose length depends on its number; some are long, most short."""
    return b"%d " % number + b"x" * (number * 7919 % (3000 if number % 50 == 0 else 90)) + b"\n"


async def own(pipe: Pipe, target: Target, journal_path: str, *, last: bool) -> None:
    """Be the daemon: capture until killed; the ``last`` one drains and ends."""
    losses: list[LossReport] = []
    async with anyio.create_task_group() as tasks:
        writer = Writer()
        tasks.start_soon(writer.run)
        journal = Journal.open(journal_path)
        capture = Capture(pipe, target, process_name="web:0", stream="stdout", writer=writer, on_loss=losses.append, journal=journal)
        capture.start()
        capture.run_started(7)
        if not last:
            await anyio.sleep_forever()
        if not await capture.drain() or losses:
            os._exit(3)
        await capture.aclose()
        await writer.aclose()


def forked(function: object, *args: object, **kwargs: object) -> int:
    """The PID of a fork that does that and ends."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            function(*args, **kwargs)  # type: ignore[operator]
            code = 0
        finally:
            os._exit(code)
    return pid


#: Every step that changes something; between two of them nothing can be seen from outside.
STEPS = ("splice", "pwrite", "write", "read", "ftruncate", "rename", "unlink", "open")


def die_at_step(number: int, *, after: bool) -> None:
    """This process kills itself right before, or right ``after``, that many steps from now."""
    left = number

    def deadly(step: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0 and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return step(*args, **kwargs)
            finally:
                if left <= 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        return call

    for name in STEPS:
        setattr(os, name, deadly(getattr(os, name)))


def be_owner(pipe: Pipe, target: Target, journal_path: str, last: bool, deadly_step: int = 0) -> None:
    """The whole life of an owner; ``deadly_step`` (negative: after it) is where it kills itself, 0 nowhere."""
    if deadly_step:
        die_at_step(abs(deadly_step), after=deadly_step < 0)
    anyio.run(lambda: own(pipe, target, journal_path, last=last))


def be_child(pipe: Pipe, stop_path: str, seed: int) -> None:
    """Write numbered lines, in pieces of any size and at any pace, until told to stop; leave their count."""
    dice = random.Random(seed)
    number = 0
    while not os.path.exists(stop_path):
        count = dice.choice((1, 1, 2, 10, 100, 400))
        burst = b"".join(line(number + n) for n in range(count))
        number += count
        while burst:
            size = dice.choice((1, 7, 100, 4096, 50_000, len(burst)))
            burst = burst[os.write(pipe.child_fd, burst[:size]) :]
        time.sleep(dice.choice((0, 0, 0.0003, 0.002)))
    with open(stop_path + ".count", "w") as file:
        file.write(str(number))


def main(folder: str, format_: Format, kills: int, seed: int, compress: bool) -> None:
    """Kill ``kills`` owners; then one finishes."""
    dice = random.Random(seed)
    pipe = Pipe.open()
    stop_path = os.path.join(folder, "stop")
    journal_path = os.path.join(folder, "journal")
    target = Target(os.path.join(folder, "x.log"), max_size_bytes=200_000, backups=100_000, compress=compress, format=format_)
    child = forked(be_child, pipe, stop_path, seed)
    for _ in range(kills):
        step = dice.choice((0, 1, -1)) * dice.randint(1, 60)
        owner = forked(be_owner, pipe, target, journal_path, False, step)
        time.sleep(dice.uniform(0.004, 0.03))
        os.kill(owner, signal.SIGKILL)
        os.waitpid(owner, 0)
    with open(stop_path, "w"):
        pass
    owner = forked(be_owner, pipe, target, journal_path, False)
    os.waitpid(child, 0)
    os.kill(owner, signal.SIGKILL)
    os.waitpid(owner, 0)
    owner = forked(be_owner, pipe, target, journal_path, True)
    _, status = os.waitpid(owner, 0)
    with open(stop_path + ".count") as file:
        print(json.dumps({"lines": int(file.read()), "status": status, "spools": os.listdir(journal_path)}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5] == "gzip")  # type: ignore[arg-type]
