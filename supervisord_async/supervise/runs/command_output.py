"""The output of a short command (a hook, a probe): forwarded to a log, and its end kept, to be quoted where the command fails."""

from __future__ import annotations

import logging
import os
import select
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from supervisord_async.errors import SpawnError
from supervisord_async.system.credentials import Credentials

_log = logging.getLogger(__name__)

#: How much of the end is kept.
TAIL_BYTES = 2048
#: A write of this size to a pipe that select reports writable does not block (``man 7 pipe``, PIPE_BUF).
_CHUNK_BYTES = select.PIPE_BUF


@asynccontextmanager
async def command_output(log: int, credentials: Credentials | None) -> AsyncIterator[tuple[int, bytearray]]:
    """A descriptor for a command's output, and a buffer with the end of the output so far; all output is forwarded to ``log``.

    On leaving, what is in the pipe is read, but its end is not awaited: another process may still hold it open.
    """
    try:
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise SpawnError("fork", error.errno, "a pipe") from error
    heard = bytearray()
    failure: SpawnError | None = None
    try:
        os.set_blocking(writing, True)
        if credentials is not None:
            os.fchown(writing, credentials.uid, credentials.gid)  # else it cannot open its own /dev/stdout
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_forward, reading, log, heard)
            try:
                yield writing, heard
            except SpawnError as error:  # raised below, so that the task group does not wrap it in an exception group
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure
        while await _forward_some(reading, log, heard):
            pass
    finally:
        os.close(reading)
        os.close(writing)


async def _forward(reading: int, log: int, heard: bytearray) -> None:
    while True:
        await anyio.wait_readable(reading)
        with anyio.CancelScope(shield=True):  # so that what was read is also written
            await _forward_some(reading, log, heard)


async def _forward_some(reading: int, log: int, heard: bytearray) -> bool:
    """Forward one chunk; returns whether there was one."""
    try:
        chunk = os.read(reading, _CHUNK_BYTES)
    except BlockingIOError:
        return False
    heard += chunk
    del heard[:-TAIL_BYTES]
    try:
        if chunk and stat.S_ISFIFO(os.fstat(log).st_mode):
            with anyio.move_on_after(5.0) as patience:
                await anyio.wait_writable(log)
            if patience.cancelled_caught:  # the log's reader hangs: drop the chunk
                return True
        os.write(log, chunk)
    except OSError as error:
        _log.debug("cannot pass a command's output on: %s", error.strerror)
    return bool(chunk)
