"""The client against a fake daemon: typed answers, errors in our words, streams that outlive the daemon."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_async.client import Client, api
from supervisord_async.client.overlap import Overlap, behind
from supervisord_async.errors import (
    BusyError,
    CommandError,
    ConfigError,
    FailedError,
    NoDaemonError,
    NotAllowedError,
    NotFoundError,
    TimedOutError,
    UsageError,
    WentAwayError,
)
from tests.cli.fake_daemon import FakeDaemon, RefusalError, process
from tests.waiting import wait_until_sync


@pytest.fixture
def client(daemon: FakeDaemon) -> Iterator[Client]:
    with Client(daemon.socket_path, timeout_seconds=10) as made:
        yield made


def test_client_import_loads_nothing_of_the_daemon() -> None:
    code = "import supervisord_async.client, sys; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"yaml", "anyio", "asyncio", "uvloop", "msgspec", "click", "rich", "uvicorn", "psutil"}
    assert not heavy & set(loaded)
    ours = {name for name in loaded if name.startswith("supervisord_async")}
    assert all(name.startswith(("supervisord_async.client", "supervisord_async.errors")) or name == "supervisord_async" for name in ours)


def test_processes_are_typed_and_unknown_keys_left_out(daemon: FakeDaemon, client: Client) -> None:
    daemon.add(process("job", "EXITED", exit_status={"code": 0}, key_of_tomorrow=1))
    found = {one.name: one for one in client.processes()}
    assert found["web"].state == "RUNNING"
    assert found["web"].pid == 4242
    assert found["job"].exit_status == {"code": 0}
    assert found["db"].pid is None


def test_selectors_and_figures_travel_as_the_server_reads_them(daemon: FakeDaemon, client: Client) -> None:
    assert [one.name for one in client.processes("w*", "db", figures=False)] == ["web", "db"]
    assert daemon.asked("GET", "/v1/processes") == [({"name": "w*,db", "figures": "false"}, None)]


@pytest.mark.parametrize("verb", ["start", "stop", "restart"])
def test_actions_send_wait_and_timeout(daemon: FakeDaemon, client: Client, verb: str) -> None:
    results = getattr(client, verb)("web", "db", wait=False, timeout_seconds=2.5)
    assert [(result.name, result.ok) for result in results] == [("web", True), ("db", True)]
    assert daemon.asked("POST", f"/v1/processes/web,db/{verb}") == [({"wait": "false", "timeout": "2.5"}, None)]


def test_signal_scale_and_wait_requests(daemon: FakeDaemon, client: Client) -> None:
    assert client.signal("HUP", "web")[0].message == "sent HUP"
    client.scale("web", 3)
    client.wait("web", awaited="ready", timeout_seconds=1)
    assert daemon.asked("POST", "/v1/processes/web/signal") == [({}, {"signal": "HUP"})]
    assert daemon.asked("POST", "/v1/processes/web/scale") == [({}, {"replicas": 3})]
    assert daemon.asked("POST", "/v1/processes/web/wait") == [({"for": "ready", "timeout": "1"}, None)]


def test_failed_results_are_returned_not_raised(daemon: FakeDaemon, client: Client) -> None:
    daemon.failing["db"] = "restart limit of 3 reached"
    daemon.late.add("web")
    web, db = client.start("all")
    assert not web.ok
    assert web.timed_out
    assert not db.ok
    assert not db.timed_out
    assert db.message == "restart limit of 3 reached"


@pytest.mark.parametrize(
    ("status", "kind", "error"),
    [
        (400, "usage", UsageError),
        (401, None, NotAllowedError),
        (403, "not_allowed", NotAllowedError),
        (404, "not_found", NotFoundError),
        (409, "failed", FailedError),
        (503, "busy", BusyError),
        (504, "timed_out", TimedOutError),
        (500, "internal", CommandError),
    ],
)
def test_problem_documents_become_errors(daemon: FakeDaemon, client: Client, status: int, kind: str | None, error: type) -> None:
    daemon.answers["GET /v1/config"] = RefusalError(status, "cannot: because", **({"kind": kind} if kind else {}))
    with pytest.raises(CommandError, match="cannot: because") as caught:
        client.config()
    assert type(caught.value) is error


def test_unsound_file_raises_every_problem(daemon: FakeDaemon, client: Client) -> None:
    problems = [{"file": "p.yaml", "line": 3, "column": 5, "message": "unknown key", "warning": False, "text": "as printed"}]
    daemon.answers["POST /v1/reload"] = RefusalError(422, "no", kind="bad_configuration", problems=problems)
    with pytest.raises(ConfigError) as caught:
        client.reload()
    assert str(caught.value) == "p.yaml:3:5: unknown key"


def test_reload_plan_is_asked_for(daemon: FakeDaemon, client: Client) -> None:
    daemon.answers["POST /v1/reload"] = lambda query, _: {"applied": "plan" not in query, "lines": ["+ web"], "plan": {}}
    assert client.reload(plan=True).document["applied"] is False
    assert client.reload().lines == ["+ web"]


def test_nobody_at_the_socket(tmp_path: Path) -> None:
    with pytest.raises(NoDaemonError, match="no daemon at"):
        Client(tmp_path / "nobody.sock").health()


def test_socket_file_that_nobody_listens_on(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "stale.sock"))
    with pytest.raises(NoDaemonError, match="no daemon at"):
        Client(tmp_path / "stale.sock").health()


def test_socket_path_too_long(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="107 bytes"):
        Client(tmp_path / ("x" * 120)).health()


def test_permission_denied_is_not_allowed(daemon: FakeDaemon, client: Client) -> None:
    daemon.socket_path.chmod(0)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)
        with pytest.raises(NotAllowedError, match="permission denied"):
            client.health()
    finally:
        os.seteuid(user)


def _serve_raw(path: Path, talk: Callable[[socket.socket], object], connections: int = 1) -> threading.Thread:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        with listener:
            for _ in range(connections):
                connection, _ = listener.accept()
                with connection:
                    talk(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_silent_daemon_times_out(tmp_path: Path) -> None:
    done = threading.Event()
    thread = _serve_raw(tmp_path / "s", lambda _: done.wait(60))
    with Client(tmp_path / "s", timeout_seconds=0.05) as client, pytest.raises(TimedOutError, match="does not answer"):
        client.health()
    done.set()
    thread.join()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", NoDaemonError),
        (b"SSH-2.0-OpenSSH\r\n", CommandError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nnot json!", CommandError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n[1]", CommandError),
        (b"HTTP/1.1 500 x\r\nContent-Length: 5\r\n\r\nplain", CommandError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", NoDaemonError),
    ],
)
def test_strange_answers_are_errors_in_our_words(tmp_path: Path, answer: bytes, error: type[CommandError]) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(answer)

    thread = _serve_raw(tmp_path / "s", talk)
    with Client(tmp_path / "s", timeout_seconds=10) as client, pytest.raises(error):
        client.health()
    thread.join()


def test_question_on_a_connection_that_was_closed_meanwhile_is_asked_again(tmp_path: Path) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{"pid": 17}')

    thread = _serve_raw(tmp_path / "s", talk, connections=2)
    with Client(tmp_path / "s", timeout_seconds=10) as client:
        assert client.health().pid == 17
        assert client.health().pid == 17
    thread.join()


def test_events_of_the_past(daemon: FakeDaemon, client: Client) -> None:
    daemon.event(type="state", name="web", **{"from": "STARTING", "to": "RUNNING"}, run=2, cause="operator")
    daemon.event(type="reload")
    state, reload = client.events(limit=2)
    assert (state.id, state.from_, state.to, state.run) == (1, "STARTING", "RUNNING", 2)
    assert state.document["from"] == "STARTING"
    assert reload.type == "reload"


def test_followed_events_resume_where_they_were(daemon: FakeDaemon, client: Client) -> None:
    daemon.event(type="daemon", message="old")
    daemon.event(type="state", name="web")
    events = client.follow_events(after=1)
    assert next(events).id == 2
    daemon.end_streams()
    daemon.event(type="state", name="db")
    assert next(events).name == "db"
    daemon.stop()
    daemon.event(type="reload")
    daemon.start()
    assert next(events).id == 4
    events.close()


def test_followed_stream_that_was_silent_survives_an_absence_too(daemon: FakeDaemon, client: Client) -> None:
    daemon.event(type="daemon", message="old")
    told: list[object] = []
    readers = [
        threading.Thread(target=lambda: told.append(next(client.follow_events()).id)),
        threading.Thread(target=lambda: told.append(next(Client(daemon.socket_path).follow_logs("web")))),
    ]
    for reader in readers:
        reader.start()
    wait_until_sync(lambda: len(daemon.asked("GET", "/v1/events")) > 1)
    wait_until_sync(lambda: any(query.get("follow") for query, _ in daemon.asked("GET", "/v1/processes/web/logs")))
    daemon.stop()
    daemon.event(type="reload")
    daemon.log("web", "line")
    daemon.start()
    for reader in readers:
        reader.join(60)
    assert sorted(map(str, told)) == ["2", "line"]


def test_followed_stream_gives_up_on_a_daemon_that_stays_away(daemon: FakeDaemon, client: Client) -> None:
    daemon.event(type="reload")
    events = client.follow_events(after=0, give_up_seconds=0.2)
    next(events)
    daemon.stop()
    with pytest.raises(NoDaemonError):
        next(events)


def test_each_absence_has_its_own_patience(daemon: FakeDaemon, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisord_async.client.api.STEADY_SECONDS", 0.05)
    daemon.event(type="reload")
    events = client.follow_events(after=0, give_up_seconds=0.3)
    told = [next(events).id]
    reader = threading.Thread(target=lambda: told.append(next(events).id))
    reader.start()
    for _ in range(3):  # silent for longer than the patience, then gone for a moment, again and again
        streams = len(daemon.asked("GET", "/v1/events"))
        silent_until = time.monotonic() + 0.4
        wait_until_sync(lambda until=silent_until: time.monotonic() > until)
        daemon.end_streams()
        wait_until_sync(lambda before=streams: len(daemon.asked("GET", "/v1/events")) > before)
    daemon.event(type="reload")
    reader.join(60)
    assert told == [1, 2]
    events.close()


def test_followed_stream_of_no_daemon_says_so_at_once(tmp_path: Path) -> None:
    with pytest.raises(NoDaemonError, match="no daemon at"):
        next(Client(tmp_path / "nobody.sock").follow_events())


def test_logs_keep_bytes_that_are_no_text(daemon: FakeDaemon, client: Client) -> None:
    daemon.log("web", "one", b"\xff\xfe", "three")
    daemon.log("web", "wrong", stream="stderr")
    assert [line.encode(errors="surrogateescape") for line in client.logs("web", lines=2)] == [b"\xff\xfe", b"three"]
    assert client.logs("web", stream="stderr") == ["wrong"]
    client.logs("web", lines=7, since="10m")
    assert daemon.asked("GET", "/v1/processes/web/logs")[-1] == ({"lines": "7", "stream": "stdout", "since": "10m"}, None)


def test_followed_logs_lose_and_repeat_nothing_across_a_restart_of_the_daemon(daemon: FakeDaemon, client: Client) -> None:
    daemon.log("web", *(f"line {number}" for number in range(5)))
    lines = client.follow_logs("web", lines=3)
    assert list(islice(lines, 3)) == ["line 2", "line 3", "line 4"]
    daemon.log("web", "line 5")
    assert next(lines) == "line 5"
    daemon.stop()
    daemon.log("web", "line 6", "line 7")
    daemon.start()
    assert list(islice(lines, 2)) == ["line 6", "line 7"]
    daemon.end_streams()
    daemon.log("web", "line 8")
    assert next(lines) == "line 8"
    lines.close()


def test_followed_logs_of_an_unknown_name_are_refused(client: Client) -> None:
    with pytest.raises(NotFoundError, match="did you mean 'web'"):
        next(client.follow_logs("wbe"))


def test_why_history_and_config_documents(daemon: FakeDaemon, client: Client) -> None:
    daemon.answers["GET /v1/processes/web/why"] = {"lines": ["because"]}
    daemon.answers["GET /v1/processes/web/history"] = {"runs": [{"run": 7, "cause": "exited", "exit_status": {"code": 1}}]}
    daemon.answers["GET /v1/config"] = {"programs": {}}
    assert client.why("web")["lines"] == ["because"]
    assert client.history("web", limit=1)[0].run == 7
    assert client.config("web") == {"programs": {}}
    assert daemon.asked("GET", "/v1/processes/web/history") == [({"limit": "1"}, None)]
    assert daemon.asked("GET", "/v1/config") == [({"name": "web"}, None)]


def test_names_are_quoted_in_paths(daemon: FakeDaemon, client: Client) -> None:
    daemon.add(process("a b/c?d"))
    assert client.process("a b/c?d").name == "a b/c?d"


def test_refused_file_is_told_as_problems(daemon: FakeDaemon, client: Client) -> None:
    daemon.health["refused"] = [{"file": "p.yaml", "line": 1, "column": 2, "message": "no", "text": "p.yaml:1:2: no"}]
    assert [str(problem) for problem in client.health().problems] == ["p.yaml:1:2: no"]


def test_lines_longer_than_the_bound_come_in_pieces(daemon: FakeDaemon, client: Client) -> None:
    daemon.log("web", "x" * 3_000_000)
    pieces = client.logs("web", lines=1)
    assert len("".join(pieces)) == 3_000_000
    assert len(pieces) > 1


def test_followed_logs_catch_up_with_more_lines_than_were_printed(daemon: FakeDaemon, client: Client) -> None:
    daemon.log("web", "first")
    lines = client.follow_logs("web", lines=1)
    assert next(lines) == "first"
    daemon.stop()
    daemon.log("web", *(f"line {number}" for number in range(1000)))
    daemon.start()
    assert list(islice(lines, 1000)) == [f"line {number}" for number in range(1000)]
    lines.close()


def test_followed_logs_without_past_lines_catch_up_too(daemon: FakeDaemon, client: Client) -> None:
    daemon.log("web", "old")
    lines = client.follow_logs("web", lines=0)
    first = threading.Thread(target=lambda: told.append(next(lines)))
    told: list[str] = []
    first.start()
    wait_until_sync(lambda: any(query.get("follow") for query, _ in daemon.asked("GET", "/v1/processes/web/logs")))
    daemon.end_streams()
    daemon.log("web", "new")
    first.join(60)
    assert told == ["new"]
    lines.close()


def test_followed_logs_begin_with_all_that_were_asked_for(daemon: FakeDaemon, client: Client) -> None:
    daemon.log("web", *(str(number) for number in range(5000)))
    lines = client.follow_logs("web", lines=4000)
    assert list(islice(lines, 4000)) == [str(number) for number in range(1000, 5000)]
    daemon.log("web", "5000")
    assert next(lines) == "5000"
    lines.close()


def test_followed_logs_begin_without_a_gap_however_fast_the_program_prints(
    daemon: FakeDaemon, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = count()

    def prints(lines: int) -> None:
        daemon.log("web", *(str(next(printed)) for _ in range(lines)))

    def log(*arguments: Any, **settings: Any) -> Any:
        answer = original(*arguments, **settings)
        prints(100)  # before anything else is asked for
        return answer

    monkeypatch.setattr(api, "KNOWN_LINES", 20)
    original = client.log
    monkeypatch.setattr(client, "log", log)
    prints(30)
    lines = client.follow_logs("web", lines=10)
    assert list(islice(lines, 10)) == [str(number) for number in range(120, 130)]
    prints(5)
    assert list(islice(lines, 5)) == [str(number) for number in range(130, 135)]
    daemon.end_streams()
    prints(1)
    monkeypatch.setattr(client, "log", original)
    assert next(lines) == "135"
    lines.close()


ALIKE = st.lists(st.sampled_from([b"a", b"b"]), max_size=12)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 20))
def test_lines_behind_the_known_ones_are_exact_where_lines_differ(before: int, more: int, kept: int) -> None:
    log = [b"%d" % number for number in range(before + more)]
    known, tail = log[:before][-kept:], log[-kept:]
    assert behind(tail, known) == log[before:][-kept:]


@given(st.lists(st.integers(), unique=True, max_size=30), st.integers(0, 30), st.integers(1, 30))
def test_overlap_leaves_out_exactly_the_seen_lines(numbers: list[int], count: int, kept: int) -> None:
    log = [b"%d" % number for number in numbers]
    seen, new = log[:count][-kept:], log[count:]
    overlap = Overlap(seen)
    told = [line for one in [*log[-kept:], b"later"] for line in overlap.fresh(one)]
    assert told == [*new[-kept:], b"later"]


@given(ALIKE, ALIKE)
def test_lines_that_look_alike_are_never_repeated(seen: list[bytes], new: list[bytes]) -> None:
    overlap = Overlap(seen)
    stream = (seen + new)[-len(seen) :] if seen else new
    told = [line for one in [*stream, b"later"] for line in overlap.fresh(one)]
    assert told[-1] == b"later"
    for fresh in (told[:-1], behind(seen + new, seen)):
        assert len(fresh) <= len(new)
        assert fresh == new[len(new) - len(fresh) :]


def test_a_wait_gives_up_on_who_goes_away_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "RECONNECT_SECONDS", 0.3)
    asked = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def cut() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    asked.append(connection.recv(65536))
                    connection.close()

        threading.Thread(target=cut, daemon=True).start()
        try:
            with Client(str(tmp_path / "s")) as client, pytest.raises(WentAwayError, match="went away before it had answered"):
                client.wait("web", timeout_seconds=30.0)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
    assert len(asked) >= 2 and b"timeout=30.0" in asked[0]
