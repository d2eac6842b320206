"""Whose word a tag is: where the run's own cgroup does not say who leads it, the user does."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import cast

from supervisord_async.system import tags
from supervisord_async.system.cgroups import Cgroup
from supervisord_async.system.identity import Identity
from supervisord_async.system.tags import Tagged


def holding(*pids: int) -> Cgroup:
    return cast("Cgroup", SimpleNamespace(pids=lambda: set(pids)))


def test_the_user_is_looked_up_of_who_leads_a_run_outside_of_its_own_cgroup() -> None:
    own = os.getpid()
    led = Tagged(Identity(own, 1, "boot"), "web:0", 3, True)
    member = Tagged(Identity(os.getppid(), 2, "boot"), "web:0", 3, False)

    def uids(runs: dict[str, Cgroup]) -> list[int | None]:
        return [each.uid for each in tags.completed([led, member], runs)]

    assert uids({}) == [os.getuid(), None]
    assert uids({"i/web:0/3": holding(own)}) == [None, None]
    assert uids({"i/web:0/3": holding(), "i/other/3": holding(own)}) == [os.getuid(), None], "another run's cgroup says nothing of this one"
