"""The state machine that every supervised process shares.

Theory of operation
-------------------
``step(snapshot, input, policy, now)`` returns the next snapshot and the effects to carry out. It is pure: the same
arguments give the same answer, on any machine, at any time. ``TABLE`` maps every pair of state and input to a rule
and to the states that the rule may lead to; a cell that does nothing says ``ignored``. A pair without a cell fails the
import of this module; a rule that leads to a state outside its cell fails in ``step``.

There are two axes. ``state`` is what the process is doing, ``wanted`` is what somebody wants. A restart is STOPPING
with ``wanted`` true; a stop that overtakes it makes ``wanted`` false, and that is all it takes for a stop to win.
``cause`` says why the process is in its state, and where a run has ended it decides what follows:

* nobody wants it: STOPPED;
* somebody asked for a new run (operator, file, configuration, dependency): a new run, uncounted, as soon as its
  dependencies are met;
* it exited by itself: the restart policy decides between EXITED and an automatic restart;
* we ended it for a fault (heartbeat, probe, memory) or could not spawn it: an automatic restart, or FATAL where the
  policy is ``never``.

An automatic restart is counted and waits in BACKOFF, unless the limit is reached: then FATAL. It does not wait for
dependencies: they were met before, and a crash is no reason to doubt them.

A run is over when nothing of it lives. ``Exited`` concerns its main process only; while descendants remain the
process is STOPPING, and they are terminated. ``Kill`` follows when the grace period is over, and again while
something survives. A run that was ordered and has no process yet (``pid`` None in STARTING) cannot be signalled: its
stop waits in STOPPING for ``Spawned`` or ``SpawnFailed``.

There is one deadline, :func:`deadline`, derived from the snapshot and the policy. Nothing is armed or disarmed, so
no timer can be stale: after a re-exec, or under another policy, the same derivation gives the right time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from msgspec.structs import replace

from supervisord_async.core.effects import Effect, Kill, SendSignal, ShutDown, Spawn, Terminate
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
    SupervisionBroke,
    TimeoutExtended,
    TreeGone,
)
from supervisord_async.core.policy import (
    KILL_REPEAT_SECONDS,
    OnLimit,
    Policy,
    RestartPolicy,
    backoff_delay,
    limit_reached,
    within_window,
)
from supervisord_async.core.state import Cause, Check, ExitStatus, Health, Snapshot, State

Step: TypeAlias = tuple[Snapshot, tuple[Effect, ...]]
Rule: TypeAlias = Callable[[Snapshot, Any, Policy, float], Step]


class Cell(NamedTuple):
    """What an input does in a state, and the states it may lead to."""

    rule: Rule
    targets: frozenset[State]


#: The causes of runs that somebody asked for, which skip the backoff and do not count as automatic restarts.
ASKED_FOR = frozenset({Cause.OPERATOR, Cause.AUTOSTART, Cause.FILE_CHANGED, Cause.CONFIG_CHANGED, Cause.DEPENDENCY, Cause.SCHEDULE})


def step(snapshot: Snapshot, input_: Input, policy: Policy, now: float) -> Step:
    """Decide what follows from ``input_`` at the monotonic time ``now`` (seconds).

    Returns the next snapshot (the same object where nothing changed) and the effects in the order to carry them out.
    News of any run but the current one changes nothing.
    """
    if isinstance(input_, News) and input_.run != snapshot.run:
        return snapshot, ()
    cell = TABLE[snapshot.state, type(input_)]
    after, effects = cell.rule(snapshot, input_, policy, now)
    if isinstance(input_, StartRequested | StopRequested | RestartRequested) and input_.cause is Cause.OPERATOR and after != snapshot:
        after = replace(after, by=input_.by)
    if after.state not in cell.targets:
        raise AssertionError(f"{snapshot.state} × {type(input_).__name__} led to {after.state}, not in its cell")
    return after, effects


def deadline(snapshot: Snapshot, policy: Policy) -> float | None:
    """The monotonic time at which ``DeadlinePassed`` is due, None for never."""
    match snapshot.state:
        case State.STARTING if snapshot.pid is not None:
            timeout = policy.start_timeout_seconds
            if timeout is None:
                return snapshot.run_since + policy.start_seconds
            return max(snapshot.run_since + timeout, snapshot.extended_until)
        case State.RUNNING if snapshot.restarts:
            return snapshot.run_since + policy.reset_after_seconds
        case State.BACKOFF:
            return snapshot.since + backoff_delay(policy, snapshot.restarts - 1, snapshot.run)
        case State.STOPPING if not _spawn_in_flight(snapshot):
            due_at = snapshot.since + policy.grace_seconds + snapshot.kills * KILL_REPEAT_SECONDS
            may_extend = not snapshot.kills and policy.grace_seconds > 0  # with no grace period at all there is nothing to extend
            return max(due_at, snapshot.extended_until) if may_extend else due_at
        case State.FATAL if snapshot.cause is Cause.RESTART_LIMIT and policy.on_limit is OnLimit.RETRY:
            return snapshot.since + policy.retry_after_seconds
        case _:
            return None


# Transitions that several rules share.


def _enter(s: Snapshot, state: State, now: float, **changes: Any) -> Snapshot:
    """Enter ``state`` at ``now``. An extension that the run asked for applied to the former state only."""
    return replace(s, state=state, since=now, extended_until=0.0, **changes)


def _spawn(s: Snapshot, p: Policy, now: float) -> Step:
    """Order the next run."""
    after = _enter(
        s,
        State.STARTING,
        now,
        wanted=True,
        run=s.run + 1,
        run_since=now,
        pid=None,
        checks=tuple(Check(name) for name in sorted(p.checks)),
        sent=0,
        kills=0,
    )
    return after, (Spawn(after.run),)


def _begin(s: Snapshot, p: Policy, now: float) -> Step:
    """Begin a run that was asked for: by way of WAITING if the program has dependencies, else at once."""
    return (_enter(s, State.WAITING, now, wanted=True), ()) if p.has_dependencies else _spawn(s, p, now)


def _terminate(s: Snapshot, now: float, cause: Cause, *, wanted: bool, detail: str = "") -> Step:
    """Enter STOPPING and terminate the run; one that has no process yet is terminated once it has (``spawned_unwanted``)."""
    after = _enter(s, State.STOPPING, now, cause=cause, wanted=wanted, detail=detail, kills=0)
    return after, (Terminate(s.run),) if s.pid is not None else ()


def _ended(s: Snapshot, p: Policy, now: float) -> Step:
    """Decide by ``wanted`` and ``cause`` what follows a run of which nothing lives any more."""
    s = replace(s, pid=None, checks=())
    if not s.wanted:
        return _enter(s, State.STOPPED, now), ()
    if s.cause in ASKED_FOR:
        return _begin(s, p, now)
    if s.cause is Cause.EXITED:
        if _is_final(s, p):
            return _enter(s, State.EXITED, now), ()
    elif p.restart is RestartPolicy.NEVER:
        return _enter(s, State.FATAL, now), ()
    return _back_off(s, p, now)


def _is_final(s: Snapshot, p: Policy) -> bool:
    """Whether the restart policy leaves a run that exited by itself at that: EXITED, no restart."""
    status = s.exit or ExitStatus()
    if p.restart is RestartPolicy.NEVER or status.code in p.prevent_exit_codes:
        return True
    return p.restart is RestartPolicy.ON_FAILURE and succeeded(s, p)


def succeeded(s: Snapshot, p: Policy) -> bool:
    """Whether the last run ended successfully: with a successful exit code, or by the very signal last sent to it on request."""
    status = s.exit or ExitStatus()
    return status.code in p.success_exit_codes if status.code is not None else status.signal == s.sent


def _back_off(s: Snapshot, p: Policy, now: float) -> Step:
    """Count an automatic restart and enter BACKOFF, or FATAL where the restart limit is reached."""
    if limit_reached(p, s.restarts, s.recent, now):
        detail = f"restart limit of {p.max_restarts} reached; last: {s.detail or s.cause}"
        after = _enter(s, State.FATAL, now, cause=Cause.RESTART_LIMIT, detail=detail)
        return after, (ShutDown(detail),) if p.on_limit is OnLimit.SHUTDOWN else ()
    recent = (*within_window(p, s.recent, now), now) if p.within_seconds is not None and p.max_restarts >= 0 else ()
    return _enter(s, State.BACKOFF, now, restarts=s.restarts + 1, recent=recent), ()


def _uncounted(s: Snapshot) -> Snapshot:
    """``s`` with the restart counters at 0."""
    return replace(s, restarts=0, recent=())


def _spawn_in_flight(s: Snapshot) -> bool:
    """Whether a run was ordered and neither ``Spawned`` nor ``SpawnFailed`` has answered yet."""
    return s.pid is None and s.ended_run != s.run


# Rules: one per kind of cell.


def ignored(s: Snapshot, _i: Input, _p: Policy, _now: float) -> Step:
    """Nothing follows."""
    return s, ()


def start(s: Snapshot, i: StartRequested, p: Policy, now: float) -> Step:
    """Begin a run, with the restart counters at 0."""
    return _begin(replace(_uncounted(s), cause=i.cause, detail=""), p, now)


def start_now(s: Snapshot, i: StartRequested, p: Policy, now: float) -> Step:
    """An operator's start skips the backoff; a scheduled one does not."""
    return start(s, i, p, now) if i.cause is Cause.OPERATOR else (s, ())


