"""What the supervise layer needs of the operating system, as an interface: tests put a simulated machine behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from supervisord_async.config.model import Probe
    from supervisord_async.system.child import Ended
    from supervisord_async.system.credentials import Credentials
    from supervisord_async.system.disks import Executable
    from supervisord_async.system.identity import Identity
    from supervisord_async.system.spawn import SpawnSpec

Scope = Literal["tree", "main"]
#: Differs when a file's content has changed, and is had without reading the file; None where there is no file.
Signature = tuple[int, int, int] | None


class ChildProcess(Protocol):
    """The main process of a run."""

    @property
    def pid(self) -> int:
        """Its PID, which another process may have once this one was reaped."""

    @property
    def identity(self) -> Identity:
        """What distinguishes it from every other process of this boot."""

    def on_end(self, callback: Callable[[Ended], None]) -> None:
        """``callback`` is called once, on the loop, with how it ended; at once if it has ended already."""

    def forget(self, callback: Callable[[Ended], None]) -> None:
        """``callback`` is not called any more."""

    def close(self) -> None:
        """No descriptor is held for it any more."""


class ProcessTree(Protocol):
    """A run's main process and everything that descends from it."""

    def has_leftovers(self) -> bool:
        """Whether any process of it but the main process lives."""

    def left_behind(self) -> list[str]:
        """The names of the living processes other than the main process, without those that are just exiting."""

    def includes(self, pid: int) -> bool:
        """Whether that process belongs to it."""

    def signal(self, signum: int, scope: Scope) -> object:
        """Everything in ``scope`` that lives was sent ``signum``, and was continued if that is meant to end it, in case it was stopped."""

    def signal_known(self, signum: int, scope: Scope) -> bool:
        """The main process, in ``tree`` with its group, was sent ``signum`` without a descriptor being opened; False if that cannot be."""

    def signal_others(self, signum: int) -> None:
        """What :meth:`signal_known` did not reach was sent ``signum``."""

    async def kill(self) -> object:
        """Every process of it is dead, except what the kernel cannot end. Without a descriptor to look, only what is known was killed."""

    def led_by(self, child: ChildProcess) -> ProcessTree:
        """The same run, with ``child``, another of its processes, as the main process."""

    async def wait_gone(self) -> None:
        """Return once no process of it lives."""


class Host(Protocol):
    """One machine."""

    def at_turn(self, callback: Callable[[], None]) -> None:
        """``callback`` is called when a spawn may begin: a thousand spawns at once would block the loop, and fill the memory."""

    async def prepare(self) -> None:
        """Do in advance what a spawn has to wait for, so that one that follows soon starts faster."""

    def has_answered(self, executable: Executable) -> bool:
        """Whether :meth:`wait_executable` has nothing to wait for."""

    async def wait_executable(self, executable: Executable) -> None:
        """The disks of ``executable`` answer. Raises SpawnError: they do not (stage ``exec``), or cannot be asked (``fork``)."""

    async def spawn(self, spec: SpawnSpec) -> ChildProcess:
        """A new process runs ``spec``; raises SpawnError."""

    def tree(self, child: ChildProcess, tag: str) -> ProcessTree:
        """The tree that ``child`` is the root of; descendants also carry ``tag`` in their environment."""

    def forget(self, tag: str) -> None:
        """The run of that tag is over; nothing is kept for it any more."""

    def adopt(self, identity: Identity) -> ChildProcess:
        """Watch a process that an earlier daemon spawned; raises ProcessLookupError where it is gone."""

    async def kill_strays(self, tag: str, grace_seconds: float = 0.0) -> None:
        """No process that carries ``tag`` lives any more; those that still lived after ``grace_seconds`` were killed."""

    async def credentials(self, user: str | None, group: str | None) -> Credentials | None:
        """The user and groups to run as; None for the daemon's own. Raises SpawnError, stage ``user``."""

    async def ask(self, probe: Probe) -> str | None:
        """What answers at the address of an HTTP or TCP probe: None when all is well, else what is wrong, in words."""

    async def signature(self, path: str) -> Signature:
        """The file's present signature. Raises TimeoutError, which says for how long its disk has not answered."""

    def may_have_oom_killed(self) -> bool:
        """False if the kernel has killed nothing for lack of memory lately, so that :meth:`was_oom_killed` need not be asked."""

    async def was_oom_killed(self, pid: int) -> bool | None:
        """Whether the kernel killed ``pid``, which has just ended, for lack of memory; None if that cannot be found out."""

    async def run_command(self, spec: SpawnSpec, timeout_seconds: float) -> int | None:
        """Run a command to its end. Returns its exit code; None where it ended by a signal or was killed after ``timeout_seconds``.

        Raises SpawnError, also where its disk did not answer within that time.
        """
