"""The heartbeat monitor alone, under a virtual clock: when a beat is one, and when silence is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import anyio
import pytest

from supervisord_async.config.model import Heartbeat, Logs, Program
from supervisord_async.core.inputs import Faulted, HealthReported, Input
from supervisord_async.core.state import Cause, Health
from supervisord_async.supervise.host import Host, Signature
from supervisord_async.supervise.monitors.context import HEARTBEAT_CHECK, POLLS_PER_TIMEOUT, RunContext
from supervisord_async.supervise.monitors.heartbeat import monitor_heartbeat
from tests.virtual_clock import run_virtually

TIMEOUT = 20.0


class Beats:
    """A host with one file, and what the monitor posted, with when."""

    def __init__(self, signature: Signature = None) -> None:
        self.present = signature
        self.looks = 0
        self.away = False  #: its disk, for longer than anybody looks
        self.posts: list[tuple[float, Input]] = []

    async def signature(self, path: str) -> Signature:
        assert path == "/run/beat"
        self.looks += 1
        if self.away:
            await anyio.sleep(10.0)
            raise TimeoutError("the disk of /run/beat has not answered for 10 s")
        return self.present

    def post(self, input_: Input) -> None:
        self.posts.append((anyio.current_time(), input_))

    def context(self, settings: Heartbeat | None, *, baseline: Signature = None, path: str | None = "/run/beat") -> RunContext:
        program = Program(name="web", command=("web",), group="web", directory="/", logs=Logs(stdout="none"), heartbeat=settings)
        given = {"name": "web", "run": 7, "program": program, "host": cast("Host", self), "post": self.post}
        given |= {"heartbeat_file": path, "heartbeat_baseline": baseline}
        nothing: dict[str, Any] = dict.fromkeys(RunContext.__struct_fields__)  # this monitor asks for no more
        return RunContext(**(nothing | given))

    def kinds(self) -> list[str]:
        return [input_.health if isinstance(input_, HealthReported) else type(input_).__name__ for _, input_ in self.posts]


def watch(beats: Beats, life: Callable[[], Awaitable[None]], *, delay: float = 0.0, baseline: Signature = None) -> tuple[float, float]:
    """The virtual times at which the monitor began, and ended by itself while the program lived ``life``."""

    async def main() -> tuple[float, float]:
        began = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(life)
            await monitor_heartbeat(beats.context(Heartbeat(timeout_seconds=TIMEOUT, initial_delay_seconds=delay), baseline=baseline))
            ended = anyio.current_time()
            tasks.cancel_scope.cancel()
        return began, ended

    return run_virtually(main)


async def idle() -> None:
    """A program that never beats."""


def test_silence_from_the_first_moment_is_found_in_a_quarter_more_than_the_timeout() -> None:
    beats = Beats()
    began, ended = watch(beats, idle)
    assert TIMEOUT <= ended - began <= 1.25 * TIMEOUT
    assert beats.kinds() == [Health.UNHEALTHY, "Faulted"]
    fault = beats.posts[-1][1]
    assert isinstance(fault, Faulted)
    assert (fault.run, fault.cause) == (7, Cause.HEARTBEAT_MISSED)
    assert "20.0 s" in fault.detail
    assert "/run/beat has not changed" in fault.detail


@pytest.mark.parametrize("offset", [0.0, 0.1, 1.2, 2.4])
def test_silence_after_the_last_beat_is_found_in_time_wherever_it_falls_between_two_looks(offset: float) -> None:
    beats, last = Beats(), 0.0

    async def life() -> None:
        nonlocal last
        await anyio.sleep(offset)
        for number in range(30):
            beats.present = (number, 1, 1)
            last = anyio.current_time()
            await anyio.sleep(TIMEOUT * 0.9)

    _, ended = watch(beats, life)
    assert TIMEOUT <= ended - last <= 1.25 * TIMEOUT
    assert beats.kinds() == [Health.HEALTHY, Health.UNHEALTHY, "Faulted"]  # one word per change, not per beat


def test_initial_delay_leaves_a_slow_starter_in_peace() -> None:
    beats = Beats()
    began, ended = watch(beats, idle, delay=100.0)
    assert 100.0 + TIMEOUT <= ended - began <= 100.0 + 1.25 * TIMEOUT


def test_file_of_an_earlier_run_and_its_removal_are_no_beats() -> None:
    beats = Beats((1, 1, 1))

    async def life() -> None:
        await anyio.sleep(TIMEOUT / 2)
        beats.present = None

    began, ended = watch(beats, life, baseline=(1, 1, 1))
    assert ended - began <= 1.25 * TIMEOUT
    assert Health.HEALTHY not in beats.kinds()


def test_a_beat_is_a_change_be_its_time_older_than_the_last() -> None:
    beats = Beats((9_000, 1, 1))

    async def life() -> None:
        for number in range(20):  # a wall clock that runs backwards
            beats.present = (8_000 - number, 1, 1)
            await anyio.sleep(TIMEOUT / 2)
        beats.posts.append((anyio.current_time(), HealthReported(7, HEARTBEAT_CHECK, Health.NONE)))  # the end of life

    watch(beats, life, baseline=(9_000, 1, 1))
    assert beats.kinds()[:2] == [Health.HEALTHY, Health.NONE]


def test_a_disk_that_does_not_answer_is_told_and_no_fault_of_the_program() -> None:
    beats, back = Beats(), 0.0

    async def life() -> None:
        nonlocal back
        await anyio.sleep(TIMEOUT / 2)
        beats.present = (1, 1, 1)
        await anyio.sleep(TIMEOUT / 2)
        beats.away = True
        await anyio.sleep(100 * TIMEOUT)
        beats.away = False
        await anyio.sleep(TIMEOUT / 2)
        beats.present = (2, 1, 1)
        back = anyio.current_time()
        await anyio.sleep(TIMEOUT * 2)

    _, ended = watch(beats, life)
    words = [(input_.health, input_.detail) for _, input_ in beats.posts if isinstance(input_, HealthReported)]
    silent = (Health.UNHEALTHY, "cannot tell whether it beats: the disk of /run/beat has not answered for 10 s")
    assert list(dict.fromkeys(words)) == [(Health.HEALTHY, ""), silent, (Health.STARTING, ""), (Health.UNHEALTHY, "")]
    assert words[-3:] == [(Health.STARTING, ""), (Health.HEALTHY, ""), (Health.UNHEALTHY, "")]
    assert beats.kinds()[-1] == "Faulted"
    assert TIMEOUT <= ended - back <= 1.25 * TIMEOUT


def test_a_daemon_that_slept_blames_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    beats, slept = Beats(), 0.0
    current_time = anyio.current_time
    monkeypatch.setattr("supervisord_async.supervise.monitors.heartbeat.anyio.current_time", lambda: current_time() + slept)

    async def life() -> None:
        nonlocal slept
        for number in range(6):
            beats.present = (number, 1, 1)
            await anyio.sleep(TIMEOUT / 4)
        slept = 3600.0  # stopped, or suspended: no look was possible in all that time
        await anyio.sleep(TIMEOUT / 4)
        beats.present = (100, 1, 1)
        await anyio.sleep(TIMEOUT / 4)
        beats.posts.append((0.0, HealthReported(7, HEARTBEAT_CHECK, Health.NONE)))

    watch(beats, life)
    assert beats.kinds()[:2] == [Health.HEALTHY, Health.NONE]


def test_looks_are_few_and_none_without_heartbeat() -> None:
    beats = Beats()
    watch(beats, idle)
    assert beats.looks <= POLLS_PER_TIMEOUT + 1
    run_virtually(monitor_heartbeat, Beats().context(None))
    run_virtually(monitor_heartbeat, Beats().context(Heartbeat(), path=None))
