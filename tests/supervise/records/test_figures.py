"""The figures: whole trees, real processes, one pass for all, and only while somebody looks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from supervisord_async.supervise.records import figures as figures_module
from supervisord_async.supervise.records.figures import Sampler, trees_of
from supervisord_async.system.usage import Usage, proportional_bytes, usages
from tests.waiting import wait_until

BUSY = "while True: pass"
#: Two levels below, in a session of its own, with a descriptor and 30 MB.
FAMILY = """
import subprocess, sys
inner = "import time; block = bytearray(b'x') * 40_000_000; file = open('/dev/null'); print('ready', flush=True); time.sleep(600)"
outer = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {inner!r}]); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", outer]).wait()
"""


def named(name: str, pid: int | None) -> Any:
    return SimpleNamespace(name=name, snapshot=SimpleNamespace(pid=pid))


@pytest.fixture
def started() -> Iterator[Any]:
    children: list[subprocess.Popen[bytes]] = []

    def start(code: str) -> subprocess.Popen[bytes]:
        children.append(subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True))
        return children[-1]

    yield start
    for child in children:
        os.killpg(child.pid, 9)
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def usage(pid: int, parent: int, session: int = 1) -> Usage:
    return Usage(pid, parent, session, 1, 1, 1, 1)


def test_trees_have_descendants_and_what_kept_the_session_after_its_parent_died() -> None:
    those = [usage(1, 0), usage(10, 1, 10), usage(11, 10), usage(12, 11, 12), usage(20, 1, 20), usage(21, 1, 20), usage(30, 1)]
    everything = {one.pid: one for one in those}
    trees = trees_of({10, 20, 99}, everything)
    assert {main: sorted(u.pid for u in members) for main, members in trees.items()} == {10: [10, 11, 12], 20: [20, 21], 99: []}


def test_the_tree_of_a_main_process_named_later_has_what_the_run_began_with() -> None:
    """MAINPID names a descendant: what is above and beside it was neither shown nor counted for limits.memory."""
    everything = {one.pid: one for one in [usage(1, 0), usage(10, 1, 10), usage(11, 10, 10), usage(12, 10, 10), usage(20, 1, 20)]}
    trees = trees_of({11, 20}, everything)
    assert {main: sorted(u.pid for u in members) for main, members in trees.items()} == {11: [10, 11, 12], 20: [20]}


def test_trees_survive_a_loop_of_parents() -> None:
    everything = {u.pid: u for u in [usage(5, 6), usage(6, 5), usage(7, 6)]}
    assert trees_of({9}, everything) == {9: []}


def test_a_program_of_ours_is_among_all_usages() -> None:
    assert usages()[os.getpid()].rss_pages > 0


@pytest.mark.anyio
async def test_memory_threads_and_descriptors_are_those_of_the_whole_tree(started: Any) -> None:
    child = started(FAMILY)
    assert child.stdout.readline() == b"ready\n"
    sampler = Sampler()
    found = (await sampler.sample([named("family", child.pid), named("down", None)], detailed=True))["family"]
    assert found.processes == 3
    assert found.threads >= 3
    assert found.memory_bytes > 30_000_000
    assert found.open_files is not None
    assert found.open_files >= 3 * 3
    assert found.written_bytes is not None
    assert "down" not in sampler.last


#: A master of 60 MB, and as many workers as a preforking server has, which share them.
PREFORKED = """
import os, time
block = bytearray(b'x') * 60_000_000
for _ in range(8):
    if os.fork() == 0:
        time.sleep(600)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.anyio
