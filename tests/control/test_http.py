"""The API over a real unix socket: routes, actions, errors in one shape, and strangers of all kinds."""

from __future__ import annotations

import os
import resource
import signal
import stat
import sys
import threading
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from supervisord_async.config.model import Logs, Stop
from supervisord_async.control import connection, logs
from supervisord_async.control import http as http_module
from supervisord_async.core.inputs import StartRequested
from supervisord_async.core.state import State
from supervisord_async.errors import ConfigError, Problem
from supervisord_async.supervise.records.history import History
from supervisord_async.system.threads import DaemonThreads
from tests.control.conftest import Answer, ask, read_answer, swift
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

Serving = Callable[..., Any]


async def test_processes_are_listed_and_narrowed_and_told_one_by_one(serving: Serving) -> None:
    async with serving(swift("web"), swift("worker", replicas=2)) as wire:
        answer = await wire.ask("GET", "/v1/processes")
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert [one["name"] for one in answer.json] == ["web", "worker:0", "worker:1"]
        narrowed = await wire.ask("GET", "/v1/processes?name=worker&figures=false")
        assert [one["name"] for one in narrowed.json] == ["worker:0", "worker:1"]
        assert (await wire.ask("GET", "/v1/processes/worker:1")).json["state"] == "RUNNING"
        assert (await wire.ask("GET", "/v1/processes/wbe")).problem(404, "not_found")["detail"] == "no program 'wbe': did you mean 'web'?"


async def test_the_socket_is_private_and_goes_with_the_server(serving: Serving) -> None:
    async with serving(swift("web")) as wire:
        assert stat.S_IMODE(os.stat(wire.path).st_mode) == 0o600
    assert not os.path.exists(wire.path)


async def test_actions_answer_with_a_result_per_name(serving: Serving) -> None:
    async with serving(swift("web"), swift("worker")) as wire:
        stopped = await wire.ask("POST", "/v1/processes/web,worker/stop?timeout=20")
        assert stopped.status == 200
        told = [(one["name"], one["ok"], one["state"]) for one in stopped.json["results"]]
        assert told == [("web", True, "STOPPED"), ("worker", True, "STOPPED")]
        started = await wire.ask("POST", "/v1/processes/all/start", b'{"wait": true, "timeout": "20s"}')
        assert [one["state"] for one in started.json["results"]] == ["RUNNING", "RUNNING"]
        accepted = await wire.ask("POST", "/v1/processes/w*/restart?wait=false")
        assert accepted.status == 202
        assert all(one["ok"] for one in accepted.json["results"])
        signalled = await wire.ask("POST", "/v1/processes/web/signal", b'{"signal": "HUP"}')
        assert signalled.status == 200, signalled.body
        assert wire.scene.child("web").signals == [1]
        assert (await wire.ask("POST", "/v1/processes/web/signal?signal=RTMIN%2B1")).status == 200
        assert wire.scene.child("web").signals == [1, signal.SIGRTMIN + 1]


async def test_what_failed_is_a_problem_with_all_results(serving: Serving) -> None:
    async with serving(swift("web", stop=Stop(grace_seconds=600.0)), swift("bad", autostart=False, start_seconds=9.0)) as wire:
        wire.scene.child("web").obeys = False
        wire.scene.host.on_spawn = lambda child: child.end(code=1)
        failed = (await wire.ask("POST", "/v1/processes/web,bad/start")).problem(409, "failed")
        assert [one["ok"] for one in failed["results"]] == [True, False]
        late = (await wire.ask("POST", "/v1/processes/web/stop?timeout=20ms")).problem(504, "timed_out")
        assert late["timed_out"] == ["web"]
        assert late["exit_code"] == 6
        (await wire.ask("POST", "/v1/processes/wbe/scale?replicas=3")).problem(404, "not_found")


