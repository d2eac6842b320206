"""What is said of a SIGKILL that nobody here sent, and of a program that left for the background."""

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


@pytest.mark.parametrize(("code", "said"), [(0, True), (1, False)])
async def test_a_program_that_left_for_the_background_is_told_as_that(code: int, said: bool) -> None:
    """It looks as if it had done its work, and what it meant to leave running was ended without a word."""
    async with playing(swift("web", restart=Restart(policy=RestartPolicy.NEVER))) as scene:
        await scene.state("web", State.RUNNING)
        scene.child("web").leaves = 2
        scene.child("web").end(code=code)
        await scene.state("web", State.EXITED)
        words = "exited with 0; it left 2 processes (helper), which asupd ends: a program has to stay in the foreground"
        assert scene.snapshot("web").detail == (words if said else "")