async def test_what_workers_share_counts_once(started: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    child = started(PREFORKED)
    assert child.stdout.readline() == b"ready\n"
    looks: list[int] = []
    monkeypatch.setattr(figures_module, "proportional_bytes", lambda pid: looks.append(pid) or proportional_bytes(pid))
    monkeypatch.setattr(figures_module, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(figures_module, "SHARING_SECONDS", 600.0)
    sampler, web = Sampler(), named("web", child.pid)
    for _ in range(3):
        found = (await sampler.sample([web]))["web"]
        assert found.processes == 9
        assert 60_000_000 < found.memory_bytes < 120_000_000
    assert len(looks) == 9, "its pages are looked at once, not by everybody who looks"
    held = await sampler.held_bytes(web)
    assert held is not None and 60_000_000 < held < 120_000_000
    assert len(looks) == 18
    monkeypatch.setattr(figures_module, "proportional_bytes", lambda pid: None)  # somebody else's
    alone = (await Sampler().sample([web]))["web"]
    assert alone.memory_bytes > 9 * 60_000_000
    assert await sampler.held_bytes(named("down", None)) is None


def test_what_has_no_pages_to_look_at_has_no_part() -> None:
    assert proportional_bytes(2**22) is None
    assert proportional_bytes(os.getpid()) or pytest.skip("no smaps_rollup here")


@pytest.mark.anyio
async def test_cpu_is_counted_between_two_looks(started: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures_module, "FRESH_SECONDS", 0.05)
    sampler, busy, idle = Sampler(), started(BUSY), started("import time; print(flush=True); time.sleep(600)")
    idle.stdout.readline()
    both = [named("busy", busy.pid), named("idle", idle.pid)]
    await sampler.sample(both)

    async def busy_is_seen() -> bool:
        await anyio.sleep(0.2)
        found = await sampler.sample(both)
        return found["busy"].cpu_percent > 10.0 and found["idle"].cpu_percent < 10.0

    await wait_until(busy_is_seen)


@pytest.mark.anyio
async def test_what_rests_now_uses_no_cpu_now_whatever_it_used_before(started: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures_module, "FRESH_SECONDS", 0.05)
    busy_at_first = "import time\nwhile time.process_time() < 1: pass\nprint(flush=True)\ntime.sleep(600)"
    sampler, child = Sampler(), started(busy_at_first)
    await anyio.to_thread.run_sync(child.stdout.readline)
    await sampler.sample([named("web", child.pid)])

    async def rests() -> bool:
        await anyio.sleep(0.2)
        return (await sampler.sample([named("web", child.pid)]))["web"].cpu_percent == 0.0

    await wait_until(rests)


@pytest.mark.anyio
async def test_those_who_look_together_share_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []

    def counted() -> dict[int, Usage]:
        passes.append(1)
        return usages()

    monkeypatch.setattr(figures_module, "usages", counted)
    monkeypatch.setattr(figures_module, "FRESH_SECONDS", 60.0)
    sampler = Sampler()
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(sampler.sample, [named("me", os.getpid())])
    assert len(passes) == 1
    detailed = await sampler.sample([named("me", os.getpid())], detailed=True)
    assert len(passes) == 2
    assert detailed["me"].open_files


@pytest.mark.anyio
async def test_a_newcomer_is_looked_at_without_the_others_and_one_that_ended_is_forgotten(
    started: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures_module, "FRESH_SECONDS", 60.0)
    monkeypatch.setattr(figures_module, "NEWCOMERS_PART", 0)
    sampler, other = Sampler(), started("import time; print(flush=True); time.sleep(600)")
    other.stdout.readline()
    first = await sampler.sample([named("me", os.getpid()), named("gone", os.getppid())])
    both = [named("me", os.getpid()), named("new", other.pid), named("gone", None)]
    assert sampler.known(both) is None
    second = await sampler.sample(both)
    assert set(second) == {"me", "new"}
    assert second["me"] is first["me"]
    assert second["new"].memory_bytes > 0
    assert sampler.known(both) is second
    again = await sampler.sample([named("me", os.getpid()), named("new", os.getpid())])  # a newer run under the same name
    assert again["new"].memory_bytes == pytest.approx(again["me"].memory_bytes, rel=0.5)


@pytest.mark.anyio
async def test_newcomers_take_a_part_of_the_time_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures_module, "FRESH_SECONDS", 60.0)
    monkeypatch.setattr(figures_module, "NEWCOMERS_PART", 1_000_000)
    sampler = Sampler()
    found = await sampler.sample([named("me", os.getpid())])
    assert await sampler.sample([named("me", os.getpid()), named("new", os.getppid())]) is found
