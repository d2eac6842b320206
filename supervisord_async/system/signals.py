"""Signals to the daemon, their names, and whether a process group exists."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

_PENDING_SIGNALS = 64
#: Turns of the loop from a signal's arrival until its task receives it: the loop polls, calls back, wakes the task; with some to spare.
_TURNS = 8
#: Python ignores these itself; Popen gives children the default back.
_IGNORED_BY_PYTHON = {signal.SIGPIPE, signal.SIGXFSZ}
_UNCATCHABLE = {signal.SIGKILL, signal.SIGSTOP}


def reset_inherited(waiting: Collection[int] = ()) -> None:
    """Undo what we inherited: no signal is blocked, except those ``waiting`` for a handler yet to come, and none is ignored.

    To be called first thing in the daemon, on the main thread: children inherit what is in force when they are
    spawned (``man 7 signal``). Handlers installed by now are kept.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, waiting)
    for number in signal.valid_signals() - _UNCATCHABLE - _IGNORED_BY_PYTHON:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def name(number: int) -> str:
    """``SIGTERM`` for 15; ``SIGRTMIN+n`` for real-time signals; the number itself if it is not a signal's."""
    try:
        return signal.Signals(number).name
    except ValueError:
        if signal.SIGRTMIN < number < signal.SIGRTMAX:
            return f"SIGRTMIN+{number - signal.SIGRTMIN}"
        return str(number)


def group_exists(group: int) -> bool:
    """Whether any process is in that process group; zombies count too."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class SignalStream:
    """An async iterator over signals in the order of their arrival."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[int] = asyncio.Queue(_PENDING_SIGNALS)

    def __aiter__(self) -> SignalStream:
        return self

    async def __anext__(self) -> int:
        return await self._queue.get()

    def _arrived(self, number: int) -> None:
        try:
            self._queue.put_nowait(number)
        except asyncio.QueueFull:  # drop it, as the kernel does with a signal that is pending already
            return


@asynccontextmanager
async def receive(numbers: Collection[int]) -> AsyncIterator[SignalStream]:
    """Receive these signals on the running loop, while in this context. Main thread only."""
    loop = asyncio.get_running_loop()
    stream = SignalStream()
    try:
        for number in numbers:
            loop.add_signal_handler(number, stream._arrived, number)  # noqa: SLF001  the two are one mechanism
        yield stream
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def wait_received() -> None:
    """Return once every signal that had arrived before this call has been received by its task."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)
