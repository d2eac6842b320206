"""A little world for the machine to act in: processes that obey or do not, spawns in flight, a clock that only tests move.

It carries effects out and answers with inputs, as the driver does, and it knows what really lives. What the machine
orders is checked against that: a second run beside a live one, or a signal for nobody, is an AssertionError here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from supervisord_async.core.effects import Effect, Kill, SendSignal, ShutDown, Spawn, Terminate
from supervisord_async.core.inputs import (
    Adopted,
    BecameReady,
    DeadlinePassed,
    Exited,
    Input,
    RestartRequested,
    Spawned,
    SpawnFailed,
    StartRequested,
    StopRequested,
    SupervisionBroke,
    TreeGone,
)
from supervisord_async.core.machine import deadline, step
from supervisord_async.core.policy import Policy
from supervisord_async.core.state import Cause, ExitStatus, Snapshot, State

FAILED, DONE = ExitStatus(code=1), ExitStatus(code=0)
EVEN = 0.0  # no jitter

#: States in which nothing of any run lives, and none is on its way.
NOTHING_LIVES = frozenset({State.STOPPED, State.WAITING, State.BACKOFF, State.EXITED, State.FATAL})


@dataclass
class Tree:
    """What lives of one run."""

    run: int
    pid: int
    main: bool = True
    leftovers: bool = False
    told: bool = False  #: it was told to go, or killed

    @property
    def lives(self) -> bool:
        return self.main or self.leftovers


@dataclass
class World:
    """One process slot, its truth (``in_flight``, ``tree``) beside what the machine knows of it (``snapshot``)."""

    policy: Policy = field(default_factory=Policy)
    snapshot: Snapshot = field(default_factory=Snapshot)
    now: float = 1000.0
    in_flight: int | None = None
    tree: Tree | None = None
    pids: int = 100
    consecutive: int = 0  #: automatic restarts since the last calm, retry, or word of a person
    automatic: list[float] = field(default_factory=list)  #: when automatic restarts were decided, since the last word or retry
    shut_down: list[str] = field(default_factory=list)
    trail: list[tuple[State, str, State]] = field(default_factory=list)

    # Acting

    def tell(self, input_: Input) -> tuple[Effect, ...]:
        """The machine decides on ``input_`` and its effects are carried out."""
        before = self.snapshot
        self.snapshot, effects = step(before, input_, self.policy, self.now)
        self.trail.append((before.state, type(input_).__name__, self.snapshot.state))
        self._count(before, input_)
        for effect in effects:
            self._carry_out(effect)
        self.check()
        return effects

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Spawn(run=run):
                assert self.in_flight is None, f"run {run} ordered while {self.in_flight} is in flight"
                assert self.tree is None, f"run {run} ordered while {self.tree} lives"
                self.in_flight = run
            case Terminate(run=run) | Kill(run=run):
                assert self.tree is not None, f"{effect} for nobody"
                assert self.tree.run == run, f"{effect} is for another run than {self.tree}"
                self.tree.told = True
            case SendSignal(run=run):
                assert self.tree is not None, f"{effect} for nobody"
                assert self.tree.main, f"{effect} for a dead main process"
                assert self.tree.run == run
            case ShutDown(detail=detail):
                self.shut_down.append(detail)

    def _count(self, before: Snapshot, input_: Input) -> None:
        """Count restarts by what is documented of them, to judge the machine's own count."""
        after, policy = self.snapshot, self.policy
        match input_:
            case StartRequested() | StopRequested() if after is not before:
                self._forget()
            case RestartRequested(cause=cause) if after is not before and (cause is Cause.OPERATOR or before.state is State.FATAL):
                self._forget()
            case DeadlinePassed() if before.state is State.FATAL and after.state is State.STARTING:
                self._forget()
            case DeadlinePassed() if before.state is State.RUNNING and after is not before:
                assert self.now - before.run_since >= policy.reset_after_seconds, "forgotten before it was calm"
                self.consecutive = 0
        if after.state is State.BACKOFF and before.state is not State.BACKOFF:
            self.consecutive += 1
            self.automatic.append(self.now)
            self._judge_backoff()
        assert after.restarts == self.consecutive, f"{after.restarts} counted, {self.consecutive} happened"

    def _forget(self) -> None:
        self.consecutive = 0
        self.automatic.clear()

    def _judge_backoff(self) -> None:
        p = self.policy
        if p.max_restarts >= 0:
            if p.within_seconds is None:
                assert self.consecutive <= p.max_restarts, "one automatic restart too many"
            else:
                recent = [at for at in self.automatic if self.now - at < p.within_seconds]
                assert len(recent) <= p.max_restarts, f"{len(recent)} automatic restarts within {p.within_seconds} s"
        due_at = deadline(self.snapshot, p)
        assert due_at is not None
        wanted = min(p.backoff_max_seconds, p.backoff_initial_seconds * p.backoff_factor ** (self.consecutive - 1))
        assert abs(due_at - self.now - wanted) <= wanted * p.backoff_jitter + 1e-6, "not the delay of the formula"

    def check(self) -> None:
        """What holds at every moment."""
        s = self.snapshot
        if s.state in NOTHING_LIVES:
            assert self.tree is None, f"{s.state} while {self.tree} lives"
            assert self.in_flight is None, f"{s.state} while run {self.in_flight} is in flight"
            assert s.pid is None
        if s.pid is not None:
            assert self.tree is not None
            assert self.tree.main
            assert self.tree.pid == s.pid
        assert s.wanted or s.state in (State.STOPPED, State.STOPPING, State.UNKNOWN), f"{s.state} though unwanted"
        assert not (s.wanted and s.state is State.STOPPED), "STOPPED though wanted"
        assert (s.restarts > 0) or s.state is not State.BACKOFF
        assert s.state is not State.RUNNING or s.pid is not None
        due_at = deadline(s, self.policy)
        if s.state in (State.BACKOFF, State.STOPPING) and self.in_flight is None:
            assert due_at is not None, f"{s.state} for ever"

    # What the world does by itself

    def spawn_succeeds(self) -> None:
        run = self.in_flight
        assert run is not None
        self.in_flight, self.pids = None, self.pids + 1
        self.tree = Tree(run, self.pids)
        self.tell(Spawned(run, self.pids))

    def spawn_fails(self, detail: str = "exec: cannot find it") -> None:
        run = self.in_flight
        assert run is not None
        self.in_flight = None
        self.tell(SpawnFailed(run, detail))

    def main_exits(self, status: ExitStatus, *, leftovers: bool = False) -> None:
        tree = self.tree
        assert tree is not None
        assert tree.main
        tree.main, tree.leftovers = False, leftovers
        if not leftovers:
            self.tree = None
        self.tell(Exited(tree.run, status, leftovers))

    def leftovers_go(self) -> None:
        tree = self.tree
        assert tree is not None
        assert not tree.main
        self.tree = None
        self.tell(TreeGone(tree.run))

    def pass_time(self, seconds: float) -> None:
        """Time passes; whatever falls due on the way is told at its moment."""
        until = self.now + seconds
        for _ in range(10_000):
            at = deadline(self.snapshot, self.policy)
            if at is None or at > until:
                break
            self.now = max(self.now, at)
            self.tell(DeadlinePassed())
        else:
            raise AssertionError("the deadline never moves on: a busy loop")
        self.now = until

    def breaks_and_resumes(self, *meanwhile: Input) -> bool:
        """A bug ends the tasks; requests queue up; a new driver decides on them, then hears what it found out itself.

        Returns whether something lived, or may have: without that nothing was lost from sight.
        """
        self.tell(SupervisionBroke("a bug"))
        lost_sight = self.snapshot.state is State.UNKNOWN
        for request in meanwhile:
            self.tell(request)
        if not lost_sight:
            return False
        run = self.snapshot.run
        if self.in_flight is not None:
            self.in_flight, self.pids = None, self.pids + 1
            self.tree = Tree(run, self.pids)
            self.tell(Adopted(run, self.pids))
        elif self.tree is None:
            self.tell(Exited(run, ExitStatus()) if run else SpawnFailed(run, "found nothing"))
        elif self.tree.main:
            self.tell(Adopted(run, self.tree.pid))
        else:
            self.tell(Exited(run, ExitStatus(), True))
        return True

    def restore(self) -> None:
        """The snapshot went to disk and came back."""
        self.snapshot = restored(self.snapshot)

    def answers(self) -> bool:
        """One natural answer of the world to what it was told, or the next deadline; False where nothing is due any more."""
        if self.in_flight is not None:
            self.spawn_succeeds()
        elif self.tree is not None and self.tree.told:
            if self.tree.main:
                self.main_exits(ExitStatus(signal=15))
            else:
                self.leftovers_go()
        elif (at := deadline(self.snapshot, self.policy)) is not None:
            self.pass_time(max(0.0, at - self.now))
        else:
            return False
        return True


def restored(snapshot: Snapshot) -> Snapshot:
    """As it comes back from disk."""
    return msgspec.json.decode(msgspec.json.encode(snapshot), type=Snapshot)


def running(policy: Policy | None = None) -> World:
    """A process that is up and RUNNING."""
    world = World(policy or Policy(backoff_jitter=EVEN))
    world.tell(StartRequested())
    world.spawn_succeeds()
    world.tell(BecameReady(1))
    world.pass_time(world.policy.start_seconds)
    assert world.snapshot.state is State.RUNNING
    return world


def crash(world: World, status: ExitStatus = FAILED) -> Snapshot:
    """The main process ends by itself."""
    world.main_exits(status)
    return world.snapshot


def crash_again(world: World, status: ExitStatus = FAILED) -> Snapshot:
    """The backoff passes, the next run comes up and ends at once."""
    at = deadline(world.snapshot, world.policy)
    assert at is not None
    world.pass_time(at - world.now)
    world.spawn_succeeds()
    return crash(world, status)
