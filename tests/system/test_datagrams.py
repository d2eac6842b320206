"""Datagram sockets: whom they are for, and where they are."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from supervisord_async.system.credentials import Credentials
from supervisord_async.system.datagrams import bind_datagrams

STRANGER = Credentials(65501, 65501, (65501,), "stranger", "/")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")


def test_a_socket_for_another_user_is_that_users_alone(open_path: Path) -> None:
    path = str(open_path / "notify" / "a.sock")
    receiver, address = bind_datagrams(path, "abstract", STRANGER, mode=0o600)
    with receiver:
        found = os.stat(path)
        assert (address, found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (path, STRANGER.uid, STRANGER.gid, 0o600)


def test_a_program_of_root_may_speak_after_it_has_become_another_user(open_path: Path) -> None:
    closed = open_path / "closed"
    closed.mkdir(mode=0o700)
    for folder, in_file in ((open_path, True), (closed, False)):
        path, name = str(folder / "notify" / "a.sock"), f"asup-test-{os.getpid()}"
        receiver, address = bind_datagrams(path, name, None, mode=0o600)
        with receiver:
            assert address == (path if in_file else f"@{name}")
            assert not in_file or stat.S_IMODE(os.stat(path).st_mode) == 0o666


def test_a_user_who_cannot_reach_the_folder_gets_an_address_without_one(open_path: Path) -> None:
    closed = open_path / "closed"
    closed.mkdir(mode=0o700)
    path, name = str(closed / "a.sock"), f"asup-test-{os.getpid()}"
    receiver, address = bind_datagrams(path, name, STRANGER, mode=0o600)
    with receiver, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        assert address == f"@{name}" and not os.path.exists(path)
        client.sendto(b"READY=1", f"\0{name}")
        assert receiver.recv(10) == b"READY=1"
