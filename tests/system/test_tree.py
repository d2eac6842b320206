from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import anyio
import anyio.lowlevel
import pytest
from msgspec.structs import replace

from supervisord_async.core.state import ExitStatus
from supervisord_async.system import pidfd, process_table, procfs, tree
from supervisord_async.system.cgroups import Cgroup
from supervisord_async.system.child import Child, Ended
from supervisord_async.system.identity import Identity, identify, is_alive
from supervisord_async.system.tree import Tree
from supervisord_async.wire import ENV_TAG
from tests.system.processes import Nursery, gone, read_all
from tests.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.real]

#: Prints the PIDs of an ordinary grandchild, and of one that left session and parents by a double fork.
FAMILY = """
import os, time
def report(): os.write(1, b"%d\\n" % os.getpid())
def born(): return os.fork() == 0
if born():
    report(); time.sleep(1000)
if born():
    os.setsid()
    if born():
        report(); time.sleep(1000)
    os._exit(0)
os.wait()
"""

#: Each one is the parent of the next and ends at once. Bounded, since it would take a shared machine's PIDs if a test
#: failed to end it: it says so if it was not ended before.
WALKER = """
for _ in range({forks}):
    if os.fork():
        os._exit(0)
    {leave}
    time.sleep(0.005)
print("escaped", flush=True)
"""


async def family(nursery: Nursery, then: str) -> tuple[Child, list[Identity]]:
    """A child that goes on with ``then``, and the two that it leaves."""
    child = await nursery.python(FAMILY + then)
    found = [identify(int(line)) for line in await nursery.hear(2)]
    return child, [identity for identity in found if identity is not None]