async def test_every_error_is_a_problem_document(serving: Serving) -> None:
    async with serving(swift("web")) as wire:
        (await wire.ask("GET", "/nothing")).problem(404, "not_found")
        (await wire.ask("GET", "/v1/../../etc/passwd")).problem(404, "not_found")
        (await wire.ask("GET", "/v1/processes/__class__")).problem(404, "not_found")
        (await wire.ask("POST", "/v1/processes/web/__init__")).problem(404, "not_found")
        wrong = await wire.ask("DELETE", "/v1/processes/web")
        wrong.problem(405, "method_not_allowed")
        assert "GET" in wrong.headers["allow"]
        (await wire.ask("POST", "/v1/processes/web/start", b"{no json")).problem(400, "usage")
        (await wire.ask("POST", "/v1/processes/web/start", b"[1]")).problem(400, "usage")
        (await wire.ask("POST", "/v1/processes/web/start", b"[" * 60_000)).problem(400, "usage")
        (await wire.ask("POST", "/v1/processes/web/start", b'{"wiat": false}')).problem(400, "usage")
        (await wire.ask("POST", "/v1/processes/web/start?wait=perhaps")).problem(400, "usage")
        (await wire.ask("POST", "/v1/processes/web/start?timeout=soon")).problem(400, "usage")
        (await wire.ask("POST", "/v1/processes/web/start?timeout=1&timeout=2")).problem(400, "usage")
        for value in (b"[1]", b"{}", b"true"):
            (await wire.ask("POST", "/v1/processes/web/start", b'{"timeout": ' + value + b"}")).problem(400, "usage")
        (await wire.ask("GET", "/v1/processes", b'{"name": ["web", 5]}')).problem(400, "usage")
        assert [one["name"] for one in (await wire.ask("GET", "/v1/processes", b'{"name": ["web"]}')).json] == ["web"]
        (await wire.ask("POST", "/v1/processes/web/signal")).problem(400, "usage")
        (await wire.ask("POST", "/v1/processes/web/signal?signal=NOPE")).problem(400, "usage")
        misspelt = await wire.ask("POST", "/v1/processes/web/signal?signal=TREM")
        misspelt.problem(400, "usage")
        assert misspelt.json["detail"] == "signal: 'TREM': expected a signal such as TERM, HUP or 15; did you mean 'TERM'?"
        (await wire.ask("POST", "/v1/processes/web/signal?signal=_DFL")).problem(400, "usage")
        (await wire.ask("POST", "/v1/processes/web/signal", b'{"signal": true}')).problem(400, "usage")
        for nothing in ("name=", "name=,"):  # what a script's empty variable makes of a selector does not mean all
            (await wire.ask("GET", f"/v1/processes?{nothing}")).problem(400, "usage")
        for how_many in ("", "?replicas=-1", "?replicas=10001"):
            problem = (await wire.ask("POST", f"/v1/processes/web/scale{how_many}")).problem(400, "usage")
            assert "a whole number from 0 to 10000" in problem["detail"]
        (await wire.ask("GET", "/v1/events?after=-1")).problem(400, "usage")
        (await wire.ask("GET", "/v1/processes/%00%ff")).problem(404, "not_found")
        assert wire.scene.snapshot("web").state is State.RUNNING


