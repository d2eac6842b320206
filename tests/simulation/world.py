"""One story, told by a seed: a real supervisor on the simulated machine, with everything that can happen to it, and what must hold.

The daemon dies and is restored at any point, by what was last saved or by nothing but what lives; operators, reloads and
faults come by chance. Then the machine is calm, and all that is wanted must run, all that is not must be gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import anyio
import anyio.lowlevel
from msgspec import structs

from supervisord_async.config.load import Loaded
from supervisord_async.config.model import Backoff, Configuration, Daemon, Heartbeat, Program, Restart, Stop
from supervisord_async.core.inputs import RestartRequested, SignalRequested, StartRequested, StopRequested
from supervisord_async.core.machine import ASKED_FOR
from supervisord_async.core.policy import OnLimit, RestartPolicy
from supervisord_async.core.record import Record
from supervisord_async.core.state import DOWN, Cause, State
from supervisord_async.errors import BusyError
from supervisord_async.supervise.records.bus import Bus
from supervisord_async.supervise.recovery import persist
from supervisord_async.supervise.recovery.persist import SavedState
from supervisord_async.supervise.recovery.takeover import reconcile
from supervisord_async.supervise.supervisor import Supervisor, is_idle
from tests.fake_host import program, shared_context
from tests.simulation.machine import BOOT, BrokenInvariantError, LifeOfADaemon, Machine
from tests.virtual_clock import run_virtually

INSTANCE = "0123456789abcdef"
#: Longer than every backoff, retry and grace period of these programs together.
CALM_SECONDS = 7200.0


@dataclass
class PastRun:
    """What happened, for people and for comparison."""

    seed: int
    machine: Machine
    events: int = 0
    deaths: int = 0
    virtual_seconds: float = 0.0
    runs: int = 0
    trace: list[str] = field(default_factory=list)


class World:
    """The machine, the present daemon, and what its operators want."""

    def __init__(self, seed: int) -> None:
        self.machine = Machine(seed)
        self.random = self.machine.random
        self._hurry = Random(seed)  #: of its own: turns of the loop are no part of a story
        self._crowded = self._hurry.choice([0.0, 0.5, 0.97])  #: how often the telling of changes gives way to starts
        self.story = PastRun(seed, self.machine)
        self.programs = {name: self._program(name) for name in ("web", "worker", "job", "cache")}
        self.stopped: set[str] = set()  #: the operators' last word on these was to stop
        self.saved: SavedState | None = None
        self.changed_at = 0.0
        self.last_id = 0
        self._backoff_since: dict[str, float] = {}
        self._asked: set[str] = set()
        self._reloading = False
        self.supervisor: Supervisor = None  # type: ignore[assignment]  # set with the first daemon
        self.life: LifeOfADaemon = None  # type: ignore[assignment]

    # What is to be supervised

    def _program(self, name: str) -> Program:
        pick = self.random.choice
        limit = pick([-1, -1, 2, 5])
        restart = Restart(
            policy=pick([RestartPolicy.ALWAYS, RestartPolicy.ON_FAILURE, RestartPolicy.NEVER]),
            max_restarts=limit,
            within_seconds=pick([None, 600.0]) if limit >= 0 else None,
            on_limit=pick([OnLimit.FATAL, OnLimit.RETRY]),
            backoff=Backoff(initial_seconds=pick([0.01, 0.5, 5.0]), factor=2.0, max_seconds=60.0, jitter=0.1),
        )
        return program(
            name,
            replicas=pick([1, 1, 3]),
            autostart=self.random.random() < 0.9,
            start_seconds=pick([0.0, 1.0]),
            restart=restart,
            stop=Stop(grace_seconds=pick([0.0, 1.0, 10.0]), scope=pick(["tree", "mixed"])),
            heartbeat=Heartbeat(timeout_seconds=20.0, file="/beat") if self.random.random() < 0.2 else None,
            depends_on={"cache": "started"} if name == "web" and self.random.random() < 0.5 else {},
        )

    def configuration(self) -> Configuration:
        return Configuration(
            file="/simulated.yaml", daemon=Daemon(name="test", run_dir="/nowhere", socket="/nowhere/s"), programs=dict(self.programs)
        )

    async def load(self) -> Loaded:
        await anyio.sleep(self.random.choice([0.0, 0.1]))
        return Loaded(self.configuration(), ())

    # The daemon

    def state(self) -> SavedState:
        processes = tuple(process.saved() for process in self.supervisor.processes.values())
        return SavedState(boot_id=BOOT, instance=INSTANCE, last_record_id=self.supervisor.bus.last_id, processes=processes)

    async def live(self, inherited: dict[str, Any], *, task_status: Any = anyio.TASK_STATUS_IGNORED) -> None:
        """One daemon, until it is told to end or killed."""
        self.life = LifeOfADaemon(self.machine)
        bus = Bus(last_id=self.last_id, wall_clock=anyio.current_time, starting=lambda: self._hurry.random() < self._crowded)
        life = self.life
        bus.listen(lambda record: None if life.dead else self._on_record(record))

        def shared(_supervisor: Supervisor) -> Any:
            return shared_context(
                self.life,  # type: ignore[arg-type]
                bus,
                instance=INSTANCE,
                committed=lambda: None if life.dead else self._committed(),
                remembered=anyio.lowlevel.checkpoint,
                waits_for=lambda program: self.supervisor.dependencies.waits_for(program),
                spawned=lambda program: self.supervisor.dependencies.release(program),
                shut_down=lambda _why: None,
            )

        async def no_reexec() -> None:
            raise AssertionError("nobody asks for it")

        self.supervisor = Supervisor(self.configuration(), self.load, shared, no_reexec)
        with anyio.CancelScope() as scope:
            task_status.started(scope)
            await self.supervisor.run(inherited)

    def _committed(self) -> None:
        """It is saved a little later, as the saver does; what changes meanwhile is saved with it."""
        if self.changed_at == 0.0:
            self.changed_at = anyio.current_time()
            life = self.life

            def save() -> None:
                self.changed_at = 0.0
                if not life.dead:
                    state = self.state()
                    self.saved = persist.decode(persist.encode(state))
                    if self.saved != state:
                        raise BrokenInvariantError("what is saved is not what is read back")

            self.machine.later(self.random.choice([0.0, 0.05, 0.5]), save)

    def _on_record(self, record: Record) -> None:
        """Each record is checked as it comes."""
        self.last_id = record.id
        self.story.events += 1
        self.story.trace.append(
            f"{anyio.current_time():.3f} {record.type} {record.name} {record.from_} {record.to} {record.cause} {record.run}"
        )
        if record.type != "state" or record.name is None:
            return
        process = self.supervisor.processes.get(record.name)
        if process is None:
            return
        policy, snapshot = process.policy, process.snapshot
        if 0 <= policy.max_restarts < snapshot.restarts and policy.within_seconds is None and record.name not in self._asked:
            self.machine.violation(f"{record.name}: restart {snapshot.restarts} of at most {policy.max_restarts}")
        if record.cause == Cause.DEPENDENCY and record.to == State.STARTING:
            self.stopped.discard(record.name)  # what needs it was started by somebody
        if record.to == State.BACKOFF:
            self._backoff_since[record.name] = record.at
            if not self._reloading:  # which may change how long it backs off
                self._asked.discard(record.name)
        elif (
            record.from_ == State.BACKOFF
            and record.to == State.STARTING
            and record.cause not in ASKED_FOR
            and record.name not in self._asked
        ):
            waited = record.at - self._backoff_since.get(record.name, 0.0)
            if waited < policy.backoff_initial_seconds * (1 - policy.backoff_jitter) - 0.001:
                self.machine.violation(f"{record.name}: backed off for {waited:.3f} s only")

    # What happens

    async def _act(self) -> None:
        processes = list(self.supervisor.processes.values())
        what = self.random.choices(["start", "stop", "restart", "signal", "reload", "kill"], [4, 4, 3, 1, 2, 5])[0]
        if what == "reload":
            self._edit()
            self._reloading = True
            await self.supervisor.reload()
            self._reloading = False
            return
        if not processes:
            return
        process = self.random.choice(processes)
        self.machine.note(f"{what} {process.name}")
        if what == "kill":
            for member in self.machine.living(process.name):
                if member.leader:
                    member.end(signal=9)
            return
        self._asked.add(process.name)
        order = {"start": StartRequested(), "stop": StopRequested(), "restart": RestartRequested(), "signal": SignalRequested(10)}[what]
        try:
            process.post(order)
        except BusyError:
            return
        if what == "stop":
            if process.name in self._names():
                self.stopped.add(process.name)
        elif what != "signal":
            self.stopped.discard(process.name)

    def _names(self) -> set[str]:
        """Of the processes that the file asks for."""
        return {each for one in self.programs.values() for each in one.process_names()}

    def _edit(self) -> None:
        """The file is another one now; what an operator stopped stays so unless its program is new."""
        name = self.random.choice(["web", "worker", "job", "extra"])
        self._asked.update(self.supervisor.processes)
        if name in self.programs and self.random.random() < 0.4 and len(self.programs) > 2:
            del self.programs[name]
        else:
            self.programs[name] = self._program(name)
        names = self._names()
        if "cache" not in self.programs:
            self.programs["web"] = self._program("web")
        self.stopped &= names & self._names()
        self.machine.note(f"the file is edited: {name}")

    async def _die(self, tasks: Any, scope: anyio.CancelScope, *, by_reexec: bool) -> anyio.CancelScope:
        """The daemon is killed, or replaced; a successor takes over. Returns the successor's scope."""
        self.machine.note("re-exec" if by_reexec else "the daemon is killed")
        now = persist.decode(persist.encode(self.state()))
        self.life.dead = True
        scope.cancel()
        await anyio.sleep(0.0 if by_reexec else self.random.choice([0.0, 0.3, 20.0]))
        saved = now if by_reexec else self.saved
        if not by_reexec and self.random.random() < 0.1:
            saved = None  # the files were lost
        known = {each.name: each.snapshot for each in saved.processes} if saved is not None else {}
        tagged = self.machine.tagged()
        later = {each.name for each in tagged if each.name in known and each.run > known[each.name].run}  # started after the last save
        told = {name for name, snapshot in known.items() if not snapshot.wanted and not is_idle(snapshot)}
        self.stopped = (self.stopped - later) & told  # others: not yet saved
        inherited = reconcile(saved, tagged, BOOT, by_reexec=by_reexec)
        if by_reexec:
            for name, snapshot in known.items():
                after = inherited[name].snapshot
                if (
                    after != snapshot and after.run == snapshot.run and structs.replace(after, pid=None) != snapshot
                ):  # a birth may not be told yet
                    raise BrokenInvariantError(f"{name}: {snapshot} became {after} over a re-exec")
        self._asked.update(inherited)
        self.story.deaths += 1
        return await tasks.start(self.live, inherited)  # type: ignore[no-any-return]

    async def play(self, steps: int) -> PastRun:
        """The story, to its end; raises BrokenInvariantError."""
        async with anyio.create_task_group() as tasks:
            scope = await tasks.start(self.live, {})
            for _ in range(steps):
                await anyio.sleep(self.random.choice([0.0, 0.02, 1.0, 30.0]) * self.random.random())
                if self.random.random() < 0.12:
                    scope = await self._die(tasks, scope, by_reexec=self.random.random() < 0.4)
                else:
                    await self._act()
            self.machine.calm = True
            self.machine.note("calm")
            await anyio.sleep(CALM_SECONDS)
            self._check_everything()
            self.supervisor.request_shutdown()
            with anyio.move_on_after(CALM_SECONDS) as patience:
                while not self._is_down():
                    await anyio.sleep(1.0)
                await anyio.sleep(60.0)
            if patience.cancelled_caught or self.machine.living():
                raise BrokenInvariantError(f"the shutdown left {[(one.name, one.run) for one in self.machine.living()]}")
            tasks.cancel_scope.cancel()
        self.story.virtual_seconds = anyio.current_time()
        self.story.runs = self.machine._pids - 100
        return self.story

    def _is_down(self) -> bool:
        return all(process.snapshot.state in DOWN for process in self.supervisor.processes.values())

    def _check_everything(self) -> None:
        """Nothing went wrong for two hours: the daemon's view is the machine's, and each slot is where its policy wants it."""
        names = {name for one in self.programs.values() for name in one.process_names()}
        if set(self.supervisor.processes) != names:
            raise BrokenInvariantError(f"processes {sorted(self.supervisor.processes)}, wanted {sorted(names)}")
        if strangers := {one.name for one in self.machine.living()} - names:
            raise BrokenInvariantError(f"{strangers} live and are in no file")
        for name, process in self.supervisor.processes.items():
            snapshot, living = process.snapshot, self.machine.living(name)
            mains = [one for one in living if one.leader]
            words = f"{name}: {snapshot}, living {[(one.identity.pid, one.run, one.leader) for one in living]}"
            if snapshot.state is State.RUNNING and [one.identity.pid for one in mains] != [snapshot.pid]:
                raise BrokenInvariantError(f"RUNNING without its process: {words}")
            if snapshot.state in DOWN and living:
                raise BrokenInvariantError(f"down, and something lives: {words}")
            if name in self.stopped and snapshot.state not in DOWN:
                raise BrokenInvariantError(f"a stop was lost: {words}")
            allowed = {State.RUNNING, State.EXITED, State.FATAL, State.STOPPED, State.WAITING}
            if snapshot.state not in allowed:
                raise BrokenInvariantError(f"not settled after two calm hours: {words}")
            if snapshot.wanted and snapshot.state is State.STOPPED:
                raise BrokenInvariantError(f"wanted and forgotten: {words}")
            if snapshot.state is State.WAITING and not process.program.depends_on:
                raise BrokenInvariantError(f"waits for nothing: {words}")
            if snapshot.state is State.STOPPED and process.program.autostart and name not in self.stopped and not self._was_asked(name):
                raise BrokenInvariantError(f"never started: {words}")

    def _was_asked(self, name: str) -> bool:
        return name in self._asked


def play(seed: int, steps: int = 60) -> PastRun:
    """The story of ``seed``; raises BrokenInvariantError, with how to replay it and the last that happened."""
    with _silence():
        return _play(seed, steps)


@contextmanager
def _silence() -> Iterator[None]:
    """Broken supervision is what the story is about; the log of it is not."""
    loggers = [logging.getLogger(name) for name in ("supervisord_async", "asupd")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _play(seed: int, steps: int) -> PastRun:
    world: list[World] = []

    async def main() -> PastRun:
        broken: list[BaseException] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, context: broken.append(context.get("exception") or AssertionError(context["message"]))
        )
        world.append(World(seed))
        story = await world[0].play(steps)
        if broken:
            raise broken[0]
        if world[0].machine.violations:
            raise BrokenInvariantError(world[0].machine.violations[0])
        return story

    try:
        return run_virtually(main)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        told = [*world[0].machine.log, *world[0].story.trace] if world else []
        last = "\n  ".join(sorted(told, key=lambda line: float(line.split()[0]))[-60:])
        raise BrokenInvariantError(f"seed {seed} (replay: scripts/simulate --seed {seed}): {_innermost(error)!r}\n  {last}") from error


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