def want(s: Snapshot, i: StartRequested, _p: Policy, _now: float) -> Step:
    """It is stopping; a new run follows the end of this one."""
    return (s, ()) if s.wanted else (replace(_uncounted(s), wanted=True, cause=i.cause), ())


def stop(s: Snapshot, i: StopRequested, _p: Policy, now: float) -> Step:
    """Nothing of it lives: STOPPED at once."""
    return _enter(_uncounted(s), State.STOPPED, now, wanted=False, cause=i.cause, detail=""), ()


def stop_again(s: Snapshot, i: StopRequested, _p: Policy, _now: float) -> Step:
    """It is already down. An operator's stop becomes the cause, as it outlives the daemon; a stop for another reason changes nothing."""
    return (replace(s, cause=i.cause) if i.cause is Cause.OPERATOR else s), ()


def stop_run(s: Snapshot, i: StopRequested, _p: Policy, now: float) -> Step:
    """Terminate the run, or what may live of it; no other run follows."""
    return _terminate(_uncounted(s), now, i.cause, wanted=False)


def unwant(s: Snapshot, i: StopRequested, _p: Policy, _now: float) -> Step:
    """It is stopping already; no other run follows."""
    return replace(_uncounted(s), wanted=False, cause=i.cause), ()


def restart_down(s: Snapshot, i: RestartRequested, p: Policy, now: float) -> Step:
    """An operator's restart of a stopped process starts it; any other restart leaves it down."""
    return start(s, StartRequested(i.cause), p, now) if i.cause is Cause.OPERATOR else (s, ())


