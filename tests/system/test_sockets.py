from __future__ import annotations

import errno
import os
import resource
import socket
import stat
from pathlib import Path

import pytest

from supervisord_async.errors import DaemonError
from supervisord_async.system import sockets

pytestmark = pytest.mark.real


def test_socket_is_bound_with_its_mode_and_knows_its_peer(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with sockets.bind_unix(path, 0o640) as listener, socket.socket(socket.AF_UNIX) as client:
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        client.connect(str(path))
        connection, _ = listener.accept()
        with connection:
            assert sockets.peer(connection) == (os.getpid(), os.geteuid(), os.getegid())
    assert os.listdir(tmp_path) == ["s"]


def test_socket_has_its_mode_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    rename = os.rename

    def watch(source: str, target: str, *, src_dir_fd: int) -> None:
        found, folder = os.stat(source, dir_fd=src_dir_fd), os.fstat(src_dir_fd)
        seen.append((os.path.exists(target), stat.S_IMODE(found.st_mode), stat.S_IMODE(folder.st_mode)))
        rename(source, target, src_dir_fd=src_dir_fd)

    monkeypatch.setattr(os, "rename", watch)
    sockets.bind_unix(tmp_path / "s", 0o600).close()
    assert seen == [(False, 0o600, 0o700)]


@pytest.mark.parametrize("descriptors", [0, 1])
def test_without_a_descriptor_for_it_nothing_is_left_behind(tmp_path: Path, descriptors: int) -> None:
    """It is tried again every few seconds, and must not take what little there is."""
    taken: list[int] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + 1 + descriptors, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for fd in taken[:descriptors]:
            os.close(fd)
        for _ in range(2):
            with pytest.raises(DaemonError, match="Too many open files"):
                sockets.bind_unix(tmp_path / "s")
        again = [os.open(os.devnull, os.O_RDONLY) for _ in range(descriptors)]
        taken[:descriptors] = again
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)
    assert os.listdir(tmp_path) == []


def test_stale_socket_is_replaced_and_an_answering_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s"
    sockets.bind_unix(path).close()
    assert path.is_socket()
    with sockets.bind_unix(path):
        before = path.stat().st_ino
        with pytest.raises(DaemonError, match="another process answers there"):
            sockets.bind_unix(path)
        assert path.stat().st_ino == before


def test_full_disk_has_room_for_the_socket_in_the_place_of_a_stale_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen, chmod = tmp_path / "s", [], os.chmod
    sockets.bind_unix(path).close()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def watch(name: str, mode: int) -> None:
        seen.append(stat.S_IMODE(os.stat(name).st_mode))
        chmod(name, mode)

    monkeypatch.setattr(os, "mkdir", full)
    monkeypatch.setattr(os, "chmod", watch)
    with sockets.bind_unix(path, 0o660), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with pytest.raises(DaemonError, match="another process answers there"):
            sockets.bind_unix(path)
    assert seen == [0o600 & ~_umask()]
    assert os.listdir(tmp_path) == ["s"]


@pytest.mark.parametrize("rule", ["owner", "mode"])
def test_a_file_system_with_owners_and_modes_of_its_own_has_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    """As a folder shared with a virtual machine, and many a FUSE (``bindfs --force-user``)."""
    known = os.fstat

    def shown(fd: int) -> os.stat_result:
        found = list(known(fd))
        if rule == "owner":
            found[stat.ST_UID] += 1
        else:
            found[stat.ST_MODE] |= 0o777
        return os.stat_result(found)

    monkeypatch.setattr(os, "fstat", shown)
    sockets.bind_unix(tmp_path / "s").close()
    with sockets.bind_unix(tmp_path / "s"), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
    assert os.listdir(tmp_path) == ["s"]


@pytest.mark.parametrize(("error", "owners"), [(errno.EPERM, False), (errno.EIO, True)])
def test_a_file_system_without_sockets_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, owners: bool) -> None:
    class Socket(socket.socket):
        def bind(self, address: str) -> None:  # type: ignore[override]
            if error == errno.EIO:
                Path(address).touch()
            raise OSError(error, os.strerror(error), address)

    monkeypatch.setattr(socket, "socket", Socket)
    if owners:
        monkeypatch.setattr(os, "geteuid", lambda: -1)
    for _ in range(2):  # the second time with what the first one has left
        with pytest.raises(DaemonError, match=f"cannot bind .*/s: {os.strerror(error)} .if its file system has no sockets, choose a path"):
            sockets.bind_unix(tmp_path / "s")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("step", ["mkdir", "bind", "full disk"])
def test_who_puts_a_link_in_the_place_of_a_socket_being_made_gets_no_file_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """What the owner of the folder may do at any moment; a program of his own does it within a second, by inotify."""
    victim, evil, theirs = tmp_path / "victim", tmp_path / "evil", tmp_path / "theirs"
    victim.write_text("secret")
    victim.chmod(0o600)
    evil.mkdir(mode=0o755)
    theirs.mkdir()
    (evil / "s").symlink_to(victim)

    def swap() -> None:
        if step == "full disk":
            (theirs / "s").unlink()
            (theirs / "s").symlink_to(victim)
        else:
            (made,) = theirs.glob(".bind-*")
            made.rename(tmp_path / "aside")
            evil.rename(made)

    class Socket(socket.socket):
        def bind(self, address: str) -> None:  # type: ignore[override]
            super().bind(address)
            if step != "mkdir":
                swap()

    mkdir = os.mkdir

    def make(path: str, mode: int) -> None:
        if step == "full disk":
            raise OSError(errno.ENOSPC, "No space left on device")
        mkdir(path, mode)
        if step == "mkdir":
            swap()

    monkeypatch.setattr(socket, "socket", Socket)
    monkeypatch.setattr(os, "mkdir", make)
    try:
        sockets.bind_unix(theirs / "s", 0o666, uid=os.geteuid()).close()
    except DaemonError as error:
        assert "somebody put" in str(error)
        assert step != "bind"
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600
    assert victim.read_text() == "secret"


def _umask() -> int:
    os.umask(mask := os.umask(0o077))
    return mask


def test_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(DaemonError, match="not a socket is there"):
        sockets.bind_unix(tmp_path / "s")
    assert (tmp_path / "s").read_text() == "precious"


def test_path_may_have_107_bytes_and_no_more(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    directory.mkdir()
    room = sockets.PATH_LIMIT_BYTES - len(str(directory)) - 1
    with sockets.bind_unix(directory / ("s" * room)), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(directory / ("s" * room)))
    with pytest.raises(DaemonError, match="holds 107 bytes"):
        sockets.bind_unix(directory / ("s" * (room + 1)))


def test_unknown_group_and_missing_directory_are_told(tmp_path: Path) -> None:
    with pytest.raises(DaemonError, match="no group named"):
        sockets.bind_unix(tmp_path / "s", 0o660, "no-such-group")
    with pytest.raises(DaemonError, match="cannot bind"):
        sockets.bind_unix(tmp_path / "no" / "s")
    assert not os.listdir(tmp_path)
