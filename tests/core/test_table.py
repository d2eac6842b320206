"""The table: total, exercised in every cell, and no cell promises a state that cannot be reached."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import pytest

from supervisord_async import core
from supervisord_async.core.effects import Spawn
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
from supervisord_async.core.machine import INPUTS, TABLE, _total, ignored, step
from supervisord_async.core.policy import OnLimit, Policy, RestartPolicy
from supervisord_async.core.state import Cause, ExitStatus, Health, Snapshot, State

NOW = 1_000_000.0
RUN = 7

POLICIES = [
    Policy(),
    Policy(restart=RestartPolicy.ALWAYS, start_seconds=0),
    Policy(restart=RestartPolicy.NEVER, checks=("heartbeat",)),
    Policy(max_restarts=0, on_limit=OnLimit.RETRY),
    Policy(max_restarts=0, on_limit=OnLimit.SHUTDOWN),
    Policy(has_dependencies=True),
    Policy(start_timeout_seconds=5.0),
]

INPUTS_OF: dict[type[Input], list[Input]] = {
    StartRequested: [StartRequested(cause) for cause in (Cause.OPERATOR, Cause.AUTOSTART, Cause.SCHEDULE)],
    StopRequested: [StopRequested(), StopRequested(Cause.DAEMON_STOP)],
    RestartRequested: [RestartRequested(cause) for cause in (Cause.OPERATOR, Cause.FILE_CHANGED, Cause.CONFIG_CHANGED, Cause.DEPENDENCY)],
    SignalRequested: [SignalRequested(1)],
    DependenciesMet: [DependenciesMet()],
    DependencyFailed: [DependencyFailed("db is FATAL")],
    DeadlinePassed: [DeadlinePassed()],
    SupervisionBroke: [SupervisionBroke("a bug")],
    Spawned: [Spawned(RUN, 42)],
    SpawnFailed: [SpawnFailed(RUN, "exec: no such file")],
    BecameReady: [BecameReady(RUN)],
    HealthReported: [HealthReported(RUN, "heartbeat", Health.HEALTHY)],
    Faulted: [Faulted(RUN, Cause.HEARTBEAT_MISSED, "silent")],
    Exited: [
        Exited(RUN, status, remains)
        for status in (ExitStatus(code=0), ExitStatus(code=1), ExitStatus(signal=9), ExitStatus())
        for remains in (False, True)
    ],
    TreeGone: [TreeGone(RUN)],
    Adopted: [Adopted(RUN, 42)],
    TimeoutExtended: [TimeoutExtended(RUN, 5000.0)],
    MainChanged: [MainChanged(RUN, 43)],
}


def snapshots(state: State) -> list[Snapshot]:
    """Snapshots that a process in ``state`` may have: with a live main process, without, with a spawn in flight, wanted or not."""
    found = []
    causes = (Cause.OPERATOR, Cause.EXITED, Cause.HEARTBEAT_MISSED, Cause.RESTART_LIMIT)
    for wanted, cause, pid, ended, since in itertools.product((True, False), causes, (42, None), (RUN, RUN - 1), (NOW - 1000, NOW)):
        alive = state in (State.STARTING, State.RUNNING, State.STOPPING, State.UNKNOWN)
        if (wanted and state is State.STOPPED) or (not wanted and state not in (State.STOPPED, State.STOPPING, State.UNKNOWN)):
            continue
        if (pid is not None and (not alive or ended == RUN)) or (pid is None and state is State.RUNNING):
            continue
        if not alive and ended != RUN:
            continue
        if state is State.STARTING and ended == RUN:
            continue
        restarts = 1 if state in (State.BACKOFF, State.RUNNING) else 0
        found.append(
            Snapshot(
                state=state, since=since, wanted=wanted, cause=cause, run=RUN, pid=pid, run_since=since, ended_run=ended, restarts=restarts
            )
        )
    assert found
    return found


def reached(state: State, kind: type[Input]) -> set[State]:
    """Every state that the cell leads to from any of its snapshots, by any of its inputs, under any policy."""
    return {step(s, i, p, NOW)[0].state for s in snapshots(state) for i in INPUTS_OF[kind] for p in POLICIES}


CELLS = [pytest.param(state, kind, id=f"{state}-{kind.__name__}") for state, kind in TABLE]


def test_table_has_a_cell_for_every_state_and_input() -> None:
    def concrete(kind: type[Input]) -> set[type[Input]]:
        below = kind.__subclasses__()
        return set().union(*map(concrete, below)) if below else {kind}

    assert set(INPUTS) == concrete(Input), "an input that the table does not know"
    assert TABLE.keys() == {(state, kind) for state in State for kind in INPUTS}
    assert INPUTS_OF.keys() == set(INPUTS)


def test_table_that_misses_a_cell_is_refused() -> None:
    with pytest.raises(AssertionError, match="not total"):
        _total({State.STOPPED: {StartRequested: (ignored, (State.STOPPED,))}})


@pytest.mark.parametrize(("state", "kind"), CELLS)
def test_cell_leads_to_each_of_its_targets_and_to_nothing_else(state: State, kind: type[Input]) -> None:
    assert reached(state, kind) == TABLE[state, kind].targets


def test_rule_that_leads_where_its_cell_does_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = TABLE[State.STOPPED, StartRequested]
    monkeypatch.setitem(TABLE, (State.STOPPED, StartRequested), cell._replace(targets=frozenset({State.EXITED})))
    with pytest.raises(AssertionError, match="STOPPED × StartRequested led to STARTING, not in its cell"):
        step(Snapshot(), StartRequested(), Policy(), NOW)


@pytest.mark.parametrize(("state", "kind"), CELLS)
def test_cell_that_ignores_changes_nothing(state: State, kind: type[Input]) -> None:
    if TABLE[state, kind].rule is not ignored:
        return
    for snapshot in snapshots(state):
        for input_ in INPUTS_OF[kind]:
            assert step(snapshot, input_, Policy(), NOW) == (snapshot, ())


@pytest.mark.parametrize(("state", "kind"), CELLS)
def test_cell_is_a_function_of_its_arguments(state: State, kind: type[Input]) -> None:
    for snapshot in snapshots(state):
        for input_, policy in itertools.product(INPUTS_OF[kind], POLICIES):
            assert step(snapshot, input_, policy, NOW) == step(snapshot, input_, policy, NOW)


@pytest.mark.parametrize(("state", "kind"), [cell for cell in CELLS if issubclass(cell.values[1], News)])
def test_cell_hears_no_news_of_another_run(state: State, kind: type[Input]) -> None:
    for snapshot in snapshots(state):
        older = [type(i)(**{**{f: getattr(i, f) for f in i.__struct_fields__}, "run": RUN - 1}) for i in INPUTS_OF[kind]]
        assert all(step(snapshot, input_, Policy(), NOW) == (snapshot, ()) for input_ in older)


def test_every_spawn_is_a_new_run() -> None:
    for state, kind in TABLE:
        for snapshot, input_, policy in itertools.product(snapshots(state), INPUTS_OF[kind], POLICIES):
            after, effects = step(snapshot, input_, policy, NOW)
            spawned = [effect for effect in effects if isinstance(effect, Spawn)]
            assert [effect.run for effect in spawned] == ([after.run] if after.run != snapshot.run else [])
            assert after.run in (snapshot.run, snapshot.run + 1)


def test_every_rule_says_what_it_does() -> None:
    for (state, kind), cell in TABLE.items():
        assert (cell.rule.__doc__ or "").strip().endswith("."), f"{state} × {kind.__name__}: {cell.rule.__name__} has no sentence"


@pytest.mark.parametrize("path", sorted(Path(core.__file__).parent.glob("*.py")), ids=lambda path: path.stem)
def test_core_module_imports_nothing_that_acts(path: Path) -> None:
    allowed = {
        "__future__",
        "collections",
        "collections.abc",
        "dataclasses",
        "enum",
        "math",
        "typing",
        "zlib",
        "msgspec",
        "msgspec.structs",
    }
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert name in allowed or name.startswith("supervisord_async.core."), f"{path.name} imports {name}"