def restart_ended(s: Snapshot, i: RestartRequested, p: Policy, now: float) -> Step:
    """Nothing of it lives: a new run begins, without the rest of a backoff."""
    if i.cause is Cause.OPERATOR or s.state is State.FATAL:
        s = _uncounted(s)
    return _begin(replace(s, cause=i.cause, detail=i.detail), p, now)


def restart_run(s: Snapshot, i: RestartRequested, _p: Policy, now: float) -> Step:
    """Terminate the run; a new one follows its end."""
    if i.cause is Cause.OPERATOR:
        s = _uncounted(s)
    return _terminate(s, now, i.cause, wanted=True, detail=i.detail)


def restart_stopping(s: Snapshot, i: RestartRequested, _p: Policy, _now: float) -> Step:
    """It is stopping already; a new run follows, but only an operator's restart overrules a stop."""
    if not s.wanted and i.cause is not Cause.OPERATOR:
        return s, ()
    if i.cause is Cause.OPERATOR:
        s = _uncounted(s)
    return replace(s, wanted=True, cause=i.cause, detail=i.detail), ()


def send(s: Snapshot, i: SignalRequested, _p: Policy, _now: float) -> Step:
    """Send the signal and remember it: an end by this very signal is no failure."""
    if s.pid is None:
        return s, ()
    return replace(s, sent=i.signal), (SendSignal(s.run, i.signal),)


