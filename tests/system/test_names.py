"""A name server that does not answer holds up nobody but who asked it."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from supervisord_async.system.loop import LoopKind, run
from supervisord_async.system.threads import DaemonThreads

KINDS: tuple[LoopKind, ...] = ("uvloop", "asyncio")
BY_NAME = socket.getaddrinfo


@pytest.fixture
def silence(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of ``.silent`` are not answered until the end of the test; those of ``.known`` at once. Returns all that were asked for."""
    asked: list[str] = []
    end = threading.Event()

    def getaddrinfo(host: Any, port: Any, *kind: int) -> list[Any]:
        name = host.decode() if isinstance(host, bytes) else host
        if name is None or kind[3] & socket.AI_NUMERICHOST:
            return BY_NAME(host, port, *kind)
        asked.append(name)
        if name.endswith(".silent"):
            end.wait(30)
        if name.endswith(".known"):
            return BY_NAME("127.0.0.1", port, *kind)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield asked
    end.set()


@pytest.mark.parametrize("kind", KINDS)
def test_many_unanswered_names_delay_no_other(kind: LoopKind, silence: list[str]) -> None:
    async def ask(name: str) -> None:
        with anyio.move_on_after(0.05):
            await anyio.getaddrinfo(name, 80)

    async def main() -> None:
        for _ in range(3):  # a probe asks again and again, whatever became of the last look-up
            async with anyio.create_task_group() as tasks:
                for number in range(12):
                    tasks.start_soon(ask, f"n{number}.silent")
        with anyio.fail_after(10):
            found = await anyio.getaddrinfo("web.known", 80, type=socket.SOCK_STREAM)
        assert found[0][4] == ("127.0.0.1", 80)

    run(main, kind=kind)
    assert sorted(silence) == sorted([*(f"n{number}.silent" for number in range(12)), "web.known"])  # each was asked for once


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_is_not_found_is_an_error_and_asked_for_anew(kind: LoopKind, silence: list[str]) -> None:
    async def main() -> None:
        for _ in range(2):
            with pytest.raises(socket.gaierror, match="Temporary failure"):
                await anyio.getaddrinfo("web.broken", 80)

    run(main, kind=kind)
    assert silence == ["web.broken"] * 2


def test_addresses_take_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Any:
        raise BlockingIOError(11, "can't start new thread")

    monkeypatch.setattr(DaemonThreads, "submit", refuse)

    async def main() -> None:
        for host in ("127.0.0.1", "::1", None):
            assert await anyio.getaddrinfo(host, 80)
        with pytest.raises(BlockingIOError):
            await anyio.getaddrinfo("web.known", 80)

    run(main)


@pytest.mark.real
@pytest.mark.parametrize("kind", KINDS)
def test_the_end_of_the_process_does_not_wait_for_an_answer(kind: LoopKind) -> None:
    code = f"""
import anyio, socket, threading
from supervisord_async.system.loop import run
socket.getaddrinfo = lambda *question: threading.Event().wait() if not question[5] else (_ for _ in ()).throw(socket.gaierror())
async def main():
    with anyio.move_on_after(0.05):
        await anyio.getaddrinfo("web.silent", 80)
run(main, kind="{kind}")
print("over")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "over\n", "")
