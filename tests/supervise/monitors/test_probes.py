"""When a probe asks, and how many answers it takes, under a virtual clock; and that no answer is waited for beyond its time."""

from __future__ import annotations

import errno
import resource
import socket
from collections.abc import Callable, Coroutine
from contextlib import nullcontext, suppress
from typing import Any, cast

import anyio
import anyio.abc
import pytest
from msgspec import structs

from supervisord_async.config.model import Daemon, Logs, Probe, Program
from supervisord_async.core.inputs import BecameReady, Faulted, HealthReported, Input
from supervisord_async.core.state import Cause, Health, Snapshot, State
from supervisord_async.errors import ProbeNotRunError, SpawnError
from supervisord_async.supervise.monitors.context import RunContext
from supervisord_async.supervise.monitors.probes import monitor_liveness, monitor_readiness, run_probe
from supervisord_async.supervise.runs.run_spec import RunEnvironment
from supervisord_async.supervise.sources.logsearch import LogSearch
from supervisord_async.supervise.sources.probing import ask
from tests.virtual_clock import run_virtually

UNASKED = "the disk hangs"
TCP: dict[str, Any] = {"kind": "tcp", "tcp": ("x", 1)}


class Asked:
    """A host whose program answers ``answers`` one after the other (None: well), the last one for ever."""

    def __init__(self, *answers: str | None) -> None:
        self.answers = list(answers)
        self.at: list[float] = []  #: when it was asked, from the start on
        self.posts: list[tuple[float, Input]] = []
        self.began = 0.0
        self.timeouts: list[float] = []

    async def ask(self, _probe: Probe) -> str | None:
        self.at.append(round(anyio.current_time() - self.began, 3))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer == UNASKED:
            raise ProbeNotRunError(UNASKED)
        return answer

    async def credentials(self, *_: object) -> None:
        return None

    async def run_command(self, _spec: object, timeout_seconds: float) -> None:
        self.timeouts.append(timeout_seconds)

    def post(self, input_: Input) -> None:
        self.posts.append((round(anyio.current_time() - self.began, 3), input_))

    def context(self, **settings: Any) -> RunContext:
        program = Program(name="a", command=("a",), group="a", directory="/", logs=Logs(stdout="none"), **settings)
        given: dict[str, Any] = {"run": 3, "program": program, "host": self, "post": self.post}
        given["environment"] = RunEnvironment(program, "a", 0, 3, Daemon(name="d", run_dir="/d", socket="/d/s"), "i", None)
        given["snapshot"] = lambda: Snapshot(state=State.RUNNING if "liveness" in settings else State.STARTING)
        return RunContext(**({name: cast("Any", None) for name in RunContext.__struct_fields__} | given))

    def watched(self, monitor: Callable[[RunContext], Coroutine[Any, Any, None]], seconds: float, **settings: Any) -> list[Any]:
        """What was posted, and when, while ``monitor`` watched for so long."""

        async def main() -> None:
            self.began = anyio.current_time()
            with anyio.move_on_after(seconds):
                await monitor(self.context(**settings))

        run_virtually(main)
        return [(at, input_.health if isinstance(input_, HealthReported) else type(input_)) for at, input_ in self.posts]


def test_the_first_question_comes_after_the_delay_and_the_others_at_intervals() -> None:
    host = Asked(None)
    probe = Probe(**TCP, initial_delay_seconds=7.0, interval_seconds=3.0)
    assert host.watched(monitor_readiness, 15.0, readiness=probe) == [(7.0, BecameReady), (7.0, Health.HEALTHY)]
    assert host.at == [7.0, 10.0, 13.0]


def test_who_is_not_ready_yet_is_asked_again_soon_and_never_later_than_after_an_interval() -> None:
    host = Asked("no")
    host.watched(monitor_readiness, 3.5, readiness=Probe(**TCP))
    assert host.at == [0.0, 0.1, 0.3, 0.7, 1.0, 2.0, 3.0]
    host = Asked("no", "no", None, None, "no")
    told = host.watched(monitor_readiness, 1.5, readiness=Probe(**TCP, interval_seconds=0.5))
    assert told == [(0.0, Health.STARTING), (0.3, BecameReady), (0.3, Health.HEALTHY)] and host.at == [0.0, 0.1, 0.3, 0.8, 1.3]


@pytest.mark.parametrize(
    ("pieces", "found"),
    [
        ([b"\x1b[32mVITE\x1b[0m ready in \x1b[1m34", b"0\x1b[0", b"m ms\n"], True),
        ([b"VITE ready in 340 ms\r", b"\n"], True),
        ([b"\x1b[2K\x1b[1GVITE ready in 340 ms\n"], True),
        ([b"VITE ready in 340 ms"], False),
        ([b"VITE\r ready in 340 ms\n"], False),
    ],
)
def test_a_line_is_searched_as_a_terminal_shows_it(pieces: list[bytes], found: bool) -> None:
    search = LogSearch("^VITE ready in .* ms$")
    for piece in pieces:
        search.feed("stdout", piece)
    assert search.found.is_set() == found


