from __future__ import annotations

import os
import resource
import signal
import subprocess
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace

from supervisord_async.core.state import ExitStatus
from supervisord_async.system import child as child_module
from supervisord_async.system import procfs
from supervisord_async.system.child import Child
from supervisord_async.system.identity import Identity, identify, is_alive, of
from supervisord_async.system.pidfd import send_signal, wait_dead
from supervisord_async.system.procfs import stat
from tests.system.processes import Nursery
from tests.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.real]


async def test_exit_code_and_signal_are_told_apart(nursery: Nursery) -> None:
    assert (await (await nursery.shell("exit 7")).wait()).status == ExitStatus(code=7)
    assert (await (await nursery.shell("kill -9 $$")).wait()).status == ExitStatus(signal=9)


async def test_many_may_wait_and_also_afterwards(nursery: Nursery) -> None:
    child = await nursery.shell("read line; exit 3", environment={})
    found = []

    async def wait() -> None:
        found.append((await child.wait()).status.code)

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(wait)
        with anyio.CancelScope() as cancelled:  # one that gives up disturbs no other
            cancelled.cancel()
            await child.wait()
    await wait()
    assert found in ([3] * 6, [1] * 6)  # stdin is /dev/null: some shells say so
    child.close()
    assert (await child.wait()).status.code == found[0]


async def test_grandchild_that_holds_stdout_does_not_hide_the_exit(nursery: Nursery) -> None:
    child = await nursery.shell("sleep 1000 & exit 5")
    with anyio.fail_after(60):
        assert (await child.wait()).status == ExitStatus(code=5)
    assert nursery.tree(child).has_leftovers()


async def test_resources_are_told(nursery: Nursery) -> None:
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + 100_000_000  # ours is taken for nobody else's
    child = await nursery.python(f"x = bytearray({size}); [i for i in range(300_000)]")
    ended = await child.wait()
    assert ended.rusage is not None
    assert ended.rusage.max_rss_bytes is not None
    assert ended.rusage.max_rss_bytes > size
    assert ended.rusage.user_seconds + ended.rusage.system_seconds > 0
    assert ended.figures()["max_rss_bytes"] == ended.rusage.max_rss_bytes


async def test_our_own_size_is_never_taken_for_a_small_childs(nursery: Nursery) -> None:
    ended = await (await nursery.spawn("true")).wait()
    assert ended.rusage is not None
    assert ended.rusage.max_rss_bytes is None
    assert "max_rss_bytes" not in ended.figures()


async def test_signal_after_the_end_is_harmless(nursery: Nursery) -> None:
    child = await nursery.spawn("true")
    await child.wait()
    assert child.pidfd == -1
    assert child.send_signal(signal.SIGTERM) is False


async def test_signal_between_death_and_news_is_harmless(nursery: Nursery) -> None:
    child = await nursery.spawn("sleep", "1000")
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert child.send_signal(signal.SIGTERM) in (True, False)  # no exception
    assert (await child.wait()).status == ExitStatus(signal=9)


async def test_closing_leaves_the_process_alone(nursery: Nursery) -> None:
    child = await nursery.spawn("sleep", "1000")
    identity = child.identity
    child.close()
    assert (await child.wait()).status.unknown
    assert is_alive(identity)
    assert send_signal(identity, signal.SIGKILL)
    await wait_until(lambda: stat(identity.pid) is None, what="the orphan to be reaped")


async def test_own_child_is_adopted_with_its_status(nursery: Nursery) -> None:
    # As after execv of the daemon: a child that this life did not spawn.
    process = subprocess.Popen(["/bin/sh", "-c", "read x; exit 9"], stdin=subprocess.PIPE)
    identity = identify(process.pid)
    assert identity is not None
    child = Child.adopt(identity)
    assert child.ours
    assert process.stdin is not None
    process.stdin.close()
    ended = await child.wait()
    process.returncode = 9
    assert ended.status in (ExitStatus(code=9), ExitStatus(code=1))
    assert ended.rusage is not None


