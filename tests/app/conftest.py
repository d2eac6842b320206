"""Python programs started by the application library's tests, and ended with them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.waiting import wait_until_sync

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "config" / "examples"

Launch = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Start ``python SCRIPT ARGUMENTS`` in ``tmp_path``, output to ``tmp_path/output``; killed at the end if need be."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str | Path, output: str = "output", **environment: str) -> subprocess.Popen[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ASUP_", "NOTIFY_", "WATCHDOG_", "PYTHON"))}
        with open(tmp_path / output, "ab") as file:
            process = subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                cwd=tmp_path,
                # Not PYTHONUNBUFFERED: a print would be two writes, and a line of the log could come between them.
                env=inherited | {"PYTHONPATH": str(ROOT), **environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                text=True,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait(60)


@pytest.fixture
def output(tmp_path: Path) -> Callable[[], str]:
    """What the launched program has said so far."""

    def read() -> str:
        path = tmp_path / "output"
        return path.read_text(errors="replace") if path.exists() else ""

    return read


@pytest.fixture(autouse=True)
def unsupervised(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests themselves may run under a supervisor; the library must not see it."""
    for name in [name for name in os.environ if name.startswith(("ASUP_", "NOTIFY_SOCKET", "WATCHDOG_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def stuck() -> Iterator[threading.Event]:
    """Something to hang on, that lets go at the end of the test."""
    event = threading.Event()
    yield event
    event.set()
    wait_until_sync(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith(("worker-", "shutdown"))])