def test_ready_by_its_log_is_who_printed_the_line_at_once_and_not_at_the_next_interval() -> None:
    probe = Probe(kind="log", log="^serving", interval_seconds=10.0)
    search = LogSearch("^serving")
    host = Asked()
    context = structs.replace(host.context(readiness=probe), searches={"^serving": search})

    async def main() -> None:
        host.began = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(monitor_readiness, context)
            await anyio.sleep(0.25)
            search.feed("stdout", b"starting\nserv")
            await anyio.sleep(0.25)
            search.feed("stdout", b"ing\n")
            await anyio.sleep(20.0)
            tasks.cancel_scope.cancel()

    run_virtually(main)
    begun, ready, healthy = host.posts
    assert begun == (0.0, HealthReported(3, "readiness", Health.STARTING, "no line matched '^serving'"))
    assert (ready, healthy) == ((0.5, BecameReady(3)), (0.5, HealthReported(3, "readiness", Health.HEALTHY, "")))


def test_ready_is_who_answers_well_so_often_in_a_row() -> None:
    host = Asked(None, None, "no", None, None, None)
    told = host.watched(monitor_readiness, 10.0, readiness=Probe(**TCP, successes=3))
    assert told == [*((float(at), Health.STARTING) for at in range(5)), (5.0, BecameReady), (5.0, Health.HEALTHY)]
    assert [input_.detail for _, input_ in host.posts if isinstance(input_, HealthReported)] == ["", "", "no", "", "", ""]


def test_unhealthy_is_who_fails_so_often_in_a_row() -> None:
    host = Asked(None, "no", "no", None, "no", "no", "no", None)
    told = host.watched(monitor_readiness, 10.0, readiness=Probe(**TCP, failures=3))
    assert told == [(0.0, BecameReady), (0.0, Health.HEALTHY), (6.0, Health.UNHEALTHY), (7.0, Health.HEALTHY)]


def test_a_liveness_that_fails_so_often_in_a_row_is_a_fault_and_said_once() -> None:
    host = Asked(None, "no", None, "no", "why")
    told = host.watched(monitor_liveness, 100.0, liveness=Probe(**TCP, failures=2, interval_seconds=10.0))
    assert told == [(0.0, Health.HEALTHY), (40.0, Health.UNHEALTHY), (40.0, Faulted)]
    assert host.posts[-1][1] == Faulted(3, Cause.LIVENESS_FAILED, "liveness failed 2 times: why")
    host = Asked("why")
    host.watched(monitor_liveness, 10.0, liveness=Probe(**TCP, failures=1))
    assert host.posts[-1][1] == Faulted(3, Cause.LIVENESS_FAILED, "liveness failed: why")


def test_liveness_is_first_asked_a_second_after_the_run_is_running_at_the_latest() -> None:
    host = Asked(None)
    context = host.context(liveness=Probe(**TCP, interval_seconds=60.0))
    states = [State.STARTING] * 3
    context = structs.replace(context, snapshot=lambda: Snapshot(state=states.pop() if states else State.RUNNING))

    async def main() -> None:
        host.began = anyio.current_time()
        with anyio.move_on_after(50.0):
            await monitor_liveness(context)

    run_virtually(main)
    assert host.at == [3.0]


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["http", "tcp"])
async def test_an_answer_is_not_waited_for_beyond_its_time(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> None:
        await anyio.sleep_forever()

    monkeypatch.setattr("supervisord_async.supervise.sources.probing._connect", never)
    probe = Probe(**({"kind": "http", "http": "http://x/"} if kind == "http" else TCP), timeout_seconds=0.05)
    with anyio.fail_after(20):
        assert await ask(probe) == "no answer within 0.05 s"


@pytest.mark.anyio
async def test_who_cannot_be_reached_is_told_in_the_systems_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*errors: OSError) -> Callable[..., Coroutine[Any, Any, None]]:
        async def connect(*_: object) -> None:
            raise OSError("All connection attempts failed") from (errors[0] if len(errors) == 1 else ExceptionGroup("several", errors))

        return connect

    refused, unreachable = ConnectionRefusedError(111, "Connection refused"), OSError(101, "Network is unreachable")
    for errors, words in (
        ((refused,), "Connection refused"),
        ((refused, unreachable, refused), "Connection refused, Network is unreachable"),
    ):
        monkeypatch.setattr("supervisord_async.supervise.sources.probing._connect", cannot(*errors))
        assert await ask(Probe(**TCP)) == f"tcp x:1: {words}"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "error", [OSError(errno.EMFILE, "Too many open files"), socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")]
)
async def test_who_cannot_be_reached_for_lack_of_something_here_has_not_failed(error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    async def cannot(*_: object) -> None:
        raise OSError("All connection attempts failed") from error

    monkeypatch.setattr("supervisord_async.supervise.sources.probing._connect", cannot)
    with pytest.raises(ProbeNotRunError, match=rf"tcp x:1: {error.strerror}"):
        await ask(Probe(**TCP))


@pytest.mark.anyio
@pytest.mark.parametrize(
    "where", [{"kind": "tcp", "tcp": ("\N{SNOWMAN}.invalid", 1)}, {"kind": "http", "http": "http://\N{SNOWMAN}.invalid/"}]
)
async def test_what_is_no_name_of_a_host_is_an_answer(where: dict[str, Any]) -> None:
    assert "not allowed" in (await ask(Probe(**where)) or "")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("response", "words"),
    [
        (b"HTTP/1.1 200 OK\r\n", None),
        (b"HTTP/1.0 204\n\n", None),
        (b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\n", None),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 No\r\n", "status 503"),
        (b"SSH-2.0-x\r\n", "what answers is not HTTP"),
        (b"x" * 20000, "what answers is not HTTP"),
        (b"", "the connection was closed without an answer"),
        (b"HTTP/1.1 100 Continue\r\n", "the connection was closed without an answer"),
    ],
)
async def test_what_an_http_server_answers_is_its_final_status(response: bytes, words: str | None) -> None:
    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            with suppress(anyio.BrokenResourceError):  # the probe leaves once it knows
                await stream.send(response)

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        url = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}/"
        answer = await ask(Probe(kind="http", http=url, timeout_seconds=20.0))
        assert answer == (words and f"{url}: {words}")
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_a_command_has_the_time_that_the_probe_has() -> None:
    host = Asked(None)
    probe = Probe(kind="command", command=("x",), timeout_seconds=0.7)
    assert await run_probe(host.context(readiness=probe), probe) == "the probe did not end within 0.7 s"
    assert host.timeouts == [0.7]


