"""Commands around a run: ``before_start`` and ``after_exit``, bounded in time, as the program's user and in its environment.

Their output goes to the program's log, and the end of it into the message of a failure.
"""

from __future__ import annotations

import logging
import os
import select
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import msgspec

from supervisord_async import wire
from supervisord_async.config.model import Program
from supervisord_async.config.secrets import masked_text, secret_values
from supervisord_async.core.state import Cause, ExitStatus
from supervisord_async.errors import SpawnError
from supervisord_async.supervise.host import Host
from supervisord_async.supervise.records.masking import words_without_secrets
from supervisord_async.supervise.runs import run_spec
from supervisord_async.supervise.runs.run_spec import RunEnvironment
from supervisord_async.system import signals
from supervisord_async.system.credentials import Credentials

_log = logging.getLogger(__name__)

#: A hook that takes longer is killed and has failed.
HOOK_SECONDS = 60.0
#: How much of the end of its output is quoted.
TAIL_BYTES = 2048
#: A write of this size to a pipe that select reports writable does not block (``man 7 pipe``, PIPE_BUF).
_CHUNK_BYTES = select.PIPE_BUF


class HookRun(msgspec.Struct, frozen=True):
    """How a hook ended."""

    code: int | None  #: None: it was ended by a signal, or did not end in time
    in_time: bool
    tail: str  #: the end of what it printed, secrets masked

    @property
    def failure(self) -> str | None:
        """Why it failed, with the end of its output; None if it succeeded."""
        if self.code == 0:
            return None
        words = f"exited with {self.code}" if self.code is not None else "was ended by a signal"
        if self.code is None and not self.in_time:
            words = f"did not end within {HOOK_SECONDS:g} s"
        return f"{words}: {self.tail}" if self.tail else words


class Hooks:
    """The hooks of one process."""

    __slots__ = ("_host", "_name")

    def __init__(self, name: str, host: Host) -> None:
        self._name = name
        self._host = host

    async def before_start(self, program: Program, environment: RunEnvironment, credentials: Credentials | None, log: int) -> None:
        """Run the hook, if there is one; its output goes to the descriptor ``log``.

        Raises SpawnError, stage ``hook``, where it failed, could not be run, or took too long.
        """
        command = program.hooks.before_start
        if command is None:
            return
        try:
            done = await self._run(program, command, environment.for_side_command("hook"), credentials, log)
        except SpawnError as error:
            raise SpawnError("hook", None, f"cannot run before_start: {error}") from error
        if done.failure is not None:
            raise SpawnError("hook", None, f"before_start {done.failure}")

    async def after_exit(
        self,
        program: Program,
        environment: RunEnvironment,
        credentials: Credentials | None,
        log: int,
        *,
        status: ExitStatus,
        cause: Cause,
        pid: int,
    ) -> None:
        """Run the hook, if there is one; a failure is reported in the daemon's log only."""
        command = program.hooks.after_exit
        if command is None:
            return
        variables = environment.for_side_command("hook") | {wire.ENV_CAUSE: str(cause), wire.ENV_MAIN_PID: str(pid)}
        if status.code is not None:
            variables[wire.ENV_EXIT_CODE] = str(status.code)
        elif status.signal is not None:
            variables[wire.ENV_EXIT_SIGNAL] = signals.name(status.signal)
        try:
            failure = (await self._run(program, command, variables, credentials, log)).failure
        except SpawnError as error:
            failure = f"cannot be run: {error}"
        if failure is not None:
            _log.warning("%s: after_exit %s", self._name, words_without_secrets(failure, program))

    async def _run(
        self, program: Program, command: tuple[str, ...], environment: dict[str, str], credentials: Credentials | None, log: int
    ) -> HookRun:
        began = anyio.current_time()
        async with listening(log, credentials) as (writing, heard):
            spec = run_spec.spawn_spec(program, environment, credentials, writing, writing, argv=command)
            code = await self._host.run_command(spec, HOOK_SECONDS)
        tail = masked_text(bytes(heard[-TAIL_BYTES:]).decode(errors="replace").strip(), secret_values(program))
        return HookRun(code, anyio.current_time() - began < HOOK_SECONDS, tail)


@asynccontextmanager
async def listening(log: int, credentials: Credentials | None) -> AsyncIterator[tuple[int, bytearray]]:
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
        _log.debug("cannot pass a hook's output on: %s", error.strerror)
    return bool(chunk)
