"""Signals to the daemon, their names, and whom they would reach."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

_PENDING_SIGNALS = 64
#: From a signal's arrival to the task that receives it: the loop looks, calls back, wakes the task; and to spare.
_TURNS = 8
#: Python ignores these itself; Popen gives children the default back.
_IGNORED_BY_PYTHON = {signal.SIGPIPE, signal.SIGXFSZ}
_UNCATCHABLE = {signal.SIGKILL, signal.SIGSTOP}


def reset_inherited(waiting: Collection[int] = ()) -> None:
    """Nothing is blocked, but those that are ``waiting`` for their receiver, and nothing ignored that who started us blocked or ignored.

    To be called first thing in the daemon, on the main thread: children inherit what is in force when they are
    spawned (``man 7 signal``). Handlers that were installed since are kept.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, waiting)
    for number in signal.valid_signals() - _UNCATCHABLE - _IGNORED_BY_PYTHON:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def name(number: int) -> str:
    """``SIGTERM`` for 15; ``SIGRTMIN+n`` for real-time ones; the number itself where it is not a signal's."""
    try:
        return signal.Signals(number).name
    except ValueError:
        if signal.SIGRTMIN < number < signal.SIGRTMAX:
            return f"SIGRTMIN+{number - signal.SIGRTMIN}"
        return str(number)


def group_exists(group: int) -> bool:
    """Whether anybody is in that process group: zombies count too."""
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
        except asyncio.QueueFull:  # as the kernel does with a signal that is pending: that many say no more than one
            return


@asynccontextmanager
async def receive(numbers: Collection[int]) -> AsyncIterator[SignalStream]:
    """Receive these signals on the running loop, until the block ends. Main thread only."""
    loop = asyncio.get_running_loop()
    stream = SignalStream()
    try:
        for number in numbers:
            loop.add_signal_handler(number, stream._arrived, number)  # noqa: SLF001  the two are one mechanism
        yield stream
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def heeded() -> None:
    """Every signal that had arrived when this was called has reached who receives it."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)
