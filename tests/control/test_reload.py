"""A reload waits until what it touched has settled, and says of each what became of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from msgspec import structs

from supervisord_async.config.load import Loaded
from supervisord_async.config.model import Backoff, Configuration, Daemon, Probe, Program, Restart, Schedule, Stop, Watch
from supervisord_async.core.policy import RestartPolicy
from supervisord_async.core.state import Cause, Health, Snapshot, State
from supervisord_async.errors import BusyError, ConfigError, FailedError, Problem, TimedOutError
from supervisord_async.supervise.runs.output import Output
from supervisord_async.supervise.sources.filewatch import watcher_thread
from supervisord_async.system.wait_condition import WaitCondition
from tests.control.conftest import playing, swift
from tests.supervise.filebench import inotify_instances, watch_threads
from tests.waiting import take_turns, wait_until

pytestmark = pytest.mark.anyio

DAEMON = Daemon(name="shop", run_dir="/nowhere", socket="/nowhere/asupd.sock")


class File:
    """The configuration file as the next reload finds it."""

    def __init__(self, *programs: Program, warnings: tuple[Problem, ...] = ()) -> None:
        self.programs, self.warnings = programs, warnings

    async def __call__(self) -> Any:
        programs = {one.name: one for one in self.programs}
        return Loaded(Configuration(file="/nowhere/programs.yaml", daemon=DAEMON, programs=programs), self.warnings)


def told(outcome: Any) -> dict[str, tuple[bool, str]]:
    return {result.name: (result.ok, result.message.partition(",")[0]) for result in outcome.results}


async def test_reload_tells_what_became_of_each_that_it_touched() -> None:
    before = (swift("kept"), swift("changed"), swift("gone"), swift("down", autostart=False))
    file = File(
        swift("kept"),
        swift("changed", environment={"A": "1"}),
        swift("down", autostart=False, environment={"A": "1"}),
        swift("new"),
        swift("idle", autostart=False),
        swift("nightly", autostart=False, schedule=Schedule(at="30 2 * * *")),
    )
    async with playing(*before, load=file) as scene:
        plan, outcome = await scene.commands.reload()
        assert plan.added == ("new", "idle", "nightly")
        assert outcome.error is None
        assert told(outcome) == {
            "changed": (True, "running"),
            "down": (True, "changed; it stays stopped"),
            "new": (True, "running"),
            "idle": (True, "added; not started: autostart is false"),
            "nightly": (True, "added; its schedule starts it"),
            "gone": (True, "removed"),
        }
        assert scene.snapshot("changed").run == 2
        assert b'"gone"' not in await scene.commands.status_json(figures=False)


async def test_what_becomes_autostart_is_started_unless_somebody_stopped_it_or_it_had_its_life() -> None:
    names = ("idle", "changed", "ordered", "up", "done", "fresh")
    before = [swift(name, autostart=False) for name in names]
    after = [swift(name) for name in names]
    after[1] = swift("changed", environment={"A": "1"})
    async with playing(*before, swift("off"), load=File(*after, swift("off", autostart=False))) as scene:
        await scene.commands.start(["ordered", "up", "done"])
        await scene.commands.stop(["ordered"])
        scene.child("done").end(code=0)
        await scene.commands.wait(["done"], "exited", timeout=5.0)
        plan, outcome = await scene.commands.reload()
        assert plan.describe()[:2] == ("~ idle in place: autostart", "+ idle started, unless somebody stopped it")
        assert told(outcome) == {
            "idle": (True, "running"),
            "changed": (True, "running"),
            "fresh": (True, "running"),
        }
        states = {name: process.snapshot.state for name, process in scene.supervisor.processes.items()}
        assert states["ordered"] is State.STOPPED and states["done"] is State.EXITED
        assert states["up"] is states["off"] is State.RUNNING
        assert scene.snapshot("up").run == scene.snapshot("off").run == 1


async def test_reload_tells_what_is_doubtful_in_a_sound_file() -> None:
    doubt = Problem("programs.yaml", 3, 5, "programs.web.rolling: this means nothing without replicas", warning=True)
    async with playing(swift("web"), load=File(swift("web"), warnings=(doubt,))) as scene:
        assert (await scene.commands.plan()).warnings == (str(doubt),)
        plan, _ = await scene.commands.reload()
        assert plan.warnings == (str(doubt),)
        assert [record.message for record in scene.bus.since(0)[0] if record.type == "config_warning"] == [str(doubt)]


async def test_reload_that_touches_nothing_has_no_results() -> None:
    async with playing(swift("web"), load=File(swift("web", description="the shop"))) as scene:
        plan, outcome = await scene.commands.reload()
        assert [change.in_place for change in plan.changed] == [("description",)]
        assert outcome.results == []
        assert outcome.error is None


async def test_reload_fails_for_what_does_not_come_up_and_for_what_waits_for_it() -> None:
    bad = swift("bad", start_seconds=5.0, restart=Restart(backoff=Backoff(initial_seconds=600.0, max_seconds=600.0)))
    file = File(swift("web"), bad, swift("needy", depends_on={"bad": "ready"}))
    async with playing(swift("web"), load=file) as scene:
        scene.host.on_spawn = lambda child: child.end(code=4)
        _, outcome = await scene.commands.reload(timeout=0.5)
        assert told(outcome)["bad"] == (False, "run 1 exited with 4")
        assert isinstance(outcome.error, FailedError)
        assert "needy" in outcome.timed_out  # bad is in BACKOFF: it may still come
        needy = next(result for result in outcome.results if result.name == "needy")
        assert "waiting for bad to be ready" in needy.message


async def test_a_start_that_waits_in_vain_fails_at_once() -> None:
    broken = swift("broken", autostart=False, restart=Restart(policy=RestartPolicy.NEVER))
    needy = swift("needy", autostart=False, depends_on={"broken": "succeeded"})
    async with playing(broken, needy) as scene:
        scene.host.on_spawn = lambda child: child.end(code=1)
        process = scene.supervisor.processes["broken"]
        process.snapshot = process.snapshot.__class__(state=State.FATAL, run=1, ended_run=1)
        with anyio.fail_after(60):
            outcome = await scene.commands.start(["needy"])
        assert told(outcome)["needy"][0] is False
        assert "broken, which will not come by itself" in outcome.results[0].message
        assert scene.snapshot("broken").run == 2, "it was tried once more"


async def test_only_an_operator_starts_for_one_that_waits_what_an_operator_stopped() -> None:
    disk, db = swift("disk", depends_on={}), swift("db", start_seconds=600.0, depends_on={"disk": "ready"})
    web = swift("web", depends_on={"db": "ready"})
    file = File(disk, db, web)
    async with playing(disk, db, web, load=file) as scene:
        await scene.state("db", State.STARTING)
        await scene.commands.stop(["db", "disk"])
        await scene.commands.reload()
        file.programs = (disk, db, structs.replace(web, command=("other",)))  # it is restarted, but still waits
        with anyio.fail_after(60):
            _, outcome = await scene.commands.reload()
        assert told(outcome)["web"] == (False, "waiting for db to be ready (it is STOPPED by an operator)")
        states = {name: scene.snapshot(name).state for name in ("disk", "db", "web")}
        assert states == {"disk": State.STOPPED, "db": State.STOPPED, "web": State.WAITING}
        await scene.commands.start(["web"], wait=False)
        await scene.state("disk", State.RUNNING)
        await scene.state("db", State.STARTING)
        assert {scene.snapshot(name).cause for name in ("disk", "db")} == {Cause.DEPENDENCY}


async def test_a_start_does_not_wait_for_what_flaps_not_even_behind_another_that_waits() -> None:
    """A database that cannot start held up the answer for as long as all programs' own settings could take."""
    db = swift("db", autostart=False, restart=Restart(backoff=Backoff(initial_seconds=600.0, max_seconds=600.0)))
    near = swift("near", autostart=False, depends_on={"db": "ready"})
    far = swift("far", autostart=False, depends_on={"near": "ready"})
    async with playing(db, near, far) as scene:
        now = anyio.current_time()
        down = Snapshot(state=State.BACKOFF, wanted=True, run=5, ended_run=5, restarts=5, since=now, cause=Cause.EXITED)
        scene.supervisor.processes["db"].snapshot = down
        with anyio.fail_after(60):
            outcome = await scene.commands.start(["far"])
        assert told(outcome)["far"] == (False, "waiting for near to be ready (it is WAITING)")


