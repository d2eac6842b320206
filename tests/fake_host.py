"""A machine that exists only in the test: children do what the test says, nothing is spawned, no file is read."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel

from supervisord_async.config.model import Daemon, Logs, Program
from supervisord_async.core.state import ExitStatus
from supervisord_async.errors import SpawnError
from supervisord_async.supervise.host import Signature
from supervisord_async.supervise.records.bus import Bus
from supervisord_async.supervise.shared_context import SharedContext
from supervisord_async.supervise.sources.filewatch.watching import FileWatching
from supervisord_async.system.child import Ended


class FakeChild:
    """A process; the test ends it with :meth:`end`."""

    def __init__(self, pid: int, spec: Any) -> None:
        self.pid, self.spec = pid, spec
        self.identity = SimpleNamespace(pid=pid)
        self.signals: list[int] = []
        self.obeys = True  #: ends by TERM at once
        self.leaves = 0  #: descendants that outlive it, until they are signalled
        self.closed = False
        self._ended: Ended | None = None
        self._callbacks: list[Callable[[Ended], None]] = []
        self._gone = anyio.Event()

    @property
    def alive(self) -> bool:
        return self._ended is None

    def end(self, code: int | None = None, signal: int | None = None) -> None:
        """The main process is gone."""
        if self._ended is None:
            self._ended = Ended(ExitStatus(code=code, signal=signal), None)
            if not self.leaves:
                self._gone.set()
            callbacks, self._callbacks = self._callbacks, []
            for callback in callbacks:
                callback(self._ended)

    def on_end(self, callback: Callable[[Ended], None]) -> None:
        if self._ended is not None:
            callback(self._ended)
        else:
            self._callbacks.append(callback)

    def forget(self, callback: Callable[[Ended], None]) -> None:
        if callback in self._callbacks:
            self._callbacks.remove(callback)

    def close(self) -> None:
        self.closed = True

    # its tree

    def has_leftovers(self) -> bool:
        return self.leaves > 0

    def left_behind(self) -> list[str]:
        return ["helper"] * self.leaves

    def signal(self, signum: int, scope: str) -> None:
        self.signals.append(signum)
        if signum == 9 or (signum == 15 and self.obeys):
            self._go(signum, scope)

    async def kill(self) -> None:
        self.signals.append(9)
        self._go(9, "tree")

    def _go(self, signum: int, scope: str) -> None:
        if scope == "tree":
            self.leaves = 0
        self.end(signal=signum)
        if not self.leaves:
            self._gone.set()

    async def wait_gone(self) -> None:
        await self._gone.wait()


class FakeHost:
    """``children`` has every process ever spawned; ``files`` the signatures; ``refuse`` the errors of next spawns."""

    def __init__(self) -> None:
        self.children: list[FakeChild] = []
        self.files: dict[str, Signature] = {}
        self.refuse: list[SpawnError] = []
        self.answers: dict[Any, str | None] = {}  #: of probes, by their target
        self.oom_killed: set[int] = set()
        self.on_spawn: Callable[[FakeChild], None] = lambda child: None
        self._pids = itertools.count(100)

    @property
    def child(self) -> FakeChild:
        """The last one spawned."""
        return self.children[-1]

    def at_turn(self, callback: Callable[[], None]) -> None:
        callback()

    async def prepare(self) -> None:
        pass

    def has_answered(self, executable: Any) -> bool:
        return True

    async def wait_executable(self, executable: Any) -> None:
        pass

    async def spawn(self, spec: Any) -> FakeChild:
        await anyio.sleep(0)
        if self.refuse:
            raise self.refuse.pop(0)
        child = FakeChild(next(self._pids), spec)
        self.children.append(child)
        self.on_spawn(child)
        return child

    def tree(self, child: Any, tag: str) -> Any:
        return child

    def forget(self, tag: str) -> None:
        return

    async def kill_strays(self, tag: str, grace_seconds: float = 0.0) -> None:
        for child in self.children:
            if child.spec.environment["ASUP_TAG"] == tag:
                child.end(signal=9)

    async def credentials(self, user: str | None, group: str | None) -> None:
        return None

    async def ask(self, probe: Any) -> str | None:
        await anyio.sleep(0)
        return self.answers.get(probe.tcp or probe.http or "")

    async def signature(self, path: str) -> Signature:
        await anyio.sleep(0)
        return self.files.get(path)

    def may_have_oom_killed(self) -> bool:
        return True

    async def was_oom_killed(self, pid: int) -> bool | None:
        return pid in self.oom_killed

    async def run_command(self, spec: Any, timeout_seconds: float) -> int | None:
        return 0


def program(name: str = "web", **settings: Any) -> Program:
    """A program without logs, else with its defaults."""
    defaults: dict[str, Any] = {"command": ("serve",), "group": name, "directory": "/", "logs": Logs(stdout="none")}
    return Program(name=name, **(defaults | settings))


def shared_context(host: FakeHost, bus: Bus | None = None, **parts: Any) -> SharedContext:
    """What processes share, around ``host``."""
    bus = bus or Bus()
    defaults: dict[str, Any] = {
        "daemon": Daemon(name="test", run_dir="/nowhere", socket="/nowhere/asupd.sock"),
        "instance": "0123456789abcdef",
        "host": host,
        "bus": bus,
        "files": FileWatching(bus),
        "writer": None,
        "null_fd": 0,
        "journal": None,
        "committed": lambda: None,
        "remembered": anyio.lowlevel.checkpoint,
        "waits_for": lambda program: "nobody",
        "shut_down": lambda detail: None,
    }
    return SharedContext(**(defaults | parts))