def depend(s: Snapshot, _i: DependenciesMet, p: Policy, now: float) -> Step:
    """Its dependencies are met: the run is spawned."""
    return _spawn(s, p, now)


def dependency_failed(s: Snapshot, i: DependencyFailed, _p: Policy, now: float) -> Step:
    """A dependency can no longer be met: FATAL."""
    return _enter(s, State.FATAL, now, cause=Cause.DEPENDENCY, detail=i.detail), ()


def spawned(s: Snapshot, i: Spawned, p: Policy, now: float) -> Step:
    """The run has a process; it is RUNNING at once where neither readiness nor ``start_seconds`` is to be awaited."""
    s = replace(s, pid=i.pid, run_since=now)
    if p.start_timeout_seconds is None and p.start_seconds <= 0:
        return _enter(s, State.RUNNING, now), ()
    return s, ()


def spawned_unwanted(s: Snapshot, i: Spawned, _p: Policy, now: float) -> Step:
    """A stop came before the run had a process: it is terminated now."""
    return _enter(s, State.STOPPING, now, pid=i.pid, run_since=now), (Terminate(s.run),)


def spawn_failed(s: Snapshot, i: SpawnFailed, p: Policy, now: float) -> Step:
    """The spawn failed: if the process is still wanted, an automatic restart or FATAL follows."""
    return _ended(replace(s, cause=Cause.SPAWN_FAILED, detail=i.detail, ended_run=s.run), p, now)


def spawn_failed_unwanted(s: Snapshot, _i: SpawnFailed, p: Policy, now: float) -> Step:
    """A stop came before the run had a process, and it never got one: there is nothing to stop."""
    return _ended(replace(s, ended_run=s.run), p, now)


def ready(s: Snapshot, _i: BecameReady, _p: Policy, now: float) -> Step:
    """It is ready: RUNNING. Ignored where the run has no process."""
    return (_enter(s, State.RUNNING, now), ()) if s.pid is not None else (s, ())


def report(s: Snapshot, i: HealthReported, _p: Policy, _now: float) -> Step:
    """The check's new verdict replaces its former one; ``none`` removes it."""
    verdicts = {check.name: check for check in s.checks} | {i.check: Check(i.check, i.health, i.detail)}
    if i.health is Health.NONE:
        del verdicts[i.check]
    checks = tuple(verdicts[name] for name in sorted(verdicts))
    return (s if checks == s.checks else replace(s, checks=checks)), ()


def extend(s: Snapshot, i: TimeoutExtended, _p: Policy, _now: float) -> Step:
    """The run gets the time that it asked for; a request never shortens what it has."""
    return (replace(s, extended_until=i.until), ()) if s.pid is not None and i.until > s.extended_until else (s, ())


def change_main(s: Snapshot, i: MainChanged, _p: Policy, _now: float) -> Step:
    """The run's main process is another one from now on."""
    return (replace(s, pid=i.pid), ()) if s.pid is not None else (s, ())


def fault(s: Snapshot, i: Faulted, _p: Policy, now: float) -> Step:
    """A monitor found a fault: terminate the run; a new one follows."""
    return _terminate(s, now, i.cause, wanted=True, detail=i.detail) if s.pid is not None else (s, ())


def exited(s: Snapshot, i: Exited, p: Policy, now: float) -> Step:
    """The main process ended by itself; what it left behind is terminated before anything follows."""
    s = replace(s, pid=None, exit=i.status, ended_run=s.run, cause=Cause.EXITED, detail=i.detail)
    if i.remains:
        return _enter(s, State.STOPPING, now, kills=0), (Terminate(s.run),)
    return _ended(s, p, now)


