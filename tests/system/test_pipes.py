from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from supervisord_async.system.pipes import Pipe

pytestmark = pytest.mark.real


def test_read_end_never_blocks() -> None:
    pipe = Pipe.open()
    with pytest.raises(BlockingIOError):
        os.read(pipe.read_fd, 1)
    os.write(pipe.child_fd, b"hello")
    assert os.read(pipe.read_fd, 100) == b"hello"
    assert os.get_blocking(pipe.child_fd)
    assert not os.get_inheritable(pipe.read_fd)
    assert not os.get_inheritable(pipe.child_fd)
    pipe.close()
    pipe.close()


def test_what_one_run_sets_on_its_end_does_not_hold_for_the_next() -> None:
    pipe = Pipe.open()
    subprocess.run(["python3", "-c", "import os; os.set_blocking(1, False)"], stdout=pipe.child_fd, check=True)
    assert not os.get_blocking(pipe.child_fd)
    pipe.reset_flags()
    assert os.get_blocking(pipe.child_fd) and not os.get_blocking(pipe.read_fd)
    pipe.close()


def test_is_told_from_others_also_when_it_is_closed() -> None:
    pipe = Pipe.open()
    inode = os.fstat(pipe.child_fd).st_ino
    again = Pipe.reopen(os.getpid(), pipe.child_fd)
    pipe.close()
    assert (pipe.inode, again.inode) == (inode, inode)
    again.close()


def test_grows_as_far_as_it_may() -> None:
    pipe = Pipe.open()
    assert pipe.grow(256 * 1024) == 256 * 1024
    os.write(pipe.child_fd, b"x" * 100_000)
    assert pipe.grow(4096) == 256 * 1024  # what is in it does not fit: it stays as it is
    pipe.close()


def test_writer_survives_the_death_of_every_reader_and_a_successor_reads_on() -> None:
    pipe = Pipe.open()
    script = "import os\nfor i in range(3): os.write(1, b'%d\\n' % i)\nos.read(0, 1)"
    process = subprocess.Popen(["python3", "-c", script], stdin=subprocess.PIPE, stdout=pipe.child_fd)
    said = b""
    os.set_blocking(pipe.read_fd, True)
    while said.count(b"\n") < 1:
        said += os.read(pipe.read_fd, 2)
    pipe.close()  # as when the daemon is killed
    successor = Pipe.reopen(process.pid, 1)
    os.set_blocking(successor.read_fd, True)
    while said.count(b"\n") < 3:
        said += os.read(successor.read_fd, 100)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait() == 0
    assert said == b"0\n1\n2\n"
    successor.close()


def test_what_a_process_puts_in_the_place_of_its_pipe_is_not_opened_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be written by root's daemon, and given to the process's next run as its stdout."""
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    os.mkfifo(theirs)
    ours.touch()
    look, opened = os.stat, os.listdir("/proc/self/fd")
    file = os.open(ours, os.O_RDONLY)
    seen = {f"/proc/{os.getpid()}/fd/{file}": theirs}  # it was a pipe when it was looked at
    monkeypatch.setattr(os, "stat", lambda path, **more: look(seen.get(path, path), **more))
    with pytest.raises(OSError, match="not a pipe any more"):
        Pipe.reopen(os.getpid(), file)
    os.close(file)
    assert os.listdir("/proc/self/fd") == opened


def test_only_a_pipe_is_reopened(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file, pytest.raises(OSError, match="not a pipe"):
        Pipe.reopen(os.getpid(), file.fileno())
