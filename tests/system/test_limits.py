"""Limits on the executed program itself, by what /proc says of it."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisord_async.errors import SpawnError
from supervisord_async.system import oom
from supervisord_async.system.credentials import Credentials
from supervisord_async.system.loop import run
from supervisord_async.system.spawn import SpawnSpec, spawn

pytestmark = pytest.mark.real

LOOK = """
import ctypes, json, os, resource, signal
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
json.dump({
    "files": resource.getrlimit(resource.RLIMIT_NOFILE), "processes": resource.getrlimit(resource.RLIMIT_NPROC),
    "core": resource.getrlimit(resource.RLIMIT_CORE), "nice": os.getpriority(os.PRIO_PROCESS, 0),
    "oom": int(open("/proc/self/oom_score_adj").read()), "cpus": sorted(os.sched_getaffinity(0)),
    "nnp": status["NoNewPrivs"], "uid": os.getresuid(), "gid": os.getresgid(), "groups": sorted(os.getgroups()),
    "ioprio": ctypes.CDLL(None).syscall({"x86_64": 252}.get(os.uname().machine, 31), 1, 0), "pid": os.getpid(),
    "ignored": int(status["SigIgn"], 16), "environment": dict(os.environ), "fds": sorted(map(int, os.listdir("/proc/self/fd"))),
}, open("out.json", "w"))
"""


def looked(
    tmp_path: Path,
    *,
    python: str = sys.executable,
    environment: dict[str, str] | None = None,
    credentials: Credentials | None = None,
    **limits: Any,
) -> dict[str, Any]:
    """What a program with these limits found, and that it was the very process that was spawned."""

    async def main() -> int:
        spec = SpawnSpec(
            argv=(python, "-S", "-c", LOOK),
            directory=str(tmp_path),
            environment=environment or {"PATH": "/usr/bin:/bin"},
            stdout=1,
            stderr=2,
            credentials=credentials,
            limits={key: str(value) for key, value in limits.items()},
        )
        child = await spawn(spec)
        ended = await child.wait()
        assert ended.status.code == 0
        return child.pid

    pid = run(main)
    found: dict[str, Any] = json.loads((tmp_path / "out.json").read_text())
    assert found["pid"] == pid
    return found


def refused(argv: tuple[str, ...] = ("true",), **limits: Any) -> SpawnError:
    async def main() -> None:
        given = {key: str(value) for key, value in limits.items()}
        await spawn(SpawnSpec(argv=argv, directory="/", environment={"PATH": "/usr/bin:/bin"}, stdout=1, stderr=2, limits=given))

    with pytest.raises(SpawnError) as caught:
        run(main)
    return caught.value


def test_every_limit_is_there_when_the_program_begins(tmp_path: Path) -> None:
    found = looked(
        tmp_path,
        open_files=123,
        processes=4567,
        core_size=0,
        nice=7,
        ionice="best-effort:6",
        oom_score_adj=321,
        cpu_affinity=0,
        no_new_privileges=1,
    )
    assert (found["files"], found["processes"], found["core"]) == ([123, 123], [4567, 4567], [0, 0])
    assert (found["nice"], found["oom"], found["cpus"], found["nnp"]) == (7, 321, [0], "1")
    assert found["ioprio"] == 2 << 13 | 6


def test_the_launcher_leaves_no_trace_in_the_program(tmp_path: Path) -> None:
    given = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "PYTHONHOME_NOT": "x=y", "EMPTY": ""}
    found = looked(tmp_path, environment=given, nice=3)
    assert {key: value for key, value in found["environment"].items() if key != "LC_CTYPE"} == given  # LC_CTYPE: by the program itself
    assert found["fds"][:3] == [0, 1, 2] and len(found["fds"]) <= 4
    limitless = looked(tmp_path, environment=given, nice=os.getpriority(os.PRIO_PROCESS, 0))
    assert found["ignored"] == limitless["ignored"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_limits_that_only_root_may_set_are_set_before_the_user_is_taken_on(open_path: Path) -> None:
    nobody = Credentials(65534, 65534, (65534, 12), "nobody", "/")
    python = "/usr/bin/python3"  # one that everybody may execute
    if not os.path.exists(python):
        pytest.skip(f"no {python} here")
    found = looked(open_path, python=python, credentials=nobody, nice=-5, oom_score_adj=100, open_files=200, no_new_privileges=1)
    assert (found["nice"], found["oom"], found["files"], found["nnp"]) == (-5, 100, [200, 200], "1")
    assert (found["uid"], found["gid"], found["groups"]) == ([65534] * 3, [65534] * 3, [12, 65534])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_a_user_who_may_not_read_our_python_runs_programs_of_their_path(tmp_path: Path) -> None:
    async def main() -> int | None:
        nobody = Credentials(65534, 65534, (65534,), "nobody", "/")
        environment = {"PATH": f"/no/such/folder:{tmp_path}:/usr/bin:/bin"}
        spec = SpawnSpec(("true",), "/", environment, 1, 2, credentials=nobody, limits={"nice": "3"})
        return (await (await spawn(spec)).wait()).status.code

    tmp_path.chmod(0o700)  # what nobody may not look into is passed over
    assert run(main) == 0


def test_what_the_kernel_refuses_stops_the_spawn_and_is_named() -> None:
    error = refused(cpu_affinity="0,4000")
    assert error.stage == "limits" and "cpu_affinity" in str(error)
    error = refused(open_files=2**31 - 1)
    assert (error.stage, error.errno) == ("limits", errno.EPERM) and "open_files" in str(error)
    assert f"asupd's own hard limit is {resource.getrlimit(resource.RLIMIT_NOFILE)[1]}" in str(error)


def test_behind_limits_a_missing_program_is_still_a_missing_program() -> None:
    error = refused(("no-such-program-anywhere",), nice=1)
    assert (error.stage, error.errno) == ("exec", errno.ENOENT) and "not in its PATH" in str(error)
    assert refused(("/etc/passwd",), nice=1).errno == errno.EACCES


def test_the_kernels_log_names_whom_it_killed(tmp_path: Path) -> None:
    log, counts = tmp_path / "kmsg", tmp_path / "vmstat"
    log.write_text("3,1,1,-;Out of memory: Killed process 4711 (java) total-vm:1kB\n")
    counts.write_text("nr_free_pages 1\noom_kill 1\n")
    assert oom.was_oom_killed(4711, kmsg=str(log), vmstat=str(counts)) is True
    assert oom.was_oom_killed(471, kmsg=str(log), vmstat=str(counts)) is False
    assert oom.was_oom_killed(4711, kmsg=str(tmp_path / "none"), vmstat=str(counts)) is None
    counts.write_text("nr_free_pages 1\noom_kill 0\n")
    assert oom.was_oom_killed(4711, kmsg=str(log), vmstat=str(counts)) is False


def test_only_who_dies_soon_after_a_kill_of_the_kernels_is_suspected(tmp_path: Path) -> None:
    counts, now = tmp_path / "vmstat", [1000.0]

    def suspected(count: str) -> bool:
        counts.write_text(f"nr_free_pages 1\n{count}\n")
        return toll.may_include_one(oom.kills(vmstat=str(counts)))

    toll = oom.Toll(3, clock=lambda: now[0])
    assert not suspected("oom_kill 3"), "of those before it nobody asks"
    assert suspected("oom_kill 4")
    now[0] += oom.SUSPICION_SECONDS / 2
    assert suspected("oom_kill 4")
    now[0] += oom.SUSPICION_SECONDS
    assert not suspected("oom_kill 4")
    assert suspected("no such count"), "a kernel that does not tell"
    assert not oom.Toll(0, clock=lambda: now[0]).may_include_one(0)


@pytest.fixture
def scored() -> Iterator[Path]:
    """Our own score while it is 300: children inherit it, and who may not lower it further may set it back."""
    file = Path("/proc/self/oom_score_adj")
    before = file.read_text()
    file.write_text("300")
    try:
        yield file
    finally:
        file.write_text(before)


def test_protection_that_the_daemon_keeps_is_not_its_childrens(scored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only who has CAP_SYS_RESOURCE gets a score below 0: here a higher one stands for what is inherited."""

    async def score_of_child(limits: dict[str, str]) -> int:
        child = await spawn(SpawnSpec(("sleep", "1000"), "/", {"PATH": os.defpath}, 1, 2, limits=limits))
        try:
            return int(Path(f"/proc/{child.pid}/oom_score_adj").read_text())
        finally:
            child.send_signal(signal.SIGKILL)
            await child.wait()

    assert run(score_of_child, {}) == 300
    monkeypatch.setattr(oom, "_kept", [-500])
    assert run(score_of_child, {}) == 0
    assert run(score_of_child, {"oom_score_adj": "321"}) == 321


def test_a_daemon_that_has_no_protection_keeps_none(scored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oom, "_kept", kept := [])
    oom.keep_protection()
    assert kept == []
