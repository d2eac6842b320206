"""The guardian is there while it is wanted, and not a moment longer; under the virtual clock, with processes that are none."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import anyio
import pytest

from supervisord_async.core.state import ExitStatus
from supervisord_async.errors import SpawnError
from supervisord_async.supervise.recovery import guardian_process
from supervisord_async.supervise.recovery.guardian_process import PAUSE_SECONDS, GuardianProcess
from supervisord_async.system.spawn import SpawnSpec
from tests.virtual_clock import run_virtually


class Births:
    """Stands for :func:`spawn`: each guardian takes a second to be born, and lives until it is signalled or told to end."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self.specs: list[SpawnSpec] = []
        self.living: list[SimpleNamespace] = []
        self.refusal: SpawnError | None = None

    async def spawn(self, spec: SpawnSpec) -> SimpleNamespace:
        self.at.append(round(anyio.current_time(), 3))
        self.specs.append(spec)
        await anyio.sleep(1.0)
        if self.refusal is not None:
            raise self.refusal
        over = anyio.Event()

        async def wait() -> SimpleNamespace:
            await over.wait()
            return SimpleNamespace(status=ExitStatus(signal=signal.SIGKILL))

        def end(_signum: int = signal.SIGKILL) -> None:
            self.living = [each for each in self.living if each is not child]
            over.set()

        child = SimpleNamespace(wait=wait, send_signal=end)
        self.living.append(child)
        return child


def guarded(births: Births, monkeypatch: pytest.MonkeyPatch, story: Callable[[GuardianProcess], Awaitable[None]]) -> None:
    """``story`` is told of a guardian that is being kept, from 0 s on; then that is cancelled."""
    monkeypatch.setattr(guardian_process, "spawn", births.spawn)

    async def main() -> None:
        kept = GuardianProcess("i", "/run/asupd.lock", 0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kept.run)
            await story(kept)
            tasks.cancel_scope.cancel()
        assert births.living == []

    run_virtually(main)


def test_there_is_one_while_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    births = Births()

    async def story(kept: GuardianProcess) -> None:
        await anyio.sleep(3)
        assert births.at == []
        kept.follow("stop")
        await anyio.sleep(3)
        assert len(births.living) == 1
        assert births.specs[0].argv[-3:-1] == ("i", "/run/asupd.lock")
        kept.follow("stop")  # as a reload says that changed something else
        await anyio.sleep(100)
        assert len(births.at) == len(births.living) == 1
        kept.follow("keep")
        await anyio.sleep(100)
        assert births.living == []
        assert len(births.at) == 1
        kept.follow("stop")
        await anyio.sleep(3)
        assert len(births.living) == 1

    guarded(births, monkeypatch, story)


def test_one_that_is_no_longer_wanted_when_it_is_born_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    births = Births()

    async def story(kept: GuardianProcess) -> None:
        kept.follow("stop")
        await anyio.sleep(0.5)
        assert len(births.at) == 1
        kept.follow("keep")
        await anyio.sleep(100)
        assert births.living == []
        assert len(births.at) == 1

    guarded(births, monkeypatch, story)


def test_one_that_ends_is_replaced_and_that_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    births = Births()

    async def story(kept: GuardianProcess) -> None:
        kept.follow("stop")
        await anyio.sleep(2)
        births.living[0].send_signal()
        await anyio.sleep(PAUSE_SECONDS)
        assert births.at[1] - births.at[0] == PAUSE_SECONDS
        births.living[0].send_signal()
        await anyio.sleep(100)
        assert len(births.at) == 3
        births.living[0].send_signal()
        died_at = anyio.current_time()
        await anyio.sleep(1)
        assert births.at[3] == round(died_at, 3)  # at once: it had lived for long

    guarded(births, monkeypatch, story)
    told = "degraded: no guardian (it ended: killed by SIGKILL)"
    assert caplog.text.count(told) == 2  # not twice in a row, but once more after all had been well


def test_what_prevents_it_is_told_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    births = Births()
    births.refusal = SpawnError("fork", 11, "python")

    async def story(kept: GuardianProcess) -> None:
        kept.follow("stop")
        await anyio.sleep(10 * PAUSE_SECONDS)
        assert len(births.at) == pytest.approx(10, abs=1)
        births.refusal = None
        await anyio.sleep(2 * PAUSE_SECONDS)
        assert len(births.living) == 1

    guarded(births, monkeypatch, story)
    assert caplog.text.count("degraded: no guardian (fork: python: Resource temporarily unavailable)") == 1
