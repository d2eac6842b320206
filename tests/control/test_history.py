"""The history by way of the commands: it has what a client has seen, and when each run began."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from supervisord_async.core.record import Record
from supervisord_async.core.state import State
from supervisord_async.errors import NotFoundError
from tests.control.conftest import playing, swift
from tests.waiting import wait_until


@pytest.mark.anyio
async def test_what_a_run_says_at_once_is_its_own_however_late_its_birth_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Births are noted before anything is spawned, not as records tell of them."""
    async with playing(swift("web")) as scene:
        monkeypatch.setattr(scene.bus, "_starting", lambda: True)
        web = scene.supervisor.processes["web"]
        scene.child("web").end(1)
        await wait_until(lambda: web.snapshot.run == 2 and web.snapshot.pid is not None)
        assert scene.bus._pending, "nobody was told yet"
        assert [birth.run for birth in web.output.run_offsets] == [1, 2]


@pytest.mark.anyio
async def test_the_history_has_what_status_has_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Record] = []

    async def runs(_name: str, _limit: int) -> list[Record]:
        return list(kept)

    async with playing(swift("web"), history=SimpleNamespace(runs=runs)) as scene:
        scene.bus.listen(kept.append)
        monkeypatch.setattr(scene.bus, "_starting", lambda: True)
        scene.child("web").end(1)
        await scene.state("web", State.BACKOFF, State.STARTING, State.RUNNING)
        await wait_until(lambda: scene.snapshot("web").run == 2)
        assert 2 in [record.run for record in await scene.commands.history("web")]


@pytest.mark.anyio
async def test_the_history_is_also_that_of_a_program_which_the_file_no_longer_has() -> None:
    async def runs(name: str, _limit: int) -> list[str]:
        return ["its run"] if name == "removed" else []

    async with playing(swift("web"), history=SimpleNamespace(runs=runs)) as scene:
        assert list(await scene.commands.history("removed")) == ["its run"]
        assert await scene.commands.history("web") == []
        with pytest.raises(NotFoundError, match="did you mean 'web'"):
            await scene.commands.history("wbe")
