from __future__ import annotations

import errno
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import anyio.to_thread
import pytest

from supervisord_async.core.state import ExitStatus
from supervisord_async.errors import SpawnError
from supervisord_async.system import descriptors
from supervisord_async.system import spawn as spawning
from tests.daemons import alive
from tests.system.processes import Nursery, credentials_of, status_field
from tests.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.real]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")


async def refused(nursery: Nursery, *argv: str, **more: object) -> SpawnError:
    with pytest.raises(SpawnError) as caught:
        await nursery.spawn(*argv, **more)
    return caught.value


async def test_missing_program_fails_at_exec_and_names_path(nursery: Nursery) -> None:
    error = await refused(nursery, "no-such-program")
    assert (error.stage, error.errno) == ("exec", errno.ENOENT)
    assert "no-such-program (not in its PATH)" in str(error)


async def test_a_whole_command_as_one_word_is_told_from_a_missing_program(nursery: Nursery) -> None:
    error = await refused(nursery, "sleep 5")
    assert str(error).startswith("exec: sleep 5 (a single word with spaces in it: is the whole command in quotes?)")


async def test_program_that_is_not_executable_fails_at_exec(nursery: Nursery, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("#!/bin/sh\n")
    error = await refused(nursery, "./plain", directory=str(tmp_path))
    assert (error.stage, error.errno) == ("exec", errno.EACCES)


async def test_program_that_is_not_executable_says_what_to_do(nursery: Nursery, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("#!/bin/sh\n")
    for error in (
        await refused(nursery, "./plain", directory=str(tmp_path)),
        await refused(nursery, "plain", directory=str(tmp_path), environment={"PATH": "/bin:."}),
    ):
        assert "plain (not executable: chmod +x, or name its interpreter): Permission denied" in str(error)


@needs_root
async def test_who_may_not_get_to_the_program_is_told_with_the_place(nursery: Nursery, tmp_path: Path) -> None:
    """The user of a program is often another one than whoever installed it, such as root below its home."""
    with TemporaryDirectory(prefix="asup-test-") as top:  # whose parents everybody may enter
        os.chmod(top, 0o755)
        private = Path(top, "private")
        private.mkdir(mode=0o700)
        program = private / "program"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        nobody = credentials_of(65534, 65534)
        error = await refused(nursery, str(program), credentials=nobody)
        assert f"{program} ({nobody.name} may not enter {private}): Permission denied" in str(error)
        error = await refused(nursery, "program", credentials=nobody, environment={"PATH": f"/bin:{private}"})
        assert f"program ({nobody.name} may not enter {private}): Permission denied" in str(error)
        private.chmod(0o755)
        program.chmod(0o700)
        error = await refused(nursery, str(program), credentials=nobody)
        assert f"{program} ({nobody.name} may not execute {program}): Permission denied" in str(error)
        private.chmod(0o700)
        script = Path(top, "script")  # as pip writes them into an environment whose Python is below root's home
        script.write_text(f"#!{private}/python\n")
        script.chmod(0o755)
        error = await refused(nursery, str(script), credentials=nobody)
        assert f"{script} (its interpreter {private}/python: {nobody.name} may not enter {private}): Permission denied" in str(error)


async def test_directory_as_program_is_named_as_one(nursery: Nursery, tmp_path: Path) -> None:
    error = await refused(nursery, str(tmp_path))
    assert (error.stage, error.errno) == ("exec", errno.EACCES)
    assert "a directory" in str(error)


async def test_missing_interpreter_is_told_from_missing_program(nursery: Nursery, tmp_path: Path) -> None:
    (tmp_path / "script").write_text("#!/no/such/interpreter\n")
    (tmp_path / "script").chmod(0o755)
    error = await refused(nursery, "./script", directory=str(tmp_path))
    assert (error.stage, error.errno) == ("exec", errno.ENOENT)
    assert "interpreter" in str(error)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("#!/no/such/interpreter -x\n", "it is there: /no/such/interpreter is not, which its first line names"),
        (
            "#!/bin/sh\r\necho hi\r\n",
            "its first line ends with a carriage return, as in text files of Windows: sed -i 's/\\r$//' removes them",
        ),
    ],
)
async def test_script_whose_interpreter_is_not_there_says_what_its_first_line_has(
    nursery: Nursery, tmp_path: Path, text: str, said: str
) -> None:
    script = tmp_path / "script"
    script.write_text(text, newline="")
    script.chmod(0o755)
    error = await refused(nursery, str(script))
    assert (error.stage, error.errno) == ("exec", errno.ENOENT)
    assert f"{script} ({said})" in str(error)


