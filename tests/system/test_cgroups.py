"""What a cgroup finds and ends that nothing else does, and whom it leaves alone."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from supervisord_async.system import cgroups, orphans, procfs, tags
from supervisord_async.system.cgroups import Cgroup, UnusableError
from supervisord_async.system.child import Child
from supervisord_async.system.identity import Identity, identify, is_alive
from supervisord_async.system.tree import Tree
from supervisord_async.wire import ENV_TAG
from tests.confinement import HIDE, need_cgroups
from tests.system.processes import Nursery, gone
from tests.waiting import wait_until, wait_until_sync

pytestmark = pytest.mark.real

#: Lineages of processes that each fork and end some milliseconds later, from the first moment on. Bounded, since the machine is
#: shared: in pace, in number, and by ten seconds; it says so if it was not ended before.
STORM = """
import os, time
until = time.monotonic() + 10
if os.fork():
    time.sleep(1000)
for _ in range({width}):
    if os.fork() == 0:
        break
else:
    os._exit(0)
os.setsid()
for _ in range({forks}):
    if os.fork() or time.monotonic() > until:
        os._exit(0)
    time.sleep(0.005)
print("escaped", flush=True)
"""

Put = Callable[..., tuple[Cgroup, str]]


def _kill_all(instance: str) -> None:
    for cgroup in cgroups.of_instance(instance).values():
        cgroup.kill()


@pytest.fixture
def instance() -> Iterator[str]:
    need_cgroups()
    name = f"confined{os.getpid()}"
    yield name
    _kill_all(name)
    wait_until_sync(lambda: not any(cgroup.pids() for cgroup in cgroups.of_instance(name).values()), what="the end of the killed")
    orphans.reap_orphans()
    cgroups.remove_all(name)
    assert cgroups.homes_of(name) == []


@pytest.fixture
def cgroup(instance: str) -> Cgroup:
    """An empty one."""
    found = cgroups.run_folder(cgroups.make_home(instance), f"{instance}/web:0/3")
    os.mkdir(found.path)
    return found


async def confined(nursery: Nursery, cgroup: Cgroup, *argv: str, **more: object) -> tuple[Child, Tree]:
    """A child in ``cgroup``, and its tree."""
    birth = cgroups.forking_into(cgroup, cgroups.warm_up(), pytest.fail)
    child = await nursery.spawn(*argv, around_fork=birth, **more)
    return child, Tree.of(child, nursery.tree(child).tag, cgroup)


async def hidden(nursery: Nursery, cgroup: Cgroup, folder: Path, then: str = "exec sleep 1000") -> tuple[Child, Tree, Identity]:
    """A child that left something which only its cgroup leads to."""
    child, tree = await confined(nursery, cgroup, "/bin/sh", "-c", f"{HIDE}; {then}", directory=str(folder))
    await wait_until((folder / "hidden").exists, what="the hidden process")
    left = identify(int((folder / "hidden").read_text()))
    assert left is not None
    await wait_until(lambda: (found := procfs.stat(left.pid)) and found.parent == os.getpid(), what="an orphan")
    return child, tree, left


@pytest.mark.anyio
async def test_what_hides_from_all_else_is_found_and_killed(nursery: Nursery, cgroup: Cgroup, tmp_path: Path) -> None:
    child, tree, left = await hidden(nursery, cgroup, tmp_path)
    assert tree.leftovers() == [left]
    assert nursery.tree(child).leftovers() == [], "without the cgroup it is not found"
    assert tree.includes(left.pid) and not nursery.tree(child).includes(left.pid)
    assert await nursery.tree(child).kill() == []
    assert is_alive(left)
    assert tree.has_leftovers()
    assert await tree.kill() == []
    assert not is_alive(left)
    assert not tree.has_leftovers()
    await gone(left)
    assert cgroup.remove()


@pytest.mark.anyio
async def test_signals_reach_what_hides_and_its_end_is_waited_for(nursery: Nursery, cgroup: Cgroup, tmp_path: Path) -> None:
    child, tree, left = await hidden(nursery, cgroup, tmp_path, "exit 0")
    await child.wait()
    assert tree.has_leftovers()
    assert tree.signal(signal.SIGTERM, "main") == 0
    assert is_alive(left)
    assert tree.signal(signal.SIGTERM) == 1
    with anyio.fail_after(20):
        await tree.wait_gone()
    assert not is_alive(left)


@pytest.mark.anyio
async def test_a_storm_of_forks_is_killed_by_its_cgroup(nursery: Nursery, cgroup: Cgroup, monkeypatch: pytest.MonkeyPatch) -> None:
    script = STORM.format(width=8, forks=1500)
    child, tree = await confined(nursery, cgroup, sys.executable, "-S", "-E", "-c", script)
    await wait_until(lambda: len(cgroup.pids()) >= 4, what="a storm")
    decoy = await nursery.spawn("sleep", "1000")
    assert await tree.kill(5) == []
    assert (await child.wait()).status.signal == signal.SIGKILL
    assert cgroup.pids() == set()
    assert "escaped" not in nursery.heard()
    assert is_alive(decoy.identity)


@pytest.mark.anyio
async def test_one_round_ends_a_storm(nursery: Nursery, cgroup: Cgroup, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the write to cgroup.kill that ends it: nobody needed to be caught and stopped before."""
    child, tree = await confined(nursery, cgroup, sys.executable, "-S", "-E", "-c", STORM.format(width=8, forks=1500))
    await wait_until(lambda: len(cgroup.pids()) >= 4, what="a storm")
    monkeypatch.setattr(Tree, "_catch", lambda self: pytest.fail("it had to be caught"))
    await tree._kill_cgroup()
    await wait_until(lambda: not cgroup.pids(), what="the end of those that are told to die")
    await child.wait()
    assert "escaped" not in nursery.heard()


