"""A machine that exists only here: processes with lives of their own, faults by chance, all drawn from one seed.

It outlives the daemons that run on it, as a real one does. Every birth is checked: a slot of which anything lives must
not be given another process.
"""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio

from supervisord_async.core.state import ExitStatus
from supervisord_async.errors import SpawnError
from supervisord_async.supervise.host import Signature
from supervisord_async.system.child import Ended
from supervisord_async.system.identity import Identity
from supervisord_async.system.tags import Tagged

BOOT = "simulated"


class BrokenInvariantError(AssertionError):
    """What must never happen did."""


class Simulated:
    """One process: a run's main one, or a descendant of it."""

    def __init__(self, machine: Machine, pid: int, name: str, run: int, tag: str, *, leader: bool) -> None:
        self.machine, self.name, self.run, self.tag, self.leader = machine, name, run, tag, leader
        self.identity = Identity(pid, machine.ticks(), BOOT)
        self.ended: Ended | None = None
        self.over = anyio.Event()
        self.callbacks: list[Callable[[Ended], None]] = []
        chance = machine.random.random
        self.obeys_after = machine.random.uniform(0.0, 3.0) if chance() < 0.8 else None  #: TERM; None: ignores it
        self.dies_after = machine.random.uniform(0.0, 12.0) if chance() < 0.05 else 0.0  #: KILL: it hangs in the kernel

    @property
    def alive(self) -> bool:
        return self.ended is None

    def end(self, code: int | None = None, signal: int | None = None) -> None:
        if self.ended is None:
            self.ended = Ended(ExitStatus(code=code, signal=signal), None)
            self.over.set()
            self.machine.note(f"pid {self.identity.pid} of {self.name}/{self.run} ended ({code}, {signal})")
            callbacks, self.callbacks = self.callbacks, []
            for callback in callbacks:
                callback(self.ended)

    def heed(self, signum: int) -> None:
        if signum == 9:
            self.machine.later(self.dies_after, lambda: self.end(signal=9))
        elif signum == 15 and self.obeys_after is not None:
            self.machine.later(self.obeys_after, lambda: self.end(signal=15))


class Machine:
    """Processes and chance. ``calm``: no more faults, and who is born lives for ever."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.processes: list[Simulated] = []
        self.calm = False
        self.faults = 0
        self.log: list[str] = []
        self.violations: list[str] = []
        self._pids = 100
        self._ticks = 0

    def violation(self, words: str) -> BrokenInvariantError:
        """To be raised; and kept, since a supervisor outlives errors of its parts."""
        self.violations.append(words)
        self.note(f"VIOLATION: {words}")
        return BrokenInvariantError(words)

    def note(self, words: str) -> None:
        self.log.append(f"{anyio.current_time():.3f} {words}")

    def later(self, seconds: float, do: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(seconds, do)

    def ticks(self) -> int:
        self._ticks += 1
        return self._ticks

    def fault(self, chance: float) -> bool:
        """Whether it goes wrong now."""
        wrong = not self.calm and self.random.random() < chance
        self.faults += wrong
        return wrong

    def living(self, name: str | None = None) -> list[Simulated]:
        return [process for process in self.processes if process.alive and (name is None or process.name == name)]

    def tagged(self) -> list[Tagged]:
        """What a look at /proc finds."""
        return [Tagged(process.identity, process.name, process.run, process.leader) for process in self.living()]

    def birth(self, tag: str, *, leader: bool = True) -> Simulated:
        _, _, rest = tag.partition("/")
        name, _, run = rest.rpartition("/")
        if leader and (others := self.living(name)):
            lives = ", ".join(f"pid {other.identity.pid} of run {other.run}" for other in others)
            raise self.violation(f"{name}: run {run} begins while {lives} live")
        self._pids += 1
        process = Simulated(self, self._pids, name, int(run), tag, leader=leader)
        self.processes = [*self.living(), process]
        self.note(f"pid {self._pids} of {name}/{run} is born")
        return process

    def live(self, process: Simulated) -> None:
        """It may end by itself, and have descendants that outlive it."""
        if self.calm:
            return
        if self.random.random() < 0.6:
            code, signum = self.random.choice([(0, None), (1, None), (3, None), (None, 11), (None, 9)])
            seconds = self.random.choice([0.0, 0.2, 2.0, 30.0, 300.0]) * self.random.random()
            self.later(seconds, lambda: process.end(code, signum))
        if self.random.random() < 0.25:
            for _ in range(self.random.randint(1, 3)):
                descendant = self.birth(process.tag, leader=False)
                if self.random.random() < 0.5:
                    self.later(self.random.uniform(0, 100), partial(descendant.end, 0))


class LifeOfADaemon:
    """The machine as one daemon has it; of a dead daemon nothing is heard any more."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.dead = False

    async def _act(self, what: str, chance: float) -> None:
        await anyio.sleep(self.machine.random.choice([0.0, 0.0, 0.01, 0.5]))
        self._check(what, chance)

    def _check(self, what: str, chance: float) -> None:
        if self.dead:  # a task of its that was not cancelled yet: SIGKILL would not have let it come so far
            raise anyio.get_cancelled_exc_class()
        if self.machine.fault(chance):
            self.machine.note(f"fault: {what}")
            raise OSError(errno.EMFILE, "Too many open files")

    # The host

    def at_turn(self, callback: Callable[[], None]) -> None:
        def begin() -> None:
            if not self.dead:
                callback()

        if self.machine.random.choice([False, True]):
            asyncio.get_running_loop().call_later(0.01, begin)
        else:
            begin()

    async def prepare(self) -> None:
        await anyio.sleep(self.machine.random.choice([0.0, 0.01]))

    def has_answered(self, _executable: Any) -> bool:
        return self.machine.random.choice([False, True])

    async def wait_executable(self, _executable: Any) -> None:
        await anyio.sleep(self.machine.random.choice([0.0, 0.0, 0.01, 0.5]))
        if self.machine.fault(0.02):
            raise SpawnError("exec", None, "simulated: its disk has not answered")

    async def spawn(self, spec: Any) -> Any:
        await anyio.sleep(self.machine.random.choice([0.0, 0.01, 0.5]))
        if self.dead:
            raise anyio.get_cancelled_exc_class()
        if self.machine.fault(0.08):
            raise SpawnError("fork", errno.EAGAIN, "simulated")
        if self.machine.fault(0.01):
            raise RuntimeError("a bug before the birth")
        process = self.machine.birth(spec.environment["ASUP_TAG"])
        self.machine.live(process)
        if self.machine.fault(0.01):
            raise RuntimeError("a bug after the birth")
        return Held(self, process)

    def tree(self, child: Any, tag: str) -> Any:
        return child

    def forget(self, tag: str) -> None:
        return

    def adopt(self, identity: Identity) -> Any:
        self._check("adopt", 0.05)
        for process in self.machine.living():
            if process.identity == identity:
                return Held(self, process)
        raise ProcessLookupError

    async def kill_strays(self, tag: str, grace_seconds: float = 0.0) -> None:
        await self._act("kill strays", 0.02)
        while members := [process for process in self.machine.living() if process.tag == tag]:
            for process in members:
                process.heed(9)
            await members[0].over.wait()

    async def credentials(self, user: str | None, group: str | None) -> None:
        return None

    async def ask(self, probe: Any) -> str | None:
        await anyio.sleep(0.01)
        return "simulated" if self.machine.fault(0.1) else None

    async def signature(self, path: str) -> Signature:
        await anyio.sleep(0)
        return None if self.machine.fault(0.1) else (int(anyio.current_time()), 0, 0)

    def may_have_oom_killed(self) -> bool:
        return True

    async def was_oom_killed(self, pid: int) -> bool | None:
        await anyio.sleep(0)
        return None

    async def run_command(self, spec: Any, timeout_seconds: float) -> int | None:
        await self._act("run a command", 0.0)
        return 1 if self.machine.fault(0.1) else 0


