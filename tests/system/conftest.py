"""Both loops as the daemon runs them; orphans that come to the tests' process, and go with it."""

from __future__ import annotations

import ctypes
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import pytest

from supervisord_async.system import orphans
from supervisord_async.system.loop import new_event_loop
from tests.system.processes import Nursery


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return "asyncio", {"loop_factory": partial(new_event_loop, request.param)}


@pytest.fixture(scope="session", autouse=True)
def warmed_up() -> None:
    """What the first loop makes for the whole process, for ever, counts as no test's leak."""
    for kind in ("asyncio", "uvloop"):
        loop = new_event_loop(kind)
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()


@pytest.fixture
def subreaper() -> Iterator[None]:
    """What our descendants leave behind comes to us while the test lasts."""
    orphans.become_subreaper()
    yield
    ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)


@pytest.fixture
async def nursery(subreaper: None) -> AsyncIterator[Nursery]:
    """Spawns, and leaves nothing alive; orphans are reaped as they die."""
    async with orphans.reaping():
        nursery = Nursery()
        yield nursery
        await nursery.aclose()
