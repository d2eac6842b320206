"""What is said of a SIGKILL that nobody here sent."""

from __future__ import annotations

import signal

import pytest

from supervisord_async.config.model import Restart
from supervisord_async.core.policy import RestartPolicy
from supervisord_async.core.state import State
from tests.control.conftest import playing, swift

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("known", [True, False, None])
async def test_a_kill_by_the_kernel_is_named_only_where_it_is_known(known: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    async with playing(swift("web", restart=Restart(policy=RestartPolicy.NEVER))) as scene:
        await scene.state("web", State.RUNNING)

        async def was_oom_killed(_pid: int) -> bool | None:
            return known

        monkeypatch.setattr(scene.host, "was_oom_killed", was_oom_killed)
        scene.child("web").end(signal=signal.SIGKILL)
        await scene.state("web", State.EXITED)
        assert scene.snapshot("web").detail == ("killed by SIGKILL: the kernel was out of memory" if known else "")
