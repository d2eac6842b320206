"""What tells a file's contents apart, looked at off the loop: files of one directory that are asked for together take one hop.

A hop to a thread costs as much as eighty looks. Only one directory's files share it: on a file system that hangs, the
others' looks do not hang with them, and no more threads hang than :data:`THREADS`.
"""

from __future__ import annotations

import os

import anyio
import anyio.lowlevel
import msgspec

from supervisord_async.supervise.host import Signature
from supervisord_async.system.threads import DaemonThreads

#: Files on file systems that hang can occupy so many threads.
THREADS = 8


class _Look(msgspec.Struct):
    """One look at some files of a directory; ``found`` lacks them where it came to nothing."""

    paths: list[str]
    found: dict[str, Signature] = msgspec.field(default_factory=dict)
    over: anyio.Event = msgspec.field(default_factory=anyio.Event)


class Signatures:
    """Looks at files for whoever asks."""

    def __init__(self) -> None:
        self._threads = DaemonThreads(THREADS, "look")
        self._gathering: dict[str, _Look] = {}  #: by directory: looks that one can still join

    async def of(self, path: str) -> Signature:
        """The signature of now. Raises RuntimeError: there is no thread to look in."""
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
                return look.found[path]  # else who led it was cancelled, or has raised: the next one leads

    async def _lead(self, directory: str, look: _Look) -> None:
        try:
            try:
                await anyio.lowlevel.checkpoint()  # whoever woke at the same time joins
            finally:
                del self._gathering[directory]
            look.found = await self._threads.run(_look, look.paths)
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
