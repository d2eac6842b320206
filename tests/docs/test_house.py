"""The tests' own tools: what looks for leaks finds them, what waits gives up with words, the scripts are sound."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.leaks import end_processes_in, holdings, left_behind
from tests.waiting import wait_until, wait_until_sync

ROOT = Path(__file__).resolve().parents[2]
SETTLE_SECONDS = 0.0


def test_leak_of_a_descriptor_is_found(tmp_path: Path) -> None:
    before = holdings()
    with (tmp_path / "forgotten").open("w"):
        (found,) = left_behind(before, SETTLE_SECONDS)
    assert "forgotten" in found
    assert left_behind(before) == []


def test_leak_of_a_child_is_found_also_when_it_is_a_zombie() -> None:
    before = holdings()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        command = f"child {child.pid}: {sys.executable}"
        wait_until_sync(lambda: any(command in line for line in left_behind(before, SETTLE_SECONDS)))  # just born, it has no command line
        child.kill()
        wait_until_sync(lambda: any(f"child {child.pid}: (zombie" in line for line in left_behind(before, SETTLE_SECONDS)))
    assert left_behind(before) == []


def test_process_that_is_nobodys_child_is_found_by_where_it_runs_and_ended(tmp_path: Path) -> None:
    command = f"cd {tmp_path}; sleep 1000 >&2 & echo $!"
    pid = int(subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout)
    (found,) = end_processes_in(tmp_path, SETTLE_SECONDS)
    assert found.startswith(f"process {pid}: ")
    assert end_processes_in(tmp_path) == []


def test_leak_of_a_thread_is_found() -> None:
    before, go = holdings(), threading.Event()
    thread = threading.Thread(target=go.wait, name="forgotten")
    thread.start()
    assert any("thread forgotten" in found for found in left_behind(before, SETTLE_SECONDS))
    go.set()
    thread.join()
    assert left_behind(before) == []


@pytest.mark.anyio
async def test_wait_returns_what_came_and_gives_up_with_words() -> None:
    answers = iter([0, 0, 42])
    assert await wait_until(lambda: next(answers)) == 42
    with pytest.raises(AssertionError, match=r"not within 0 s: it rains; it was False"):
        await wait_until(lambda: False, 0, what="it rains")


@pytest.mark.parametrize("script", ["scripts/environment", "scripts/run", "scripts/test", ".ci/run"])
def test_script_is_sound_and_executable(script: str) -> None:
    path = ROOT / script
    assert path.stat().st_mode & 0o111 == 0o111
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