def test_the_log_tells_why_a_run_is_not_ready_yet_and_why_no_longer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    host = Asked(*["tcp x:1: refused"] * 5, None, "tcp x:1: gone")  # those within the first interval do not count
    host.watched(monitor_readiness, 10.0, readiness=Probe(**TCP, failures=2))
    assert [(record.levelname, record.message.partition(": ")[2]) for record in caplog.records] == [
        ("INFO", "not ready yet: tcp x:1: refused"),
        ("WARNING", "no longer ready: tcp x:1: gone"),
    ]


def test_nobody_is_restarted_because_the_machine_cannot_ask() -> None:
    host = Asked(None, "no", UNASKED, UNASKED, UNASKED, "no", None, "no", "no")
    told = host.watched(monitor_liveness, 100.0, liveness=Probe(**TCP, failures=2))
    unknown = [(at, Health.UNHEALTHY) for at in (2.0, 3.0, 4.0)]
    assert told == [(0.0, Health.HEALTHY), *unknown, (6.0, Health.HEALTHY), (8.0, Health.UNHEALTHY), (8.0, Faulted)]
    assert [input_.detail for at, input_ in host.posts if at == 3.0 and isinstance(input_, HealthReported)] == [f"cannot tell: {UNASKED}"]


@pytest.mark.anyio
@pytest.mark.parametrize(("number", "asked"), [(errno.EAGAIN, False), (None, False), (errno.ENOENT, True)])
async def test_a_command_that_cannot_be_had_just_now_is_no_answer(number: int | None, asked: bool) -> None:
    host, probe = Asked(), Probe(kind="command", command=("ask",))

    async def refused(*_: object) -> None:
        raise SpawnError("exec", number, "ask")

    host.run_command = refused  # type: ignore[method-assign]
    with nullcontext() if asked else pytest.raises(ProbeNotRunError, match="cannot run the probe: exec: ask"):
        assert (await run_probe(host.context(readiness=probe), probe) or "").startswith("cannot run the probe: exec: ask")


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["tcp", "http"])
async def test_without_a_descriptor_for_a_connection_nobody_was_asked(kind: str) -> None:
    where: dict[str, Any] = {"tcp": ("127.0.0.1", 1)} if kind == "tcp" else {"http": "http://localhost:1/"}
    probe = Probe(kind=cast("Any", kind), **where)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(ProbeNotRunError, match=r": [Tt]oo many open files"):
            await ask(probe)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert isinstance(await ask(probe), str)  # an answer: nobody listens there


@pytest.mark.anyio
async def test_without_a_thread_to_look_a_host_up_nobody_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_thread(*_: object) -> None:
        raise BlockingIOError(11, "can't start new thread")

    monkeypatch.setattr(anyio, "connect_tcp", no_thread)
    probe = Probe(kind="tcp", tcp=("db.example", 1))
    with pytest.raises(ProbeNotRunError, match=r"tcp db\.example:1: can't start new thread"):
        await ask(probe)
