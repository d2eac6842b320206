"""Lives of a process told as stories: what a user of supervisord or systemd would expect to happen next."""

from __future__ import annotations

import pytest

from supervisord_async.core.effects import SendSignal, Spawn
from supervisord_async.core.inputs import (
    BecameReady,
    DependenciesMet,
    DependencyFailed,
    Faulted,
    HealthReported,
    RestartRequested,
    SignalRequested,
    StartRequested,
)
from supervisord_async.core.policy import OnLimit, Policy, RestartPolicy
from supervisord_async.core.state import Cause, ExitStatus, Health, State
from tests.core.world import DONE, EVEN, FAILED, World, crash, crash_again, running

# Starting


def test_start_leads_over_starting_to_running() -> None:
    world = World()
    assert world.tell(StartRequested(Cause.AUTOSTART)) == (Spawn(1),)
    assert world.snapshot.state is State.STARTING
    world.spawn_succeeds()
    world.pass_time(0.9)
    assert world.snapshot.state is State.STARTING
    world.pass_time(0.1)
    assert world.snapshot.state is State.RUNNING
    assert (world.snapshot.cause, world.snapshot.run, world.snapshot.restarts) == (Cause.AUTOSTART, 1, 0)


def test_a_run_is_up_since_it_has_a_process_however_long_that_took() -> None:
    world = World(Policy(start_seconds=3.0))
    world.tell(StartRequested())
    world.pass_time(100.0)
    world.spawn_succeeds()
    assert (world.snapshot.state, world.snapshot.run_since) == (State.STARTING, world.now)
    world.pass_time(2.9)
    assert world.snapshot.state is State.STARTING
    world.pass_time(0.1)
    assert world.snapshot.state is State.RUNNING


def test_start_without_start_seconds_is_running_at_once() -> None:
    world = World(Policy(start_seconds=0))
    world.tell(StartRequested())
    world.spawn_succeeds()
    assert world.snapshot.state is State.RUNNING


def test_start_of_what_runs_changes_nothing() -> None:
    world = running()
    before = world.snapshot
    assert world.tell(StartRequested()) == ()
    assert world.snapshot is before


def test_readiness_is_awaited_and_not_for_ever() -> None:
    policy = Policy(start_timeout_seconds=30.0, backoff_jitter=EVEN)
    world = World(policy)
    world.tell(StartRequested())
    world.spawn_succeeds()
    world.pass_time(29.0)
    assert world.snapshot.state is State.STARTING
    world.pass_time(1.0)
    assert (world.snapshot.state, world.snapshot.cause) == (State.STOPPING, Cause.READINESS_FAILED)
    world.main_exits(ExitStatus(signal=15))
    assert (world.snapshot.state, world.snapshot.cause, world.snapshot.restarts) == (State.BACKOFF, Cause.READINESS_FAILED, 1)


@pytest.mark.parametrize(("complaint", "detail"), [("", "not ready within 30 s"), ("refused", "not ready within 30 s; refused")])
def test_a_start_that_took_too_long_says_what_its_probe_found(complaint: str, detail: str) -> None:
    world = World(Policy(start_timeout_seconds=30.0))
    world.tell(StartRequested())
    world.spawn_succeeds()
    if complaint:
        world.tell(HealthReported(1, "readiness", Health.UNHEALTHY, complaint))
    world.pass_time(30.0)
    assert world.snapshot.detail == detail


def test_readiness_is_awaited_however_short_start_seconds_are() -> None:
    world = World(Policy(start_timeout_seconds=30.0, start_seconds=0))
    world.tell(StartRequested())
    world.spawn_succeeds()
    assert world.snapshot.state is State.STARTING


def test_ready_ends_starting() -> None:
    world = World(Policy(start_timeout_seconds=30.0))
    world.tell(StartRequested())
    world.spawn_succeeds()
    world.tell(BecameReady(1))
    assert world.snapshot.state is State.RUNNING
    world.pass_time(1000.0)
    assert world.snapshot.state is State.RUNNING