class Held:
    """A run's main process and its tree, as one daemon holds them."""

    def __init__(self, life: LifeOfADaemon, main: Simulated) -> None:
        self._life, self._main = life, main
        self.pid, self.identity = main.identity.pid, main.identity
        self._told: dict[Callable[[Ended], None], Callable[[Ended], None]] = {}

    def on_end(self, callback: Callable[[Ended], None]) -> None:
        def tell(ended: Ended) -> None:
            if not self._life.dead:
                callback(ended)

        self._told[callback] = tell
        if self._main.ended is not None:
            tell(self._main.ended)
        else:
            self._main.callbacks.append(tell)

    def forget(self, callback: Callable[[Ended], None]) -> None:
        tell = self._told.pop(callback, None)
        if tell in self._main.callbacks:
            self._main.callbacks.remove(tell)

    def close(self) -> None:
        pass

    def led_by(self, child: Any) -> Any:
        return self

    def _members(self) -> list[Simulated]:
        return [process for process in self._life.machine.living() if process.tag == self._main.tag]

    def has_leftovers(self) -> bool:
        self._life._check("look for leftovers", 0.03)
        return any(member is not self._main for member in self._members())

    def left_behind(self) -> list[str]:
        self._life._check("see what was left", 0.03)
        return ["child" for member in self._members() if member is not self._main]

    def signal(self, signum: int, scope: str) -> None:
        self._life._check(f"signal {signum}", 0.03)
        for member in self._members():
            if scope == "tree" or member is self._main:
                member.heed(signum)

    def signal_known(self, signum: int, scope: str) -> bool:
        if self._main.ended is not None:
            return False
        self._main.heed(signum)
        return True

    def signal_others(self, signum: int) -> None:
        self._life._check(f"signal {signum} to others", 0.03)
        for member in self._members():
            if member is not self._main:
                member.heed(signum)

    async def kill(self) -> None:
        await self._life._act("kill", 0.03)
        with anyio.move_on_after(10.0):  # bounded, as the real one
            while members := self._members():
                for member in members:
                    member.heed(9)
                await members[0].over.wait()

    async def wait_gone(self) -> None:
        await self._life._act("wait until gone", 0.03)
        while members := self._members():
            await members[0].over.wait()
