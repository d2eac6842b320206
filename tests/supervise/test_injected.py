"""An exception at every await and every decision of one program, one at a time: the others notice nothing, nothing is doubled."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any

import anyio
import pytest

from supervisord_async.config.model import Backoff, Heartbeat, Probe, Restart, Stop
from supervisord_async.core.inputs import RestartRequested, StartRequested, StopRequested
from supervisord_async.core.record import Record
from supervisord_async.core.state import State
from supervisord_async.supervise import process as process_module
from supervisord_async.supervise.process import Process
from tests.fake_host import FakeHost, program, shared_context
from tests.virtual_clock import run_virtually, until

#: More awaits and decisions than this the scene does not have; the test says so if it has.
MOST_AWAITS = 400
DECIDE = Process._decide


class Saboteur:
    """Raises at the ``target``-th await or decision, counted over all tasks whose name ends with the victim's."""

    def __init__(self, target: int) -> None:
        self.target, self.count = target, 0

    def wrap(self, function: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., Coroutine[Any, Any, None]]:
        async def sabotaged(*args: Any) -> None:
            await _Sabotaged(function(*args), self)

        return sabotaged

    def decide(self, process: Process, input_: Any, now: float) -> None:
        """Instead of ``Process._decide``: what was decided is under way when it breaks."""
        DECIDE(process, input_, now)
        if process.name == "victim":
            self.count += 1
            if self.count == self.target:
                raise ZeroDivisionError("sabotage")


class _Sabotaged:
    def __init__(self, coroutine: Coroutine[Any, Any, None], saboteur: Saboteur) -> None:
        self.coroutine, self.saboteur = coroutine, saboteur

    def __await__(self) -> Generator[Any, Any, None]:
        resume: Callable[[], Any] = lambda: self.coroutine.send(None)  # noqa: E731
        while True:
            try:
                awaited = resume()
            except StopIteration:
                return
            try:
                answer = yield awaited
            except BaseException as error:  # a cancellation, on its way to the coroutine
                resume = _thrower(self.coroutine, error)
                continue
            self.saboteur.count += 1
            if self.saboteur.count == self.saboteur.target:
                resume = _thrower(self.coroutine, ZeroDivisionError("sabotage"))
            else:
                resume = _sender(self.coroutine, answer)


def _thrower(coroutine: Coroutine[Any, Any, None], error: BaseException) -> Callable[[], Any]:
    return lambda: coroutine.throw(error)


def _sender(coroutine: Coroutine[Any, Any, None], answer: Any) -> Callable[[], Any]:
    return lambda: coroutine.send(answer)


class _Tasks:
    """A task group that hands the victim's tasks to the saboteur."""

    def __init__(self, group: Any, saboteur: Saboteur) -> None:
        self._group, self._saboteur = group, saboteur

    async def __aenter__(self) -> Any:
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *args: object) -> Any:
        return await self._group.__aexit__(*args)

    def start_soon(self, function: Any, *args: Any, name: str = "") -> Any:
        if name.endswith(" victim"):
            function = self._saboteur.wrap(function)
        return self._group.start_soon(function, *args, name=name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._group, name)


async def beat(host: FakeHost) -> None:
    number = 0
    while True:
        await anyio.sleep(1)
        number += 1
        host.files["/beat"] = (number, 1, 1)


def play(saboteur: Saboteur, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, list[str]], dict[str, Process], FakeHost]:
    """Both programs start, are healthy, crash, are restarted by an operator, and stopped."""
    told: dict[str, list[str]] = {"victim": [], "bystander": []}
    processes: dict[str, Process] = {}
    host = FakeHost()

    def note(record: Record) -> None:
        if record.type == "state" and record.name is not None:
            told[record.name].append(record.to or "")

    async def scene() -> None:
        shared = shared_context(host)
        shared.bus.listen(note)
        settings: dict[str, Any] = {
            "heartbeat": Heartbeat(file="/beat", timeout_seconds=20),
            "readiness": Probe(kind="tcp", tcp=("x", 1), interval_seconds=1),
            "liveness": Probe(kind="tcp", tcp=("x", 1), interval_seconds=1),
            "restart": Restart(backoff=Backoff(initial_seconds=1, factor=1, jitter=0.0)),
            "stop": Stop(command=("stop-it",)),
        }
        for name in told:
            processes[name] = Process(name, 0, program(name, **settings), shared)
        children = {name: [] for name in told}  # type: dict[str, list[Any]]
        host.on_spawn = lambda child: children[child.spec.environment["ASUP_NAME"]].append(child)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(beat, host)
            for process in processes.values():
                process.begin(_Tasks(tasks, saboteur))
                process.post(StartRequested())
            for name, process in processes.items():
                await until(lambda process=process: process.snapshot.state is State.RUNNING)
                assert sum(child.alive for child in children[name]) == 1
            for name in told:
                children[name][-1].end(code=1)
            for process in processes.values():
                await until(lambda process=process: process.snapshot.state is State.RUNNING and process.snapshot.run > 1)
                process.post(RestartRequested())
            await anyio.sleep(60)
            for name, process in processes.items():
                await until(lambda process=process: process.snapshot.state is State.RUNNING)
                assert sum(child.alive for child in children[name]) == 1, "doubled"
                process.post(StopRequested())
            for name, process in processes.items():
                await until(lambda process=process: process.snapshot.state is State.STOPPED)
                assert not any(child.alive for child in children[name]), "left alive"
            tasks.cancel_scope.cancel()

    create = anyio.create_task_group
    monkeypatch.setattr(process_module.anyio, "create_task_group", lambda: _Tasks(create(), saboteur))
    monkeypatch.setattr(Process, "_decide", lambda process, input_, now: saboteur.decide(process, input_, now))
    run_virtually(scene)
    monkeypatch.undo()
    return told, processes, host


def test_an_exception_at_any_await_is_that_programs_own(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    calm, _, _ = play(Saboteur(0), monkeypatch)
    expected = calm["bystander"]
    assert expected == ["STARTING", "RUNNING", "BACKOFF", "STARTING", "RUNNING", "STOPPING", "STARTING", "RUNNING", "STOPPING", "STOPPED"]
    broken = 0
    for target in range(1, MOST_AWAITS):
        caplog.clear()
        saboteur = Saboteur(target)
        told, processes, _ = play(saboteur, monkeypatch)
        assert told["bystander"] == expected, f"await {target}"
        assert processes["victim"].snapshot.state is State.STOPPED, f"await {target}"
        if saboteur.count < target:
            break
        if "UNKNOWN" in told["victim"]:
            broken += 1
            assert "sabotage" in caplog.text, f"await {target}"
    else:
        pytest.fail(f"the scene has more than {MOST_AWAITS} awaits")
    assert broken > 20, "the sabotage reached no task"
