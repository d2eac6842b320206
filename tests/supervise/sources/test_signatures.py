"""Files that are looked at together share a hop to a thread; who gives up, and a look that fails, cost the others nothing."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

import anyio
import pytest

from supervisord_async.supervise.host import Signature
from supervisord_async.supervise.sources import signatures
from supervisord_async.supervise.sources.signatures import Signatures


@pytest.fixture
def hops(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The files of each hop so far."""
    seen: list[list[str]] = []
    look = signatures._look

    def counted(paths: list[str]) -> dict[str, Signature]:
        seen.append(list(paths))
        return look(paths)

    monkeypatch.setattr(signatures, "_look", counted)
    return seen


def test_a_directorys_files_are_looked_at_in_one_hop(tmp_path: Path, hops: list[list[str]]) -> None:
    files = [tmp_path / folder / str(number) for folder in ("a", "b") for number in range(50)]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_text(file.name)
    found: dict[str, Signature] = {}

    async def ask(looks: Signatures, path: str) -> None:
        found[path] = await looks.of(path)

    async def main() -> None:
        looks = Signatures()
        async with anyio.create_task_group() as tasks:
            for path in [*map(str, files), str(tmp_path / "a" / "missing")]:
                tasks.start_soon(ask, looks, path)

    anyio.run(main)
    assert sorted(map(len, hops)) == [50, 51]
    assert found.pop(str(tmp_path / "a" / "missing")) is None
    assert found == {str(file): (file.stat().st_mtime_ns, file.stat().st_size, file.stat().st_ino) for file in files}


def test_the_others_look_themselves_when_who_led_is_cancelled(tmp_path: Path, hops: list[list[str]]) -> None:
    async def main() -> None:
        looks, leading, found = Signatures(), anyio.CancelScope(), []

        async def lead() -> None:
            with leading:
                await looks.of(str(tmp_path / "leader"))

        async def follow() -> None:
            found.append(await looks.of(str(tmp_path / "follower")))

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lead)
                tasks.start_soon(follow)
                await anyio.lowlevel.checkpoint()
                leading.cancel()
        assert found == [None]

    anyio.run(main)
    assert hops[-1] == [str(tmp_path / "follower")]


def test_a_directory_that_hangs_has_one_thread_and_keeps_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer, hanging = threading.Event(), list[str]()
    look = signatures._look

    def hang(paths: list[str]) -> dict[str, Signature]:
        if paths[0].startswith("/away"):
            hanging.extend(paths)
            answer.wait(30)
        return look(paths)

    monkeypatch.setattr(signatures, "_look", hang)
    monkeypatch.setattr(signatures, "THREADS", 2)
    silent: list[str] = []

    async def ask(looks: Signatures, path: str) -> None:
        try:
            await looks.of(path)
        except TimeoutError as error:
            silent.append(str(error))

    async def main() -> None:
        looks = Signatures(answer_seconds=0.05)
        with anyio.fail_after(20):
            for _ in range(3):
                async with anyio.create_task_group() as tasks:
                    for name in "abc":
                        tasks.start_soon(ask, looks, f"/away/{name}")
                assert await looks.of(str(tmp_path / "here")) is None
            with anyio.move_on_after(0):
                await looks.of("/away/a")  # who gives up begins no second one either
            patient = anyio.Event()

            async def wait() -> None:
                looks._answer_seconds = 20.0
                await looks.of("/away/d")
                patient.set()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait)
                await anyio.lowlevel.checkpoint()
                answer.set()
            assert patient.is_set()

    anyio.run(main)
    assert hanging == [f"/away/{name}" for name in "abcd"]
    assert silent == [f"the disk of /away/{name} has not answered for 0.05 s" for name in "abc"] * 3


def test_each_hears_that_there_is_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    heard: list[str] = []

    async def ask(looks: Signatures, path: str) -> None:
        try:
            await looks.of(path)
        except BlockingIOError as error:
            heard.append(error.strerror)

    async def main() -> None:
        looks = Signatures()
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                for name in "abc":
                    tasks.start_soon(partial(ask, looks, str(tmp_path / name)))

    anyio.run(main)
    assert heard == ["can't start new thread"] * 3
