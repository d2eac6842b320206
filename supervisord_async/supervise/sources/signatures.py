"""File signatures, taken off the loop: requests for files of one directory that come together share one trip to a thread.

A trip to a thread costs as much as eighty looks. Only files of one directory share it, so that a file system that hangs does
not hold up the others. There is one thread per directory at a time, and at most :data:`THREADS` can hang, however many programs
have their files there and however often they ask.
"""

from __future__ import annotations

import os

import anyio
import anyio.lowlevel
import msgspec

from supervisord_async.supervise.host import Signature
from supervisord_async.system.disks import ANSWER_SECONDS
from supervisord_async.system.threads import Call, DaemonThreads, wait_over

#: How many directories can be waited for at a time; if so many hang, all others wait behind them.
THREADS = 32


class _Look(msgspec.Struct):
    """One look at some files of a directory; ``found`` stays empty if it fails."""

    paths: list[str]
    found: dict[str, Signature] = msgspec.field(default_factory=dict)
    silent: bool = False  #: the disk did not answer
    over: anyio.Event = msgspec.field(default_factory=anyio.Event)


class Signatures:
    """Takes the signatures of files."""

    def __init__(self, answer_seconds: float = ANSWER_SECONDS) -> None:
        """A disk that takes longer than ``answer_seconds`` counts as hanging."""
        self._answer_seconds = answer_seconds
        self._threads = DaemonThreads(THREADS, "look")
        self._gathering: dict[str, _Look] = {}  #: by directory: looks that further requests can still join
        self._calls: dict[str, Call[dict[str, Signature]]] = {}  #: by directory: the look that a thread is at, or hangs in

    async def of(self, path: str) -> Signature:
        """The file's signature now. Raises TimeoutError if its disk does not answer, OSError if no thread can be started."""
        directory = os.path.dirname(path)
        while True:
            look = self._gathering.get(directory)
            if look is None:
                look = self._gathering[directory] = _Look([path])
                await self._lead(directory, look)
            else:
                look.paths.append(path)
                await look.over.wait()
            if path in look.found:
                return look.found[path]
            if look.silent:
                raise TimeoutError(f"the disk of {path} has not answered for {self._answer_seconds:g} s")
            # The request that led this look was cancelled, or raised: one of the others leads the next.

    async def _lead(self, directory: str, look: _Look) -> None:
        try:
            with anyio.move_on_after(self._answer_seconds) as patience:
                try:
                    await anyio.lowlevel.checkpoint()  # so that requests in the same turn of the loop can join
                    if (before := self._calls.get(directory)) is not None:
                        await wait_over(before)
                finally:
                    del self._gathering[directory]
                call = self._calls[directory] = self._threads.begin(_look, look.paths)
                await wait_over(call)
                del self._calls[directory]
                look.found = call.result()
            look.silent = patience.cancelled_caught
        finally:
            look.over.set()


def _look(paths: list[str]) -> dict[str, Signature]:
    return {path: _signature(path) for path in paths}


def _signature(path: str) -> Signature:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