def exited_stopping(s: Snapshot, i: Exited, p: Policy, now: float) -> Step:
    """The main process is gone. The rest of its tree has the rest of the grace period, and is terminated now if it was not before."""
    s = replace(s, pid=None, exit=i.status, ended_run=s.run)
    if i.remains:
        return s, (Terminate(s.run),) if p.tells_main_first else ()
    return _ended(s, p, now)


def tree_gone(s: Snapshot, _i: TreeGone, p: Policy, now: float) -> Step:
    """The last process of the run is gone: the run is over."""
    return _ended(s, p, now) if s.pid is None and not _spawn_in_flight(s) else (s, ())


def adopt(s: Snapshot, i: Adopted, p: Policy, now: float) -> Step:
    """The process lives on under a new supervisor; a start or stop that an earlier one began is carried on.

    To become ready it has its whole time once more: meanwhile nobody could see that it was.
    """
    if s.state is State.STARTING:
        until = max(s.extended_until, now + p.start_timeout_seconds) if p.start_timeout_seconds is not None else s.extended_until
        return replace(s, pid=i.pid, cause=Cause.ADOPTED, detail="", extended_until=until), ()
    if s.state is State.RUNNING:
        return replace(s, pid=i.pid, cause=Cause.ADOPTED, detail=""), ()
    if not s.wanted:
        return _terminate(replace(s, pid=i.pid), now, Cause.OPERATOR, wanted=False)
    return _enter(s, State.RUNNING, now, pid=i.pid, cause=Cause.ADOPTED, detail=""), ()


def adopt_stopping(s: Snapshot, i: Adopted, p: Policy, now: float) -> Step:
    """A run whose spawn was still unanswered has a process after all and is terminated; else the stop goes on."""
    return spawned_unwanted(s, Spawned(i.run, i.pid), p, now) if _spawn_in_flight(s) else (s, ())


def broke(s: Snapshot, i: SupervisionBroke, _p: Policy, now: float) -> Step:
    """A bug in the daemon: the child is left alone until its supervision resumes."""
    return _enter(s, State.UNKNOWN, now, cause=Cause.INTERNAL_ERROR, detail=i.detail), ()


def due(then: Rule) -> Rule:
    """Apply ``then`` if the deadline really has passed, so that a wake-up too early, or for a former deadline, changes nothing."""

    def rule(s: Snapshot, i: DeadlinePassed, p: Policy, now: float) -> Step:
        at = deadline(s, p)
        return then(s, i, p, now) if at is not None and now >= at else (s, ())

    rule.__name__, rule.__doc__ = then.__name__, then.__doc__
    return rule


def started(s: Snapshot, _i: DeadlinePassed, p: Policy, now: float) -> Step:
    """Up for ``start_seconds``: RUNNING. With a readiness check: it was not ready in time, a fault."""
    if p.start_timeout_seconds is None:
        return _enter(s, State.RUNNING, now), ()
    detail = f"not ready within {p.start_timeout_seconds:g} s" + (f"; {s.complaint}" if s.complaint else "")
    return _terminate(s, now, Cause.READINESS_FAILED, wanted=True, detail=detail)


def calm(s: Snapshot, _i: DeadlinePassed, _p: Policy, _now: float) -> Step:
    """Up for ``reset_after``: the count of consecutive restarts returns to 0. A sliding window (``recent``) is not reset."""
    return replace(s, restarts=0), ()


def attempt(s: Snapshot, _i: DeadlinePassed, p: Policy, now: float) -> Step:
    """The backoff is over: the next run is spawned."""
    return _spawn(s, p, now)


def retry(s: Snapshot, _i: DeadlinePassed, p: Policy, now: float) -> Step:
    """``on_limit: {retry_after}`` has passed: a run is spawned, with the restart counters at 0."""
    return _spawn(_uncounted(s), p, now)


def kill(s: Snapshot, _i: DeadlinePassed, _p: Policy, _now: float) -> Step:
    """The grace period is over, or KILL did not help yet: send KILL."""
    return replace(s, kills=s.kills + 1), (Kill(s.run),)


