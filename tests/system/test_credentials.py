from __future__ import annotations

import grp
import os
import pwd

import pytest

from supervisord_async.errors import SpawnError
from supervisord_async.system import credentials
from supervisord_async.system.credentials import lookup

pytestmark = pytest.mark.anyio

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")


async def test_nobody_asked_for_means_ourselves() -> None:
    assert await lookup(None, None) is None


@needs_root
async def test_user_is_found_by_name_and_number_with_groups_and_home() -> None:
    entry = pwd.getpwnam("nobody")
    found = await lookup("nobody", None)
    assert found == await lookup(str(entry.pw_uid), None)
    assert found is not None
    assert (found.uid, found.gid, found.name, found.home) == (entry.pw_uid, entry.pw_gid, "nobody", entry.pw_dir)
    assert found.gid in found.groups
    assert 0 not in found.groups


@needs_root
async def test_group_replaces_the_primary_one() -> None:
    group = grp.getgrnam("daemon")
    found = await lookup("nobody", "daemon")
    assert found is not None
    assert found.gid == group.gr_gid
    assert found.gid in found.groups
    assert await lookup("nobody", str(group.gr_gid)) == found


@needs_root
async def test_number_without_an_entry_needs_a_group() -> None:
    with pytest.raises(SpawnError, match="name one"):
        await lookup("54321", None)
    found = await lookup("54321", "daemon")
    assert found is not None
    assert (found.uid, found.groups, found.home) == (54321, (found.gid,), "/")


@pytest.mark.parametrize(
    ("user", "group"), [("no-such-user", None), (None, "no-such-group"), ("-1", None), (str(2**32 - 1), None), ("", None)]
)
async def test_unknown_names_fail_at_user(user: str | None, group: str | None) -> None:
    with pytest.raises(SpawnError) as caught:
        await lookup(user, group)
    assert caught.value.stage == "user"


async def test_another_user_is_refused_without_the_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "may_switch", lambda: False)
    other = "nobody" if os.geteuid() != pwd.getpwnam("nobody").pw_uid else "root"
    with pytest.raises(SpawnError) as caught:
        await lookup(other, None)
    assert caught.value.stage == "user"
    mine = await lookup(pwd.getpwuid(os.geteuid()).pw_name, None)
    assert mine is not None
    assert mine.uid == os.geteuid()
