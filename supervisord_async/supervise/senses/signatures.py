"""What tells a file's contents apart, looked at off the loop: files of one directory that are asked for together take one hop.

A hop to a thread costs as much as eighty looks. Only one directory's files share it: on a file system that hangs, the
others' looks do not hang with them. A directory is looked at by one thread at a time, and no more of them than
:data:`THREADS` hang, however many programs have their files there and however often they ask.
"""

from __future__ import annotations

import os

import anyio
import anyio.lowlevel
import msgspec

from supervisord_async.supervise.host import Signature
from supervisord_async.system.disks import ANSWER_SECONDS
from supervisord_async.system.threads import Call, DaemonThreads, wait_over

#: How many directories on disks that hang can be waited for; all others wait behind them.
THREADS = 32


class _Look(msgspec.Struct):
    """One look at some files of a directory; ``found`` lacks them where it came to nothing."""

    paths: list[str]
    found: dict[str, Signature] = msgspec.field(default_factory=dict)
    silent: bool = False  #: the disk did not answer
    over: anyio.Event = msgspec.field(default_factory=anyio.Event)


class Signatures:
    """Looks at files for whoever asks."""

    def __init__(self, answer_seconds: float = ANSWER_SECONDS) -> None:
        """A disk may take ``answer_seconds``."""
        self._answer_seconds = answer_seconds
        self._threads = DaemonThreads(THREADS, "look")
        self._gathering: dict[str, _Look] = {}  #: by directory: looks that one can still join
        self._calls: dict[str, Call[dict[str, Signature]]] = {}  #: by directory: what a thread does, or hangs in

    async def of(self, path: str) -> Signature:
        """The signature of now. Raises TimeoutError: its disk does not answer; RuntimeError: there is no thread to look in."""
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
            # Who led it was cancelled, or has raised: the next one leads.

    async def _lead(self, directory: str, look: _Look) -> None:
        try:
            with anyio.move_on_after(self._answer_seconds) as patience:
                try:
                    await anyio.lowlevel.checkpoint()  # whoever woke at the same time joins
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
