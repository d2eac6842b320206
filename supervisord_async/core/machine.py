"""The state machine that every supervised process shares.

Theory of operation
-------------------
``step(snapshot, input, policy, now)`` returns the next snapshot and the effects to carry out. It is pure: the same
arguments give the same answer, on any machine, at any time. ``TABLE`` maps every pair of state and input to a rule
and to the states that the rule may lead to; a cell that does nothing says ``ignored``. The table is checked when this
module is imported: a pair without a cell is an error, so is a rule that leads where its cell does not allow.

There are two axes. ``state`` is what the process is doing, ``wanted`` is what somebody wants. A restart is STOPPING
with ``wanted`` true; a stop that overtakes it makes ``wanted`` false, and that is all it takes for a stop to win.
``cause`` says why the process is in its state, and where a run has ended it decides what follows:

* nobody wants it: STOPPED;
* somebody asked for a new run (operator, file, configuration, dependency): a new run, uncounted, as soon as its
  dependencies are there;
* it exited by itself: the restart policy decides between EXITED and an automatic restart;
* we ended it for a fault (heartbeat, probe, memory) or could not spawn it: an automatic restart, or FATAL where the
  policy is ``never``.

An automatic restart is counted, waits in BACKOFF, and may find the limit reached: FATAL. It does not wait for
dependencies: they were there, and a crash is no reason to doubt them.

A run is over when nothing of it lives. ``Exited`` speaks of its main process only; while descendants remain the
process is STOPPING, and they are told to go. ``Kill`` follows when the grace period is over, and again while
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
from supervisord_async.core.state import Cause, Check, ExitStatus, Snapshot, State

Step: TypeAlias = tuple[Snapshot, tuple[Effect, ...]]
Rule: TypeAlias = Callable[[Snapshot, Any, Policy, float], Step]


class Cell(NamedTuple):
    """What an input does in a state, and the states it may lead to."""

    rule: Rule
    targets: frozenset[State]


#: Restarts that somebody asked for: without a backoff, and uncounted.
ASKED_FOR = frozenset({Cause.OPERATOR, Cause.AUTOSTART, Cause.FILE_CHANGED, Cause.CONFIG_CHANGED, Cause.DEPENDENCY, Cause.SCHEDULE})


def step(snapshot: Snapshot, input_: Input, policy: Policy, now: float) -> Step:
    """Decide what follows from ``input_`` at the monotonic time ``now`` (seconds).

    Returns the next snapshot (the same object where nothing changed) and the effects in the order to carry them out.
    News of a run other than the present one changes nothing.
    """
    if isinstance(input_, News) and input_.run != snapshot.run:
        return snapshot, ()
    cell = TABLE[snapshot.state, type(input_)]
    after, effects = cell.rule(snapshot, input_, policy, now)
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
            may_extend = not snapshot.kills and policy.grace_seconds > 0  # no grace at all is nobody's to extend
            return max(due_at, snapshot.extended_until) if may_extend else due_at
        case State.FATAL if snapshot.cause is Cause.RESTART_LIMIT and policy.on_limit is OnLimit.RETRY:
            return snapshot.since + policy.retry_after_seconds
        case _:
            return None


# Moves: the few ways from one state into another.


def _enter(s: Snapshot, state: State, now: float, **changes: Any) -> Snapshot:
    """Enter ``state`` at ``now``; time that was asked for is for the state in which it was."""
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
    """A run that was asked for: it waits where there is something to wait for."""
    return (_enter(s, State.WAITING, now, wanted=True), ()) if p.has_dependencies else _spawn(s, p, now)


def _terminate(s: Snapshot, now: float, cause: Cause, *, wanted: bool, detail: str = "") -> Step:
    """Tell the run to go; one without a process yet is told when it has one."""
    after = _enter(s, State.STOPPING, now, cause=cause, wanted=wanted, detail=detail, kills=0)
    return after, (Terminate(s.run),) if s.pid is not None else ()


def _ended(s: Snapshot, p: Policy, now: float) -> Step:
    """Nothing of the run lives: decide what follows from ``wanted`` and ``cause``."""
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
    """Whether the policy is content with the way the run exited by itself."""
    status = s.exit or ExitStatus()
    if p.restart is RestartPolicy.NEVER or status.code in p.prevent_exit_codes:
        return True
    return p.restart is RestartPolicy.ON_FAILURE and succeeded(s, p)


def succeeded(s: Snapshot, p: Policy) -> bool:
    """Whether the last run ended well: by a successful code, or by the very signal that an operator had sent to it."""
    status = s.exit or ExitStatus()
    return status.code in p.success_exit_codes if status.code is not None else status.signal == s.sent


def _back_off(s: Snapshot, p: Policy, now: float) -> Step:
    """Count an automatic restart and wait for its time, or find the limit reached."""
    if limit_reached(p, s.restarts, s.recent, now):
        detail = f"restart limit of {p.max_restarts} reached; last: {s.detail or s.cause}"
        after = _enter(s, State.FATAL, now, cause=Cause.RESTART_LIMIT, detail=detail)
        return after, (ShutDown(detail),) if p.on_limit is OnLimit.SHUTDOWN else ()
    recent = (*within_window(p, s.recent, now), now) if p.within_seconds is not None and p.max_restarts >= 0 else ()
    return _enter(s, State.BACKOFF, now, restarts=s.restarts + 1, recent=recent), ()


def _spawn_in_flight(s: Snapshot) -> bool:
    """Whether a run was ordered whose process has not been heard of, neither its birth nor its end."""
    return s.pid is None and s.ended_run != s.run


# Rules: one per kind of cell.


def ignored(s: Snapshot, _i: Input, _p: Policy, _now: float) -> Step:
    """Nothing follows."""
    return s, ()


def start(s: Snapshot, i: StartRequested, p: Policy, now: float) -> Step:
    """Start over: the counters of an earlier life are forgotten."""
    s = replace(s, restarts=0, recent=(), cause=i.cause, detail="")
    return _begin(s, p, now)


def start_now(s: Snapshot, i: StartRequested, p: Policy, now: float) -> Step:
    """An operator does not wait for the next attempt; a schedule does."""
    return start(s, i, p, now) if i.cause is Cause.OPERATOR else (s, ())


def want(s: Snapshot, i: StartRequested, _p: Policy, _now: float) -> Step:
    """What is on its way down shall come up again."""
    return (s, ()) if s.wanted else (replace(s, wanted=True, cause=i.cause, restarts=0, recent=()), ())


def stop(s: Snapshot, i: StopRequested, _p: Policy, now: float) -> Step:
    """Nothing lives: it is down."""
    return _enter(s, State.STOPPED, now, wanted=False, cause=i.cause, detail="", restarts=0, recent=()), ()


def stop_again(s: Snapshot, i: StopRequested, _p: Policy, _now: float) -> Step:
    """It is down, for whatever reason: an operator's word that it shall be outlives the daemon, a stop for another reason adds nothing."""
    return (replace(s, cause=i.cause) if i.cause is Cause.OPERATOR else s), ()


