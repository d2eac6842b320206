"""Commands around a run: ``before_start`` and ``after_exit``, bounded in time, as the program's user and in its environment.

Their output goes to the program's log, and the end of it into the message of a failure.
"""

from __future__ import annotations

import logging

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
from supervisord_async.supervise.runs.command_output import command_output
from supervisord_async.supervise.runs.run_spec import RunEnvironment
from supervisord_async.system import signals
from supervisord_async.system.credentials import Credentials

_log = logging.getLogger(__name__)

#: A hook that takes longer is killed and has failed.
HOOK_SECONDS = 60.0


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
        async with command_output(log, credentials) as (writing, tail):
            spec = run_spec.spawn_spec(program, environment, credentials, writing, writing, argv=command)
            code = await self._host.run_command(spec, HOOK_SECONDS)
        said = masked_text(tail.decode(errors="replace").strip(), secret_values(program))
        return HookRun(code, anyio.current_time() - began < HOOK_SECONDS, said)
