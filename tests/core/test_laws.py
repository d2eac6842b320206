"""The laws of the machine, tried on random lives in :mod:`tests.core.world`."""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from supervisord_async.core.inputs import (
    Adopted,
    BecameReady,
    DeadlinePassed,
    DependenciesMet,
    DependencyFailed,
    Exited,
    Faulted,
    HealthReported,
    Input,
    MainChanged,
    News,
    RestartRequested,
    SignalRequested,
    Spawned,
    SpawnFailed,
    StartRequested,
    StopRequested,
    TimeoutExtended,
    TreeGone,
)
from supervisord_async.core.machine import deadline, step
from supervisord_async.core.policy import KILL_REPEAT_SECONDS, OnLimit, Policy, RestartPolicy
from supervisord_async.core.state import Cause, ExitStatus, Health, State
from tests.core.world import World, restored

ASKING = st.sampled_from([Cause.OPERATOR, Cause.FILE_CHANGED, Cause.CONFIG_CHANGED, Cause.DEPENDENCY])
FAULTS = st.sampled_from([Cause.HEARTBEAT_MISSED, Cause.LIVENESS_FAILED, Cause.READINESS_FAILED, Cause.MEMORY_LIMIT])
STATUSES = st.one_of(
    st.integers(0, 3).map(lambda code: ExitStatus(code=code)),
    st.sampled_from([1, 9, 15]).map(lambda signum: ExitStatus(signal=signum)),
    st.just(ExitStatus()),
)
POLICIES = st.builds(
    Policy,
    restart=st.sampled_from(RestartPolicy),
    prevent_exit_codes=st.sampled_from([(), (3,)]),
    max_restarts=st.sampled_from([-1, 0, 1, 3]),
    within_seconds=st.sampled_from([None, 20.0, 600.0]),
    on_limit=st.sampled_from(OnLimit),
    retry_after_seconds=st.sampled_from([5.0, 600.0]),
    backoff_initial_seconds=st.sampled_from([0.0, 0.5, 30.0]),
    backoff_factor=st.sampled_from([1.0, 2.0]),
    backoff_jitter=st.sampled_from([0.0, 0.1]),
    reset_after_seconds=st.sampled_from([0.5, 60.0]),
    start_seconds=st.sampled_from([0.0, 1.0]),
    start_timeout_seconds=st.sampled_from([None, 5.0]),
    grace_seconds=st.sampled_from([0.0, 10.0]),
    has_dependencies=st.booleans(),
    checks=st.sampled_from([(), ("heartbeat",), ("heartbeat", "liveness")]),
    seed=st.just("web"),
)
RUNS = st.integers(0, 40)
NEWS: st.SearchStrategy[News] = st.one_of(
    st.builds(Spawned, run=RUNS, pid=st.just(1)),
    st.builds(SpawnFailed, run=RUNS, detail=st.just("late")),
    st.builds(BecameReady, run=RUNS),
    st.builds(HealthReported, run=RUNS, check=st.just("heartbeat"), health=st.sampled_from(Health)),
    st.builds(Faulted, run=RUNS, cause=FAULTS, detail=st.just("late")),
    st.builds(Exited, run=RUNS, status=STATUSES, remains=st.booleans()),
    st.builds(TreeGone, run=RUNS),
    st.builds(Adopted, run=RUNS, pid=st.just(1)),
    st.builds(TimeoutExtended, run=RUNS, until=st.floats(0, 1e6)),
    st.builds(MainChanged, run=RUNS, pid=st.just(1)),
)


