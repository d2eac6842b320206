from __future__ import annotations

import os
import signal
import subprocess

import pytest

from supervisord_async.core.state import ExitStatus
from supervisord_async.system import orphans, procfs
from tests.system.processes import Nursery
from tests.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.real]


async def test_orphans_come_to_us_and_are_reaped_as_they_die(nursery: Nursery) -> None:
    child = await nursery.shell("for i in 1 2 3 4 5; do (setsid sleep 1000 & echo $!); done; exit 0")
    pids = [int(line) for line in await nursery.hear(5)]
    await child.wait()
    assert all(procfs.stat(pid).parent == os.getpid() for pid in pids)  # type: ignore[union-attr]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    await wait_until(lambda: not any(map(procfs.stat, pids)), what="five orphans to be reaped")


async def test_reaping_never_takes_a_watched_childs_status(nursery: Nursery) -> None:
    children = [await nursery.shell(f"exit {code}") for code in range(20)]
    for child in children:
        if child.ended is None:
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert orphans.reap_orphans() == 0
    assert [(await child.wait()).status for child in children] == [ExitStatus(code=code) for code in range(20)]


async def test_orphan_behind_a_dead_child_of_somebodys_is_reaped(subreaper: None, monkeypatch: pytest.MonkeyPatch) -> None:
    known = subprocess.Popen(["true"])
    monkeypatch.setattr("supervisord_async.system.child.watched", {known.pid})
    orphan = subprocess.Popen(["true"])
    for process in (known, orphan):
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert orphans.reap_orphans() == 1
    assert procfs.stat(orphan.pid) is None
    assert known.wait() == 0
    orphan.returncode = 0


async def test_reaping_without_children_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisord_async.system.child.watched", procfs.children(os.getpid()))
    assert orphans.reap_orphans() == 0
