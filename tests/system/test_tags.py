"""Whose word a tag is: where the run's own cgroup does not say who leads it, the user does."""

from __future__ import annotations

import os
import subprocess
from types import SimpleNamespace
from typing import cast

import pytest

from supervisord_async.system import procfs, tags
from supervisord_async.system.cgroups import Cgroup
from supervisord_async.system.identity import Identity
from supervisord_async.system.tags import Tagged
from supervisord_async.wire import ENV_SETTINGS, ENV_TAG
from tests.waiting import wait_until_sync


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


def digits(count: int) -> str:
    return "9" * count


@pytest.mark.real
@pytest.mark.parametrize(
    "words",
    [
        *(f"web/{digits(5000)}", f"web/{digits(20)}", "web/٣", "web/-1", "web/007", "web/", "/1", "web:x/1", "web:/1"),
        *(f"web:{digits(20)}/1", "a/b/1", "../x/1", "web\n/1", "\x1b[2J/1", f"{'x' * 90_000}/1", "web#/1", "web#Hook/1", "\udcff/1", "web"),
    ],
)
def test_what_no_daemon_has_written_is_nobodys_tag(words: str) -> None:
    """Any user may have it in his environment: a daemon of root's could not start, nor end what was left."""
    instance = "0123456789abcdef"
    with subprocess.Popen(["sleep", "1000"], env={ENV_TAG: f"{instance}/{words}"}) as process:
        try:
            wait_until_sync(lambda: procfs.environment_value(process.pid, ENV_TAG))
            assert tags.marked(instance) == []
        finally:
            process.kill()


@pytest.mark.real
@pytest.mark.parametrize(
    ("words", "name", "run"),
    [
        ("web/1", "web", 1),
        ("web:12/0", "web:12", 0),
        ("9_.@+-x#hook/3", "9_.@+-x#hook", 3),
        ("#on_event/42", "#on_event", 42),
        (f"web/{digits(15)}", "web", int(digits(15))),
    ],
)
def test_what_a_daemon_writes_is_read_with_its_settings(words: str, name: str, run: int) -> None:
    instance = "0123456789abcdef"
    for settings, known in (("00112233445566aa", "00112233445566aa"), ("0" * 20, "0" * 20), ("\udcff" * 16, ""), ("", "")):
        with subprocess.Popen(["sleep", "1000"], env={ENV_TAG: f"{instance}/{words}", ENV_SETTINGS: settings}) as process:
            try:
                wait_until_sync(lambda: procfs.environment_value(process.pid, ENV_TAG))
                (found,) = tags.marked(instance)
                assert (found.name, found.run, found.settings, found.identity.pid) == (name, run, known, process.pid)
            finally:
                process.kill()