async def test_a_bug_is_told_without_its_inside(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(swift("web")) as wire:
        monkeypatch.setattr(wire.scene.commands, "status_json", None)
        problem = (await wire.ask("GET", "/v1/processes")).problem(500, "internal")
        assert "NoneType" not in problem["detail"]
        assert any(record.exc_info for record in caplog.records)


async def test_a_part_that_was_moved_away_is_no_bug(serving: Serving, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """As during the exchange of the environment that the daemon was started from."""
    monkeypatch.setitem(sys.modules, "supervisord_async.control.metrics", None)
    async with serving(swift("web")) as wire:
        detail = (await wire.ask("GET", "/metrics")).problem(503, "unavailable")["detail"]
    assert "cannot be imported: " in detail and detail.endswith("(install it again, then `asupctl reexec`)")
    assert "degraded: supervisord_async.control.metrics cannot be imported: " in caplog.text
    assert "Traceback" not in caplog.text


async def test_a_machine_that_gives_no_thread_is_no_bug_and_may_be_asked_again(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(logs, "READERS", DaemonThreads(1, "test"))
    async with serving(swift("web", autostart=False, logs=Logs(stdout="/nonexistent/web.log"))) as wire:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            problem = (await wire.ask("GET", "/v1/processes/web/logs")).problem(503, "unavailable")
        assert "can't start new thread" in problem["detail"]
        assert [record.levelname for record in caplog.records if "was not answered" in record.getMessage()] == ["WARNING"]
        assert not any(record.exc_info for record in caplog.records)
        assert (await wire.ask("GET", "/v1/processes/web/logs")).status == 200


async def test_a_request_for_which_there_is_no_memory_is_no_bug(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def take(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(logs, "tail", take)
    async with serving(swift("web", autostart=False, logs=Logs(stdout="/nonexistent/web.log"))) as wire:
        problem = (await wire.ask("GET", "/v1/processes/web/logs")).problem(503, "unavailable")
    assert problem["detail"].endswith("try again: no memory")
    assert not any(record.exc_info for record in caplog.records)


async def test_giant_bodies_are_refused_and_end_the_connection(serving: Serving) -> None:
    async with serving(swift("web")) as wire:
        async with await wire.connect() as stream:
            await stream.send(b"POST /v1/reload HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999\r\n\r\n")
            answer = await read_answer(stream)
            answer.problem(413, "too_large")
            assert answer.headers["connection"] == "close"
        async with await wire.connect() as stream:
            await stream.send(b"POST /v1/reload HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
            for _ in range(3):
                await stream.send(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")
            (await read_answer(stream)).problem(413, "too_large")


async def test_giant_heads_and_nonsense_are_refused(serving: Serving) -> None:
    async with serving(swift("web")) as wire:
        (await wire.ask("GET", "/v1/health", headers={"x-long": "y" * 20_000})).problem(431, "header_too_large")
        (await wire.ask("GET", "/v1/health?" + "z" * 20_000)).problem(431, "header_too_large")
        async with await wire.connect() as stream:
            await stream.send(b"GET / HTTP/1.1\r\nhost: a\r\n" + b"x" * 200_000)
            (await read_answer(stream)).problem(431, "header_too_large")
        async with await wire.connect() as stream:
            await stream.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
            (await read_answer(stream)).problem(400, "usage")
        async with await wire.connect() as stream:
            await stream.send(b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n")
            (await read_answer(stream)).problem(400, "usage")
        assert (await wire.ask("GET", "/v1/health")).status == 200


async def test_a_head_that_drips_is_not_waited_for(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.2)
    async with serving(swift("web")) as wire, await wire.connect() as stream:
        await stream.send(b"GET /v1/health HTTP/1.1\r\n")
        (await read_answer(stream)).problem(408, "usage")
        async with await wire.connect() as silent:
            with anyio.fail_after(60), pytest.raises(anyio.EndOfStream):
                await silent.receive()


async def test_a_body_that_drips_is_not_waited_for(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "BODY_SECONDS", 0.1)
    async with serving(swift("web")) as wire, await wire.connect() as stream:
        await stream.send(b"POST /v1/reload HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n{")
        (await read_answer(stream)).problem(408, "timeout")


async def test_many_idle_connections_keep_nobody_out(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_CONNECTIONS", 20)
    async with serving(swift("web")) as wire:
        idle = [await wire.connect() for _ in range(60)]
        try:
            assert (await ask(idle[-1], "GET", "/v1/health")).status == 200
            assert (await wire.ask("GET", "/v1/processes")).status == 200
            with anyio.fail_after(60), pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await idle[0].receive()  # the first ones had to go
        finally:
            for stream in idle:
                await stream.aclose()


async def test_idle_connections_take_no_more_than_their_part_of_few_descriptors(serving: Serving) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with serving(swift("web")) as wire:
        resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))
        try:
            idle = [await wire.connect() for _ in range(100)]
            assert (await wire.ask("GET", "/v1/health")).status == 200
            with anyio.fail_after(60), pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await idle[0].receive()
            assert (await ask(idle[-1], "GET", "/v1/health")).status == 200
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for stream in idle:
            await stream.aclose()


async def test_two_hundred_idle_connections_are_held_and_others_answered(serving: Serving) -> None:
    async with serving(swift("web")) as wire:
        idle = [await wire.connect() for _ in range(200)]
        assert (await wire.ask("GET", "/v1/processes")).status == 200
        assert (await ask(idle[0], "GET", "/v1/health")).status == 200
        for stream in idle:
            await stream.aclose()


async def test_where_all_connections_are_busy_the_next_is_told(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_CONNECTIONS", 3)
    async with serving(swift("web", autostart=False)) as wire:
        busy = [await wire.connect() for _ in range(3)]
        for stream in busy:
            await stream.send(b"POST /v1/processes/web/wait?for=ready HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")
        await wait_until(lambda: len(wire.scene.bus._subscriptions) == 3)
        async with await wire.connect() as stream:
            (await read_answer(stream)).problem(503, "busy")
        wire.scene.supervisor.processes["web"].post(StartRequested())
        for stream in busy:
            assert (await read_answer(stream)).json["results"][0]["ok"]
            await stream.aclose()


async def test_nobody_waits_for_a_client_that_has_gone_and_its_order_is_carried_out(serving: Serving) -> None:
    """A wait without a timeout takes a day: each interrupted `asupctl wait` stayed for so long, with a subscription to all records."""
    async with serving(swift("web"), swift("db", autostart=False)) as wire:
        before = wire.scene.snapshot("web").run
        for order in ("web/wait?for=exited", "db/wait?for=ready", "web/restart"):
            async with await wire.connect() as stream:
                await stream.send(f"POST /v1/processes/{order} HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n".encode())
                if "wait" in order:
                    await wait_until(lambda: len(wire.scene.bus._subscriptions) == 1)
            await wait_until(lambda: not wire.scene.bus._subscriptions, what="the end of the wait")
        await wait_until(lambda: wire.scene.snapshot("web").run == before + 1, what="the restart")
        assert (await wire.ask("GET", "/v1/health")).status == 200


async def test_a_client_that_leaves_in_the_middle_disturbs_nobody(serving: Serving, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(swift("web", stop=Stop(grace_seconds=600.0))) as wire:
        wire.scene.child("web").obeys = False
        for half in (b"POST /v1/pro", b"POST /v1/reload HTTP/1.1\r\ncontent-length: 5\r\nhost: a\r\n\r\n{"):
            async with await wire.connect() as stream:
                await stream.send(half)
        async with await wire.connect() as stream:
            await stream.send(b"POST /v1/processes/web/stop HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")
            await wire.scene.state("web", State.STOPPING)
        assert (await wire.ask("GET", "/v1/processes/web")).json["state"] == "STOPPING"
        wire.scene.child("web").end(code=0)
        await wire.scene.state("web", State.STOPPED)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_the_end_waits_for_no_stream_and_no_stalled_client(serving: Serving) -> None:
    async with serving(swift("web")) as wire:
        following, stalled, waiting = [await wire.connect() for _ in range(3)]
        await following.send(b"GET /v1/events HTTP/1.1\r\nhost: a\r\n\r\n")
        await stalled.send(b"GET /v1/events HTTP/1.1\r\nhost: a\r\n\r\n")
        await waiting.send(b"POST /v1/processes/web/wait?for=stopped HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")
        await wait_until(lambda: wire.api.streams.open == 2)
        for _ in range(3000):
            wire.scene.bus.publish("daemon", message="x" * 2000)
        await anyio.sleep(0.1)
        begun = anyio.current_time()
    assert anyio.current_time() - begun < 60.0
    for stream in (following, stalled, waiting):
        await stream.aclose()


async def test_health_tells_of_a_refused_file_and_reload_of_every_reason(serving: Serving) -> None:
    problem = Problem("programs.yaml", 3, 5, "programs.web.comand: unknown key; did you mean 'command'?")

    async def unsound() -> Any:
        raise ConfigError([problem])

    async with serving(swift("web"), load=unsound) as wire:
        assert (await wire.ask("GET", "/v1/health")).json["refused"] == []
        refused = (await wire.ask("POST", "/v1/reload")).problem(422, "bad_configuration")
        assert refused["problems"][0]["text"].startswith("programs.yaml:3:5: programs.web.comand")
        assert refused["exit_code"] == 2
        health = (await wire.ask("GET", "/v1/health")).json
        assert health["refused"][0]["line"] == 3
        assert health["pid"] == os.getpid()
        (await wire.ask("POST", "/v1/reload?plan=true")).problem(422, "bad_configuration")


async def test_ready_names_who_is_not(serving: Serving) -> None:
    async with serving(swift("web"), swift("down", autostart=False)) as wire:
        assert (await wire.ask("GET", "/v1/ready")).json == {"ready": True, "not_ready": []}
        wire.scene.host.on_spawn = lambda child: child.end(code=1)
        wire.scene.child("web").end(code=1)
        await wire.scene.state("web", State.BACKOFF)
        assert (await wire.ask("GET", "/v1/ready")).problem(503, "busy")["not_ready"] == ["web"]
        await wire.ask("POST", "/v1/processes/web/stop")
        assert (await wire.ask("GET", "/v1/ready")).problem(503, "busy")["not_ready"] == ["web"]  # meant so, but not ready


async def test_dependencies_are_told_as_the_file_has_them(serving: Serving) -> None:
    async with serving(swift("db"), swift("web", depends_on={"db": "ready"})) as wire:
        told = (await wire.ask("GET", "/v1/dependencies")).json
        assert told == {"programs": [{"name": "db", "depends_on": {}}, {"name": "web", "depends_on": {"db": "ready"}}]}


async def test_logs_end_with_the_last_lines_and_follow(serving: Serving, tmp_path: Any) -> None:
    log = tmp_path / "web.log"
    log.write_bytes(b"one\ntwo\nthree\nhal")
    async with serving(swift("web", autostart=False, logs=Logs(stdout=str(log)))) as wire:
        answer = await wire.ask("GET", "/v1/processes/web/logs?lines=2")
        assert answer.body == b"three\nhal"
        assert (answer.headers["asup-log-format"], answer.headers["asup-log-stream"]) == ("raw", "stdout")
        shared = await wire.ask("GET", "/v1/processes/web/logs?lines=2&stream=stderr")
        assert (shared.body, shared.headers["asup-log-stream"]) == (answer.body, "stdout")
        async with await wire.connect() as stream:
            await stream.send(b"GET /v1/processes/web/logs?lines=2&follow HTTP/1.1\r\nhost: a\r\n\r\n")
            seen = b""
            with anyio.fail_after(60):
                while b"hal" not in seen:
                    seen += await stream.receive()
                with log.open("ab") as file:
                    file.write(b"f\nfour\n")
                while b"four\n" not in seen:
                    seen += await stream.receive()
        assert b"three\nhal" in seen
        assert b"f\nfour\n" in seen
        (await wire.ask("GET", "/v1/processes/web/logs?stream=other")).problem(400, "usage")
    async with serving(swift("mute", autostart=False)) as wire:
        (await wire.ask("GET", "/v1/processes/mute/logs")).problem(409, "failed")


async def test_history_and_config_answer(serving: Serving, tmp_path: Any) -> None:
    history = History(tmp_path / "history.db")
    await history.open()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(history.run)
        async with serving(swift("web", autostart=False, environment={"DB_PASSWORD": "hunter2", "PORT": "1"}), history=history) as wire:
            wire.scene.bus.listen(history.take)
            await wire.ask("POST", "/v1/processes/web/start")
            await wire.ask("POST", "/v1/processes/web/restart")
            await history.flush()
            told = (await wire.ask("GET", "/v1/processes/web/history?limit=5")).json
            assert [(run["run"], run["cause"]) for run in told["runs"]] == [(2, "operator"), (1, "operator")]
            assert told["restarts_total"] == 1
            (await wire.ask("GET", "/v1/processes/nobody/history")).problem(404, "not_found")
            config = await wire.ask("GET", "/v1/config?name=web")
            assert b"hunter2" not in config.body
            assert b"PORT" in config.body
            assert b"hunter2" not in (await wire.ask("GET", "/v1/config")).body
            (await wire.ask("GET", "/v1/config?name=wbe")).problem(404, "not_found")
        tasks.cancel_scope.cancel()
    await history.aclose()


async def test_connections_are_reused(serving: Serving) -> None:
    async with serving(swift("web")) as wire, await wire.connect() as stream:
        for _ in range(5):
            answer: Answer = await ask(stream, "GET", "/v1/processes")
            assert answer.status == 200


async def test_shutdown_answers_before_it_happens(serving: Serving) -> None:
    async with serving(swift("web", stop=Stop(grace_seconds=600.0))) as wire:
        wire.scene.child("web").obeys = False
        assert (await wire.ask("POST", "/v1/shutdown")).json == {"accepted": True}
        await wait_until(lambda: wire.scene.supervisor.shutting_down)
        (await wire.ask("POST", "/v1/processes/web/start")).problem(503, "busy")
        assert (await wire.ask("GET", "/v1/ready")).problem(503, "busy")["detail"] == "the daemon is shutting down"
        assert (await wire.ask("GET", "/v1/health")).json["shutting_down"]