async def test_reload_waits_for_what_it_removed_until_that_is_gone() -> None:
    async with playing(swift("gone", stop=Stop(grace_seconds=600.0)), load=File()) as scene:
        child = scene.child("gone")
        child.obeys = False
        _, outcome = await scene.commands.reload(timeout=0.0)
        assert outcome.timed_out == ("gone",)
        child.end(code=0)
        await wait_until(lambda: not scene.supervisor.processes)


@pytest.mark.parametrize("how", ["reload", "scale"])
@pytest.mark.parametrize(("for_", "autostart", "told_then"), [
    ("ready", False, (False, "no longer configured")),
    ("exited", True, (False, "no longer configured")),
    ("stopped", True, (True, "stopped")),
])  # fmt: skip
async def test_who_waits_for_what_is_removed_waits_no_longer(how: str, for_: str, autostart: bool, told_then: tuple[bool, str]) -> None:
    before, after = (swift("web", autostart=autostart, replicas=replicas) for replicas in (2, 1))
    async with playing(before, load=File(after)) as scene, anyio.create_task_group() as tasks:
        if autostart:
            await wait_until(lambda: scene.snapshot("web:1").state is State.RUNNING)
        outcomes: list[Any] = []

        async def wait() -> None:
            outcomes.append(await scene.commands.wait(["web:1"], for_))

        subscribed = len(scene.bus._subscriptions)
        tasks.start_soon(wait)
        await wait_until(lambda: len(scene.bus._subscriptions) > subscribed)
        await (scene.commands.reload() if how == "reload" else scene.commands.scale("web", 1))
        await wait_until(lambda: outcomes)
        assert told(outcomes[0]) == {"web:1": told_then}


