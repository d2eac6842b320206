"""What decided about a state, in words, and the keys of the file that would change it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from supervisord_async.config.model import Notify, Probe
from supervisord_async.control.rule import fault_keys, ruling
from supervisord_async.core.policy import OnLimit, Policy, RestartPolicy
from supervisord_async.core.state import Cause, ExitStatus, Snapshot, State
from tests.fake_host import program


def process_in(state: State, policy: Policy | None = None, autostart: bool = True, **fields: Any) -> Any:
    snapshot = Snapshot(state=state, **fields)
    return SimpleNamespace(snapshot=snapshot, policy=policy or Policy(), program=program(autostart=autostart), waits_for="db")


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("cause", [None, *Cause])
def test_every_state_and_cause_has_a_rule(state: State, cause: Cause | None) -> None:
    for policy in (Policy(), Policy(max_restarts=3, within_seconds=60.0, on_limit=OnLimit.RETRY, start_timeout_seconds=9.0)):
        found = ruling(process_in(state, policy, cause=cause, restarts=6, run=3, exit=ExitStatus(code=0)), 100.0)
        assert all(isinstance(word, str) for word in (*found.words, *found.keys))


@pytest.mark.parametrize(
    ("access", "word"), [("main", "its main process did not send READY=1"), ("all", "none of its processes sent READY=1")]
)
def test_one_that_does_not_say_that_it_is_ready_is_told_of_notify(access: Any, word: str) -> None:
    late = process_in(State.BACKOFF, cause=Cause.READINESS_FAILED, detail="not ready within 60 s", restarts=1)
    given_up = process_in(State.FATAL, cause=Cause.RESTART_LIMIT, detail="restart limit of 3 reached; last: not ready within 60 s")
    for process in (late, given_up):
        process.program = program(notify=Notify(access=access))
        assert ruling(process, 0.0).words[0].startswith(word)
        assert (*fault_keys(process, "readiness_failed"), *ruling(process, 0.0).keys)[:2] == ("notify", "notify.start_timeout")
        process.program = program(notify=Notify(access=access), readiness=Probe(kind="tcp", tcp=("x", 1)))
        assert "READY" not in ruling(process, 0.0).words[0]


@pytest.mark.parametrize(
    ("detail", "key"),
    [
        ("exec: cannot execute sh: no such file", "command"),
        ("heartbeat: cannot make /run/beat: no space left", "heartbeat.file"),
        ("notify: cannot bind /run/web.sock", "notify"),
        ("hook: before_start exited with 4: migration failed", "hooks.before_start"),
        ("fork: cannot fork: resource temporarily unavailable", None),
    ],
)
def test_a_spawn_that_failed_names_the_key_of_its_stage_and_none_where_the_machine_is_short(detail: str, key: str | None) -> None:
    failed = Snapshot(state=State.BACKOFF, cause=Cause.SPAWN_FAILED, detail=detail, run=1, ended_run=1, restarts=1)
    process = SimpleNamespace(waits_for="", snapshot=failed, policy=Policy(), program=program("web"))
    keys = ruling(process, 0.0).keys  # type: ignore[arg-type]
    assert keys == (*([key] if key is not None else []), "restart.backoff", "restart.max_restarts")


def test_what_ended_a_job_is_named() -> None:
    done = ruling(process_in(State.EXITED, Policy(), exit=ExitStatus(code=0)), 0.0)
    assert done.words == ("restart.policy on-failure: exit code 0 counts as success",)
    hung_up = ruling(process_in(State.EXITED, Policy(), exit=ExitStatus(signal=1), sent=1), 0.0)
    assert "an operator, or its watch, had sent" in hung_up.words[0] and hung_up.keys == ("restart.policy",)
    prevented = Policy(prevent_exit_codes=(42,))
    assert "prevent_exit_codes" in ruling(process_in(State.EXITED, prevented, exit=ExitStatus(code=42)), 0.0).keys[0]
    assert "never" in ruling(process_in(State.EXITED, Policy(restart=RestartPolicy.NEVER), exit=ExitStatus(code=1)), 0.0).words[0]