async def test_a_fifo_in_the_place_of_what_could_not_be_executed_holds_nobody_up(
    nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program's user may put it there at any moment, and would have stopped the daemon for good."""
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    hint = spawning._hint

    def swapped(*arguments: Any) -> str:
        script.unlink()
        os.mkfifo(script)
        return hint(*arguments)

    monkeypatch.setattr(spawning, "_hint", swapped)
    error = await refused(nursery, str(script))
    assert (error.stage, error.errno) == ("exec", errno.ENOENT)
    assert "the interpreter that its ELF header names is not" in str(error)


async def test_file_that_is_no_program_fails_at_exec(nursery: Nursery, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"\0\0\0\0")
    (tmp_path / "data").chmod(0o755)
    error = await refused(nursery, "./data", directory=str(tmp_path))
    assert (error.stage, error.errno) == ("exec", errno.ENOEXEC)


async def test_missing_directory_fails_at_directory(nursery: Nursery, tmp_path: Path) -> None:
    error = await refused(nursery, "true", directory=str(tmp_path / "gone"))
    assert (error.stage, error.errno) == ("directory", errno.ENOENT)


async def test_file_as_directory_fails_at_directory(nursery: Nursery, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = await refused(nursery, "true", directory=str(tmp_path / "file"))
    assert (error.stage, error.errno) == ("directory", errno.ENOTDIR)


async def test_zero_byte_in_argument_fails_at_exec(nursery: Nursery) -> None:
    assert (await refused(nursery, "true", "a\0b")).stage == "exec"


async def test_empty_command_fails_at_exec(nursery: Nursery) -> None:
    assert (await refused(nursery)).stage == "exec"


@pytest.mark.parametrize(
    ("argument", "environment", "what"),
    [
        ("x" * (1 << 20), {}, "word 2 of the command has 1048576 bytes"),
        ("x", {"SMALL": "x", "LARGE": "x" * (1 << 20)}, "the variable LARGE has 1048582 bytes"),
        ("x", {f"V{number}": "x" * 100_000 for number in range(100)}, "command and environment have 1000"),
    ],
)
async def test_what_is_too_long_fails_at_exec_and_is_named(nursery: Nursery, argument: str, environment: dict[str, str], what: str) -> None:
    error = await refused(nursery, "true", argument, environment=environment | {"PATH": os.environ["PATH"]})
    assert (error.stage, error.errno) == ("exec", errno.E2BIG)
    assert what in str(error)


async def test_exhausted_descriptors_fail_at_fork_and_leave_nothing(nursery: Nursery) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 17, limits[1]))  # 16 to give back one by one, however densely others stand
    taken = []
    try:
        while True:
            try:
                taken.append(os.dup(0))
            except OSError:
                break
        for _ in range(16):  # with each further descriptor it fails at a later step
            error = await refused_or_none(nursery)
            if error is None:
                break
            assert (error.stage, error.errno) == ("fork", errno.EMFILE)
            os.close(taken.pop())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in taken:
            os.close(fd)