def test_ready_before_the_process_is_known_leads_nowhere() -> None:
    world = World(Policy(start_timeout_seconds=30.0))
    world.tell(StartRequested())
    world.tell(BecameReady(1))
    assert world.snapshot.state is State.STARTING


def test_spawn_failure_backs_off_and_reaches_the_limit() -> None:
    world = World(Policy(max_restarts=2, backoff_jitter=EVEN))
    world.tell(StartRequested())
    world.spawn_fails("exec: no such file")
    assert (world.snapshot.state, world.snapshot.cause, world.snapshot.detail) == (
        State.BACKOFF,
        Cause.SPAWN_FAILED,
        "exec: no such file",
    )
    assert world.snapshot.exit is None, "nothing ran, so nothing exited"
    for _ in range(2):
        world.pass_time(5.0)
        world.spawn_fails("exec: no such file")
    assert (world.snapshot.state, world.snapshot.cause, world.snapshot.run) == (State.FATAL, Cause.RESTART_LIMIT, 3)
    assert "no such file" in world.snapshot.detail


def test_nothing_is_remembered_for_a_window_without_a_limit() -> None:
    world = running(Policy(within_seconds=60.0, max_restarts=-1, backoff_jitter=EVEN))
    crash(world)
    crash_again(world)
    assert (world.snapshot.restarts, world.snapshot.recent) == (2, ())


def test_dependencies_are_waited_for() -> None:
    world = World(Policy(has_dependencies=True))
    assert world.tell(StartRequested()) == ()
    assert world.snapshot.state is State.WAITING
    assert world.tell(DependenciesMet()) == (Spawn(1),)


@pytest.mark.parametrize("cause", [Cause.OPERATOR, Cause.FILE_CHANGED, Cause.CONFIG_CHANGED, Cause.DEPENDENCY])
def test_restart_that_was_asked_for_waits_for_dependencies(cause: Cause) -> None:
    world = World(Policy(has_dependencies=True, start_seconds=0))
    world.tell(StartRequested())
    world.tell(DependenciesMet())
    world.spawn_succeeds()
    world.tell(RestartRequested(cause, "why"))
    world.main_exits(ExitStatus(signal=15))
    assert (world.snapshot.state, world.snapshot.cause, world.snapshot.detail) == (State.WAITING, cause, "why")
    world.tell(DependenciesMet())
    world.spawn_succeeds()
    assert (world.snapshot.state, world.snapshot.run, world.snapshot.restarts) == (State.RUNNING, 2, 0)


def test_crash_waits_for_no_dependency() -> None:
    world = World(Policy(has_dependencies=True, start_seconds=0))
    world.tell(StartRequested())
    world.tell(DependenciesMet())
    world.spawn_succeeds()
    world.main_exits(ExitStatus(code=1))
    assert world.snapshot.state is State.BACKOFF
    world.pass_time(10.0)
    assert (world.snapshot.state, world.snapshot.run) == (State.STARTING, 2)


def test_dependency_that_will_not_come_is_fatal() -> None:
    world = World(Policy(has_dependencies=True))
    world.tell(StartRequested())
    world.tell(DependencyFailed("db is FATAL"))
    assert (world.snapshot.state, world.snapshot.cause, world.snapshot.detail) == (State.FATAL, Cause.DEPENDENCY, "db is FATAL")


# Ending by itself


@pytest.mark.parametrize(
    ("restart", "status", "state"),
    [
        (RestartPolicy.ON_FAILURE, ExitStatus(code=0), State.EXITED),
        (RestartPolicy.ON_FAILURE, ExitStatus(code=1), State.BACKOFF),
        (RestartPolicy.ON_FAILURE, ExitStatus(code=75), State.EXITED),
        (RestartPolicy.ON_FAILURE, ExitStatus(code=4), State.EXITED),
        (RestartPolicy.ON_FAILURE, ExitStatus(signal=11, core=True), State.BACKOFF),
        (RestartPolicy.ON_FAILURE, ExitStatus(), State.BACKOFF),
        (RestartPolicy.ALWAYS, ExitStatus(code=0), State.BACKOFF),
        (RestartPolicy.ALWAYS, ExitStatus(code=4), State.EXITED),
        (RestartPolicy.ALWAYS, ExitStatus(signal=9), State.BACKOFF),
        (RestartPolicy.NEVER, ExitStatus(code=0), State.EXITED),
        (RestartPolicy.NEVER, ExitStatus(code=1), State.EXITED),
        (RestartPolicy.NEVER, ExitStatus(signal=9), State.EXITED),
    ],
)
def test_policy_decides_what_follows_an_exit(restart: RestartPolicy, status: ExitStatus, state: State) -> None:
    world = running(Policy(restart=restart, success_exit_codes=(0, 75), prevent_exit_codes=(4,)))
    crash(world, status)
    assert (world.snapshot.state, world.snapshot.cause, world.snapshot.exit) == (state, Cause.EXITED, status)


