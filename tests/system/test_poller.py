"""Many readers behind one descriptor of the loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from supervisord_async.system import poller
from supervisord_async.system.loop import LoopKind, run


class Listener:
    """Reads a byte at a time, and does something then."""

    def __init__(self, read_fd: int, then: Callable[[], None] = lambda: None) -> None:
        self.read_fd, self.then, self.heard = read_fd, then, b""

    def on_readable(self) -> None:
        self.heard += os.read(self.read_fd, 1)
        self.then()


@pytest.fixture
def pipes() -> Iterator[list[tuple[int, int]]]:
    made = [os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) for _ in range(3)]
    yield made
    for pair in made:
        for fd in pair:
            os.close(fd)


@pytest.fixture(params=["uvloop", "asyncio"])
def kind(request: Any) -> LoopKind:
    return request.param  # type: ignore[no-any-return]


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_each_hears_its_own_as_long_as_there_is_something(pipes: list[tuple[int, int]], kind: LoopKind) -> None:
    async def main() -> None:
        loop, before = asyncio.get_running_loop(), descriptors()
        first, second = (Listener(read_fd) for read_fd, _ in pipes[:2])
        for listener in (first, second):
            poller.watch(loop, listener.read_fd, listener)
        os.write(pipes[0][1], b"abc")
        while first.heard != b"abc":
            await asyncio.sleep(0)
        assert second.heard == b""
        poller.forget(loop, first.read_fd)
        poller.forget(loop, first.read_fd)  # as remove_reader
        os.write(pipes[0][1], b"d")
        os.write(pipes[1][1], b"e")
        while second.heard != b"e":
            await asyncio.sleep(0)
        assert first.heard == b"abc"
        poller.watch(loop, first.read_fd, first)
        while first.heard != b"abcd":
            await asyncio.sleep(0)
        poller.forget(loop, first.read_fd)
        poller.forget(loop, second.read_fd)
        await turns()
        assert descriptors() == before  # nothing is left of it

    run(main, kind=kind)


def test_who_is_forgotten_by_another_at_the_same_turn_is_not_called(pipes: list[tuple[int, int]], kind: LoopKind) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        listeners = [Listener(read_fd) for read_fd, _ in pipes]

        def forget_all() -> None:
            for listener in listeners:
                poller.forget(loop, listener.read_fd)

        for listener, (_, write_fd) in zip(listeners, pipes, strict=True):
            listener.then = forget_all
            poller.watch(loop, listener.read_fd, listener)
            os.write(write_fd, b"x")
        while not any(listener.heard for listener in listeners):
            await asyncio.sleep(0)
        await turns()
        assert sum(len(listener.heard) for listener in listeners) == 1

    run(main, kind=kind)


def test_one_that_fails_keeps_no_other_from_its_turn(pipes: list[tuple[int, int]], kind: LoopKind) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        said: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: said.append(context))

        def fail() -> None:
            poller.forget(loop, bad.read_fd)
            raise ValueError("a bug")

        bad, good = Listener(pipes[0][0], fail), Listener(pipes[1][0])
        for listener, (_, write_fd) in zip((bad, good), pipes, strict=False):
            poller.watch(loop, listener.read_fd, listener)
            os.write(write_fd, b"x")
        while not (good.heard and said):
            await asyncio.sleep(0)
        poller.forget(loop, good.read_fd)
        assert isinstance(said[0]["exception"], ValueError)

    run(main, kind=kind)


def test_what_cannot_be_watched_is_said_and_leaves_nothing(tmp_path: Any, kind: LoopKind) -> None:
    async def main() -> None:
        before = descriptors()
        with (tmp_path / "file").open("w+b") as file, pytest.raises(PermissionError):
            poller.watch(asyncio.get_running_loop(), file.fileno(), Listener(file.fileno()))
        await turns()
        assert descriptors() == before

    run(main, kind=kind)