def stop_run(s: Snapshot, i: StopRequested, _p: Policy, now: float) -> Step:
    """Something lives, or may: tell it to go, and want nothing after it."""
    return _terminate(replace(s, restarts=0, recent=()), now, i.cause, wanted=False)


def unwant(s: Snapshot, i: StopRequested, _p: Policy, _now: float) -> Step:
    """On its way down, and nothing shall follow."""
    return replace(s, wanted=False, cause=i.cause, restarts=0, recent=()), ()


def restart_down(s: Snapshot, i: RestartRequested, p: Policy, now: float) -> Step:
    """A restart of what is down is a start, if a person asked."""
    return start(s, StartRequested(i.cause), p, now) if i.cause is Cause.OPERATOR else (s, ())


def restart_ended(s: Snapshot, i: RestartRequested, p: Policy, now: float) -> Step:
    """Nothing lives, but it is wanted: a new run, without the rest of a backoff."""
    fresh = i.cause is Cause.OPERATOR or s.state is State.FATAL
    s = replace(s, cause=i.cause, detail=i.detail, **({"restarts": 0, "recent": ()} if fresh else {}))
    return _begin(s, p, now)


def restart_run(s: Snapshot, i: RestartRequested, _p: Policy, now: float) -> Step:
    """Something lives: end it, and want the next."""
    if i.cause is Cause.OPERATOR:
        s = replace(s, restarts=0, recent=())
    return _terminate(s, now, i.cause, wanted=True, detail=i.detail)


def restart_stopping(s: Snapshot, i: RestartRequested, _p: Policy, _now: float) -> Step:
    """The next run shall follow; but only a person overrules a stop."""
    if not s.wanted and i.cause is not Cause.OPERATOR:
        return s, ()
    if i.cause is Cause.OPERATOR:
        s = replace(s, restarts=0, recent=())
    return replace(s, wanted=True, cause=i.cause, detail=i.detail), ()


