"""What the machine is asked and may never answer is given up in time, and is not asked in vain."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import anyio
import pytest

from supervisord_async.config.model import Probe
from supervisord_async.errors import ProbeNotRunError, SpawnError
from supervisord_async.supervise import machine_host
from supervisord_async.supervise.machine_host import MachineHost
from supervisord_async.supervise.run_cgroups import RunCgroups
from supervisord_async.system import cgroups, credentials
from supervisord_async.system.disks import Executable
from supervisord_async.system.identity import Identity
from supervisord_async.system.loop import run
from supervisord_async.system.spawn import SpawnSpec
from supervisord_async.system.tree import Tree
from supervisord_async.wire import ENV_TAG
from tests.confinement import HIDE, need_cgroups
from tests.daemons import alive
from tests.hanging_disk import HangingDisk, can_hang
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture
def directory_service(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """It hangs until it is set."""
    answers, lookup = threading.Event(), credentials.lookup

    def ask(user: str | None, group: str | None) -> credentials.Credentials | None:
        answers.wait(30)
        return lookup(user, group)

    monkeypatch.setattr(credentials, "lookup", ask)
    yield answers
    answers.set()


async def test_a_directory_service_that_hangs_fails_the_start(directory_service: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_host, "USER_SECONDS", 0.05)
    host = MachineHost()
    assert await host.credentials(None, None) is None
    with pytest.raises(SpawnError, match=r"user: looking up nobody has taken 0\.05 s"):
        await host.credentials("nobody", None)
    directory_service.set()
    monkeypatch.setattr(machine_host, "USER_SECONDS", 30.0)
    found = await host.credentials("nobody", None)
    assert found is not None and found.name == "nobody"


async def test_a_probe_whose_code_was_moved_away_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As during the exchange of the environment that the daemon was started from: nothing is known of the program."""
    monkeypatch.setitem(sys.modules, "supervisord_async.supervise.sources.probing", None)
    with pytest.raises(ProbeNotRunError, match=r"probing.* \(install it again, then `asupctl reexec`\)"):
        await MachineHost().ask(Probe(kind="tcp", tcp=("127.0.0.1", 1)))


@pytest.mark.skipif(not can_hang(), reason="only root can mount a FUSE")
async def test_a_command_whose_disk_hangs_has_no_more_time_than_any(tmp_path: Path) -> None:
    with HangingDisk(tmp_path / "away", "app", b"#!/bin/sh\n") as disk:
        spec = SpawnSpec((str(disk.path),), "/", {}, 1, 2)
        with anyio.fail_after(30):
            with pytest.raises(SpawnError, match=r"has not answered for 0\.1 s"):
                await MachineHost().run_command(spec, 0.1)


def test_a_command_is_over_although_there_was_no_descriptor_to_look_for_what_it_left(monkeypatch: pytest.MonkeyPatch) -> None:
    kill, refusals = Tree.kill, [OSError(errno.EMFILE, "none")]

    async def refused_once(tree: Tree) -> list[Identity]:
        if refusals:
            raise refusals.pop()
        return await kill(tree)

    monkeypatch.setattr(Tree, "kill", refused_once)

    async def main() -> None:
        assert await MachineHost().run_command(SpawnSpec(("/bin/sh", "-c", "exit 3"), "/", {}, 1, 2), 30.0) == 3
        assert not refusals

    run(main)


async def test_a_daemon_asks_the_disks_of_what_it_will_start_before_it_does(tmp_path: Path) -> None:
    host = MachineHost()
    programs = [Executable("sh", str(tmp_path), None), Executable("/bin/true", str(tmp_path), None)]
    others = [Executable("sh", f"/{number}", None) for number in range(machine_host.LOOKED_AHEAD)]
    host.look_ahead([*programs * 2, *others])
    await wait_until(lambda: all(map(host.has_answered, [*programs, *others[:-2]])))
    assert not any(map(host.has_answered, others[-2:]))  # so many, and no more: each may take a thread


async def test_a_start_for_which_there_is_no_thread_has_failed_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(machine_host, "THREAD_SECONDS", 0.2)
    host, true = MachineHost(), Executable("/bin/true", "/", None)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(SpawnError, match=r"fork: /bin/true: no thread .* for 0\.2 s: Resource temporarily unavailable") as caught:
            await host.wait_executable(true)
        assert (caught.value.stage, caught.value.errno) == ("fork", errno.EAGAIN)
    await host.wait_executable(true)


def test_what_was_born_in_a_cgroup_ends_with_the_start_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have left the group and session of its parent by the time at which there is no descriptor to watch that with."""
    need_cgroups()
    instance, hidden = f"unwatched-{os.getpid()}", tmp_path / "hidden"
    environment = {ENV_TAG: f"{instance}/web/1", "PATH": os.defpath}
    spec = SpawnSpec(("sh", "-c", f"{HIDE} & wait; sleep 1000"), str(tmp_path), environment, 1, 2, confined=True)

    def none_left(_pid: int) -> int:
        while not hidden.exists():
            time.sleep(0.001)
        raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))

    async def main() -> None:
        run_cgroups = RunCgroups(instance)
        await run_cgroups.open()
        try:
            with monkeypatch.context() as patch, pytest.raises(SpawnError, match="fork: sh: Too many open files in system"):
                patch.setattr(os, "pidfd_open", none_left)
                await MachineHost(run_cgroups).spawn(spec)
            await wait_until(lambda: not alive(int(hidden.read_text())), 10, what="the end of what hid")
        finally:
            for cgroup in cgroups.of_instance(instance).values():
                cgroup.kill()
            await run_cgroups.close()

    run(main)


def test_telling_waits_while_a_child_may_be_executing_its_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_host, "BEGIN_SECONDS", 3600.0)

    async def main() -> None:
        host = MachineHost()
        assert not host.starting()
        child = await host.spawn(SpawnSpec(("true",), "/", {"PATH": os.defpath}, 1, 2))
        assert host.starting()
        monkeypatch.setattr(machine_host, "BEGIN_SECONDS", 0.0)
        assert not host.starting()
        await child.wait()

    run(main)


class Stranding:
    """RunCgroups whose only cgroup we are in, since we could not step back out of it."""

    def __init__(self) -> None:
        self.killed = False
        self.left: list[str] = []

    async def make(self, _tag: str) -> Stranding:
        return self

    def forking_into(self, _cgroup: object) -> AbstractContextManager[None]:
        return nullcontext()

    def pids(self) -> set[int]:
        return {os.getpid()}

    def kill(self) -> None:
        self.killed = True

    def leave(self, tag: str) -> None:
        self.left.append(tag)


def test_a_start_that_fails_does_not_kill_us_where_we_are_stranded_in_its_cgroup() -> None:
    stranding: Any = Stranding()

    async def main() -> None:
        spec = SpawnSpec(("no-such-program",), "/", {ENV_TAG: "i/web/1"}, 1, 2, confined=True)
        with pytest.raises(SpawnError, match="exec: no-such-program"):
            await MachineHost(stranding).spawn(spec)

    run(main)
    assert (stranding.killed, stranding.left) == (False, ["i/web/1"])