async def test_child_alone_leaves_nothing_and_proc_is_not_searched(nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    child = await nursery.spawn("true")
    await child.wait()
    looks = []
    monkeypatch.setattr(procfs, "snapshot", lambda: pytest.fail("a pass over /proc"))
    monkeypatch.setattr(procfs, "stat", looks.append)
    assert not nursery.tree(child).has_leftovers()
    assert set(looks) <= {child.pid}


async def test_many_deaths_in_one_turn_look_at_our_children_once(nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    children = [await nursery.spawn("true") for _ in range(30)]
    for child in children:
        await child.wait()
    await anyio.lowlevel.checkpoint()
    looks: list[int] = []
    real = procfs.children
    monkeypatch.setattr(procfs, "children", lambda pid: (looks.append(pid), real(pid))[1])
    assert not any(nursery.tree(child).has_leftovers() for child in children)
    assert looks == [os.getpid()]


async def test_leftovers_are_found_while_the_main_process_lives(nursery: Nursery) -> None:
    child, left = await family(nursery, "time.sleep(1000)")
    found = nursery.tree(child)
    assert found.has_leftovers()
    assert set(found.leftovers()) == set(left)
    assert found.members()[0] == child.identity


async def test_leftovers_are_found_when_it_has_ended(nursery: Nursery) -> None:
    child, left = await family(nursery, "os._exit(3)")
    assert (await child.wait()).status == ExitStatus(code=3)
    assert nursery.tree(child).has_leftovers()
    assert set(nursery.tree(child).leftovers()) == set(left)


async def test_other_runs_are_none_of_it(nursery: Nursery) -> None:
    child, left = await family(nursery, "os._exit(0)")
    other = await nursery.shell("setsid sleep 1000 & sleep 1000 & echo; echo; echo; exit 0")
    await nursery.hear(5)
    await child.wait()
    await other.wait()
    assert await nursery.tree(child).kill() == []
    assert not any(map(is_alive, left))
    assert len(nursery.tree(other).leftovers()) == 2


async def test_kill_ends_double_forked_session_leaders(nursery: Nursery) -> None:
    child, left = await family(nursery, "time.sleep(1000)")
    assert await nursery.tree(child).kill() == []
    assert (await child.wait()).status == ExitStatus(signal=9)
    assert not any(map(is_alive, left))
    assert not nursery.tree(child).has_leftovers()


async def test_descendant_without_our_environment_is_killed_with_its_parents(nursery: Nursery) -> None:
    # It left the session and its environment is another: only the chain of parents, frozen first, leads to it.
    script = """
import os, time
if os.fork() == 0:
    os.execve("/usr/bin/setsid", ["setsid", "sleep", "1000"], {"LANG": "C"})
time.sleep(1000)
"""
    child = await nursery.python(script)
    await wait_until(lambda: any(os.getsid(each.pid) == each.pid for each in nursery.tree(child).leftovers()), what="its own session")
    left = nursery.tree(child).leftovers()
    await wait_until(lambda: procfs.environment_value(left[0].pid, ENV_TAG) == "", what="the other environment")
    assert await nursery.tree(child).kill() == []
    assert not any(map(is_alive, left))


@pytest.mark.parametrize("leave", ["pass", "os.setsid()"], ids=["in its group", "in ever new sessions"])
async def test_fork_loop_is_killed(nursery: Nursery, leave: str) -> None:
    child = await nursery.python("import os, time" + WALKER.format(forks=250, leave=leave))
    await child.wait()
    assert nursery.tree(child).has_leftovers()
    assert await nursery.tree(child).kill(20) == []
    assert not nursery.tree(child).has_leftovers()
    assert "escaped" not in nursery.heard()


async def test_fork_loop_that_multiplies_is_killed(nursery: Nursery) -> None:
    # Six at a time, each replacing itself in a session of its own.
    script = "import os, time\nfor _ in range(6):\n    if os.fork() == 0:\n        break\nelse:\n    time.sleep(1000)\n"
    child = await nursery.python(script + WALKER.format(forks=45, leave="os.setsid()\n    time.sleep(0.02)"))
    await wait_until(lambda: len(nursery.tree(child).leftovers()) >= 3, what="a crowd")
    assert await nursery.tree(child).kill(20) == []
    assert (await child.wait()).status == ExitStatus(signal=9)
    assert not nursery.tree(child).has_leftovers()
    assert "escaped" not in nursery.heard()


async def test_newborn_is_stopped_before_it_is_asked_and_released_if_it_is_another_runs(nursery: Nursery) -> None:
    child, left = await family(nursery, "os._exit(0)")
    _, spared = await family_of_another(nursery)
    nursery.tree(child)._catch()
    await wait_until(lambda: {procfs.stat(identity.pid).state for identity in left} == {"T"}, what="the stop")  # type: ignore[union-attr]
    assert {procfs.stat(identity.pid).state for identity in spared} == {"S"}  # type: ignore[union-attr]
    assert await nursery.tree(child).kill() == []
    assert all(map(is_alive, spared))


async def family_of_another(nursery: Nursery) -> tuple[Child, list[Identity]]:
    child = await nursery.python(FAMILY + "os._exit(0)")
    found = [identify(int(line)) for line in (await nursery.hear(4))[2:]]
    await child.wait()
    return child, [identity for identity in found if identity is not None]


async def test_stopped_process_terminates(nursery: Nursery) -> None:
    child = await nursery.spawn("sleep", "1000")
    child.send_signal(signal.SIGSTOP)
    await wait_until(lambda: procfs.stat(child.pid).state == "T", what="the stop")  # type: ignore[union-attr]
    nursery.tree(child).signal(signal.SIGTERM)
    assert (await child.wait()).status == ExitStatus(signal=signal.SIGTERM)


async def test_signal_reaches_the_whole_tree(nursery: Nursery) -> None:
    child, left = await family(nursery, "time.sleep(1000)")
    assert nursery.tree(child).signal(signal.SIGTERM) == 3
    assert (await child.wait()).status == ExitStatus(signal=signal.SIGTERM)
    for identity in left:
        await gone(identity)


async def test_signal_to_the_main_process_alone_spares_the_others(nursery: Nursery) -> None:
    child, left = await family(nursery, "time.sleep(1000)")
    assert nursery.tree(child).signal(signal.SIGTERM, "main") == 1
    await child.wait()
    assert all(map(is_alive, left))
    assert nursery.tree(child).signal(signal.SIGTERM, "main") == 0


async def test_signal_to_what_is_left_reaches_it(nursery: Nursery) -> None:
    child, left = await family(nursery, "os._exit(0)")
    await child.wait()
    assert nursery.tree(child).signal(signal.SIGTERM) == 2
    for identity in left:
        await gone(identity)


async def test_each_gets_a_signal_once(nursery: Nursery) -> None:
    script = """
import os, signal, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])
if os.fork() == 0: os.setsid()
print("up", flush=True)
signal.sigwaitinfo([signal.SIGRTMIN])
print("got", signal.sigtimedwait([signal.SIGRTMIN], 0), flush=True)
time.sleep(1000)
"""
    child = await nursery.python(script)
    await nursery.hear(2)
    nursery.tree(child).signal(signal.SIGRTMIN)
    assert (await nursery.hear(4))[2:] == ["got None", "got None"]


async def test_gone_is_told_when_the_last_one_went(nursery: Nursery) -> None:
    child, left = await family(nursery, "os._exit(0)")
    order = []

    async def wait() -> None:
        await nursery.tree(child).wait_gone()
        order.append("gone")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await child.wait()
        for identity in left:
            await anyio.wait_all_tasks_blocked()
            order.append(identity.pid)
            os.kill(identity.pid, signal.SIGKILL)
    assert order == [*(identity.pid for identity in left), "gone"]


async def test_gone_is_told_at_once_when_nothing_is_left(nursery: Nursery) -> None:
    child = await nursery.spawn("true")
    await child.wait()
    with anyio.fail_after(60):
        await nursery.tree(child).wait_gone()


async def test_stranger_with_a_reused_pid_survives_every_signal(nursery: Nursery) -> None:
    decoy = await nursery.spawn("sleep", "1000")
    companion = await nursery.spawn("sleep", "1000")
    real = decoy.identity
    former = Identity(real.pid, real.start_ticks - 1, real.boot_id)  # had the PID before, and the session of that number
    for ours in (True, False):
        reused = Tree(former, "test/former/1", ours=ours)
        assert not reused.has_leftovers()
        assert reused.signal(signal.SIGKILL) == 0
        assert reused.signal(signal.SIGKILL, "main") == 0
        assert await reused.kill() == []
        await reused.wait_gone()
    assert is_alive(real)
    assert is_alive(companion.identity)
    assert decoy.ended is None


async def test_pid_that_is_reused_between_look_and_signal_is_spared(nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    # The look finds a member; by the time of the signal its PID is a stranger's.
    decoy = await nursery.spawn("sleep", "1000")
    victim = await nursery.spawn("sleep", "1000")
    former = Identity(decoy.pid, decoy.identity.start_ticks - 1, decoy.identity.boot_id)
    monkeypatch.setattr(Tree, "_members", lambda self, now: [former, victim.identity])
    assert nursery.tree(victim).signal(signal.SIGTERM) == 2
    monkeypatch.undo()
    assert (await victim.wait()).status == ExitStatus(signal=signal.SIGTERM)
    assert is_alive(decoy.identity)


async def test_run_of_an_earlier_daemon_is_found_by_session_and_tag(nursery: Nursery) -> None:
    child, left = await family(nursery, "os._exit(0)")
    await child.wait()
    adopted = Tree(child.identity, nursery.tree(child).tag, ours=False)
    assert adopted.has_leftovers()
    assert set(adopted.leftovers()) == set(left)
    assert await adopted.kill() == []
    assert not any(map(is_alive, left))


async def test_what_is_older_than_a_main_process_named_later_is_of_the_run(nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    """MAINPID names a younger process than the one that the run began with, which then survived each stop where there was no cgroup."""
    monkeypatch.setattr(tree.orphans, "gets_orphans", lambda: False)
    first = await nursery.python("import os, time\ntime.sleep(0.1)\nif os.fork() == 0: print(os.getpid(), flush=True)\ntime.sleep(1000)")
    heir = Child.adopt(cast("Identity", identify(int((await nursery.hear(1))[0]))))
    heir.close()
    tag = nursery.tree(first).tag
    for run in (nursery.tree(first).led_by(heir), Tree(heir.identity, tag, ours=False)):  # of this daemon, and of its successor
        assert run.members() == [heir.identity, first.identity]
        assert run.includes(first.pid)


async def test_run_without_a_known_main_process_is_found_by_its_tag(nursery: Nursery) -> None:
    child, left = await family(nursery, "time.sleep(1000)")
    stray = Tree(None, nursery.tree(child).tag, ours=False)
    assert set(stray.members()) == {child.identity, *left}
    assert await stray.kill() == []
    assert (await child.wait()).status == ExitStatus(signal=9)
    assert await Tree(None, "no/such/1", ours=False).kill() == []


async def test_many_runs_of_an_earlier_daemon_do_not_each_look_at_all_processes(nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a takeover each stop, and each end, compared its run with all processes: those of 4,000 programs held the loop for minutes."""
    children = [await nursery.spawn("sleep", "1000") for _ in range(30)]
    looks: list[procfs.Stat] = []
    real = Tree._is_of_run
    monkeypatch.setattr(Tree, "_is_of_run", lambda run, process, trusted: (looks.append(process), real(run, process, trusted))[1])
    for child in children:
        adopted = Tree(child.identity, nursery.tree(child).tag, ours=False)
        assert adopted.members() == [child.identity]
    assert len(looks) <= 2 * len(children)


async def test_who_became_somebody_else_is_told_and_breaks_nothing(
    nursery: Nursery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A set-uid program, when we are not root: the kernel refuses each signal to it, and one to its group."""
    child = await nursery.python("import time; time.sleep(1000)")

    def refused(*_: object, **__: object) -> bool:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(os, "killpg", refused)
        patch.setattr(tree, "send_signal", refused)
        run = Tree.of(child, "")
        assert run.signal(signal.SIGTERM) == 1
        assert await run.kill(0.1) == [child.identity]
    assert f"may not send signal 15 to process {child.pid}" in caplog.text
    assert await Tree.of(child, "").kill() == []


async def test_leftovers_are_found_without_a_subreaper(nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree.orphans, "gets_orphans", lambda: False)
    child, left = await family(nursery, "os._exit(0)")
    await child.wait()
    found = Tree.of(child, nursery.tree(child).tag)
    assert found.has_leftovers()
    assert set(found.leftovers()) == set(left)


async def test_without_a_tag_those_without_one_are_none_of_it(nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test whose command had no tag, and no subreaper, killed whatever began on the machine in those milliseconds."""
    monkeypatch.setattr(tree.orphans, "gets_orphans", lambda: False)
    child = await nursery.spawn("sleep", "1000")
    stranger = await nursery.spawn("sleep", "1000", environment={ENV_TAG: ""})
    run = Tree.of(child, "")
    assert run.members() == [child.identity]
    assert await run.kill() == []
    assert is_alive(stranger.identity)


async def test_what_will_not_die_is_returned_in_time(nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    child = await nursery.spawn("sleep", "1000")
    monkeypatch.setattr(tree.os, "killpg", lambda group, signum: None)
    monkeypatch.setattr(tree, "send_signal", lambda identity, signum: True)
    with anyio.fail_after(60):
        assert await nursery.tree(child).kill(0.05) == [child.identity]
    monkeypatch.undo()


async def test_many_trees_are_killed_at_once(nursery: Nursery) -> None:
    children = [await nursery.shell("sleep 1000 & setsid sleep 1000 & wait") for _ in range(60)]
    await wait_until(lambda: all(len(nursery.tree(child).leftovers()) >= 2 for child in children), what="120 descendants")
    left = [identity for child in children for identity in nursery.tree(child).leftovers()]
    async with anyio.create_task_group() as tasks:
        for child in children:
            tasks.start_soon(nursery.tree(child).kill)
    assert not any(map(is_alive, left))
    for child in children:
        assert (await child.wait()).status == ExitStatus(signal=9)


async def test_kill_costs_no_descriptor(nursery: Nursery) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        child, _ = await family(nursery, "time.sleep(1000)")
        await nursery.tree(child).kill()
        await child.wait()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_output_of_leftovers_comes_through_until_they_go(nursery: Nursery, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    child = await nursery.shell(f"(read line < {go}; echo late) & exit 0")
    await child.wait()
    go.write_text("now\n")
    assert read_all(nursery.pipe.read_fd, b"late\n") == b"late\n"


# A stranger that has a number of ours, of the same tick: where PIDs are scarce


async def test_stranger_with_the_number_of_a_main_process_that_was_reaped_is_left_alone(nursery: Nursery) -> None:
    stranger = await nursery.spawn("sleep", "1000", environment={ENV_TAG: "nobody's"})
    ended = SimpleNamespace(pid=stranger.pid, identity=stranger.identity, ours=True, ended=Ended(ExitStatus(code=0), None))
    tree = Tree.of(cast("Child", ended), "test/ended/1")
    assert tree.members() == []
    assert tree.signal(signal.SIGKILL) == 0
    assert await tree.kill() == []
    assert is_alive(stranger.identity)


async def test_stranger_is_not_signalled_in_a_session_that_is_not_its_own(nursery: Nursery) -> None:
    stranger = await nursery.spawn("sleep", "1000")
    assert not pidfd.send_signal(stranger.identity, signal.SIGKILL, session=os.getsid(0))
    assert pidfd.send_signal(stranger.identity, signal.SIGKILL, session=stranger.pid)
    assert (await stranger.wait()).status == ExitStatus(signal=signal.SIGKILL)


async def test_stranger_with_the_number_of_a_child_or_of_one_in_the_cgroup_is_left_alone(
    nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = await nursery.spawn("sleep", "1000", environment={ENV_TAG: "nobody's"})
    main = await nursery.spawn("sleep", "1000")
    children = procfs.children
    monkeypatch.setattr(procfs, "children", lambda pid: children(pid) | ({stranger.pid} if pid == main.pid else set()))
    looks = [{stranger.pid}, set()]
    cgroup = SimpleNamespace(pids=lambda: looks.pop(0))
    assert Tree.of(main, "test/main/1", cast("Cgroup", cgroup)).members() == [main.identity]
    assert looks == []


async def test_stranger_has_not_the_tag_of_who_had_its_number(nursery: Nursery) -> None:
    tagged = await nursery.spawn("sleep", "1000", environment={ENV_TAG: "test/tagged/1"})
    process = procfs.stat(tagged.pid)
    assert process is not None
    await wait_until(lambda: process_table.tag_of(process) == "test/tagged/1")  # while it is just executing it shows no environment
    tagged.send_signal(signal.SIGKILL)
    await tagged.wait()
    assert not process_table.tag_of(replace(process, session=process.session + 1))