# The table. A row is a state; each of its cells names a rule and the states it may lead to.

_NEWS_OF_A_RUN = (Spawned, SpawnFailed, BecameReady, HealthReported, Faulted, TimeoutExtended, MainChanged, Exited, TreeGone, Adopted)
#: The states that may follow the end of a run.
_AFTER_A_RUN = (State.STOPPED, State.WAITING, State.STARTING, State.BACKOFF, State.EXITED, State.FATAL)

Row: TypeAlias = dict[type[Input], tuple[Rule, tuple[State, ...]]]


def _ignoring(state: State, *inputs: type[Input]) -> Row:
    return dict.fromkeys(inputs, (ignored, (state,)))


def _without_a_run(state: State) -> Row:
    """In ``state`` nothing lives: nothing can be signalled, any news is of a run that is over, and no bug can lose a child."""
    return _ignoring(state, SignalRequested, SupervisionBroke, *_NEWS_OF_A_RUN)


def _rows() -> dict[State, Row]:
    S = State  # noqa: N806  the table reads better with a short name
    broken: Row = {SupervisionBroke: (broke, (S.UNKNOWN,))}
    alive: Row = {  # a run with a process
        StopRequested: (stop_run, (S.STOPPING,)),
        RestartRequested: (restart_run, (S.STOPPING,)),
        Exited: (exited, (S.BACKOFF, S.EXITED, S.FATAL, S.STOPPING)),
    }
    return {
        S.STOPPED: {
            StartRequested: (start, (S.STARTING, S.WAITING)),
            RestartRequested: (restart_down, (S.STARTING, S.WAITING, S.STOPPED)),
            StopRequested: (stop_again, (S.STOPPED,)),
            **_ignoring(S.STOPPED, DependenciesMet, DependencyFailed, DeadlinePassed),
            **_without_a_run(S.STOPPED),
        },
        S.WAITING: {
            StopRequested: (stop, (S.STOPPED,)),
            DependenciesMet: (depend, (S.STARTING,)),
            DependencyFailed: (dependency_failed, (S.FATAL,)),
            **_ignoring(S.WAITING, StartRequested, RestartRequested, DeadlinePassed),
            **_without_a_run(S.WAITING),
        },
        S.STARTING: {
            **alive,
            SignalRequested: (send, (S.STARTING,)),
            Spawned: (spawned, (S.STARTING, S.RUNNING)),
            SpawnFailed: (spawn_failed, (S.BACKOFF, S.FATAL)),
            BecameReady: (ready, (S.RUNNING, S.STARTING)),
            HealthReported: (report, (S.STARTING,)),
            Faulted: (fault, (S.STOPPING, S.STARTING)),
            TimeoutExtended: (extend, (S.STARTING,)),
            MainChanged: (change_main, (S.STARTING,)),
            Adopted: (adopt, (S.STARTING,)),
            DeadlinePassed: (due(started), (S.RUNNING, S.STOPPING, S.STARTING)),
            **_ignoring(S.STARTING, StartRequested, DependenciesMet, DependencyFailed, TreeGone),
            **broken,
        },
        S.RUNNING: {
            **alive,
            SignalRequested: (send, (S.RUNNING,)),
            HealthReported: (report, (S.RUNNING,)),
            Faulted: (fault, (S.STOPPING,)),
            MainChanged: (change_main, (S.RUNNING,)),
            Adopted: (adopt, (S.RUNNING,)),
            DeadlinePassed: (due(calm), (S.RUNNING,)),
            **_ignoring(S.RUNNING, StartRequested, DependenciesMet, DependencyFailed),
            **_ignoring(S.RUNNING, Spawned, SpawnFailed, BecameReady, TimeoutExtended, TreeGone),
            **broken,
        },
        S.BACKOFF: {
            StartRequested: (start_now, (S.STARTING, S.WAITING, S.BACKOFF)),
            StopRequested: (stop, (S.STOPPED,)),
            RestartRequested: (restart_ended, (S.STARTING, S.WAITING)),
            DeadlinePassed: (due(attempt), (S.STARTING, S.BACKOFF)),
            **_ignoring(S.BACKOFF, DependenciesMet, DependencyFailed),
            **_without_a_run(S.BACKOFF),
        },
        S.STOPPING: {
            StartRequested: (want, (S.STOPPING,)),
            StopRequested: (unwant, (S.STOPPING,)),
            RestartRequested: (restart_stopping, (S.STOPPING,)),
            SignalRequested: (send, (S.STOPPING,)),
            Spawned: (spawned_unwanted, (S.STOPPING,)),
            SpawnFailed: (spawn_failed_unwanted, (*_AFTER_A_RUN,)),
            Exited: (exited_stopping, (*_AFTER_A_RUN, S.STOPPING)),
            TreeGone: (tree_gone, (*_AFTER_A_RUN, S.STOPPING)),
            DeadlinePassed: (due(kill), (S.STOPPING,)),
            TimeoutExtended: (extend, (S.STOPPING,)),
            MainChanged: (change_main, (S.STOPPING,)),
            Adopted: (adopt_stopping, (S.STOPPING,)),
            **_ignoring(S.STOPPING, DependenciesMet, DependencyFailed, BecameReady, HealthReported, Faulted),
            **broken,
        },
        S.EXITED: {
            StartRequested: (start, (S.STARTING, S.WAITING)),
            StopRequested: (stop, (S.STOPPED,)),
            RestartRequested: (restart_ended, (S.STARTING, S.WAITING)),
            **_ignoring(S.EXITED, DependenciesMet, DependencyFailed, DeadlinePassed),
            **_without_a_run(S.EXITED),
        },
        S.FATAL: {
            StartRequested: (start, (S.STARTING, S.WAITING)),
            StopRequested: (stop, (S.STOPPED,)),
            RestartRequested: (restart_ended, (S.STARTING, S.WAITING)),
            DeadlinePassed: (due(retry), (S.STARTING, S.FATAL)),
            **_ignoring(S.FATAL, DependenciesMet, DependencyFailed),
            **_without_a_run(S.FATAL),
        },
        S.UNKNOWN: {
            StopRequested: (stop_run, (S.STOPPING,)),  # also without a pid: a spawn may be in flight, descendants may live
            Adopted: (adopt, (S.RUNNING, S.STOPPING)),
            Spawned: (adopt, (S.RUNNING, S.STOPPING)),
            SpawnFailed: (spawn_failed, (S.STOPPED, S.BACKOFF, S.FATAL)),
            Exited: (exited, (S.STOPPED, S.BACKOFF, S.EXITED, S.FATAL, S.STOPPING)),
            SignalRequested: (send, (S.UNKNOWN,)),
            **_ignoring(S.UNKNOWN, StartRequested, RestartRequested, DependenciesMet, DependencyFailed, DeadlinePassed),
            MainChanged: (change_main, (S.UNKNOWN,)),
            **_ignoring(S.UNKNOWN, BecameReady, HealthReported, Faulted, TimeoutExtended, TreeGone),
            **broken,
        },
    }


#: Every kind of input.
INPUTS: tuple[type[Input], ...] = (
    StartRequested,
    StopRequested,
    RestartRequested,
    SignalRequested,
    DependenciesMet,
    DependencyFailed,
    DeadlinePassed,
    SupervisionBroke,
    *_NEWS_OF_A_RUN,
)


def _total(rows: dict[State, Row]) -> dict[tuple[State, type[Input]], Cell]:
    """The rows as one table. Raises AssertionError where a pair of state and input has no cell, or a cell belongs to no input."""
    table = {(state, kind): Cell(rule, frozenset(targets)) for state, row in rows.items() for kind, (rule, targets) in row.items()}
    pairs = {(state, kind) for state in State for kind in INPUTS}
    if table.keys() != pairs:
        raise AssertionError(f"the table is not total: {sorted(map(str, table.keys() ^ pairs))}")
    return table


TABLE = _total(_rows())