def test_success_counts_however_short_the_life_was() -> None:
    world = World()
    world.tell(StartRequested())
    world.spawn_succeeds()
    assert crash(world, DONE).state is State.EXITED


def test_instant_exits_back_off_even_without_start_seconds() -> None:
    world = World(Policy(start_seconds=0, backoff_jitter=EVEN, max_restarts=3))
    world.tell(StartRequested())
    world.spawn_succeeds()
    assert crash(world).state is State.BACKOFF
    for _ in range(3):
        crash_again(world)
    assert (world.snapshot.state, world.snapshot.run) == (State.FATAL, 4)


def test_leftovers_are_gone_before_the_next_run() -> None:
    world = running()
    world.main_exits(FAILED, leftovers=True)
    assert world.snapshot.state is State.STOPPING
    assert world.tree is not None
    assert world.tree.told
    world.pass_time(world.policy.grace_seconds)
    assert world.snapshot.kills == 1
    world.leftovers_go()
    assert (world.snapshot.state, world.snapshot.cause, world.snapshot.restarts) == (State.BACKOFF, Cause.EXITED, 1)


def test_end_by_the_signal_that_an_operator_sent_is_success() -> None:
    world = running()
    assert world.tell(SignalRequested(10)) == (SendSignal(1, 10),)
    assert crash(world, ExitStatus(signal=10)).state is State.EXITED


def test_end_by_another_signal_than_the_one_sent_is_failure() -> None:
    world = running()
    world.tell(SignalRequested(10))
    assert crash(world, ExitStatus(signal=9)).state is State.BACKOFF


def test_signal_sent_to_one_run_excuses_no_later_one() -> None:
    world = running()
    world.tell(SignalRequested(10))
    crash(world)
    assert crash_again(world, ExitStatus(signal=10)).state is State.BACKOFF


def test_fault_of_what_is_never_restarted_is_fatal() -> None:
    world = running(Policy(restart=RestartPolicy.NEVER))
    world.tell(Faulted(1, Cause.HEARTBEAT_MISSED, "silent for 21 s"))
    world.main_exits(ExitStatus(signal=15))
    assert (world.snapshot.state, world.snapshot.cause, world.snapshot.detail) == (
        State.FATAL,
        Cause.HEARTBEAT_MISSED,
        "silent for 21 s",
    )


def test_hang_is_replaced_although_the_policy_would_take_its_exit_for_success() -> None:
    world = running()
    world.tell(Faulted(1, Cause.HEARTBEAT_MISSED, "silent for 21 s"))
    world.main_exits(DONE)
    assert (world.snapshot.state, world.snapshot.cause) == (State.BACKOFF, Cause.HEARTBEAT_MISSED)
    world.pass_time(0.5)
    world.spawn_succeeds()
    world.pass_time(1.0)
    assert (world.snapshot.state, world.snapshot.cause, world.snapshot.run) == (State.RUNNING, Cause.HEARTBEAT_MISSED, 2)


# Limits


def test_consecutive_limit_ends_in_fatal_and_start_begins_anew() -> None:
    world = running(Policy(max_restarts=3, backoff_jitter=EVEN))
    crash(world)
    for _ in range(3):
        crash_again(world)
    assert (world.snapshot.state, world.snapshot.cause, world.snapshot.run) == (State.FATAL, Cause.RESTART_LIMIT, 4)
    world.pass_time(10**6)
    assert world.snapshot.state is State.FATAL
    world.tell(StartRequested())
    assert (world.snapshot.state, world.snapshot.restarts) == (State.STARTING, 0)