@pytest.mark.parametrize("how", ["reload", "scale"])
async def test_who_is_told_that_one_is_removed_finds_it_listed_no_more_however_long_its_log_takes(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    closing, written, answered = anyio.Event(), anyio.Event(), anyio.Event()
    close = Output.aclose

    async def close_late(output: Output) -> None:
        closing.set()
        await written.wait()
        await close(output)

    async with playing(swift("web", replicas=2), load=File(swift("web", replicas=1))) as scene:
        monkeypatch.setattr(Output, "aclose", close_late)

        async def ask() -> None:
            outcome = (await scene.commands.reload())[1] if how == "reload" else await scene.commands.scale("web", 1)
            assert told(outcome)["web:1"] == (True, "removed")
            assert b"web:1" not in await scene.commands.status_json(figures=False)
            answered.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await closing.wait()
            assert scene.snapshot("web:1").state is State.STOPPED
            await take_turns()
            assert not answered.is_set()
            written.set()
        assert answered.is_set()


@pytest.mark.parametrize("autostart", [True, False])
async def test_reload_waits_for_what_it_brings_back_while_the_removal_by_an_earlier_one_goes_on(autostart: bool) -> None:
    web = swift("web", replicas=2, stop=Stop(grace_seconds=600.0))
    file = File()
    async with playing(web, load=file) as scene:
        leaving = [scene.child(name) for name in ("web:0", "web:1")]
        for child in leaving:
            child.obeys = False
        await scene.commands.reload(wait=False)
        file.programs = (structs.replace(web, autostart=autostart, environment={"A": "1"}),)
        answers = []

        async def ask() -> None:
            answers.append(await scene.commands.reload())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await take_turns()
            assert not answers
            for child in leaving:
                child.end(code=0)
        plan, outcome = answers[0]
        assert plan.added == ("web",) and outcome.error is None
        expected = (True, "running") if autostart else (True, "added; not started: autostart is false")
        assert told(outcome) == {"web:0": expected, "web:1": expected}
        assert {result.state for result in outcome.results} == {"RUNNING" if autostart else "STOPPED"}
        assert {(now.snapshot.state, now.snapshot.run) for now in scene.supervisor.processes.values()} == {
            (State.RUNNING, 1) if autostart else (State.STOPPED, 0)
        }


@pytest.mark.parametrize("autostart", [True, False])
async def test_scale_waits_for_what_it_brings_back_while_its_removal_goes_on(autostart: bool) -> None:
    async with playing(swift("web", replicas=3, autostart=autostart, stop=Stop(grace_seconds=600.0))) as scene:
        await scene.commands.start(["web"])
        leaving = scene.child("web:2")
        leaving.obeys = False
        await scene.commands.scale("web", 2, wait=False)
        answers = []

        async def ask() -> None:
            answers.append(await scene.commands.scale("web", 3))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await take_turns()
            assert not answers
            leaving.end(code=0)
        assert told(answers[0]) == {"web:2": (True, "running")}
        assert scene.child("web:2") is not leaving and scene.snapshot("web:2").state is State.RUNNING


@pytest.mark.parametrize("autostart", [True, False])
async def test_stop_of_what_was_removed_and_brought_back_meanwhile_holds_for_its_successor(autostart: bool) -> None:
    async with playing(swift("web", replicas=3, autostart=autostart, stop=Stop(grace_seconds=600.0))) as scene:
        await scene.commands.start(["web"])
        leaving, process = scene.child("web:2"), scene.supervisor.processes["web:2"]
        leaving.obeys = False
        await scene.commands.scale("web", 2, wait=False)
        await scene.commands.scale("web", 3, wait=False)
        await scene.commands.stop(["web:2"], wait=False, by="anna")
        leaving.end(code=0)
        await wait_until(lambda: scene.supervisor.processes.get("web:2", process) is not process)
        await wait_until(lambda: scene.snapshot("web:2") != Snapshot())
        successor = scene.snapshot("web:2")
        assert (successor.state, successor.cause, successor.by, successor.run) == (State.STOPPED, Cause.OPERATOR, "anna", 0)


async def test_what_a_scale_adds_is_started_for_a_program_that_waits_for_it() -> None:
    async with playing(swift("db", autostart=False, start_seconds=600.0), swift("web", depends_on={"db": "ready"})) as scene:
        await scene.state("db", State.STARTING)
        await scene.commands.stop(["db"])
        assert scene.snapshot("web").state is State.WAITING
        await scene.commands.scale("db", 2, wait=False)
        await scene.state("db:1", State.STARTING)
        assert scene.snapshot("db:0").cause is Cause.DEPENDENCY


@pytest.mark.parametrize("back", ["scale", "reload"])
async def test_what_is_brought_back_while_it_was_going_is_started_for_a_program_that_waits_for_it(back: str) -> None:
    db, web = swift("db", replicas=3, autostart=False, stop=Stop(grace_seconds=600.0)), swift("web", depends_on={"db": "completed"})
    async with playing(db, web, load=File(db, web)) as scene:
        await scene.state("db:2", State.RUNNING)
        leaving = scene.child("db:2")
        leaving.obeys = False
        await scene.commands.scale("db", 2, wait=False)
        await scene.commands.stop(["db:0", "db:1"])
        await (scene.commands.scale("db", 3, wait=False) if back == "scale" else scene.commands.reload(wait=False))
        leaving.end(code=0)
        await wait_until(lambda: scene.snapshot("db:2").cause is Cause.DEPENDENCY, what="db:2 is started for web")
        assert scene.snapshot("web").state is State.WAITING


async def test_reload_that_is_not_waited_for_answers_at_once() -> None:
    async with playing(swift("web"), load=File(swift("web"), swift("slow", start_seconds=600.0))) as scene:
        _, outcome = await scene.commands.reload(wait=False)
        assert told(outcome) == {"slow": (True, "accepted")}
        with pytest.raises(TimedOutError):
            raise (await scene.commands.wait(["slow"], "ready", timeout=0.0)).error or AssertionError("it was ready")


async def test_reload_answers_over_http_with_its_results(serving: Any) -> None:
    file = File(swift("web"), swift("bad", start_seconds=5.0))
    async with serving(swift("web"), load=file) as wire:
        assert (await wire.ask("POST", "/v1/reload?plan=true")).json["results"] == []
        wire.scene.host.on_spawn = lambda child: child.end(code=4)
        refused = (await wire.ask("POST", "/v1/reload")).problem(409, "failed")
        assert refused["applied"] is True
        assert refused["lines"][0] == "+ bad added"
        assert [(one["name"], one["ok"]) for one in refused["results"]] == [("bad", False)]
        again = await wire.ask("POST", "/v1/reload?wait=false")
        assert (again.status, again.json["results"]) == (202, [])


async def test_reloads_that_are_asked_for_while_one_is_under_way_share_the_next() -> None:
    file, loads, gate = File(swift("web")), [], anyio.Event()

    async def load() -> Any:
        loads.append(True)
        await gate.wait()
        return await file()

    async with playing(swift("web"), load=load) as scene, anyio.create_task_group() as tasks:
        plans = []

        async def reload() -> None:
            plans.append(await scene.supervisor.reload())

        for _ in range(100):
            tasks.start_soon(reload)
        await wait_until(lambda: loads)
        gate.set()
        await wait_until(lambda: len(plans) == 100)
        assert len(loads) <= 2
        file.programs = (swift("web"), swift("new"))
        assert (await scene.supervisor.reload()).added == ("new",)  # what comes later reads the file anew
        assert len(loads) <= 3


async def test_a_refusal_is_everybodys_who_shared_it_and_a_sound_file_ends_it() -> None:
    file, gate, unsound = File(swift("web")), anyio.Event(), True

    async def load() -> Any:
        await gate.wait()
        if unsound:
            raise ConfigError([Problem("programs.yaml", 1, 1, "unsound")])
        return await file()

    async with playing(swift("web"), load=load) as scene, anyio.create_task_group() as tasks:
        refused = []

        async def reload() -> None:
            try:
                await scene.supervisor.reload()
            except ConfigError as error:
                refused.append(error)

        for _ in range(3):
            tasks.start_soon(reload)
        await anyio.lowlevel.checkpoint()
        gate.set()
        await wait_until(lambda: len(refused) == 3)
        assert [problem.message for problem in scene.supervisor.refused] == ["unsound"]
        unsound = False
        await scene.supervisor.reload()
        assert scene.supervisor.refused == ()


async def test_nothing_is_reloaded_or_replaced_while_the_daemon_shuts_down() -> None:
    slow = swift("slow", stop=Stop(grace_seconds=600.0))
    async with playing(slow, load=File(slow, swift("new"))) as scene:
        await scene.state("slow", State.RUNNING)
        scene.child("slow").obeys = False
        scene.commands.shutdown()
        await scene.state("slow", State.STOPPING)
        with pytest.raises(BusyError, match="shutting down"):
            await scene.commands.reload()
        with pytest.raises(BusyError, match="shutting down"):
            await scene.commands.reexec()
        await scene.supervisor.reload()  # a signal is heard, and changes nothing
        assert list(scene.supervisor.processes) == ["slow"]
        scene.commands.shutdown()  # asked again it is not hastened: that is a signal's meaning
        await take_turns()
        assert 9 not in scene.child("slow").signals
        scene.child("slow").end(signal=15)
        await scene.state("slow", State.STOPPED)


async def test_who_waits_for_what_the_file_does_not_ask_for_any_more_starts() -> None:
    disk = swift("disk", start_seconds=600.0)
    async with playing(disk, swift("web", depends_on={"disk": "ready"}), load=File(disk, swift("web"))) as scene:
        await scene.state("web", State.WAITING)
        await scene.commands.reload(wait=False)
        await scene.state("web", State.RUNNING)
        assert scene.snapshot("web").run == 1


async def test_a_shorter_backoff_holds_for_the_one_that_waits() -> None:
    long, short = (Restart(backoff=Backoff(initial_seconds=delay, max_seconds=delay, jitter=0.0)) for delay in (600.0, 0.05))
    async with playing(swift("web", restart=long), load=File(swift("web", restart=short))) as scene:
        await scene.state("web", State.RUNNING)
        scene.child("web").end(code=1)
        await scene.state("web", State.BACKOFF)
        await scene.commands.reload(wait=False)
        await scene.state("web", State.RUNNING)
        assert (scene.snapshot("web").run, scene.snapshot("web").restarts) == (2, 1)


async def test_a_probe_that_comes_by_a_reload_watches_the_run_that_lives() -> None:
    probe = Probe(kind="tcp", tcp=("x", 1), interval_seconds=0.01, failures=1)
    async with playing(swift("web"), load=File(swift("web", liveness=probe))) as scene:
        await scene.state("web", State.RUNNING)
        pid = scene.snapshot("web").pid
        await scene.commands.reload()
        await wait_until(lambda: scene.snapshot("web").health is Health.HEALTHY)
        assert scene.snapshot("web").pid == pid
        scene.host.answers["x", 1] = "sick"
        await wait_until(lambda: scene.snapshot("web").run == 2)


async def test_what_comes_up_with_a_reload_waits_for_the_new_run_of_what_it_needs() -> None:
    """Whatever the file's order, and although nothing of the dependents lives that would have to end first."""
    long = Restart(backoff=Backoff(initial_seconds=600.0, max_seconds=600.0, jitter=0.0))
    needs: dict[str, Any] = {"depends_on": {"db": "ready"}}
    new: dict[str, Any] = {"environment": {"A": "1"}}
    file = File(swift("added", **needs), swift("web", restart=long, **needs, **new), swift("db", **new))
    async with playing(swift("web", restart=long, **needs), swift("db"), load=file) as scene:
        await scene.state("web", State.RUNNING)
        scene.child("web").end(code=1)
        await scene.state("web", State.BACKOFF)
        await scene.commands.reload()
        found = {name: scene.snapshot(name) for name in ("db", "web", "added")}
        assert {name: (one.state, one.run) for name, one in found.items()} == {
            "db": (State.RUNNING, 2),
            "web": (State.RUNNING, 2),
            "added": (State.RUNNING, 1),
        }
        assert found["web"].run_since >= found["db"].run_since
        assert found["added"].run_since >= found["db"].run_since


async def test_a_scaled_number_is_forgotten_with_the_next_reload() -> None:
    async with playing(swift("web"), load=File(swift("web"))) as scene:
        scene.supervisor.scale("web", 3)
        assert scene.supervisor.scaled == {"web": 3}
        await scene.commands.reload()
        assert scene.supervisor.scaled == {}  # also for a successor
        await wait_until(lambda: list(scene.supervisor.processes) == ["web"])


async def test_processes_on_their_way_out_hear_of_themselves_only() -> None:
    many = [swift(f"gone{number}") for number in range(40)]
    async with playing(swift("kept"), *many, load=File(swift("kept"))) as scene:
        heard = dict.fromkeys((one.name for one in many), 0)
        notify = WaitCondition.notify

        def counted(condition: WaitCondition) -> None:
            for name, own in scene.supervisor.removals._conditions.items():
                heard[name] += own is condition
            notify(condition)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(WaitCondition, "notify", counted)
            await scene.supervisor.reload()
            await wait_until(lambda: list(scene.supervisor.processes) == ["kept"])
        assert max(heard.values()) <= 4  # its own records, not those of all
        assert not any(child.alive for child in scene.host.children if child.spec.environment["ASUP_NAME"] != "kept")


async def test_a_bug_in_what_a_reload_sets_going_ends_neither_the_daemon_nor_other_programs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def breaks(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    async with playing(swift("kept"), swift("gone"), load=File(swift("kept"))) as scene:
        monkeypatch.setattr(scene.host, "prepare", breaks)
        monkeypatch.setattr(Output, "aclose", breaks)
        await scene.commands.reload()
        assert (await scene.commands.restart(["kept"])).error is None
        assert scene.snapshot("gone").state is State.STOPPED
        monkeypatch.undo()
    failed = [record.getMessage() for record in caplog.records if record.exc_info]
    assert failed == ["prepare spawns failed because of a bug", "remove gone failed because of a bug"]


async def test_what_is_removed_is_not_watched_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher_thread, "LINGER_SECONDS", 0.05)
    async with playing(swift("web", watch=(Watch(paths=(str(tmp_path),)),)), swift("kept"), load=File(swift("kept"))) as scene:
        await wait_until(lambda: inotify_instances() == 1)
        await scene.commands.reload()
        await wait_until(lambda: not watch_threads() and not inotify_instances())
        assert list(scene.supervisor.processes) == ["kept"]


async def test_what_is_being_removed_is_removed_although_somebody_starts_it() -> None:
    async with playing(swift("gone", stop=Stop(grace_seconds=600.0)), swift("kept"), load=File(swift("kept"))) as scene:
        gone = scene.child("gone")
        gone.obeys = False
        await scene.commands.reload(wait=False)
        await scene.state("gone", State.STOPPING)
        await scene.commands.start(["gone"], wait=False)
        await wait_until(lambda: scene.snapshot("gone").wanted)
        await wait_until(lambda: not scene.snapshot("gone").wanted)
        gone.end(code=0)
        await wait_until(lambda: list(scene.supervisor.processes) == ["kept"])
        assert [child for child in scene.host.children if child.spec.environment["ASUP_NAME"] == "gone"] == [gone]