async def test_what_a_child_that_cannot_be_watched_has_forked_ends_with_it(nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may have a process to give and no descriptor: each attempt would leave a few more processes that nobody knows."""
    forked: list[int] = []

    def none_left(pid: int) -> int:
        while not (children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            time.sleep(0.001)
        forked.extend(map(int, children))
        raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))

    monkeypatch.setattr(os, "pidfd_open", none_left)
    error = await refused(nursery, "sh", "-c", "sleep 1000 & wait")
    assert (error.stage, error.errno) == ("fork", errno.ENFILE)
    monkeypatch.undo()
    await wait_until(lambda: not any(map(alive, forked)), 10, what="the end of what it has forked")
    assert len(forked) == 1


async def refused_or_none(nursery: Nursery) -> SpawnError | None:
    try:
        child = await nursery.spawn("true")
    except SpawnError as error:
        return error
    await child.wait()
    return None


HELPER = """
import os, resource, sys
sys.path.insert(0, sys.argv[1])
from supervisord_async.errors import SpawnError
from supervisord_async.system import credentials, loop, spawn
async def attempt(argv, who=None):
    try:
        await spawn.spawn(spawn.SpawnSpec(argv, "/", {"PATH": "/bin:/usr/bin"}, 1, 2, credentials=who))
    except SpawnError as error:
        print(error.stage, error.errno)
"""


async def helper(nursery: Nursery, script: str, *before: str) -> str:
    """What a process of its own prints that runs ``script`` with the package at hand."""
    root = str(Path(__file__).resolve().parents[2])
    return await nursery.output_of(await nursery.spawn(*before, sys.executable, "-c", HELPER + script, root))


@needs_root
async def test_refused_fork_fails_at_fork(nursery: Nursery) -> None:
    # A limit of processes binds no root, so the one who forks must be somebody else.
    script = """
os.setresuid(65534, 65534, 65534)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
loop.run(attempt, ("true",), kind="asyncio")
"""
    assert (await helper(nursery, script)).split() == ["fork", str(errno.EAGAIN)]


async def test_program_is_found_in_its_own_path_from_its_own_directory(nursery: Nursery, tmp_path: Path) -> None:
    for name in ("bin", "work"):
        (tmp_path / name).mkdir()
    for place in ("bin/tool", "work/tool"):
        (tmp_path / place).write_text(f"#!/bin/sh\necho {place}; pwd\n")
        (tmp_path / place).chmod(0o755)
    environment = {"PATH": str(tmp_path / "bin")}
    await (await nursery.spawn("tool", directory=str(tmp_path / "work"), environment=environment)).wait()
    await (await nursery.spawn("./tool", directory=str(tmp_path / "work"), environment=environment)).wait()
    assert nursery.heard().splitlines() == ["bin/tool", str(tmp_path / "work"), "work/tool", str(tmp_path / "work")]


async def test_child_has_exactly_the_given_environment(nursery: Nursery) -> None:
    child = await nursery.spawn("/usr/bin/env", environment={"GREETING": "hello\nworld", "ASUP_TAG": "t"})
    assert set((await nursery.output_of(child)).split("\n")) == {
        "PATH=/usr/local/bin:/usr/bin:/bin",
        "GREETING=hello",
        "world",
        "ASUP_TAG=t",
        "",
    }


async def test_child_inherits_no_descriptor_but_stdio(nursery: Nursery, tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as extra:
        os.set_inheritable(extra.fileno(), True)
        child = await nursery.python("import os; print(sorted(os.listdir('/proc/self/fd')), os.readlink('/proc/self/fd/0'))")
        said = await nursery.output_of(child)
    assert said.split("]")[0].replace("'", "") == "[0, 1, 2, 3"  # 3 is the listing's own
    assert said.strip().endswith("/dev/null")


async def test_passed_descriptors_reach_the_child(nursery: Nursery) -> None:
    reader, writer = os.pipe()
    try:
        child = await nursery.shell(f"echo passed > /proc/self/fd/{writer}", pass_fds=(writer,))
        assert (await child.wait()).status == ExitStatus(code=0)
        assert os.read(reader, 100) == b"passed\n"
    finally:
        os.close(reader)
        os.close(writer)


async def test_child_leads_its_own_session_and_group(nursery: Nursery) -> None:
    child = await nursery.spawn("sleep", "1000")
    assert (os.getsid(child.pid), os.getpgid(child.pid)) == (child.pid, child.pid)


async def test_child_blocks_and_ignores_no_signal(nursery: Nursery) -> None:
    child = await nursery.spawn("sleep", "1000")
    assert [int(status_field(child.pid, field), 16) for field in ("SigBlk", "SigIgn", "SigCgt")] == [0, 0, 0]


async def test_umask_is_the_given_one_and_ours_otherwise(nursery: Nursery) -> None:
    ours = os.umask(0o027)
    try:
        for umask in (None, 0, 0o077):
            await (await nursery.shell("umask", umask=umask)).wait()
    finally:
        os.umask(ours)
    assert [int(line, 8) for line in nursery.heard().split()] == [0o027, 0, 0o077]


@needs_root
async def test_user_comes_with_group_and_supplementary_groups(nursery: Nursery) -> None:
    child = await nursery.spawn("sleep", "1000", credentials=credentials_of(65534, 65534, 65534, 12345))
    for field in ("Uid", "Gid"):
        assert status_field(child.pid, field).split() == ["65534"] * 4
    assert set(status_field(child.pid, "Groups").split()) == {"65534", "12345"}


@needs_root
async def test_roots_groups_are_never_kept(nursery: Nursery) -> None:
    child = await nursery.spawn("sleep", "1000", credentials=credentials_of(65534, 65534))
    assert "0" not in status_field(child.pid, "Groups").split()


@needs_root
async def test_root_that_may_not_switch_users_runs_nothing(nursery: Nursery, tmp_path: Path) -> None:
    # As in a container that drops the capabilities. Asked first, and tried nevertheless.
    proof = tmp_path / "proof"
    script = f"""
who = credentials.Credentials(65534, 65534, (65534,), "nobody", "/")
async def main():
    await attempt(("touch", {str(proof)!r}), who)
    try:
        credentials.lookup("nobody", None)
    except SpawnError as error:
        print(error.stage, error.errno)
loop.run(main, kind="asyncio")
"""
    said = await helper(nursery, script, "setpriv", "--inh-caps=-all", "--bounding-set=-setuid,-setgid")
    assert said.split() == ["user", str(errno.EPERM)] * 2
    assert not proof.exists()


@needs_root
async def test_other_users_child_can_reopen_its_stdout(nursery: Nursery) -> None:
    nursery.pipe.give_to(65534, 65534)
    child = await nursery.shell("echo reopened > /dev/stdout", credentials=credentials_of(65534, 65534))
    assert await nursery.output_of(child) == "reopened\n"
    assert (await child.wait()).status == ExitStatus(code=0)


@pytest.fixture
def raised_limit() -> Iterator[int]:
    """We were started with a limit of 1,000 open files, and have raised it to the hard limit, which is returned."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1000, before[1]))
    try:
        assert descriptors.raise_limit() == before[1] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        yield before[1]
    finally:
        descriptors._original_soft.clear()
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_child_reads_the_limit_of_open_files_that_the_daemon_was_started_with(nursery: Nursery, raised_limit: int) -> None:
    child = await nursery.shell("ulimit -Sn; ulimit -Hn")
    assert await nursery.output_of(child) == f"1000\n{raised_limit}\n"
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (raised_limit, raised_limit)


async def test_a_gap_among_a_thousand_files_is_no_room_to_spawn_below_the_limit(nursery: Nursery, raised_limit: int) -> None:
    """A program has ended, so one number below the limit is free, but the pipe of a spawn takes two."""
    taken = [os.dup(0) for _ in range(1100)]
    try:
        os.close(taken.pop(500))
        child = await nursery.spawn("sleep", "1000")
    finally:
        for descriptor in taken:
            os.close(descriptor)
    assert resource.prlimit(child.pid, resource.RLIMIT_NOFILE) == (1000, raised_limit)


async def test_child_of_a_daemon_with_more_files_than_that_has_the_limit_soon(nursery: Nursery, raised_limit: int) -> None:
    taken = [os.dup(0) for _ in range(1000)]
    try:
        child = await nursery.spawn("sleep", "1000")
    finally:
        for descriptor in taken:
            os.close(descriptor)
    assert resource.prlimit(child.pid, resource.RLIMIT_NOFILE) == (1000, raised_limit)


async def test_cancelled_spawn_leaves_no_child(nursery: Nursery) -> None:
    before = set(children())
    with anyio.CancelScope() as scope:
        scope.cancel()
        await nursery.spawn("sleep", "1000")
    await wait_until(lambda: set(children()) <= before, what="the end of what was cancelled")


async def test_two_hundred_children_are_spawned_and_killed(nursery: Nursery) -> None:
    children = [await nursery.spawn("sleep", "1000") for _ in range(200)]
    assert all(child.send_signal(signal.SIGKILL) for child in children)
    for child in children:
        assert (await child.wait()).status == ExitStatus(signal=9)
        child.close()


def children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


async def test_a_launcher_that_never_begins_is_a_failure_not_a_success(
    nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "launcher.py").write_text("")  # as while an upgrade replaces it
    monkeypatch.setattr("supervisord_async.system.launcher.__file__", str(tmp_path / "launcher.py"))
    error = await refused(nursery, "true", pid_variables=("LISTEN_PID",))
    assert "exec: true: the launcher ended before it began" in str(error)


async def test_descriptors_are_given_densely_from_three_on_with_the_programs_own_pid(nursery: Nursery, tmp_path: Path) -> None:
    files = [os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in ("a", "b", "c")]
    try:
        code = "echo pid $LISTEN_PID $$ >&3; echo second >&4; echo /proc/$$/fd/* >&5"
        child = await nursery.spawn("/bin/sh", "-c", code, listen_fds=(files[2], files[0], files[1]), pid_variables=("LISTEN_PID",))
        assert (await child.wait()).status == ExitStatus(code=0)
    finally:
        for fd in files:
            os.close(fd)
    assert len(set((tmp_path / "c").read_text().split()[1:])) == 1
    assert (tmp_path / "a").read_text() == "second\n"
    assert {os.path.basename(path) for path in (tmp_path / "b").read_text().split()} >= {"3", "4", "5"}