def test_calm_time_forgets_consecutive_restarts() -> None:
    world = running(Policy(max_restarts=1, backoff_jitter=EVEN, reset_after_seconds=60.0))
    for _ in range(10):
        crash(world)
        assert world.snapshot.state is State.BACKOFF
        world.pass_time(0.5)
        world.spawn_succeeds()
        world.pass_time(60.0)
        assert world.snapshot.restarts == 0


def test_three_restarts_within_ten_minutes_are_counted_as_by_systemd() -> None:
    """``max_restarts: 3, within: 10m, backoff: {initial: 30s, factor: 1}``: StartLimitBurst=3 in 600 s, RestartSec=30."""
    policy = Policy(max_restarts=3, within_seconds=600.0, backoff_initial_seconds=30.0, backoff_factor=1.0, backoff_jitter=EVEN)
    world = running(policy)
    began = world.now
    crash(world)
    for _ in range(3):
        crash_again(world)
    assert (world.snapshot.state, world.snapshot.run) == (State.FATAL, 4)
    assert world.now - began == pytest.approx(90.0)


def test_window_trips_although_each_life_was_calm() -> None:
    """A crash every two minutes: reset_after (60 s) forgets the consecutive count each time, the window must not."""
    world = running(Policy(max_restarts=3, within_seconds=600.0, backoff_jitter=EVEN, reset_after_seconds=60.0))
    crashes = 0
    while world.snapshot.state is not State.FATAL and crashes < 10:
        crash(world)
        crashes += 1
        if world.snapshot.state is State.BACKOFF:
            world.pass_time(0.5)
            world.spawn_succeeds()
            world.pass_time(120.0)
    assert crashes == 4


def test_window_forgets_with_time() -> None:
    world = running(Policy(max_restarts=3, within_seconds=600.0, backoff_jitter=EVEN))
    for _ in range(20):
        crash(world)
        assert world.snapshot.state is State.BACKOFF
        world.pass_time(1.0)
        world.spawn_succeeds()
        world.pass_time(250.0)


def test_limit_may_shut_the_daemon_down() -> None:
    world = running(Policy(max_restarts=0, on_limit=OnLimit.SHUTDOWN))
    crash(world)
    assert world.snapshot.state is State.FATAL
    assert len(world.shut_down) == 1


def test_limit_may_be_retried_after_a_while() -> None:
    world = running(Policy(max_restarts=0, on_limit=OnLimit.RETRY, retry_after_seconds=600.0))
    crash(world)
    world.pass_time(599.0)
    assert world.snapshot.state is State.FATAL
    world.pass_time(1.0)
    assert (world.snapshot.state, world.snapshot.run, world.snapshot.restarts) == (State.STARTING, 2, 0)


@pytest.mark.parametrize("within", [None, 3600.0])
def test_a_retry_after_the_limit_has_the_whole_limit_again(within: float | None) -> None:
    policy = Policy(max_restarts=1, within_seconds=within, on_limit=OnLimit.RETRY, retry_after_seconds=600.0, backoff_jitter=EVEN)
    world = running(policy)
    crash(world)
    assert crash_again(world).state is State.FATAL
    world.pass_time(600.0)
    world.spawn_succeeds()
    assert (crash(world).state, world.snapshot.restarts) == (State.BACKOFF, 1)
    assert crash_again(world).state is State.FATAL


def test_flapping_shows_and_clears_after_calm() -> None:
    world = running(Policy(backoff_jitter=EVEN))
    crash(world)
    for _ in range(4):
        crash_again(world)
    assert world.snapshot.flapping
    world.pass_time(60.0)
    world.spawn_succeeds()
    assert world.snapshot.flapping
    world.pass_time(60.0)
    assert (world.snapshot.state, world.snapshot.flapping) == (State.RUNNING, False)