class Life(RuleBasedStateMachine):
    """One process, everything that can happen to it in any order, and what must hold all the while."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @initialize(policy=POLICIES)
    def begin(self, policy: Policy) -> None:
        self.world = World(policy=policy)

    # People and other parts

    @rule(cause=st.sampled_from([Cause.OPERATOR, Cause.AUTOSTART, Cause.SCHEDULE]))
    def somebody_starts(self, cause: Cause) -> None:
        before = self.world.snapshot
        self.world.tell(StartRequested(cause))
        if cause is Cause.OPERATOR and before.state is not State.UNKNOWN:
            assert self.world.snapshot.wanted, "an operator's start was not heard"

    @rule(cause=st.sampled_from([Cause.OPERATOR, Cause.DAEMON_STOP]))
    def somebody_stops(self, cause: Cause) -> None:
        self.world.tell(StopRequested(cause))
        assert not self.world.snapshot.wanted, "a stop wins"
        assert self.world.snapshot.state in (State.STOPPED, State.STOPPING)

    @rule(cause=ASKING)
    def somebody_restarts(self, cause: Cause) -> None:
        before = self.world.snapshot
        self.world.tell(RestartRequested(cause))
        after = self.world.snapshot
        assert after.restarts <= before.restarts, "a restart that was asked for is not counted"
        assert after.state is not State.BACKOFF or before.state is State.BACKOFF
        if cause is not Cause.OPERATOR:
            assert after.wanted == before.wanted, "only a person starts what nobody wants"

    @rule(signum=st.sampled_from([1, 10, 15]))
    def somebody_signals(self, signum: int) -> None:
        before = self.world.snapshot
        effects = self.world.tell(SignalRequested(signum))
        assert bool(effects) == (before.pid is not None)
        assert self.world.snapshot.state is before.state

    @rule()
    def dependencies_come(self) -> None:
        self.world.tell(DependenciesMet())

    @rule()
    def dependencies_fail(self) -> None:
        self.world.tell(DependencyFailed("db is FATAL"))

    @rule(policy=POLICIES)
    def settings_change(self, policy: Policy) -> None:
        before = self.world.policy
        if policy.max_restarts != before.max_restarts or policy.within_seconds != before.within_seconds:
            self.world.automatic.clear()  # the window counts from here on
        self.world.policy = policy

    # The world

    @precondition(lambda self: self.world.in_flight is not None)
    @rule()
    def a_process_is_born(self) -> None:
        self.world.spawn_succeeds()

    @precondition(lambda self: self.world.in_flight is not None)
    @rule()
    def a_spawn_fails(self) -> None:
        self.world.spawn_fails()

    @precondition(lambda self: self.world.tree is not None and self.world.tree.main)
    @rule(status=STATUSES, leftovers=st.booleans())
    def the_main_process_ends(self, status: ExitStatus, leftovers: bool) -> None:
        self.world.main_exits(status, leftovers=leftovers)

    @precondition(lambda self: self.world.tree is not None and not self.world.tree.main)
    @rule()
    def the_leftovers_end(self) -> None:
        self.world.leftovers_go()

    @precondition(lambda self: self.world.in_flight is not None or (self.world.tree is not None and self.world.tree.main))
    @rule()
    def it_is_ready(self) -> None:
        self.world.tell(BecameReady(self.world.snapshot.run))

    @precondition(lambda self: self.world.tree is not None and self.world.tree.main)
    @rule(check=st.sampled_from(["heartbeat", "liveness"]), health=st.sampled_from([Health.HEALTHY, Health.UNHEALTHY]))
    def a_check_reports(self, check: str, health: Health) -> None:
        self.world.tell(HealthReported(self.world.snapshot.run, check, health))

    @precondition(lambda self: self.world.tree is not None and self.world.tree.main)
    @rule(cause=FAULTS)
    def a_monitor_finds_a_fault(self, cause: Cause) -> None:
        self.world.tell(Faulted(self.world.snapshot.run, cause, "silent"))

    @rule(seconds=st.sampled_from([0.0, 0.3, 1.0, 12.0, 61.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    # What breaks

    @rule(meanwhile=st.lists(st.sampled_from([StartRequested(), StopRequested(), RestartRequested(), BecameReady(1)]), max_size=2))
    def supervision_breaks(self, meanwhile: list[Input]) -> None:
        if self.world.breaks_and_resumes(*meanwhile) and StopRequested() in meanwhile:
            assert self.world.snapshot.state is State.STOPPING or self.world.tree is None, "a stop survives the break"
        assert self.world.snapshot.state is not State.UNKNOWN, "the news of a new driver leads out of UNKNOWN"

    @rule()
    def the_snapshot_goes_to_disk_and_back(self) -> None:
        before = self.world.snapshot
        self.world.restore()
        assert self.world.snapshot == before
        assert deadline(self.world.snapshot, self.world.policy) == deadline(before, self.world.policy)

    # Laws

    @rule(news=NEWS)
    def stale_news_changes_nothing(self, news: News) -> None:
        world = self.world
        if news.run != world.snapshot.run:
            after, effects = step(world.snapshot, news, world.policy, world.now)
            assert after is world.snapshot
            assert effects == ()

    @invariant()
    def an_early_wake_changes_nothing(self) -> None:
        world = self.world
        at = deadline(world.snapshot, world.policy)
        if at is None or world.now < at:
            after, effects = step(world.snapshot, DeadlinePassed(), world.policy, world.now)
            assert after is world.snapshot
            assert effects == ()

    @invariant()
    def the_deadline_is_a_time(self) -> None:
        at = deadline(self.world.snapshot, self.world.policy)
        assert at is None or math.isfinite(at)

    @invariant()
    def the_future_is_the_same_after_a_restore(self) -> None:
        world = self.world
        for input_ in (StartRequested(), StopRequested(), RestartRequested(), DeadlinePassed(), TreeGone(world.snapshot.run)):
            later = world.now + 100.0
            assert step(restored(world.snapshot), input_, world.policy, later) == step(world.snapshot, input_, world.policy, later)

    @invariant()
    def it_is_always_stoppable(self) -> None:
        """The world answers, deadlines pass: STOPPED after a few steps. On a copy, so that this life goes on."""
        copy = _copy(self.world)
        copy.tell(StopRequested())
        for _ in range(6):
            if copy.snapshot.state is State.STOPPED:
                break
            assert copy.answers(), f"stuck in {copy.snapshot}"
        assert copy.snapshot.state is State.STOPPED
        assert copy.tree is None
        assert deadline(copy.snapshot, copy.policy) is None

    @invariant()
    def who_does_not_listen_is_killed_again_and_again(self) -> None:
        copy = _copy(self.world)
        if copy.tree is None or copy.in_flight is not None:
            return
        copy.tell(StopRequested())
        kills = copy.snapshot.kills
        copy.pass_time(copy.policy.grace_seconds + 2 * KILL_REPEAT_SECONDS + 1.0 + kills * KILL_REPEAT_SECONDS)
        assert copy.snapshot.state is State.STOPPING
        assert copy.snapshot.kills >= kills + 3


def _copy(world: World) -> World:
    return replace(world, tree=None if world.tree is None else replace(world.tree), automatic=list(world.automatic), shut_down=[], trail=[])


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
