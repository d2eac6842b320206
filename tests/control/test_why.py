"""Why: the chain of causes, the rule, the end, the last words, in words that a tired person understands."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from supervisord_async.config.model import Backoff, Probe, Restart, Schedule, Stop
from supervisord_async.control.past_runs import past_runs
from supervisord_async.control.rule import ruling
from supervisord_async.control.why import CheckView, LastEnd, Link, Output, Why, lines_of
from supervisord_async.control.words import span
from supervisord_async.core.inputs import Faulted, StartRequested
from supervisord_async.core.policy import Policy, RestartPolicy
from supervisord_async.core.record import Record
from supervisord_async.core.state import Cause, ExitStatus, Health, Snapshot, State
from supervisord_async.errors import SpawnError
from supervisord_async.supervise.records.figures import Figures, Sampler
from tests.control.conftest import playing, swift
from tests.fake_host import program
from tests.waiting import wait_until

SLOW = Restart(policy=RestartPolicy.ALWAYS, backoff=Backoff(initial_seconds=600.0, max_seconds=6000.0, jitter=0.0))


@pytest.mark.anyio
async def test_a_missed_heartbeat_is_told_as_the_cause_of_the_present_run() -> None:
    quick = Restart(backoff=Backoff(initial_seconds=0.0, jitter=0.0), policy=RestartPolicy.ALWAYS)
    async with playing(swift("web", restart=quick)) as scene:
        scene.supervisor.processes["web"].post(Faulted(1, Cause.HEARTBEAT_MISSED, "the heartbeat was 21 s old"))
        await scene.commands.wait(["web"], "ready", timeout=20)
        while scene.snapshot("web").run < 2:
            await scene.commands.wait(["web"], "ready", timeout=20)
        await scene.state("web", State.RUNNING)
        why = await scene.commands.why("web")
        assert why.state == "RUNNING"
        assert "run 2" in why.headline
        assert re.search(r", because the heartbeat was 21 s old, at \d\d:\d\d:\d\d$", why.headline), why.headline
        assert [(link.run, link.text.split(" after ")[0]) for link in why.chain] == [
            (2, "run 2 was started"),
            (1, "run 1 was killed by SIGTERM"),
        ]
        assert why.chain[1].text.endswith(
            "; it was stopped because the heartbeat was 21 s old (it was started because it starts with the daemon)"
        )
        assert why.last_end is not None
        assert (why.last_end.run, why.last_end.exit_status) == (1, {"signal": "SIGTERM", "core": False})
        assert "programs.web.heartbeat.timeout" in why.keys
        assert any("the counter returns to 0 once it is up for" in line for line in why.rule)


@pytest.mark.anyio
async def test_the_headline_of_a_run_names_the_end_before_it_only_where_that_brought_it_about() -> None:
    quick = Restart(backoff=Backoff(initial_seconds=0.0, jitter=0.0), policy=RestartPolicy.ALWAYS)
    async with playing(swift("web", restart=quick)) as scene:
        scene.child("web").end(code=3)
        await wait_until(lambda: scene.snapshot("web").state is State.RUNNING and scene.snapshot("web").run == 2)
        assert re.search(r", because run 1 exited with 3, at \d\d:\d\d:\d\d$", (await scene.commands.why("web")).headline)
    async with playing(swift("job", restart=Restart(policy=RestartPolicy.NEVER))) as scene:
        scene.child("job").end(code=3)
        await scene.state("job", State.EXITED)
        await scene.commands.start(["job"])
        headline = (await scene.commands.why("job")).headline
        assert headline.endswith(", because an operator asked for it"), headline


@pytest.mark.anyio
async def test_backoff_tells_count_formula_and_next_attempt() -> None:
    async with playing(swift("web", restart=SLOW)) as scene:
        scene.child("web").end(code=1)
        await scene.state("web", State.BACKOFF)
        why = await scene.commands.why("web")
        assert why.next_at is not None
        assert 0.0 <= why.for_seconds < 60.0
        assert why.rule == ["1 automatic restart in a row (no limit)", "backoff of 10 min = min(6000, 600 × 2^0) s"]
        assert why.keys[-2:] == ["programs.web.restart.backoff", "programs.web.restart.max_restarts"]
        text = "\n".join(why.lines)
        assert "web: BACKOFF for" in text
        assert "because exited with 1" in text
        assert "next attempt at" in text
        assert "how run 1 ended: exited with 1, up" in text


@pytest.mark.anyio
async def test_restarts_are_counted_as_the_limit_counts_them() -> None:
    in_a_row, in_a_window = replace(SLOW, max_restarts=3), replace(SLOW, max_restarts=3, within_seconds=3600.0)
    async with playing(swift("row", restart=in_a_row), swift("window", restart=in_a_window)) as scene:
        for name, words in (("row", "in a row (at most 3)"), ("window", "in the last 1 h (at most 3 in that time)")):
            scene.child(name).end(code=1)
            await scene.state(name, State.BACKOFF)
            assert (await scene.commands.why(name)).rule[0] == f"1 automatic restart {words}"


@pytest.mark.anyio
async def test_the_limit_names_itself_and_the_spawn_error_its_stage() -> None:
    limited = Restart(max_restarts=1, backoff=Backoff(initial_seconds=0.0, jitter=0.0))
    never = Restart(policy=RestartPolicy.NEVER)
    async with playing(swift("web", restart=limited, start_seconds=5.0), swift("lost", autostart=False, restart=never)) as scene:
        scene.host.on_spawn = lambda child: child.end(code=7)
        scene.child("web").end(code=7)
        await scene.state("web", State.FATAL)
        web = await scene.commands.why("web")
        assert web.rule[0] == "the limit is 1 automatic restart in a row"
        assert web.chain[0].text.startswith("run 2 exited with 7 after")
        assert web.chain[0].text.endswith("the restart limit was reached")
        scene.host.refuse.append(SpawnError("user", None, "no user named 'www'"))
        await scene.commands.start(["lost"])
        lost = await scene.commands.why("lost")
        assert "no user named 'www'" in lost.headline
        assert lost.keys[0] == "programs.lost.user"
        assert "could not be started" in lost.chain[0].text


@pytest.mark.anyio
async def test_a_spawn_that_failed_for_the_last_time_is_told_as_one() -> None:
    limited = Restart(max_restarts=1, backoff=Backoff(initial_seconds=0.0, jitter=0.0))
    async with playing(swift("lost", autostart=False, restart=limited)) as scene:
        scene.host.refuse += [SpawnError("user", None, "no user named 'www'")] * 2
        await scene.commands.start(["lost"])
        await scene.state("lost", State.FATAL)
        assert [link.text.partition(" (it was")[0] for link in (await scene.commands.why("lost")).chain] == [
            "run 2 could not be started: user: no user named 'www'; the restart limit was reached",
            "run 1 could not be started: user: no user named 'www'",
        ]
        assert (await scene.commands.why("lost")).keys[:2] == ["programs.lost.user", "programs.lost.restart.max_restarts"]


@pytest.mark.anyio
async def test_the_keys_of_a_limit_begin_with_that_of_the_fault_which_reached_it() -> None:
    async with playing(swift("web", restart=Restart(max_restarts=0))) as scene:
        scene.supervisor.processes["web"].post(Faulted(1, Cause.MEMORY_LIMIT, "it holds 88.4 MiB, more than limits.memory (40.0 MiB)"))
        await scene.state("web", State.FATAL)
        assert (await scene.commands.why("web")).keys[:2] == ["programs.web.limits.memory", "programs.web.restart.max_restarts"]


@pytest.mark.anyio
async def test_each_run_has_one_line_that_tells_its_begin_only_where_the_run_before_does_not() -> None:
    limited = Restart(max_restarts=2, backoff=Backoff(initial_seconds=0.0, jitter=0.0))
    async with playing(swift("web", restart=limited, start_seconds=5.0)) as scene:
        scene.host.on_spawn = lambda child: child.end(code=3)
        scene.child("web").end(code=3)
        await scene.state("web", State.FATAL)
        why = await scene.commands.why("web")
        assert [re.sub(r" after [0-9.]+ s", "", link.text) for link in why.chain] == [
            "run 3 exited with 3; the restart limit was reached",
            "run 2 exited with 3",
            "run 1 exited with 3 (it was started because it starts with the daemon)",
        ]
        assert why.headline.endswith("because restart limit of 2 reached; last: exited with 3")
        assert why.lines[-1] == "to start it: asupctl start web"


@pytest.mark.anyio
async def test_one_that_waits_says_for_whom_and_whether_in_vain() -> None:
    never = Restart(policy=RestartPolicy.NEVER)
    needy = swift("needy", depends_on={"db": "ready"})
    async with playing(swift("db", start_seconds=600.0, restart=never), needy) as scene:
        await scene.state("needy", State.WAITING)
        assert (await scene.commands.why("needy")).headline.endswith("because it is waiting for db to be ready (it is STARTING)")
        scene.host.refuse.append(SpawnError("exec", None, "no such file"))
        await scene.commands.restart(["db"])
        why = await scene.commands.why("needy")
        assert "waiting for db, which will not come by itself: db is FATAL" in why.headline
        scene.supervisor.processes["db"].scheduled_at = 1e12
        words = "waiting for db, which will not come before its next scheduled start: db is FATAL"
        assert words in (await scene.commands.why("needy")).headline
        scene.supervisor.processes["db"].scheduled_at = None
        assert why.rule[1].startswith("on_dependency_failure wait")
        status = await scene.commands.status_of("needy")
        assert status.description.startswith("waiting for db, which will not come")
        assert (status.state, status.cause, why.cause) == ("WAITING", "dependency", "dependency")
        [waits] = [record for record in scene.bus.since(0)[0] if record.to == "WAITING"]
        assert waits.cause == "dependency"


@pytest.mark.anyio
async def test_one_that_fails_for_its_dependency_and_one_that_waits_for_a_connection_are_told_so() -> None:
    needy = swift("needy", depends_on={"db": "ready"}, on_dependency_failure="fail")
    never = Restart(policy=RestartPolicy.NEVER)
    idle = swift("idle", autostart=False, start_on_connect=True, restart=never)
    served = swift("served", autostart=False, depends_on={"idle": "ready"})
    async with playing(swift("db", start_seconds=600.0, restart=never), needy, idle, served) as scene:
        await scene.state("needy", State.WAITING)
        scene.host.refuse.append(SpawnError("exec", None, "no such file"))
        await scene.commands.restart(["db"])
        await scene.state("needy", State.FATAL)
        why = await scene.commands.why("needy")
        assert why.rule == ["on_dependency_failure fail: it is FATAL as soon as one of them is"]
        assert why.keys == ["programs.needy.depends_on", "programs.needy.on_dependency_failure"]
        assert (await scene.commands.why("idle")).rule == ["it starts with the first connection to one of its sockets"]
        assert (await scene.commands.status_of("idle")).description == "starts at the first connection"
        scene.supervisor.processes["idle"].post(StartRequested(Cause.AUTOSTART))  # as somebody who connects makes it start
        await scene.state("idle", State.RUNNING)
        why = await scene.commands.why("idle")
        assert why.headline.endswith("because somebody connected to one of its sockets")
        assert why.chain[0].text == "run 1 was started because somebody connected to one of its sockets"
        scene.child("idle").end()
        await scene.state("idle", State.EXITED)
        scene.supervisor.processes["served"].post(StartRequested(Cause.AUTOSTART))
        await scene.state("served", State.WAITING)
        words = "waiting for idle, which will not come before somebody connects to it: idle is EXITED, it was to be ready"
        assert words in (await scene.commands.why("served")).headline


@pytest.mark.anyio
async def test_one_in_trouble_names_what_it_depends_on_that_is_not_there() -> None:
    """When a database dies and ten that need it fail, each of the ten leads to it."""
    needs = {"db": "ready", "cache": "started"}
    async with playing(swift("db", restart=SLOW), swift("cache"), swift("web", depends_on=needs, restart=SLOW)) as scene:
        await scene.state("web", State.RUNNING)
        scene.child("db").end(code=12)
        await scene.state("db", State.BACKOFF)
        assert not [words for words in (await scene.commands.why("web")).rule if "depends" in words], "it is well so far"
        scene.child("web").end(code=3)
        await scene.state("web", State.BACKOFF)
        words = "it depends on db to be ready (it is BACKOFF); an automatic restart does not wait for that"
        assert (await scene.commands.why("web")).rule[0] == words
        scene.supervisor.processes["db"].post(StartRequested(Cause.OPERATOR))
        await scene.state("db", State.RUNNING)
        assert not [words for words in (await scene.commands.why("web")).rule if "depends" in words]


@pytest.mark.anyio
async def test_one_that_was_started_for_another_is_told_so() -> None:
    async with playing(swift("db", autostart=False), swift("needy", depends_on={"db": "started"})) as scene:
        await scene.state("needy", State.RUNNING)
        assert (await scene.commands.why("db")).headline.endswith("because a program that depends on it was to start")


@pytest.mark.anyio
async def test_one_that_has_waited_runs_for_the_reason_that_it_was_started_for() -> None:
    async with playing(swift("db", autostart=False), swift("needy", depends_on={"db": "started"}, autostart=False)) as scene:
        await scene.commands.start(["needy"])
        assert (await scene.commands.status_of("needy")).cause == "operator"
        await scene.commands.restart(["needy"])
        chain = [link.text for link in (await scene.commands.why("needy")).chain]
        assert re.match("run 1 (exited|was killed) .*was stopped because an operator asked for it", chain[1]), chain


@pytest.mark.anyio
async def test_one_that_is_not_ready_yet_says_what_is_asked_and_how_long_still() -> None:
    probe = Probe(kind="http", http="http://u:hunter22@127.0.0.1:1/", start_timeout_seconds=600.0, interval_seconds=5.0)
    async with playing(swift("web", readiness=probe, autostart=False)) as scene:
        scene.host.answers[probe.http] = "no answer"
        await scene.commands.start(["web"], wait=False)
        await wait_until(lambda: scene.snapshot("web").pid is not None)
        why = await scene.commands.why("web")
        assert why.rule[0] == "it is RUNNING once its readiness probe (http http://u:********@127.0.0.1:1/, every 5 s) succeeds"
        assert "left of 10 min, then the start has failed" in why.rule[1]


@pytest.mark.anyio
async def test_what_a_probe_was_answered_is_told_until_it_is_content() -> None:
    probe = Probe(kind="http", http="http://127.0.0.1:1/", start_timeout_seconds=600.0, interval_seconds=0.01)
    async with playing(swift("web", readiness=probe, autostart=False, environment={"DB_PASSWORD": "hunter22"})) as scene:
        scene.host.answers[probe.http] = "no answer"
        await scene.commands.start(["web"], wait=False)
        await wait_until(lambda: scene.snapshot("web").complaint)
        why = await scene.commands.why("web")
        assert [(check.name, check.health, check.detail) for check in why.checks] == [("readiness", "starting", "no answer")]
        assert "  readiness: starting: no answer" in why.lines
        assert (await scene.commands.status_of("web")).description == "not ready yet: no answer"
        scene.host.answers[probe.http] = None
        await wait_until(lambda: scene.snapshot("web").health is Health.HEALTHY)
        assert "  readiness: healthy" in (await scene.commands.why("web")).lines
        scene.host.answers[probe.http] = "cannot log in as hunter22"
        await wait_until(lambda: scene.snapshot("web").health is Health.UNHEALTHY)
        status = await scene.commands.status_of("web")
        assert (status.health, status.description) == ("unhealthy", "unhealthy: cannot log in as ********")


@pytest.mark.anyio
async def test_a_stopped_program_says_who_and_how_to_start_it() -> None:
    async with playing(swift("web"), swift("idle", autostart=False)) as scene:
        await scene.commands.stop(["web"])
        why = await scene.commands.why("web")
        assert "because an operator asked for it" in why.headline
        assert why.lines[-1] == "to start it: asupctl start web"
        idle = await scene.commands.why("idle")
        assert idle.rule == ["autostart is false and nobody has started it"]
        assert idle.chain == []
        await scene.commands.start(["idle"])
        await scene.commands.stop(["idle"])
        for name in ("web", "idle"):
            assert (await scene.commands.why(name)).rule == ["it stays stopped until somebody starts it"]


@pytest.mark.anyio
async def test_what_an_operator_holds_is_not_said_to_start_by_itself() -> None:
    nightly = swift("nightly", autostart=False, schedule=Schedule(at="0 3 * * *"))
    idle = swift("idle", autostart=False, start_on_connect=True)
    async with playing(nightly, idle) as scene:
        assert (await scene.commands.why("nightly")).rule == ["it starts by its schedule"]
        await scene.commands.stop(["nightly", "idle"])
        held = await scene.commands.why("nightly")
        assert held.rule == ["its schedule is paused, since an operator stopped it, until somebody starts it"]
        assert (await scene.commands.status_of("nightly")).description == "its schedule is paused: an operator stopped it"
        assert (await scene.commands.why("idle")).rule == ["it stays stopped until somebody starts it"]
        assert (await scene.commands.status_of("idle")).description == "not started"


@pytest.mark.anyio
async def test_a_slow_stop_says_when_it_is_killed() -> None:
    async with playing(swift("web", stop=Stop(grace_seconds=600.0))) as scene:
        scene.child("web").obeys = False
        await scene.commands.stop(["web"], wait=False)
        await scene.state("web", State.STOPPING)
        why = await scene.commands.why("web")
        assert any(line.strip().startswith("KILL at") for line in why.lines)
        assert why.keys[0] == "programs.web.stop.grace_period"


@pytest.mark.anyio
async def test_a_log_that_cannot_be_written_is_told_until_it_can() -> None:
    async with playing(swift("web")) as scene:
        scene.bus.publish("log_loss", name="web", message="cannot write web.log: No space left", data={"stream": "stdout"})
        why = await scene.commands.why("web")
        assert [(check.name, check.health, check.detail) for check in why.checks] == [
            ("log", "unhealthy", "cannot write web.log: No space left")
        ]
        assert "  log: unhealthy: cannot write web.log: No space left" in why.lines
        scene.bus.publish("log_recovered", name="web", message="again", data={"stream": "stdout"})
        assert (await scene.commands.why("web")).checks == []


@pytest.mark.anyio
async def test_a_watch_that_is_suspended_is_told_until_it_is_not() -> None:
    suspended = {"what": "suspended", "paths": ["/app.py"], "seconds": 30.0, "key": "watch.ignore"}
    async with playing(swift("web")) as scene:
        scene.bus.publish("watch", name="web", message="app.py changed; not followed for 30 s", data=suspended)
        assert "  watch: unhealthy: app.py changed; not followed for 30 s" in (await scene.commands.why("web")).lines
        scene.bus.publish("watch", name="web", message="following file changes again", data={"what": "resumed"})
        assert (await scene.commands.why("web")).checks == []
        scene.bus.publish("watch", name="web", message="app.py changed; not followed for 0 s", data=suspended | {"seconds": 0.0})
        assert (await scene.commands.why("web")).checks == [], "the daemon that was to resume is another one"


@pytest.mark.anyio
async def test_a_kill_that_was_none_of_ours_is_told_as_such() -> None:
    async with playing(swift("web", restart=SLOW), swift("hung", stop=Stop(grace_seconds=0.0))) as scene:
        scene.child("web").end(signal=9)
        await scene.state("web", State.BACKOFF)
        assert any("asupd did not send this KILL" in line for line in (await scene.commands.why("web")).rule)
        await scene.commands.stop(["hung"])
        assert not any("did not send this KILL" in line for line in (await scene.commands.why("hung")).rule)


@pytest.mark.anyio
@pytest.mark.parametrize("at_limit", [False, True])
async def test_a_kill_for_want_of_memory_is_told_as_the_kernels(at_limit: bool) -> None:
    async with playing(swift("web", restart=replace(SLOW, max_restarts=0) if at_limit else SLOW)) as scene:
        scene.host.oom_killed.add(scene.child("web").pid)
        scene.child("web").end(signal=9)
        await scene.state("web", State.FATAL if at_limit else State.BACKOFF)
        why = await scene.commands.why("web")
        assert any("the kernel sent this KILL" in line for line in why.rule)
        assert not any("did not send" in line for line in why.rule)
        assert "(the kernel was out of memory) after" in why.chain[0].text


def test_a_kill_of_the_daemons_is_not_blamed_on_others() -> None:
    killed = Snapshot(state=State.FATAL, cause=Cause.RESTART_LIMIT, run=1, ended_run=1, exit=ExitStatus(signal=9))
    for kills, blamed in ((0, True), (1, False)):
        process = SimpleNamespace(waits_for="", snapshot=replace(killed, kills=kills), policy=Policy(), program=program("web"))
        assert any("did not send this KILL" in line for line in ruling(process, 0.0).words) is blamed  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_it_is_told_over_the_wire(serving: Callable[..., Any]) -> None:
    async with serving(swift("web")) as wire:
        told = (await wire.ask("GET", "/v1/processes/web/why")).json
        assert told["lines"][0].startswith("web: RUNNING for")
        (await wire.ask("GET", "/v1/processes/wbe/why")).problem(404, "not_found")


def test_stories_survive_records_that_begin_in_the_middle() -> None:
    def state(number: int, from_: str, to: str, run: int, cause: str, **data: Any) -> Record:
        fields: dict[str, Any] = {"from_": from_, "to": to, "run": run, "cause": cause, "message": to, "data": data}
        return Record(id=number, at=float(number), type="state", name="web", **fields)

    told = past_runs([state(1, "RUNNING", "STOPPING", 4, "operator"), state(2, "STOPPING", "STARTING", 5, "operator", exit={"code": 0})])
    assert [(past.run, past.started_at, past.ended_at) for past in told] == [(5, 2.0, None), (4, None, 2.0)]
    assert told[1].figures == {"exit": {"code": 0}}


def explained(**fields: Any) -> Why:
    """A process of which there is nothing to say but its headline."""
    nothing: dict[str, Any] = {
        "name": "web", "program": "web", "state": "RUNNING", "health": "none", "cause": "operator", "headline": "RUNNING for 9 s",
        "for_seconds": 9.0, "run": 2, "pid": 7, "flapping": False, "failing_since": None, "uses": None, "next_at": None,
        "checks": [], "chain": [], "rule": [], "keys": [],
        "last_end": None, "output": [], "refused": [], "lines": [],
    }  # fmt: skip
    return Why(**nothing | fields)


def test_people_are_told_what_there_is_and_nothing_else() -> None:
    assert lines_of(explained()) == ["web: RUNNING for 9 s"]


def test_people_are_told_all_that_there_is() -> None:
    at = "2026-11-21T12:00:00.000Z"
    ended = LastEnd(run=1, at=at, cause="exited", exit_status={"code": 1}, duration_seconds=61.0, peak_memory_bytes=2048, cpu_seconds=0.5)
    why = explained(
        state="FATAL",
        flapping=True,
        failing_since=at,
        uses=Figures(cpu_percent=12.34, cpu_seconds=1.0, memory_bytes=9 << 20, processes=1, threads=4, open_files=64),
        next_at=at,
        checks=[CheckView(name="liveness", health="unhealthy", detail="refused"), CheckView(name="readiness", health="healthy", detail="")],
        rule=["the limit is 3"],
        chain=[Link(at=None, run=1, cause="exited", text="run 1 exited with 1")],
        last_end=ended,
        output=[Output(stream="stderr", run=1, lines=["Traceback", "KeyError"])],
        keys=["programs.web.restart.max_restarts", "programs.web.restart.within"],
        refused=[f"programs.yaml:{line}:1: wrong" for line in range(1, 8)],
    )
    local = datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    assert lines_of(why) == [
        "web: RUNNING for 9 s",
        "  it is flapping: five or more automatic restarts without a calm time in between",
        f"  in trouble since {local}",
        "  it uses 12.3 % CPU, 9.0 MiB of memory, 1 process, 4 threads, 64 open files",
        f"  next attempt at {local}",
        *("", "checks", "  liveness: unhealthy: refused", "  readiness: healthy"),
        *("", "decided by", "  the limit is 3"),
        *("", "what led here, newest first", f"  {'?' * 19}  run 1 exited with 1"),
        *("", "how run 1 ended: exited with 1, up 1 min 1 s, peak memory 2 KiB, CPU 0.50 s"),
        *("", "last output of run 1 (stderr)", "  Traceback", "  KeyError"),
        *("", "to change it: programs.web.restart.max_restarts, programs.web.restart.within"),
        *("", "to start it: asupctl start web"),
        *("", "the file on disk was refused; what runs is the file before", *(f"  programs.yaml:{n}:1: wrong" for n in range(1, 6))),
    ]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0.4 s"), (59.0, "59 s"), (60, "1 min"), (185, "3 min 5 s"), (7800, "2 h 10 min"), (273_600, "3 d 4 h")]
)
def test_spans_read_well(seconds: float, words: str) -> None:
    assert span(seconds) == words


@pytest.mark.anyio
async def test_how_an_earlier_daemons_run_ended_is_not_taken_for_the_present_runs_end() -> None:
    def state(number: int, to: str, **data: Any) -> Record:
        return Record(id=number, at=900.0 + number, type="state", name="web", to=to, run=1, cause="autostart", message=to, data=data)

    before = [state(-3, "STARTING"), state(-2, "EXITED", exit={"code": 0}, uptime_seconds=1.0)]

    async def last_records(_limit: int, _name: str) -> list[Record]:
        return before

    async with playing(swift("web"), history=SimpleNamespace(last_records=last_records)) as scene:
        await scene.state("web", State.RUNNING)
        why = await scene.commands.why("web")
        assert why.last_end is not None
        assert why.last_end.earlier_daemon
        assert "how run 1 of an earlier daemon ended: exited with 0, up 1.0 s" in why.lines


@pytest.mark.anyio
async def test_what_a_living_process_uses_is_told_with_its_descriptors() -> None:
    async with playing(swift("me"), swift("down", autostart=False), figures=Sampler()) as scene:
        process = scene.supervisor.processes["me"]
        process.snapshot = replace(process.snapshot, pid=os.getpid())
        why = await scene.commands.why("me")
        process.snapshot = replace(process.snapshot, pid=100)
        assert why.uses is not None
        assert why.uses.open_files is not None
        assert why.uses.open_files > 3
        assert re.match(r"  it uses \d+\.\d % CPU, .* of memory, .* open files$", why.lines[1])
        assert (await scene.commands.why("down")).uses is None


@pytest.mark.anyio
async def test_since_when_it_fails_is_told_from_the_second_restart_on() -> None:
    quick = Restart(max_restarts=2, backoff=Backoff(initial_seconds=0.0, jitter=0.0))
    kept = [("exited", 5), ("operator", 4), ("exited", 3), ("exited", 2), ("exited", 1)]

    async def runs(_name: str, limit: int) -> list[Any]:
        return [SimpleNamespace(end_cause=cause, ended_at=f"2026-11-22T01:00:0{second}.000Z") for cause, second in kept][:limit]

    async def last_records(_limit: int, _name: str) -> list[Record]:
        return []

    async with playing(swift("web", restart=quick), history=SimpleNamespace(runs=runs, last_records=last_records)) as scene:
        assert (await scene.commands.why("web")).failing_since is None
        scene.host.on_spawn = lambda child: child.end(code=7)
        scene.child("web").end(code=7)
        await scene.state("web", State.FATAL)
        why = await scene.commands.why("web")
        assert why.failing_since == "2026-11-22T01:00:02.000Z"  # the first of three; what an operator ended is none of them
        assert any("in trouble since" in line for line in why.lines)
        del kept[-1]  # now these are all that there ever were
        assert (await scene.commands.why("web")).failing_since == "2026-11-22T01:00:02.000Z"
        del kept[-1]  # the first of them is forgotten
        assert (await scene.commands.why("web")).failing_since is None
