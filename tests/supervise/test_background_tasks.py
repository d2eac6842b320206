"""Background tasks of one owner fail together, and nobody else with them."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from supervisord_async.supervise.background_tasks import BackgroundTasks
from tests.virtual_clock import run_virtually


async def raise_(error: Exception, seconds: float = 0.0) -> None:
    await anyio.sleep(seconds)
    raise error


async def forever(ended: list[str], name: str, error: Exception | None = None) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        ended.append(name)
        if error is not None:
            raise error


def play(scene: Callable[[BackgroundTasks, list[Exception], list[str]], None]) -> tuple[list[Exception], list[str]]:
    """What the owner was told and which tasks ended after ``scene``, beside another owner's task that goes on."""
    told: list[Exception] = []
    ended: list[str] = []
    others: list[str] = []

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            other = BackgroundTasks(told.append)
            other.open(tasks)
            other.start_soon(forever, others, "other", name="other")
            background = BackgroundTasks(told.append)
            background.open(tasks)
            scene(background, told, ended)
            await anyio.sleep(10)
            assert others == []
            tasks.cancel_scope.cancel()

    run_virtually(main)
    return told, ended


def test_an_exception_cancels_the_others_and_the_owner_is_told_when_they_are_over() -> None:
    def scene(background: BackgroundTasks, told: list[Exception], ended: list[str]) -> None:
        background.start_soon(forever, ended, "one", name="one")
        background.start_soon(raise_, ValueError("bug"), 1.0, name="two")

    told, ended = play(scene)
    assert [repr(error) for error in told] == ["ValueError('bug')"]
    assert ended == ["one"]


def test_what_fails_on_the_way_down_is_told_too() -> None:
    def scene(background: BackgroundTasks, told: list[Exception], ended: list[str]) -> None:
        background.start_soon(forever, ended, "one", KeyError("late"), name="one")
        background.start_soon(raise_, ValueError("bug"), 1.0, name="two")

    (error,), _ = play(scene)
    assert isinstance(error, ExceptionGroup)
    assert [repr(each) for each in error.exceptions] == ["ValueError('bug')", "KeyError('late')"]


def test_none_begins_while_one_fails_and_others_may_afterwards() -> None:
    async def main() -> None:
        ended: list[str] = []
        told: list[bool] = []

        def broke(_error: Exception) -> None:
            told.append(background.failing)
            background.start_soon(forever, ended, "after", name="after")

        background = BackgroundTasks(broke)
        async with anyio.create_task_group() as tasks:
            background.open(tasks)
            background.start_soon(forever, ended, "before", name="before")
            await anyio.sleep(1)
            background.fail(ValueError("a bug of the owner itself"))
            assert background.failing and told == []
            background.start_soon(forever, ended, "meanwhile", name="meanwhile")
            await anyio.sleep(1)
            assert (ended, told, background.failing) == (["before"], [False], False)
            background.close()
            await anyio.sleep(1)
            assert ended == ["before", "after"]
            background.start_soon(forever, ended, "too late", name="too late")
            await anyio.sleep(1)
            tasks.cancel_scope.cancel()
        assert ended == ["before", "after"]

    run_virtually(main)


def test_a_failure_without_background_is_told_at_once() -> None:
    told: list[Exception] = []
    background = BackgroundTasks(told.append)
    background.fail(ValueError("bug"))
    assert len(told) == 1 and not background.failing


def test_what_waits_for_its_turn_begins_unless_all_were_cancelled_meanwhile() -> None:
    async def main() -> None:
        ended: list[str] = []
        waiting: list[Callable[[], None]] = []
        background = BackgroundTasks(lambda _: None)
        background.start_at(waiting.append, forever, ended, "closed", name="closed")
        assert waiting == []
        async with anyio.create_task_group() as tasks:
            background.open(tasks)
            background.start_at(waiting.append, forever, ended, "before", name="before")
            background.fail(ValueError("a bug of the owner itself"))
            background.start_at(waiting.append, forever, ended, "after", name="after")
            for begin in waiting:
                begin()
            await anyio.sleep(1)
            background.start_at(waiting.append, forever, ended, "late", name="late")
            background.close()
            waiting[-1]()
            await anyio.sleep(1)
            assert ended == ["after"]
            tasks.cancel_scope.cancel()

    run_virtually(main)