def send(s: Snapshot, i: SignalRequested, _p: Policy, _now: float) -> Step:
    """Send it; remembered, so that an end by this very signal is not a failure."""
    if s.pid is None:
        return s, ()
    return replace(s, sent=i.signal), (SendSignal(s.run, i.signal),)


def depend(s: Snapshot, _i: DependenciesMet, p: Policy, now: float) -> Step:
    """The wait is over."""
    return _spawn(s, p, now)


def dependency_failed(s: Snapshot, i: DependencyFailed, _p: Policy, now: float) -> Step:
    """What it waits for will not come."""
    return _enter(s, State.FATAL, now, cause=Cause.DEPENDENCY, detail=i.detail), ()


def spawned(s: Snapshot, i: Spawned, p: Policy, now: float) -> Step:
    """The run has a process; where nothing needs to be awaited it is RUNNING."""
    s = replace(s, pid=i.pid, run_since=now)
    if p.start_timeout_seconds is None and p.start_seconds <= 0:
        return _enter(s, State.RUNNING, now), ()
    return s, ()


def spawned_unwanted(s: Snapshot, i: Spawned, _p: Policy, now: float) -> Step:
    """It was told to go before it had a process: now it can hear it."""
    return _enter(s, State.STOPPING, now, pid=i.pid, run_since=now), (Terminate(s.run),)


def spawn_failed(s: Snapshot, i: SpawnFailed, p: Policy, now: float) -> Step:
    """No process came of it."""
    return _ended(replace(s, cause=Cause.SPAWN_FAILED, detail=i.detail, ended_run=s.run), p, now)


def spawn_failed_unwanted(s: Snapshot, _i: SpawnFailed, p: Policy, now: float) -> Step:
    """It was told to go and never came."""
    return _ended(replace(s, ended_run=s.run), p, now)


def ready(s: Snapshot, _i: BecameReady, _p: Policy, now: float) -> Step:
    """It serves; without a process it cannot."""
    return (_enter(s, State.RUNNING, now), ()) if s.pid is not None else (s, ())


def report(s: Snapshot, i: HealthReported, _p: Policy, _now: float) -> Step:
    """A check's word replaces its last one."""
    said = Check(i.check, i.health, i.detail)
    if said in s.checks:
        return s, ()
    others = (check for check in s.checks if check.name != said.name)
    return replace(s, checks=tuple(sorted((*others, said), key=lambda check: check.name))), ()


def extend(s: Snapshot, i: TimeoutExtended, _p: Policy, _now: float) -> Step:
    """The run asked for time and gets it; none that it has is taken away."""
    return (replace(s, extended_until=i.until), ()) if s.pid is not None and i.until > s.extended_until else (s, ())


def change_main(s: Snapshot, i: MainChanged, _p: Policy, _now: float) -> Step:
    """The run's life is that of another process of it from now on."""
    return (replace(s, pid=i.pid), ()) if s.pid is not None else (s, ())


def fault(s: Snapshot, i: Faulted, _p: Policy, now: float) -> Step:
    """The run must be replaced."""
    return _terminate(s, now, i.cause, wanted=True, detail=i.detail) if s.pid is not None else (s, ())


def exited(s: Snapshot, i: Exited, p: Policy, now: float) -> Step:
    """The main process ended by itself; what it left behind goes before anything follows."""
    s = replace(s, pid=None, exit=i.status, ended_run=s.run, cause=Cause.EXITED, detail=i.detail)
    if i.remains:
        return _enter(s, State.STOPPING, now, kills=0), (Terminate(s.run),)
    return _ended(s, p, now)


def exited_stopping(s: Snapshot, i: Exited, p: Policy, now: float) -> Step:
    """The main process heard; the rest of its tree, which may have to be told yet, has the rest of the grace period."""
    s = replace(s, pid=None, exit=i.status, ended_run=s.run)
    if i.remains:
        return s, (Terminate(s.run),) if p.tells_main_first else ()
    return _ended(s, p, now)


def tree_gone(s: Snapshot, _i: TreeGone, p: Policy, now: float) -> Step:
    """Nothing of the run lives any more."""
    return _ended(s, p, now) if s.pid is None and not _spawn_in_flight(s) else (s, ())


