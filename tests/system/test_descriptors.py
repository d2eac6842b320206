from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from supervisord_async.system import descriptors, procfs
from supervisord_async.system.procfs import parse_stat

pytestmark = pytest.mark.real


def test_fifty_inherited_descriptors_are_closed_but_for_those_to_keep() -> None:
    script = """
import os
from supervisord_async.system import descriptors
print(descriptors.close_inherited(keep={KEEP}))
print(os.listdir('/proc/self/fd'))
"""
    extra = [os.dup(0) for _ in range(50)]
    try:
        run = subprocess.run(
            [sys.executable, "-c", script.replace("KEEP", str(extra[7]))], pass_fds=extra, capture_output=True, text=True, check=True
        )
    finally:
        for fd in extra:
            os.close(fd)
    closed, left = run.stdout.splitlines()
    assert int(closed) == 49
    assert f"'{extra[7]}'" in left


def test_what_nobody_reads_is_a_nameless_pipe_or_socket_without_another_end(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    one, other = socket.socketpair()
    os.mkfifo(tmp_path / "fifo")
    fifo = os.open(tmp_path / "fifo", os.O_RDWR)
    to_fifo = os.open(tmp_path / "fifo", os.O_WRONLY)
    null = os.open(os.devnull, os.O_WRONLY)
    ours = (writer, one.fileno(), to_fifo, null)
    try:
        assert [descriptors.is_unread(fd) for fd in ours] == [False] * 4
        os.close(reader)
        other.close()
        os.close(fifo)
        assert [descriptors.is_unread(fd) for fd in ours] == [True, True, False, False], "a reader of the FIFO may come again"
        assert not descriptors.is_unread(10**6)
    finally:
        one.close()
        for fd in (writer, to_fifo, null):
            os.close(fd)


def no_descriptor(*_: object) -> socket.socket:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_service_manager_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        assert descriptors.sd_notify("READY=1\nSTATUS=up")
        assert manager.recv(100).decode().splitlines() == ["READY=1", "STATUS=up"]
        with monkeypatch.context() as patched:
            patched.setattr(descriptors.socket, "socket", no_descriptor)
            assert descriptors.sd_notify("READY=1") is False
    assert descriptors.sd_notify("READY=1") is False
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert descriptors.sd_notify("READY=1") is False


def test_name_with_spaces_and_parentheses_confuses_no_field() -> None:
    fields = "S 7 8 9 0 -1 4194304 " + " ".join(str(number) for number in range(10, 60))
    found = parse_stat(f"42 (a) S 1 (b) {fields}".encode())
    assert (found.pid, found.name, found.state, found.parent, found.group, found.session) == (42, "a) S 1 (b", "S", 7, 8, 9)


def test_own_figures_agree_with_the_system() -> None:
    own = procfs.stat(os.getpid())
    assert own is not None
    assert (own.parent, own.group, own.session) == (os.getppid(), os.getpgrp(), os.getsid(0))
    assert not own.dead
    assert not own.dying
    assert procfs.snapshot()[os.getpid()].start_ticks == own.start_ticks
    assert procfs.stat(2**22 + 1) is None
