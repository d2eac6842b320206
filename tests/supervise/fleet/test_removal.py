"""Processes that were removed, by a real supervisor over a fake machine."""

from __future__ import annotations

import gc

import pytest

from supervisord_async.config.load import Loaded
from supervisord_async.config.model import Configuration, Daemon
from supervisord_async.supervise.fleet import removal
from supervisord_async.supervise.process import Process
from tests.control.conftest import playing, swift

pytestmark = pytest.mark.anyio


@pytest.mark.usefixtures("no_collections")
async def test_processes_that_were_removed_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "COLLECTED_REMOVALS", 4)
    daemon = Daemon(name="shop", run_dir="/nowhere", socket="/nowhere/asupd.sock")

    async def load() -> Loaded:
        return Loaded(Configuration(file="/nowhere/programs.yaml", daemon=daemon, programs={now.name: now}), ())

    def kept() -> int:
        return sum(isinstance(each, Process) for each in gc.get_objects())

    gc.collect()
    before, most = kept(), 0
    now = swift("v0")
    async with playing(now, load=load) as scene:
        for number in range(1, 20):
            now = swift(f"v{number}")
            await scene.commands.reload()
            most = max(most, kept() - before)
    assert most <= 1 + 4 + 1  # the living one, those not collected yet, and the one of whose removal the collection was part
