"""The commands: idempotent, many at once, waiting for what they caused, saying per name what came of it."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import pytest

from supervisord_async.config import secrets
from supervisord_async.config.model import Backoff, Probe, Restart, Stop
from supervisord_async.core.inputs import StartRequested, StopRequested
from supervisord_async.core.policy import RestartPolicy
from supervisord_async.core.state import State
from supervisord_async.errors import BusyError, FailedError, NotFoundError, SpawnError, TimedOutError, UsageError
from tests.control.conftest import playing, swift
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio


def one(outcome: Any) -> Any:
    [result] = outcome.results
    return result


async def test_start_waits_until_running_and_says_so() -> None:
    async with playing(swift("web", autostart=False)) as scene:
        result = one(await scene.commands.start(["web"]))
        assert (result.ok, result.state, result.cause) == (True, "RUNNING", "operator")
        assert result.message == f"running, pid {scene.host.child.pid}, run 1"


async def test_start_of_what_runs_is_fine_and_starts_nothing() -> None:
    async with playing(swift("web")) as scene:
        result = one(await scene.commands.start(["web"]))
        assert result.ok
        assert result.message.startswith("already running")
        assert len(scene.host.children) == 1


async def test_a_groups_selector_means_the_group_and_no_program_that_is_called_like_it() -> None:
    names = [swift("core", group="other"), swift("web", group="core"), swift("pair", group="core", replicas=2)]
    async with playing(*names) as scene:
        assert [result.name for result in (await scene.commands.start(["core:*"])).results] == ["web", "pair:0", "pair:1"]
        assert [result.name for result in (await scene.commands.start(["pair:*"])).results] == ["pair:0", "pair:1"]


async def test_start_after_a_stop_that_nobody_waited_for_wins() -> None:
    async with playing(swift("web")) as scene:
        await scene.commands.stop(["web"], wait=False)
        result = one(await scene.commands.start(["web"]))
        assert (result.ok, result.state) == (True, "RUNNING")
        assert scene.snapshot("web").run == 2


async def test_start_that_ends_in_backoff_fails_with_the_reason() -> None:
    async with playing(swift("web", autostart=False, start_seconds=5.0)) as scene:
        scene.host.on_spawn = lambda child: child.end(code=3)
        outcome = await scene.commands.start(["web"])
        assert not one(outcome).ok
        assert one(outcome).message == "run 1 exited with 3"
        assert isinstance(outcome.error, FailedError)


async def test_start_that_cannot_spawn_says_what_the_system_said() -> None:
    async with playing(swift("web", autostart=False, restart=Restart(policy=RestartPolicy.NEVER))) as scene:
        scene.host.refuse.append(SpawnError("exec", 2, "cannot run serve"))
        result = one(await scene.commands.start(["web"]))
        assert (result.ok, result.state, result.cause) == (False, "FATAL", "spawn_failed")
        assert "No such file" in result.message


async def test_start_of_a_job_that_ended_well_is_ok() -> None:
    async with playing(swift("job", autostart=False, start_seconds=5.0)) as scene:
        scene.host.on_spawn = lambda child: child.end(code=0)
        result = one(await scene.commands.start(["job"]))
        assert (result.ok, result.state, result.message) == (True, "EXITED", "run 1 exited with 0: it is done")


async def test_start_that_somebody_stops_meanwhile_says_so() -> None:
    async with playing(swift("web", autostart=False, start_seconds=600.0)) as scene, anyio.create_task_group() as tasks:
        outcomes = []

        async def start() -> None:
            outcomes.append(await scene.commands.start(["web"]))

        tasks.start_soon(start)
        await scene.state("web", State.STARTING)
        await scene.commands.stop(["web"])
        with anyio.fail_after(60):
            while not outcomes:
                await anyio.sleep(0.01)
        assert one(outcomes[0]).message == "stopped meanwhile (operator)"
        assert not one(outcomes[0]).ok


async def test_stop_waits_until_stopped_and_twice_is_fine() -> None:
    async with playing(swift("web")) as scene:
        result = one(await scene.commands.stop(["web"]))
        assert (result.ok, result.state, result.message) == (True, "STOPPED", "stopped; killed by SIGTERM")
        assert one(await scene.commands.stop(["web"])).message == "already stopped"


async def test_stop_that_is_not_there_in_time_times_out_and_goes_on() -> None:
    async with playing(swift("web", stop=Stop(grace_seconds=600.0))) as scene:
        scene.child("web").obeys = False
        outcome = await scene.commands.stop(["web"], timeout=0.05)
        assert isinstance(outcome.error, TimedOutError)
        assert outcome.timed_out == ("web",)
        assert "still STOPPING" in one(outcome).message
        assert scene.snapshot("web").state is State.STOPPING


async def test_stop_wins_over_a_pending_attempt() -> None:
    slow = Restart(policy=RestartPolicy.ALWAYS)
    async with playing(swift("web", restart=slow)) as scene:
        scene.child("web").end(code=1)
        await scene.state("web", State.BACKOFF)
        assert one(await scene.commands.stop(["web"])).state == "STOPPED"


async def test_a_stop_of_what_is_down_already_waits_for_no_turn() -> None:
    """What is stopped tells of no change: nobody may wait for one."""
    async with playing(swift("db"), swift("web", depends_on={"db": "started"})) as scene:
        await scene.state("web", State.RUNNING)
        await scene.commands.stop(["db"])
        scene.child("web").obeys = False
        web = scene.child("web")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(scene.commands.stop, ["all"])
            await scene.state("web", State.STOPPING)
            outcome = await scene.commands.stop(["all"], timeout=0.05)
            assert (outcome.timed_out, [result.message for result in outcome.results if result.ok]) == (("web",), ["already stopped"])
            web.end(signal=9)
        with anyio.fail_after(30):
            outcome = await scene.commands.stop(["all"])
        assert [result.message for result in outcome.results] == ["already stopped", "already stopped"]


async def test_restart_waits_for_a_newer_run() -> None:
    async with playing(swift("web")) as scene:
        result = one(await scene.commands.restart(["web"]))
        assert (result.ok, result.state) == (True, "RUNNING")
        assert scene.snapshot("web").run == 2
        assert scene.snapshot("web").restarts == 0


async def test_restart_of_a_thousand_is_one_wait() -> None:
    async with playing(swift("web", replicas=300)) as scene:
        outcome = await scene.commands.restart(["all"])
        assert outcome.error is None
        assert [result.name for result in outcome.results][:2] == ["web:0", "web:1"]
        assert all(scene.snapshot(f"web:{n}").run == 2 for n in range(300))


async def test_several_names_each_get_their_word() -> None:
    async with playing(swift("good", autostart=False), swift("bad", autostart=False, start_seconds=5.0)) as scene:
        scene.host.on_spawn = lambda child: child.end(code=9) if len(scene.host.children) == 2 else None
        outcome = await scene.commands.start(["good", "bad"])
        assert {result.name: result.ok for result in outcome.results} == {"good": True, "bad": False}
        assert isinstance(outcome.error, FailedError)


async def test_without_waiting_the_answer_is_accepted() -> None:
    async with playing(swift("web", autostart=False, start_seconds=0.2)) as scene:
        result = one(await scene.commands.start(["web"], wait=False))
        assert (result.ok, result.message, result.state) == (True, "accepted", "STARTING")
        await scene.state("web", State.RUNNING)


async def test_signal_reaches_the_child_and_fails_without_one() -> None:
    async with playing(swift("web"), swift("down", autostart=False)) as scene:
        outcome = await scene.commands.signal(["web", "down"], 10)
        assert [result.ok for result in outcome.results] == [True, False]
        assert scene.child("web").signals == [10]
        assert outcome.results[1].message == "not running: STOPPED"


async def test_wait_for_ready_is_woken_by_somebody_elses_start() -> None:
    async with playing(swift("web", autostart=False)) as scene, anyio.create_task_group() as tasks:
        outcomes = []

        async def wait() -> None:
            outcomes.append(await scene.commands.wait(["web"], "ready", timeout=20))

        tasks.start_soon(wait)
        await anyio.sleep(0)
        scene.supervisor.processes["web"].post(StartRequested())
        with anyio.fail_after(60):
            while not outcomes:
                await anyio.sleep(0.01)
        assert one(outcomes[0]).ok


async def test_what_is_late_says_what_holds_it_up() -> None:
    probe = Probe(kind="http", http="http://127.0.0.1:1/", interval_seconds=0.01)
    async with playing(swift("web", readiness=probe, autostart=False), swift("idle", autostart=False)) as scene:
        scene.host.answers[probe.http] = "status 404"
        await scene.commands.start(["web"], wait=False)
        await wait_until(lambda: scene.snapshot("web").complaint)
        late = one(await scene.commands.wait(["web"], "ready", timeout=0.05))
        assert late.message.endswith("still STARTING (not ready yet: status 404)")
        assert one(await scene.commands.wait(["idle"], "ready", timeout=0.05)).message.endswith("still STOPPED (not started)")


async def test_what_is_unhealthy_is_not_ready_before_it_is_well_again() -> None:
    probe = Probe(kind="http", http="http://127.0.0.1:1/", interval_seconds=0.01, failures=1)
    async with playing(swift("web", readiness=probe)) as scene:
        assert one(await scene.commands.wait(["web"], "ready", timeout=60)).ok
        scene.host.answers[probe.http] = "no answer"
        await wait_until(lambda: not scene.snapshot("web").is_ready)
        late = one(await scene.commands.wait(["web"], "ready", timeout=0.05))
        assert late.message.endswith("still RUNNING (unhealthy: no answer)")
        scene.host.answers[probe.http] = None
        assert one(await scene.commands.wait(["web"], "ready", timeout=60)).ok


async def test_wait_for_exited_tells_how_and_for_ready_fails_on_fatal() -> None:
    never = Restart(policy=RestartPolicy.NEVER)
    async with playing(swift("job", restart=never), swift("bad", autostart=False, restart=never)) as scene:
        scene.child("job").end(code=0)
        assert one(await scene.commands.wait(["job"], "exited", timeout=20)).message == "run 1 exited with 0"
        assert one(await scene.commands.wait(["job"], "stopped", timeout=20)).ok
        scene.host.refuse.append(SpawnError("exec", 2, "cannot run"))
        scene.supervisor.processes["bad"].post(StartRequested())
        assert not one(await scene.commands.wait(["bad"], "ready", timeout=20)).ok
        with pytest.raises(UsageError, match="expected ready, stopped, exited"):
            await scene.commands.wait(["job"], "sunny")


async def test_nobody_waits_for_a_job_that_is_done_nor_by_a_pattern_for_what_does_not_start_by_itself() -> None:
    never = Restart(policy=RestartPolicy.NEVER)
    async with playing(swift("web"), swift("job", restart=never), swift("bad", restart=never), swift("rare", autostart=False)) as scene:
        scene.child("job").end(code=0)
        scene.child("bad").end(code=4)
        await scene.state("bad", State.EXITED)
        found = {result.name: (result.ok, result.message) for result in (await scene.commands.wait(["all"], "ready", timeout=20)).results}
        assert found["web"][0] and found["job"] == (True, "run 1 exited with 0: it is done")
        assert found["bad"] == (False, "run 1 exited with 4") and found["rare"] == (True, "not awaited: autostart is false")
        assert (await scene.commands.wait(["all", "rare"], "ready", timeout=0.05)).timed_out == ("rare",)


async def test_the_daemons_end_ends_all_waiting() -> None:
    async with playing(swift("web", autostart=False)) as scene, anyio.create_task_group() as tasks:
        outcomes = []

        async def wait() -> None:
            outcomes.append(await scene.commands.wait(["web"], "ready"))

        before = len(scene.bus._subscriptions)
        tasks.start_soon(wait)
        await wait_until(lambda: len(scene.bus._subscriptions) > before)
        scene.bus.close()
        with anyio.fail_after(60):
            while not outcomes:
                await anyio.sleep(0.01)
        assert one(outcomes[0]).message == "the daemon ended meanwhile"


async def test_unknown_names_are_told_with_the_nearest_and_nothing_is_done() -> None:
    async with playing(swift("web")) as scene:
        with pytest.raises(NotFoundError, match="did you mean 'web'"):
            await scene.commands.stop(["web", "wbe"])
        assert scene.snapshot("web").state is State.RUNNING
        with pytest.raises(UsageError):
            await scene.commands.stop([])
        with pytest.raises(NotFoundError, match="did you mean 'web'"):
            await scene.commands.scale("wbe", 3)


async def test_a_group_and_a_program_without_processes_are_told_as_such() -> None:
    async with playing(swift("web", group="shop"), swift("idle", autostart=False)) as scene:
        with pytest.raises(NotFoundError, match="did you mean 'web'"):
            await scene.commands.stop(["WEB"])
        for selector in ("shop", "group:shop"):
            with pytest.raises(NotFoundError, match=r"a group: did you mean 'shop:\*'"):
                await scene.commands.stop([selector])
        await scene.commands.scale("idle", 0)
        with pytest.raises(NotFoundError, match="scaled to 0"):
            await scene.commands.start(["idle"])


@pytest.mark.parametrize(("count", "more"), [(5, ""), (6, "; and 1 more")])
async def test_an_error_names_five_that_failed_and_counts_the_others(count: int, more: str) -> None:
    async with playing(swift("web", replicas=count, autostart=False, restart=Restart(policy=RestartPolicy.NEVER))) as scene:
        scene.host.on_spawn = lambda child: child.end(code=3)
        error = (await scene.commands.start(["web"])).error
        assert str(error) == "; ".join(f"web:{number}: run 1 exited with 3" for number in range(5)) + more


async def test_a_scale_whose_newcomer_somebody_stops_meanwhile_says_so() -> None:
    async with playing(swift("web", replicas=2, start_seconds=600.0)) as scene, anyio.create_task_group() as tasks:
        outcomes = []

        async def scale() -> None:
            outcomes.append(await scene.commands.scale("web", 3))

        tasks.start_soon(scale)
        await wait_until(lambda: "web:2" in scene.supervisor.processes)
        await scene.state("web:2", State.STARTING)
        await scene.commands.stop(["web:2"])
        await wait_until(lambda: outcomes)
        assert one(outcomes[0]).message == "stopped meanwhile (operator)"


async def test_nothing_is_started_while_the_daemon_shuts_down() -> None:
    async with playing(swift("web", stop=Stop(grace_seconds=600.0))) as scene:
        scene.child("web").obeys = False
        scene.commands.shutdown()
        with pytest.raises(BusyError, match="shutting down"):
            await scene.commands.start(["web"])
        scene.commands.shutdown()  # a second one is no order to kill
        assert scene.child("web").signals == [15] or not scene.child("web").signals


async def test_too_many_requests_are_refused_and_said() -> None:
    async with playing(swift("web")) as scene:
        process = scene.supervisor.processes["web"]
        for wait in (True, False):
            for _ in range(256):
                process.post(StopRequested())
            result = one(await scene.commands.start(["web"], wait=wait))
            assert not result.ok
            assert "wait for this process already" in result.message


async def test_the_configuration_of_a_process_is_that_of_its_program() -> None:
    async with playing(swift("web", replicas=2, description="serves")) as scene:
        for name in ("web", "web:1"):
            assert (await scene.commands.configuration(name))["description"] == "serves"
        with pytest.raises(NotFoundError, match="did you mean 'web'"):
            await scene.commands.configuration("wbe")


async def test_status_has_exactly_the_keys_of_the_contract() -> None:
    keys = "name program group state health pid run uptime_seconds restarts flapping exit_status cause next_at description "
    keys += "cpu_percent memory_bytes"
    import msgspec

    async with playing(swift("web", replicas=2), swift("down", autostart=False, description="a shop")) as scene:
        first, _, down = msgspec.json.decode(await scene.commands.status_json())
        assert list(first) == keys.split()
        assert (first["name"], first["program"], first["state"], first["run"]) == ("web:0", "web", "RUNNING", 1)
        assert first["uptime_seconds"] >= 0
        assert (down["pid"], down["uptime_seconds"], down["exit_status"], down["run"]) == (None, None, None, 0)
        assert down["description"] == "a shop"
        with pytest.raises(NotFoundError, match="is 2 processes"):
            await scene.commands.status_of("web")


async def test_status_tells_while_it_is_tried_again_why_the_start_had_failed() -> None:
    quick = Restart(policy=RestartPolicy.ALWAYS, backoff=Backoff(initial_seconds=0.0, jitter=0.0))
    async with playing(swift("web", autostart=False, start_seconds=600.0, restart=quick)) as scene:
        scene.host.refuse.append(SpawnError("exec", 2, "cannot run serve"))
        await scene.commands.start(["web"], wait=False)
        await wait_until(lambda: scene.snapshot("web").run == 2 and scene.snapshot("web").pid is not None)
        status = await scene.commands.status_of("web")
        assert (status.state, status.cause) == ("STARTING", "spawn_failed")
        assert status.description == f"{scene.snapshot('web').detail}; starting run 2"
        assert status.description.startswith("exec: cannot run serve: No such file")
        await scene.commands.restart(["web"], wait=False)
        await wait_until(lambda: scene.snapshot("web").run == 3 and scene.snapshot("web").pid is not None)
        assert (await scene.commands.status_of("web")).description == "starting run 3"


async def test_status_tells_when_the_next_attempt_is() -> None:
    async with playing(swift("web", restart=Restart(policy=RestartPolicy.ALWAYS))) as scene:
        scene.child("web").end(code=1)
        await scene.state("web", State.BACKOFF)
        view = await scene.commands.status_of("web")
        assert view.next_at is not None
        assert view.next_at.endswith("Z")
        assert (view.exit_status, view.restarts, view.description) == ({"code": 1}, 1, "exited with 1")


async def test_secrets_are_masked_without_holding_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration of 1,000 programs took a quarter of a second, in which nothing else was answered."""
    threads: list[threading.Thread] = []
    real = secrets.masked
    monkeypatch.setattr(secrets, "masked", lambda whole: (threads.append(threading.current_thread()), real(whole))[1])
    async with playing(swift("web", environment={"TOKEN": "abcdefgh"})) as scene:
        assert (await scene.commands.configuration("web"))["environment"] == {"TOKEN": secrets.MASK}
    assert threads
    assert threads[0] is not threading.current_thread()
