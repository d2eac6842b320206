"""What people and other parts ask of a process, and what becomes of it: restarts, stops, adoption, time asked for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from supervisord_async.core.effects import Spawn, Terminate
from supervisord_async.core.inputs import (
    Adopted,
    Exited,
    Faulted,
    HealthReported,
    Input,
    MainChanged,
    RestartRequested,
    SignalRequested,
    StartRequested,
    StopRequested,
    SupervisionBroke,
    TimeoutExtended,
    TreeGone,
)
from supervisord_async.core.machine import deadline, step
from supervisord_async.core.policy import KILL_REPEAT_SECONDS, Policy
from supervisord_async.core.state import Cause, ExitStatus, Health, Snapshot, State
from tests.core.world import DONE, EVEN, Tree, World, crash, crash_again, running

# Asked for


@pytest.mark.parametrize("cause", [Cause.OPERATOR, Cause.FILE_CHANGED, Cause.CONFIG_CHANGED])
def test_restart_that_was_asked_for_is_at_once_and_uncounted(cause: Cause) -> None:
    world = running(Policy(max_restarts=0))
    for run in range(2, 12):
        assert world.tell(RestartRequested(cause)) == (Terminate(run - 1),)
        assert (world.snapshot.state, world.snapshot.wanted) == (State.STOPPING, True)
        world.main_exits(ExitStatus(signal=15))
        assert (world.snapshot.state, world.snapshot.run, world.snapshot.restarts) == (State.STARTING, run, 0)
        world.spawn_succeeds()
        world.pass_time(1.0)
        assert (world.snapshot.state, world.snapshot.cause) == (State.RUNNING, cause)


@pytest.mark.parametrize(
    ("request_", "restarts"), [(StartRequested(), 0), (RestartRequested(), 0), (RestartRequested(Cause.FILE_CHANGED, "app.py"), 2)]
)
def test_a_backoff_is_cut_short_by_a_request_and_its_count_cleared_by_an_operators(request_: Input, restarts: int) -> None:
    world = running(Policy(backoff_jitter=EVEN))
    crash(world)
    crash_again(world)
    assert world.tell(request_) == (Spawn(3),)
    assert world.snapshot.restarts == restarts


@pytest.mark.parametrize("order", [StartRequested, StopRequested, RestartRequested])
def test_who_gave_an_operators_order_is_known_as_long_as_it_is_the_cause(order: Callable[..., Input]) -> None:
    world = running(Policy(backoff_jitter=EVEN))
    world.tell(StopRequested(Cause.DAEMON_STOP, by="nobody"))
    assert (world.snapshot.by, world.snapshot.told_by) == ("", "")
    world.tell(order(by="alice"))
    assert (world.snapshot.cause, world.snapshot.told_by) == (Cause.OPERATOR, "alice")
    before = world.snapshot
    world.tell(StopRequested(by="alice") if before.wanted else StartRequested(by="alice"))  # something else, so that the next one counts
    world.tell(order(by="bob"))
    assert world.snapshot.told_by == "bob"
    world.tell(order(by="carol"))  # it changes nothing any more
    assert world.snapshot.told_by == "bob"
    world.tell(StartRequested(by="bob"))
    world.main_exits(ExitStatus(signal=15))
    world.spawn_succeeds()
    crash(world)
    assert world.snapshot.told_by == ""


@pytest.mark.parametrize("cause", [Cause.OPERATOR, Cause.FILE_CHANGED, Cause.CONFIG_CHANGED])
def test_a_run_is_there_for_whoever_asked_for_it_and_not_for_what_ended_the_one_before(cause: Cause) -> None:
    world = running(Policy(backoff_jitter=EVEN))
    crash(world)
    assert (world.snapshot.state, world.snapshot.cause) == (State.BACKOFF, Cause.EXITED)
    world.tell(RestartRequested(cause, "because"))
    assert (world.snapshot.state, world.snapshot.cause, world.snapshot.detail) == (State.STARTING, cause, "because")


def test_schedule_does_not_cut_a_backoff_short() -> None:
    world = running()
    crash(world)
    assert world.tell(StartRequested(Cause.SCHEDULE)) == ()


def test_file_change_mends_what_is_fatal() -> None:
    world = running(Policy(max_restarts=1, backoff_jitter=EVEN))
    crash(world)
    crash_again(world)
    assert world.snapshot.state is State.FATAL
    assert world.tell(RestartRequested(Cause.FILE_CHANGED)) == (Spawn(3),)
    assert world.snapshot.restarts == 0


@pytest.mark.parametrize("cause", [Cause.FILE_CHANGED, Cause.CONFIG_CHANGED, Cause.DEPENDENCY])
def test_only_a_person_starts_what_a_person_stopped(cause: Cause) -> None:
    world = running()
    world.tell(StopRequested())
    world.tell(RestartRequested(cause))
    world.main_exits(ExitStatus(signal=15))
    assert world.snapshot.state is State.STOPPED
    world.tell(RestartRequested(cause))
    assert world.snapshot.state is State.STOPPED
    world.tell(RestartRequested())
    assert world.snapshot.state is State.STARTING


def test_a_person_may_take_a_stop_back_while_it_is_under_way() -> None:
    world = running()
    world.tell(StopRequested())
    world.tell(RestartRequested(Cause.OPERATOR, "asked"))
    world.main_exits(ExitStatus(signal=15))
    assert (world.snapshot.state, world.snapshot.run, world.snapshot.detail) == (State.STARTING, 2, "asked")


def test_a_tree_that_is_gone_is_no_news_of_a_spawn_in_flight() -> None:
    world = World()
    world.tell(StartRequested())
    world.tell(RestartRequested())
    assert world.tell(TreeGone(1)) == ()
    assert (world.snapshot.state, world.in_flight) == (State.STOPPING, 1)
    world.spawn_succeeds()
    world.main_exits(ExitStatus(signal=15))
    assert (world.snapshot.state, world.snapshot.run) == (State.STARTING, 2)


def test_stop_wins_over_a_pending_restart() -> None:
    world = running()
    world.tell(RestartRequested())
    world.tell(StopRequested())
    world.main_exits(DONE)
    assert (world.snapshot.state, world.snapshot.cause) == (State.STOPPED, Cause.OPERATOR)
    world.pass_time(10**6)
    assert world.snapshot.state is State.STOPPED


def test_stop_wins_over_a_backoff() -> None:
    world = running()
    crash(world)
    world.tell(StopRequested())
    world.pass_time(10**6)
    assert (world.snapshot.state, world.snapshot.run) == (State.STOPPED, 1)


def test_start_overtakes_a_stop() -> None:
    world = running()
    world.tell(StopRequested())
    world.tell(StartRequested())
    world.main_exits(DONE)
    assert (world.snapshot.state, world.snapshot.run) == (State.STARTING, 2)


def test_operators_restart_of_what_is_being_replaced_clears_the_count() -> None:
    world = running(Policy(backoff_jitter=EVEN))
    crash(world)
    crash_again(world)
    world.pass_time(1.0)
    world.spawn_succeeds()
    world.tell(Faulted(3, Cause.HEARTBEAT_MISSED, "silent"))
    world.tell(RestartRequested())
    world.main_exits(ExitStatus(signal=15))
    assert (world.snapshot.state, world.snapshot.restarts) == (State.STARTING, 0)


def test_stopped_process_neither_flaps_nor_is_healthy() -> None:
    world = running(Policy(backoff_jitter=EVEN, checks=("heartbeat",)))
    crash(world)
    for _ in range(5):
        crash_again(world)
    world.pass_time(60.0)
    world.spawn_succeeds()
    world.tell(HealthReported(world.snapshot.run, "heartbeat", Health.HEALTHY))
    assert (world.snapshot.flapping, world.snapshot.health) == (True, Health.HEALTHY)
    world.tell(StopRequested())
    world.main_exits(DONE)
    assert (world.snapshot.flapping, world.snapshot.health) == (False, Health.NONE)


# Stopping


def test_kill_follows_the_grace_period_and_is_repeated() -> None:
    world = running(Policy(grace_seconds=10.0))
    world.tell(StopRequested())
    world.pass_time(9.9)
    assert world.snapshot.kills == 0
    world.pass_time(0.1)
    assert world.snapshot.kills == 1
    world.pass_time(3 * KILL_REPEAT_SECONDS)
    assert world.snapshot.kills == 4
    world.main_exits(ExitStatus(signal=9))
    assert world.snapshot.state is State.STOPPED


def test_second_stop_does_not_lengthen_the_grace_period() -> None:
    world = running(Policy(grace_seconds=10.0))
    world.tell(StopRequested())
    world.pass_time(5.0)
    assert world.tell(StopRequested()) == ()
    world.pass_time(5.0)
    assert world.snapshot.kills == 1


def test_stop_of_a_spawn_in_flight_waits_for_it() -> None:
    world = World()
    world.tell(StartRequested())
    assert world.tell(StopRequested()) == ()
    world.pass_time(1000.0)
    assert (world.snapshot.state, world.snapshot.kills) == (State.STOPPING, 0), "there is nobody to kill yet"
    assert deadline(world.snapshot, world.policy) is None
    run = world.in_flight
    world.spawn_succeeds()
    assert world.tree is not None
    assert world.tree.told
    assert world.tree.run == run


def test_restart_of_a_spawn_in_flight_that_fails_is_a_new_attempt() -> None:
    world = World()
    world.tell(StartRequested())
    world.tell(RestartRequested())
    world.spawn_fails()
    assert (world.snapshot.state, world.snapshot.run, world.in_flight) == (State.STARTING, 2, 2)


def test_signal_for_nobody_is_not_sent() -> None:
    world = World()
    assert world.tell(SignalRequested(1)) == ()
    world.tell(StartRequested())
    assert world.tell(SignalRequested(1)) == ()


# Adoption, and our own bugs


def test_adopted_run_goes_on_with_its_counters() -> None:
    world = running(Policy(backoff_jitter=EVEN))
    crash(world)
    world.pass_time(0.5)
    world.spawn_succeeds()
    world.pass_time(1.0)
    world.restore()
    before = world.snapshot
    assert before.pid is not None
    assert world.tell(Adopted(2, before.pid)) == ()
    after = world.snapshot
    assert (after.state, after.cause) == (State.RUNNING, Cause.ADOPTED)
    assert (after.run, after.run_since, after.restarts, after.pid) == (before.run, before.run_since, before.restarts, before.pid)


def test_adopted_run_whose_stop_waited_for_its_spawn_is_told_to_go() -> None:
    world = World()
    world.tell(StartRequested())
    world.tell(StopRequested())
    world.restore()
    world.breaks_and_resumes()
    assert world.snapshot.state is State.STOPPING
    assert world.tree is not None
    assert world.tree.told
    world.main_exits(ExitStatus(signal=15))
    assert world.snapshot.state is State.STOPPED


def test_a_spawn_in_flight_that_came_to_something_is_told_to_go_by_the_next_daemon() -> None:
    world = World()
    world.tell(StartRequested())
    world.tell(StopRequested())
    world.restore()
    world.in_flight, world.tree = None, Tree(1, 7)
    assert world.tell(Adopted(1, 7)) == (Terminate(1),)
    world.main_exits(ExitStatus(signal=15))
    assert world.snapshot.state is State.STOPPED


def test_a_stop_that_was_under_way_goes_on_under_the_next_daemon() -> None:
    world = running()
    world.tell(StopRequested())
    before = world.snapshot
    world.restore()
    assert world.tell(Adopted(1, before.pid or 0)) == (), "it was told already, and its grace period runs"
    assert world.snapshot == before


def test_exit_that_nobody_saw_is_a_failure_to_restart() -> None:
    world = running()
    world.restore()
    world.tree = None
    world.tell(Exited(1, ExitStatus()))
    assert world.snapshot.state is State.BACKOFF


def test_bug_of_ours_leaves_the_child_alone_and_a_stop_still_works() -> None:
    world = running()
    assert world.tell(SupervisionBroke("KeyError: 'x'")) == ()
    assert (world.snapshot.state, world.snapshot.cause) == (State.UNKNOWN, Cause.INTERNAL_ERROR)
    assert world.tell(StopRequested()) == (Terminate(1),)
    world.main_exits(ExitStatus(signal=15))
    assert world.snapshot.state is State.STOPPED


def test_stop_after_a_bug_during_a_spawn_never_says_stopped_too_early() -> None:
    world = World()
    world.tell(StartRequested())
    world.tell(SupervisionBroke("a bug"))
    world.tell(StopRequested())
    assert world.snapshot.state is State.STOPPING
    world.spawn_succeeds()
    assert world.tree is not None
    assert world.tree.told


# JsonClient for time (sd_notify's EXTEND_TIMEOUT_USEC), and another main process (MAINPID)


def test_a_start_that_asks_for_time_is_not_overdue_before() -> None:
    world = World(Policy(start_timeout_seconds=5.0, backoff_jitter=EVEN))
    world.tell(StartRequested())
    world.spawn_succeeds()
    world.tell(TimeoutExtended(1, world.now + 60.0))
    world.pass_time(59.0)
    assert world.snapshot.state is State.STARTING
    world.tell(TimeoutExtended(1, world.now))  # nothing that was given is taken away
    world.pass_time(0.5)
    assert world.snapshot.state is State.STARTING
    world.pass_time(1.0)
    assert (world.snapshot.state, world.snapshot.cause) == (State.STOPPING, Cause.READINESS_FAILED)


def test_a_stop_may_ask_for_time_once_it_stops_and_not_where_there_is_no_grace() -> None:
    for grace, killed in ((5.0, 0), (0.0, 1)):
        world = running(Policy(backoff_jitter=EVEN, grace_seconds=grace))
        world.tell(TimeoutExtended(1, world.now + 1e6))  # asked for while RUNNING: for no state that has a deadline
        world.tell(StopRequested())
        assert deadline(world.snapshot, world.policy) == world.now + grace
        world.tell(TimeoutExtended(1, world.now + 30.0))
        world.pass_time(6.0)
        assert bool(world.snapshot.kills) == bool(killed)


def test_time_that_a_start_was_given_is_not_left_to_its_stop() -> None:
    world = World(Policy(start_timeout_seconds=5.0, grace_seconds=10.0, backoff_jitter=EVEN))
    world.tell(StartRequested())
    world.spawn_succeeds()
    world.tell(TimeoutExtended(1, world.now + 1e6))
    world.tell(StopRequested())
    assert deadline(world.snapshot, world.policy) == world.now + 10.0


def test_the_end_of_a_new_main_process_is_the_end_of_the_run() -> None:
    world = running()
    before = world.snapshot
    assert world.tree is not None
    world.tree.pid = 77
    world.tell(MainChanged(1, 77))
    assert (world.snapshot.pid, world.snapshot.state, world.snapshot.cause, world.snapshot.run) == (77, State.RUNNING, before.cause, 1)
    assert crash(world).state is State.BACKOFF


def test_an_operators_stop_of_what_is_down_is_kept() -> None:
    """Whoever takes over knows that it was not only the daemon, or nobody, that wanted it down."""
    for cause in (None, Cause.DAEMON_STOP, Cause.CONFIG_CHANGED, Cause.OPERATOR):
        down = Snapshot(cause=cause)
        after, effects = step(down, StopRequested(), Policy(), 5.0)
        assert (after, effects) == (Snapshot(cause=Cause.OPERATOR), ())
        assert step(down, StopRequested(Cause.DAEMON_STOP), Policy(), 5.0) == (down, ())
