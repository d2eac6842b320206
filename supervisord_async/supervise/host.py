"""What the supervise layer asks of the operating system, as a seam: tests put a simulated machine behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from supervisord_async.config.model import Probe
    from supervisord_async.supervise.monitors.context import RunContext
    from supervisord_async.system.child import Ended
    from supervisord_async.system.credentials import Credentials
    from supervisord_async.system.disks import Executable
    from supervisord_async.system.identity import Identity
    from supervisord_async.system.spawn import SpawnSpec

Scope = Literal["tree", "main"]
#: What tells one content of a file from another, without reading it; None where there is no file.
Signature = tuple[int, int, int] | None


class ChildProcess(Protocol):
    """The main process of a run."""

    @property
    def pid(self) -> int:
        """Its number, which another may have once it was reaped."""

    @property
    def identity(self) -> Identity:
        """What tells it from all others of this boot."""

    def on_end(self, callback: Callable[[Ended], None]) -> None:
        """``callback`` is called once, on the loop, with how it ended; at once if it has already."""

    def forget(self, callback: Callable[[Ended], None]) -> None:
        """``callback`` is not called any more."""

    def close(self) -> None:
        """Nothing of the system is held for it any more."""


class ProcessTree(Protocol):
    """A run's main process and everything that descends from it."""

    def has_leftovers(self) -> bool:
        """Whether anything but the main process lives."""

    def left_behind(self) -> list[str]:
        """The names of what lives but the main process, and is not about to end."""

    def signal(self, signum: int, scope: Scope) -> object:
        """Whatever lives of the scope was sent ``signum``, and is not stopped."""

    async def kill(self) -> object:
        """Nothing lives, unless the kernel cannot end it."""

    def led_by(self, child: ChildProcess) -> ProcessTree:
        """The same run, with another of its processes as the main one."""

    async def wait_gone(self) -> None:
        """Nothing of it lives any more."""


class Host(Protocol):
    """One machine."""

    def at_turn(self, callback: Callable[[], None]) -> None:
        """``callback`` is called when it is one's turn to begin a spawn: a thousand at once would hold the loop, and the memory."""

    async def prepare(self) -> None:
        """A spawn that follows soon, if any does, waits for less."""

    def has_answered(self, executable: Executable) -> bool:
        """Whether :meth:`wait_executable` has nothing to wait for."""

    async def wait_executable(self, executable: Executable) -> None:
        """The disks that it is executed from answer; raises SpawnError: they do not (stage ``exec``), or cannot be asked (``fork``)."""

    async def spawn(self, spec: SpawnSpec) -> ChildProcess:
        """A new process runs ``spec``; raises SpawnError."""

    def tree(self, child: ChildProcess, tag: str) -> ProcessTree:
        """The tree that ``child`` is the root of; descendants also carry ``tag`` in their environment."""

    def forget(self, tag: str) -> None:
        """The run of that tag is over: nothing is kept for it any more."""

    def adopt(self, identity: Identity) -> ChildProcess:
        """A process that an earlier daemon spawned is watched; raises ProcessLookupError where it is gone."""

    async def kill_strays(self, tag: str, grace_seconds: float = 0.0) -> None:
        """Nothing that carries ``tag`` lives any more; what does by the end of ``grace_seconds`` is killed."""

    async def credentials(self, user: str | None, group: str | None) -> Credentials | None:
        """Whom to run as, None for the daemon's own user; raises SpawnError with stage ``user``."""

    async def ask(self, probe: Probe, context: RunContext) -> str | None:
        """A probe's answer: None when all is well, else why not, in words. Raises UnaskedError."""

    async def signature(self, path: str) -> Signature:
        """The file's present signature; raises TimeoutError, which says for how long its disk has not answered."""

    def may_have_oom_killed(self) -> bool:
        """False: the kernel has ended nothing for lack of memory of late, so there is nothing to ask it."""

    async def was_oom_killed(self, pid: int) -> bool | None:
        """Whether the kernel ended ``pid``, which has just ended, for lack of memory; None: nobody tells."""

    async def run_command(self, spec: SpawnSpec, timeout_seconds: float) -> int | None:
        """A command ran to its end; its exit code, None where it had to be killed after ``timeout_seconds``.

        Raises SpawnError, also where its disk did not answer for so long.
        """
