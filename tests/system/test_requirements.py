"""Where the kernel or a sandbox lacks what supervision cannot do without, it is said at once, and nothing begins."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from supervisord_async.system.requirements import lacking

pytestmark = pytest.mark.real

#: The numbers that all machines share (the kernel's scripts/syscall.tbl).
CALLS = {"pidfd_send_signal": 424, "pidfd_open": 434}
CLONE3 = 435
#: Executes a command under a seccomp filter that answers one call, by its number, with an errno: as the profiles of container engines do.
REFUSING = """
import ctypes, os, struct, sys
number, errno = int(sys.argv[1]), int(sys.argv[2])
code = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x50000 | errno), (0x06, 0, 0, 0x7FFF0000)]
filter = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in code))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, struct.pack("HxxxxxxQ", len(code), ctypes.addressof(filter)), 0, 0) == 0
os.execv(sys.argv[3], sys.argv[3:])
"""


def refusing(number: int, errno: int) -> list[str]:
    return [sys.executable, "-c", REFUSING, str(number), str(errno)]


def without_proc() -> list[str]:
    prefix = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("NOT TESTED: no /proc; needs root")
    return prefix


def ended(prefix: list[str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*prefix, sys.executable, "-m", *command], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "programs.yaml").write_text(f"programs: {{web: {{command: [touch, {tmp_path}/began]}}}}\n")
    return str(tmp_path / "programs.yaml")


def test_here_nothing_is_lacking() -> None:
    assert lacking() is None


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(("errno", "words"), [(38, "Function not implemented"), (1, "Operation not permitted")])
def test_a_refused_call_is_named_and_nothing_is_started(name: str, errno: int, words: str, file: str) -> None:
    began = Path(file).with_name("began")
    for command in (("supervisord_async.cli.asupd", "-c", file), ("supervisord_async.cli.asup_run", "touch", str(began))):
        done = ended(refusing(CALLS[name], errno), *command)
        assert done.returncode == 1
        assert f"cannot supervise here: the kernel refuses {name}: {words} (use Linux 5.4 or newer;" in done.stderr
        assert "Traceback" not in done.stderr
    assert not began.exists()
    doctor = ended(refusing(CALLS[name], errno), "supervisord_async.cli.asupctl", "-c", file, "doctor", "--quiet")
    assert f"the kernel refuses {name}: {words}" in doctor.stdout


def test_a_want_is_not_called_a_lack(file: str) -> None:
    """Another kernel, or seccomp profile, would not help."""
    began, full = Path(file).with_name("began"), refusing(CALLS["pidfd_open"], 23)
    for command in (("supervisord_async.cli.asupd", "-c", file), ("supervisord_async.cli.asup_run", "touch", str(began))):
        done = ended(full, *command)
        assert done.returncode == 1
        assert "cannot start: Too many open files in system (" in done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
    assert not began.exists()
    doctor = ended(full, "supervisord_async.cli.asupctl", "-c", file, "doctor", "--quiet")
    assert "cannot be looked at: Too many open files in system" in doctor.stdout


def test_without_proc_it_is_said_and_nothing_is_started(file: str) -> None:
    done = ended(without_proc(), "supervisord_async.cli.asupd", "-c", file)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "critical: cannot supervise here: /proc is not mounted (mount -t proc proc /proc)" in done.stderr


def test_with_the_proc_of_another_pid_namespace_it_is_said_and_nothing_is_started(file: str) -> None:
    """``unshare --pid`` without ``--mount-proc``: a PID in /proc is not the PID that we signal."""
    began, prefix = Path(file).with_name("began"), ["unshare", "--pid", "--fork", "--kill-child"]
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("NOT TESTED: /proc of another PID namespace; needs root")
    for command in (("supervisord_async.cli.asupd", "-c", file), ("supervisord_async.cli.asup_run", "touch", str(began))):
        done = ended(prefix, *command)
        assert (done.returncode, "Traceback" in done.stderr) == (1, False)
        assert "cannot supervise here: /proc belongs to another PID namespace than this process (mount -t proc proc /proc)" in done.stderr
    assert not began.exists()


def test_where_no_thread_can_be_started_doctor_says_so(file: str) -> None:
    """A C library that knows clone3 falls back to clone where it is not implemented, not where it is refused."""
    done = ended(refusing(CLONE3, 1), "supervisord_async.cli.asupctl", "-c", file, "doctor")
    if "can be started" in done.stdout:
        pytest.skip("NOT TESTED: a refused thread; this C library does without clone3")
    assert done.returncode == 1
    assert "can't start new thread: nothing will be supervised" in done.stdout
