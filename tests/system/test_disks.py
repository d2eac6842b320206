"""Disks are asked before a program is executed from them: once for all who wait, off the loop, and not for ever."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisord_async.errors import SpawnError
from supervisord_async.system import disks
from supervisord_async.system.disks import Disks, Executable
from supervisord_async.system.mounts import Mount, MountTable, mounts
from tests.hanging_disk import HangingDisk, can_hang
from tests.waiting import wait_until


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Executable]:
    """What was read so far."""
    seen: list[Executable] = []
    read = disks._read

    def counted(executable: Executable) -> set[int]:
        assert threading.current_thread() is not threading.main_thread()
        seen.append(executable)
        return read(executable)

    monkeypatch.setattr(disks, "_read", counted)
    return seen


def script(folder: Path, first_line: str = "#!/bin/sh") -> Path:
    path = folder / "app"
    path.write_text(f"{first_line}\n")
    path.chmod(0o755)
    return path


def test_many_programs_of_one_local_file_ask_once(tmp_path: Path, reads: list[Executable], monkeypatch: pytest.MonkeyPatch) -> None:
    executable = Executable(str(script(tmp_path)), str(tmp_path), None)
    kind = next(mount.kind for mount in mounts() if mount.device == tmp_path.stat().st_dev)
    monkeypatch.setattr(disks, "LOCAL_KINDS", disks.LOCAL_KINDS | {kind, *(each.kind for each in mounts() if each.point == "/")})

    async def main() -> None:
        asking = Disks()
        await asyncio.gather(*(asking.wait_answered(executable) for _ in range(100)))
        await asking.wait_answered(executable)
        await asking.wait_answered(executable._replace(directory="/"))

    asyncio.run(main())
    assert reads == [executable, executable._replace(directory="/")]


def test_what_is_not_of_this_machine_is_asked_each_time(tmp_path: Path, reads: list[Executable], monkeypatch: pytest.MonkeyPatch) -> None:
    executable = Executable(str(script(tmp_path)), str(tmp_path), None)
    monkeypatch.setattr(disks, "LOCAL_KINDS", frozenset({"none of these"}))

    async def main() -> None:
        asking = Disks()
        await asking.wait_answered(executable)
        await asking.wait_answered(executable)

    asyncio.run(main())
    assert reads == [executable] * 2


def test_a_thousand_programs_do_not_look_through_all_open_files_a_thousand_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[list[str]] = []
    monkeypatch.setattr(disks, "MOUNTS_SECONDS", 60.0)
    monkeypatch.setattr(disks, "_with_open_files", lambda points: looked.append(points) or [])

    async def main() -> None:
        asking = Disks()
        await asyncio.gather(*(asking.wait_answered(Executable("/bin/true", f"/{number}", None)) for number in range(100)))

    asyncio.run(main())
    assert len(looked) == 1


@pytest.mark.parametrize("program", ["nosuch", "./nosuch", "/nosuch/app", "/", "/dev/null"])
def test_what_cannot_be_executed_is_for_the_spawn_to_explain(tmp_path: Path, program: str) -> None:
    asyncio.run(Disks().wait_answered(Executable(program, str(tmp_path), "/nosuch:relative")))


def test_a_program_is_looked_for_as_a_spawn_does(tmp_path: Path) -> None:
    assert list(Executable("app", "/dir", "/bin:sub").files()) == ["/bin/app", "/dir/sub/app"]
    assert list(Executable("sub/app", "/dir", "/bin").files()) == ["/dir/sub/app"]
    assert list(Executable("/app", "/dir", None).files()) == ["/app"]
    devices: set[int] = set()
    assert disks._header(str(script(tmp_path)), devices) == b"#!/bin/sh\n"
    assert devices == {tmp_path.stat().st_dev}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[HangingDisk]:
    with HangingDisk(tmp_path / "away", "app", b"#!/bin/sh\n") as disk:
        yield disk


@pytest.mark.skipif(not can_hang(), reason="only root can mount a FUSE")
@pytest.mark.parametrize("where", ["program", "interpreter", "directory", "folder of PATH"])
def test_no_answer_is_an_error_and_the_next_one_waits_for_the_same(
    tmp_path: Path, disk: HangingDisk, reads: list[Executable], where: str
) -> None:
    if where not in ("program", "interpreter"):
        disk.hang()
    executable = {
        "program": Executable(str(disk.path), "/", None),
        "interpreter": Executable(str(script(tmp_path, f"#!{disk.path} -x")), "/", None),
        "directory": Executable(sys.executable, str(disk.folder), None),
        "folder of PATH": Executable("sh", "/", f"{disk.folder}:/bin"),
    }[where]

    async def main() -> None:
        asking = Disks(answer_seconds=0.05)
        for _ in range(3):
            words = r"exec: .*: its disk, that of /.*, or one of a log or the run_dir, has not answered for 0.05 s"
            with pytest.raises(SpawnError, match=words):
                await asking.wait_answered(executable)
        assert reads == [executable]
        disk.answer()
        await wait_until(lambda: not asking._asked)
        patient = Disks()
        await patient.wait_answered(executable)

    asyncio.run(main())


@pytest.mark.skipif(not can_hang(), reason="only root can mount a FUSE")
def test_the_disks_of_open_files_are_asked_for_a_child_closes_what_it_inherits(disk: HangingDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "MOUNTS_SECONDS", 0.0)
    executable = Executable("/bin/true", "/", None)

    async def main() -> None:
        with disk.path.open("rb"):
            disk.hang()
            with pytest.raises(SpawnError, match="or one of a log or the run_dir, has not answered"):
                await Disks(answer_seconds=0.05).wait_answered(executable)
            disk.answer()
            patient = Disks()
            await patient.wait_answered(executable)
            assert not patient.have_answered(executable), "it is asked each time"
        await patient.wait_answered(executable)
        assert patient.have_answered(executable)

    asyncio.run(main())


def test_places_with_blanks_are_known_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    line = rb"36 35 98:0 /mnt1\134x /mnt\0402 rw,noatime master:1 - nfs4 /dev/root rw,errors=continue"
    monkeypatch.setattr("supervisord_async.system.procfs.read_file", lambda *_: line + b"\n")
    assert list(mounts()) == [("/mnt 2", "/mnt1\\x", "nfs4", os.makedev(98, 0))]


def test_a_path_needs_the_disks_on_its_way_there_and_below(monkeypatch: pytest.MonkeyPatch) -> None:
    points = {"/": 1, "/net": 2, "/net/home/x y": 3, "/network": 4, "/late": 5}
    monkeypatch.setattr("supervisord_async.system.mounts.mounts", lambda: [Mount(point, "/", "nfs4", n) for point, n in points.items()])
    table = MountTable()
    needed = {"/": {1, 2, 3, 4, 5}, "/net": {1, 2, 3}, "/net/home/x y/app": {1, 2, 3}, "/net/homes": {1, 2}, "/network/": {1, 4}, "/a": {1}}
    assert {path: table.devices_at(path) for path in needed} == needed
    monkeypatch.setattr("supervisord_async.system.mounts.mounts", list)
    assert table.devices_at("/late/it") == {1, 5}, "read again"
    monkeypatch.setattr("supervisord_async.system.mounts.FRESH_SECONDS", 0.0)
    assert table.devices_at("/late/it") == set()


def test_the_mounts_of_this_machine_are_told() -> None:
    found = {mount.point: mount for mount in mounts()}
    assert found["/"].root.startswith("/")
    assert found["/proc"].kind == "proc"
    assert found["/proc"].device == os.stat("/proc").st_dev
    assert stat.S_ISDIR(os.stat(found["/proc"].point).st_mode)