@pytest.mark.anyio
async def test_cgroups_that_a_program_makes_are_part_of_its_own(nursery: Nursery, cgroup: Cgroup) -> None:
    below = f"{cgroup.path}/a/b"
    script = f"mkdir -p {below}; sleep 1000 & echo $! > {below}/cgroup.procs; echo $!; exec sleep 1000"
    child, tree = await confined(nursery, cgroup, "/bin/sh", "-c", script)
    left = identify(int((await nursery.hear(1))[0]))
    assert left is not None
    assert Cgroup(below).pids() == {left.pid} and cgroup.confines(left.pid)
    assert cgroup.pids() == {child.pid, left.pid}
    assert not cgroup.remove()
    assert await tree.kill() == []
    assert not is_alive(left)
    await child.wait()
    assert cgroup.remove()
    assert not os.path.exists(cgroup.path)


def test_a_stranger_costs_no_look_at_the_mounts(cgroup: Cgroup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "mounts", lambda: pytest.fail("reads all mounts for the message of a stranger"))
    assert not cgroup.confines(os.getpid())


@pytest.mark.anyio
async def test_a_gone_cgroup_holds_nothing_and_is_no_error(nursery: Nursery, cgroup: Cgroup) -> None:
    assert cgroup.remove()
    assert cgroup.pids() == set()
    cgroup.kill()
    assert cgroup.remove()
    child = await nursery.spawn("sleep", "1000")
    tree = Tree.of(child, nursery.tree(child).tag, cgroup)
    assert not tree.has_leftovers()
    assert await tree.kill() == []


@pytest.mark.anyio
async def test_another_main_process_has_the_same_cgroup(nursery: Nursery, cgroup: Cgroup, tmp_path: Path) -> None:
    _, tree, left = await hidden(nursery, cgroup, tmp_path)
    other = await nursery.spawn("sleep", "1000")
    assert left in tree.led_by(other).members()


# taking in


@pytest.mark.anyio
async def test_a_living_process_is_taken_in(nursery: Nursery, cgroup: Cgroup) -> None:
    child = await nursery.spawn("sleep", "1000")
    cgroup.take_in(child.identity)
    assert cgroup.pids() == {child.pid}


@pytest.mark.anyio
async def test_a_living_process_is_taken_in_by_a_daemon_of_thousands_of_descriptors(
    nursery: Nursery, cgroup: Cgroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def high(identity: Identity) -> int:
        low = os.pidfd_open(identity.pid)
        try:
            return fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 2000)
        finally:
            os.close(low)

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 < limits[1] < 2048:
        pytest.skip("NOT TESTED: so many descriptors; the hard limit is too low")
    child = await nursery.spawn("sleep", "1000")
    monkeypatch.setattr(cgroups, "open_pidfd", high)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 2048), limits[1]))
    try:
        cgroup.take_in(child.identity)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert cgroup.pids() == {child.pid}


@pytest.mark.anyio
async def test_who_has_its_pid_by_now_is_not_taken_in(nursery: Nursery, cgroup: Cgroup) -> None:
    decoy = await nursery.spawn("sleep", "1000")
    cgroup.take_in(Identity(decoy.pid, decoy.identity.start_ticks - 1, decoy.identity.boot_id))
    assert cgroup.pids() == set()