def adopt(s: Snapshot, i: Adopted, _p: Policy, now: float) -> Step:
    """Its process lives on under a new eye; what an older eye had begun goes on."""
    if s.state in (State.STARTING, State.RUNNING):
        return replace(s, pid=i.pid, cause=Cause.ADOPTED, detail=""), ()
    if not s.wanted:
        return _terminate(replace(s, pid=i.pid), now, Cause.OPERATOR, wanted=False)
    return _enter(s, State.RUNNING, now, pid=i.pid, cause=Cause.ADOPTED, detail=""), ()


def adopt_stopping(s: Snapshot, i: Adopted, p: Policy, now: float) -> Step:
    """A spawn that was in flight did come to something; else what was begun goes on."""
    return spawned_unwanted(s, Spawned(i.run, i.pid), p, now) if _spawn_in_flight(s) else (s, ())


def broke(s: Snapshot, i: SupervisionBroke, _p: Policy, now: float) -> Step:
    """A bug of ours: the child is left alone until supervision of it is taken up again."""
    return _enter(s, State.UNKNOWN, now, cause=Cause.INTERNAL_ERROR, detail=i.detail), ()


def due(then: Rule) -> Rule:
    """Do ``then``, if the deadline really has passed: a wake that is late or early decides nothing."""

    def rule(s: Snapshot, i: DeadlinePassed, p: Policy, now: float) -> Step:
        at = deadline(s, p)
        return then(s, i, p, now) if at is not None and now >= at else (s, ())

    rule.__name__, rule.__doc__ = then.__name__, then.__doc__
    return rule


def started(s: Snapshot, _i: DeadlinePassed, p: Policy, now: float) -> Step:
    """Up long enough: RUNNING. Or not ready in time: a fault."""
    if p.start_timeout_seconds is None:
        return _enter(s, State.RUNNING, now), ()
    detail = f"not ready within {p.start_timeout_seconds:g} s" + (f"; {s.complaint}" if s.complaint else "")
    return _terminate(s, now, Cause.READINESS_FAILED, wanted=True, detail=detail)


def calm(s: Snapshot, _i: DeadlinePassed, _p: Policy, _now: float) -> Step:
    """Up for ``reset_after``: the consecutive count returns to 0. A sliding window forgets by its own time alone."""
    return replace(s, restarts=0), ()


def attempt(s: Snapshot, _i: DeadlinePassed, p: Policy, now: float) -> Step:
    """The backoff is over."""
    return _spawn(s, p, now)


def retry(s: Snapshot, _i: DeadlinePassed, p: Policy, now: float) -> Step:
    """``on_limit: {retry_after}``: start over."""
    return _spawn(replace(s, restarts=0, recent=()), p, now)


def kill(s: Snapshot, _i: DeadlinePassed, _p: Policy, _now: float) -> Step:
    """The grace period is over."""
    return replace(s, kills=s.kills + 1), (Kill(s.run),)


# The table. A row is a state; each of its cells names a rule and the states it may lead to.

_NEWS_OF_A_RUN = (Spawned, SpawnFailed, BecameReady, HealthReported, Faulted, TimeoutExtended, MainChanged, Exited, TreeGone, Adopted)
#: Where an end of a run may lead.
_AFTER_A_RUN = (State.STOPPED, State.WAITING, State.STARTING, State.BACKOFF, State.EXITED, State.FATAL)

Row: TypeAlias = dict[type[Input], tuple[Rule, tuple[State, ...]]]


def _ignoring(state: State, *inputs: type[Input]) -> Row:
    return dict.fromkeys(inputs, (ignored, (state,)))


def _without_a_run(state: State) -> Row:
    """Nothing lives in ``state``: nobody can be signalled, all news is of runs that are over, and no bug loses a child from sight."""
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
            StopRequested: (stop_run, (S.STOPPING,)),  # also without a pid: a spawn may be in flight, a tree may live
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


#: Every input that there is.
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
    """The rows as one table; raises AssertionError where a pair has no cell, or a cell is for no input."""
    table = {(state, kind): Cell(rule, frozenset(targets)) for state, row in rows.items() for kind, (rule, targets) in row.items()}
    pairs = {(state, kind) for state in State for kind in INPUTS}
    if table.keys() != pairs:
        raise AssertionError(f"the table is not total: {sorted(map(str, table.keys() ^ pairs))}")
    return table


TABLE = _total(_rows())
