"""The real machine behind :class:`~supervisord_async.supervise.host.Host`."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import cast

import anyio
from msgspec.structs import replace

from supervisord_async.config.model import Probe
from supervisord_async.errors import ProbeNotRunError, SpawnError
from supervisord_async.supervise.host import ChildProcess, ProcessTree, Signature
from supervisord_async.supervise.retry import retry_on_shortage
from supervisord_async.supervise.run_cgroups import RunCgroups
from supervisord_async.supervise.sources.signatures import Signatures
from supervisord_async.system import credentials, oom, process_table, spawn
from supervisord_async.system.child import Child
from supervisord_async.system.credentials import Credentials
from supervisord_async.system.disks import ANSWER_SECONDS, Disks, Executable
from supervisord_async.system.identity import Identity
from supervisord_async.system.shortage import is_shortage
from supervisord_async.system.spawn import SpawnSpec
from supervisord_async.system.threads import DaemonThreads, in_thread
from supervisord_async.system.tree import Tree
from supervisord_async.system.turn_limiter import SPAWNS_A_TURN, TurnLimiter
from supervisord_async.wire import ENV_TAG

#: How long after a spawn has begun its program's first instructions may take. A child often begins on our processor, so what we
#: do meanwhile delays it.
BEGIN_SECONDS = 0.003
#: When the daemon starts, the disks of this many different executables are checked before any program is started.
LOOKED_AHEAD = 16
#: How many users are looked up at a time, and how long each look-up may take: a directory service may hang.
USER_THREADS, USER_SECONDS = 16, 10.0
#: A start fails if no thread can be started for this long; longer than a disk may take to answer.
THREAD_SECONDS = 2 * ANSWER_SECONDS


class MachineHost:
    """Processes, users and files of this machine."""

    def __init__(self, run_cgroups: RunCgroups | None = None) -> None:
        """``run_cgroups`` gives each run a cgroup; None: runs have none."""
        self._run_cgroups = run_cgroups
        self._signatures = Signatures()
        self._disks = Disks()
        self._users = DaemonThreads(USER_THREADS, "user")
        self._turns = TurnLimiter(SPAWNS_A_TURN)
        self._toll = _toll()
        self._spawned_at = float("-inf")  # monotonic: when the last spawn began

    def at_turn(self, callback: Callable[[], None]) -> None:
        """At once for the first :data:`.SPAWNS_A_TURN` of a turn, see :class:`.TurnLimiter`."""
        self._turns.take(callback)

    def starting(self) -> bool:
        """Whether spawns wait for a later turn of the loop, or the last one began less than :data:`BEGIN_SECONDS` ago."""
        return self._turns.crowded or time.monotonic() < self._spawned_at + BEGIN_SECONDS

    async def prepare(self) -> None:
        """Wait now for what a spawn into a cgroup would wait for."""
        if self._run_cgroups is not None:
            await self._run_cgroups.prepare()

    def has_answered(self, executable: Executable) -> bool:
        """True of an executable on local disks that was looked at a moment ago."""
        return self._disks.have_answered(executable)

    def look_ahead(self, executables: Iterable[Executable]) -> None:
        """Check the disks of some executables in advance, so that a thousand starts do not all wait for the first answer."""
        with suppress(OSError):  # no thread: a start that needs the answer tries again
            for executable in islice(dict.fromkeys(executables), LOOKED_AHEAD):
                self._disks.begin_to_ask(executable)

    async def wait_executable(self, executable: Executable) -> None:
        """Check its disks, off the loop. Raises SpawnError, also if no thread could be started for :data:`THREAD_SECONDS`."""
        try:
            with anyio.fail_after(THREAD_SECONDS):
                await retry_on_shortage(f"look at {executable.program}", partial(self._disks.wait_answered, executable))
        except TimeoutError:
            words = f"{executable.program}: no thread to check its disk could be started for {THREAD_SECONDS:g} s"
            raise SpawnError("fork", errno.EAGAIN, words) from None

    async def spawn(self, spec: SpawnSpec) -> ChildProcess:
        """Start ``spec``."""
        self._spawned_at = time.monotonic()
        tag = spec.environment.get(ENV_TAG, "")
        run_cgroups = self._run_cgroups
        cgroup = await run_cgroups.make(tag) if run_cgroups is not None and spec.confined else None
        if run_cgroups is None or cgroup is None:
            return await spawn.spawn(spec)
        try:
            return await spawn.spawn(replace(spec, around_fork=run_cgroups.forking_into(cgroup)))
        except BaseException:
            with suppress(OSError):  # what was forked before the start failed must not live on
                if os.getpid() not in cgroup.pids():  # the daemon itself, where it could not leave it
                    cgroup.kill()
            run_cgroups.leave(tag)
            raise

    def tree(self, child: ChildProcess, tag: str) -> ProcessTree:
        """The tree below ``child``."""
        assert isinstance(child, Child)  # noqa: S101  both come from this class
        cgroup = self._run_cgroups.of(tag) if self._run_cgroups is not None else None
        return cast("ProcessTree", Tree.of(child, tag, cgroup))  # its ``led_by`` takes a Child, and this class makes no other children

    def forget(self, tag: str) -> None:
        """Nothing is kept for the run of that tag any more."""
        if self._run_cgroups is not None:
            self._run_cgroups.leave(tag)

    def adopt(self, identity: Identity) -> ChildProcess:
        """Watch a process that an earlier daemon spawned; raises ProcessLookupError where it is gone."""
        return Child.adopt(identity)

    async def kill_strays(self, tag: str, grace_seconds: float = 0.0) -> None:
        """Nothing that carries ``tag``, or is in its cgroup, lives any more; what still lived after ``grace_seconds`` was killed."""
        cgroup = self._run_cgroups.of(tag) if self._run_cgroups is not None else None
        tree = Tree(None, tag, ours=False, cgroup=cgroup)
        if grace_seconds > 0:
            with anyio.move_on_after(grace_seconds):
                await tree.wait_gone()
        if not await tree.kill():
            self.forget(tag)

    async def credentials(self, user: str | None, group: str | None) -> Credentials | None:
        """Look the user up, off the loop."""
        if user is None and group is None:
            return None
        try:
            with anyio.fail_after(USER_SECONDS):
                return await self._users.run(credentials.lookup, user, group)
        except TimeoutError:
            words = f"looking up {user or group} has taken {USER_SECONDS:g} s (does a directory service hang?)"
            raise SpawnError("user", None, words) from None
        except OSError as error:
            if not is_shortage(error):
                raise
            raise SpawnError("fork", errno.EAGAIN, "no thread to look the user up") from error

    async def ask(self, probe: Probe) -> str | None:
        """Connect to the probe's address."""
        try:
            from supervisord_async.supervise.sources.probing import ask  # here, as it imports TLS
        except ImportError as error:  # the package was moved away, or is being replaced
            raise ProbeNotRunError(f"{error} (install it again, then `asupctl reexec`)") from error

        return await ask(probe)

    async def signature(self, path: str) -> Signature:
        """Look off the loop: the file may lie on a file system that hangs."""
        return await retry_on_shortage(f"look at {path}", partial(self._signatures.of, path))

    def may_have_oom_killed(self) -> bool:
        """Read the kernel's counter on the loop, once for all callers in this turn: 500 deaths must not take 500 trips to a thread."""
        try:
            return self._toll.may_include_one(process_table.current().oom_kills())
        except OSError as error:
            if not is_shortage(error):
                raise
            return True

    async def was_oom_killed(self, pid: int) -> bool | None:
        """Read the kernel's log, off the loop."""
        try:
            return await in_thread(oom.was_oom_killed, pid)
        except OSError as error:
            if not is_shortage(error):
                raise
            return None

    async def run_command(self, spec: SpawnSpec, timeout_seconds: float) -> int | None:
        """Run a short command until it ends, or the timeout; then kill what is left of its tree."""
        with anyio.move_on_after(timeout_seconds) as looking:
            await self.wait_executable(Executable(spec.argv[0], spec.directory, spec.environment.get("PATH")))
        if looking.cancelled_caught:
            words = f"its disk, or one of a log or the run_dir, has not answered for {timeout_seconds:g} s"
            raise SpawnError("exec", None, f"{spec.argv[0]}: {words}")
        child = await spawn.spawn(spec)
        tree = Tree.of(child, spec.environment.get(ENV_TAG, ""))
        try:
            with anyio.move_on_after(timeout_seconds):
                return (await child.wait()).status.code
            return None
        finally:
            with anyio.CancelScope(shield=True):
                await retry_on_shortage(f"end {spec.argv[0]}", tree.kill)
            child.close()


def _toll() -> oom.Toll:
    """The count of the kernel's OOM kills from now on; where no descriptor is free to read it, from the first reading on."""
    try:
        return oom.Toll(oom.kills())
    except OSError:
        return oom.Toll(None)