async def test_own_child_that_died_meanwhile_is_adopted_with_its_status(subreaper: None) -> None:
    process = subprocess.Popen(["/bin/sh", "-c", "exit 9"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    zombie = stat(process.pid)
    assert zombie is not None
    child = Child.adopt(of(zombie))
    assert (await child.wait()).status == ExitStatus(code=9)
    process.returncode = 9
    child.close()


async def test_foreign_process_is_adopted_and_its_status_told_where_the_kernel_tells(nursery: Nursery) -> None:
    # The parent does not wait for it, so it stays a zombie, whose status /proc shows to root and its user.
    parent = await nursery.python(
        "import os, time\npid = os.fork()\nif pid == 0:\n    time.sleep(1000)\nprint(pid, flush=True)\ntime.sleep(1000)"
    )
    pid = int((await nursery.hear(1))[0])
    identity = identify(pid)
    assert identity is not None
    child = Child.adopt(identity)
    assert not child.ours
    assert child.send_signal(signal.SIGUSR1)
    ended = await child.wait()
    assert ended.status == ExitStatus(signal=signal.SIGUSR1)
    assert ended.rusage is None
    assert is_alive(parent.identity)
    child.close()


async def test_process_that_is_gone_is_not_adopted(nursery: Nursery) -> None:
    child = await nursery.spawn("true")
    await child.wait()
    with pytest.raises(ProcessLookupError):
        Child.adopt(child.identity)


async def test_stranger_with_the_same_pid_is_neither_adopted_nor_signalled_nor_awaited(nursery: Nursery) -> None:
    decoy = await nursery.spawn("sleep", "1000")
    real = decoy.identity
    former = Identity(real.pid, real.start_ticks - 1, real.boot_id)
    other_boot = Identity(real.pid, real.start_ticks, "another-boot")
    for identity in (former, other_boot):
        assert not is_alive(identity)
        assert send_signal(identity, signal.SIGKILL) is False
        await wait_dead(identity)
        with pytest.raises(ProcessLookupError):
            Child.adopt(identity)
    assert is_alive(real)
    assert decoy.ended is None


async def test_a_stranger_that_got_the_pid_while_it_was_adopted_is_let_go(nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the first look and the pidfd: who is there afterwards is another."""
    stranger = await nursery.spawn("sleep", "1000")
    now = stat(stranger.pid)
    assert now is not None
    looks = [now, replace(now, start_ticks=now.start_ticks + 1)]
    monkeypatch.setattr(procfs, "stat", lambda _pid: looks.pop(0))
    with pytest.raises(ProcessLookupError, match="is gone"):
        Child.adopt(stranger.identity)
    monkeypatch.undo()
    assert stranger.send_signal(0)


async def test_process_is_alive_while_any_of_its_threads_is(nursery: Nursery) -> None:
    child = await nursery.python(
        "import ctypes, threading, time\n"
        "threading.Thread(target=lambda: (print('up', flush=True), time.sleep(1000))).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)"
    )
    await nursery.hear(1)
    await wait_until(lambda: stat(child.pid).state == "Z", what="the main thread's end")  # type: ignore[union-attr]
    assert is_alive(child.identity)
    assert child.ended is None
    child.send_signal(signal.SIGKILL)
    assert (await child.wait()).status == ExitStatus(signal=9)


async def test_nothing_is_watched_when_all_have_ended(nursery: Nursery) -> None:
    for _ in range(3):
        await (await nursery.spawn("true")).wait()
    assert not child_module.watched


async def test_core_flag_is_told(nursery: Nursery, tmp_path: Path) -> None:
    child = await nursery.shell("ulimit -c 0; kill -SEGV $$", directory=str(tmp_path))
    assert (await child.wait()).status == ExitStatus(signal=signal.SIGSEGV, core=False)
    assert child_module.status_of(signal.SIGSEGV | 0x80) == ExitStatus(signal=signal.SIGSEGV, core=True)