@pytest.mark.anyio
async def test_who_got_its_pid_while_it_was_taken_in_is_put_back(
    nursery: Nursery, cgroup: Cgroup, instance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the move: the pidfd that was opened means somebody who has ended."""
    over = await nursery.spawn("true")
    pidfd = os.pidfd_open(over.pid) if over.ended is None else os.open("/dev/null", os.O_RDONLY)
    await over.wait()
    decoy = await nursery.spawn("sleep", "1000")
    before = cgroups.folder_of(decoy.pid)
    monkeypatch.setattr(cgroups, "open_pidfd", lambda identity: pidfd)
    cgroup.take_in(Identity(decoy.pid, decoy.identity.start_ticks - 1, decoy.identity.boot_id))
    assert cgroup.pids() == set()
    assert cgroups.folder_of(decoy.pid) == before


# finding


@pytest.mark.anyio
async def test_an_instances_processes_are_found_by_their_cgroup(nursery: Nursery, cgroup: Cgroup, instance: str, tmp_path: Path) -> None:
    child, _, left = await hidden(nursery, cgroup, tmp_path)
    found = {each.identity: each for each in tags.living(instance)}
    assert set(found) == {child.identity, left}
    assert {(each.name, each.run) for each in found.values()} == {("web:0", 3)}
    assert found[child.identity].is_leader
    assert not found[left].is_leader, "the oldest is the main process"
    assert cgroups.of_instance(instance) == {f"{instance}/web:0/3": cgroup}
    assert tags.living(f"{instance}-other") == []


@pytest.mark.anyio
async def test_who_says_whose_it_is_is_believed(nursery: Nursery, cgroup: Cgroup, instance: str) -> None:
    child, _ = await confined(nursery, cgroup, "sleep", "1000", environment={ENV_TAG: f"{instance}/web:0/3"})
    assert [(each.identity, each.is_leader) for each in tags.living(instance)] == [(child.identity, True)]


@pytest.mark.anyio
async def test_all_that_is_left_is_killed_and_removed(nursery: Nursery, cgroup: Cgroup, instance: str, tmp_path: Path) -> None:
    child, _, left = await hidden(nursery, cgroup, tmp_path)
    decoy = await nursery.spawn("sleep", "1000")
    _kill_all(instance)
    await child.wait()
    await gone(left)
    cgroups.remove_all(instance)
    assert cgroups.homes_of(instance) == []
    assert is_alive(decoy.identity)


def in_a_process_of_its_own(cgroup: Cgroup, script: str) -> str:
    """What ``script`` prints, in a process that has put itself into ``cgroup``."""
    head = f"import os, sys\nfrom supervisord_async.system import cgroups\nrun = cgroups.Cgroup({cgroup.path!r})\nrun.add(os.getpid())\n"
    done = subprocess.run([sys.executable, "-c", head + script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_who_is_in_a_run_of_the_instance_steps_out_of_it(cgroup: Cgroup, instance: str) -> None:
    """A daemon that somebody started in a shell of a program that an earlier one left."""
    script = f"before = cgroups.folder_of()\nhome = cgroups.make_home({instance!r})\nprint(before, home, cgroups.folder_of())"
    before, home, after = in_a_process_of_its_own(cgroup, script).split()
    assert before == cgroup.path
    assert home == os.path.dirname(cgroup.path)
    assert after == os.path.dirname(home)


def test_a_cgroup_that_we_are_in_ourselves_says_nothing_and_is_not_killed(cgroup: Cgroup, instance: str) -> None:
    script = f"""
import anyio
from supervisord_async.system import tags
from supervisord_async.system.tree import Tree
tree = Tree(None, "no/such/1", ours=False, cgroup=run)
assert os.getpid() in run.pids() and not run.confines(os.getpid())
print(cgroups.of_instance({instance!r}), tags.living({instance!r}), tree.members(), anyio.run(tree.kill))
"""
    assert in_a_process_of_its_own(cgroup, script) == "{} [] [] []"


# where it may be done


def test_systemds_machine_is_divided_only_where_it_is_delegated(cgroup: Cgroup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "folder_of", lambda pid="self": cgroup.path)
    assert cgroups.ground_of("x") == cgroup.path
    monkeypatch.setattr(cgroups, "SYSTEMD", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(UnusableError, match="has not delegated"):
        cgroups.ground_of("x")
    for name in ("trusted.delegate", "user.delegate"):
        try:
            os.setxattr(cgroup.path, name, b"1")
        except OSError:
            continue  # an older kernel, or we may not
        assert cgroups.ground_of("x") == cgroup.path
        os.removexattr(cgroup.path, name)
        with pytest.raises(UnusableError, match="has not delegated"):
            cgroups.ground_of("x")


@pytest.mark.parametrize(
    ("own", "mounts", "expected"),
    [
        ("0::/a/b\n", "31 23 0:1 / /cg rw - cgroup2 cgroup2 rw\n", "/cg/a/b"),
        ("9:name=systemd:/x\n0::/\n", "31 23 0:1 / /cg rw,nosuid shared:4 - cgroup2 none rw\n", "/cg"),
        ("0::/docker/1/a\n", "31 23 0:1 /docker/1 /cg rw - cgroup2 cgroup2 rw\n", "/cg/a"),
        ("0::/docker/12\n", "31 23 0:1 /docker/1 /cg rw - cgroup2 cgroup2 rw\n", None),
        ("0::/../x\n", "31 23 0:1 / /cg rw - cgroup2 cgroup2 rw\n", None),
        ("0::/a (deleted)\n", "31 23 0:1 / /cg rw - cgroup2 cgroup2 rw\n", None),
        ("4:memory:/x\n", "31 23 0:1 / /cg rw - cgroup cgroup rw,memory\n", None),
        ("0::/\n", "31 23 0:1 / /cg rw - cgroup cgroup rw,memory\n", None),
    ],
)
def test_our_own_cgroup_is_found_or_it_is_said_why_not(
    own: str, mounts: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"/proc/self/cgroup": own.encode(), "/proc/self/mountinfo": mounts.encode()}
    monkeypatch.setattr(cgroups.procfs, "read_file", lambda path, limit=0: files[path])
    if expected is None:
        with pytest.raises(UnusableError):
            cgroups.folder_of()
    else:
        assert cgroups.folder_of() == expected
