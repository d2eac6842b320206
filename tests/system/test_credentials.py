from __future__ import annotations

import errno
import grp
import os
import pwd

import pytest

from supervisord_async.errors import SpawnError
from supervisord_async.system import credentials
from supervisord_async.system.credentials import lookup

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")


def test_nobody_asked_for_means_ourselves() -> None:
    assert lookup(None, None) is None


@needs_root
def test_user_is_found_by_name_and_number_with_groups_and_home() -> None:
    entry = pwd.getpwnam("nobody")
    found = lookup("nobody", None)
    assert found == lookup(str(entry.pw_uid), None)
    assert found is not None
    assert (found.uid, found.gid, found.name, found.home) == (entry.pw_uid, entry.pw_gid, "nobody", entry.pw_dir)
    assert found.gid in found.groups
    assert 0 not in found.groups


@needs_root
def test_group_replaces_the_primary_one() -> None:
    group = grp.getgrnam("daemon")
    found = lookup("nobody", "daemon")
    assert found is not None
    assert found.gid == group.gr_gid
    assert found.gid in found.groups
    assert lookup("nobody", str(group.gr_gid)) == found


@needs_root
def test_number_without_an_entry_needs_a_group() -> None:
    with pytest.raises(SpawnError, match="name one"):
        lookup("54321", None)
    found = lookup("54321", "daemon")
    assert found is not None
    assert (found.uid, found.groups, found.home) == (54321, (found.gid,), "/")


@pytest.mark.parametrize(
    ("user", "group"), [("no-such-user", None), (None, "no-such-group"), ("-1", None), (str(2**32 - 1), None), ("", None)]
)
def test_unknown_names_fail_at_user(user: str | None, group: str | None) -> None:
    with pytest.raises(SpawnError) as caught:
        lookup(user, group)
    assert caught.value.stage == "user"


def test_another_user_is_refused_without_the_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "may_switch", lambda: False)
    other = "nobody" if os.geteuid() != pwd.getpwnam("nobody").pw_uid else "root"
    with pytest.raises(SpawnError) as caught:
        lookup(other, None)
    assert caught.value.stage == "user"
    mine = lookup(pwd.getpwuid(os.geteuid()).pw_name, None)
    assert mine is not None
    assert mine.uid == os.geteuid()


@pytest.mark.parametrize("answers", [0, 1])
def test_want_of_a_descriptor_is_a_failure_to_spawn_like_any_other(answers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the directory is asked, which would know no such user; and behind it, since some of his groups may be missing."""
    status = [b"CapEff:\t000001ffffffffff\n"] * answers

    def read(_path: str) -> bytes:
        if not status:
            raise OSError(errno.EMFILE, "Too many open files")
        return status.pop()

    monkeypatch.setattr(credentials.procfs, "read_file", read)
    with pytest.raises(SpawnError, match="Too many open files") as caught:
        lookup(pwd.getpwuid(os.geteuid()).pw_name if answers else "no-such-user", None)
    assert (caught.value.stage, caught.value.errno) == ("fork", errno.EMFILE)
