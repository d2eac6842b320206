"""The guardian of ``on_death: stop`` ends what nobody came for, and nothing else."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from supervisord_async.supervise.recovery import guardian, persist, termination
from supervisord_async.supervise.recovery.persist import SavedState
from supervisord_async.supervise.recovery.termination import StopSettings, Termination
from supervisord_async.system import procfs
from supervisord_async.system.identity import Identity
from supervisord_async.system.lock import InstanceLock
from supervisord_async.system.tags import Tagged
from supervisord_async.wire import ENV_TAG
from tests.waiting import wait_until_sync

pytestmark = pytest.mark.real


@pytest.fixture
def orphan(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that carries a tag of the instance ``tmp_path``."""
    environment = {**os.environ, ENV_TAG: f"{tmp_path.name}/web/1"}
    with subprocess.Popen(["sleep", "1000"], env=environment, start_new_session=True) as child:
        wait_until_sync(lambda: procfs.environment_value(child.pid, ENV_TAG))  # while it is just executing it shows none
        yield child
        child.kill()


def test_it_ends_what_nobody_came_for(tmp_path: Path, orphan: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guardian.tags, "living", _reaping(guardian.tags.living, orphan))
    guardian.end_all(tmp_path.name, str(tmp_path / "lock"))
    assert orphan.wait(20) == -15


class Wanting:
    """``os.open``, to which the machine has no descriptor to give every other time that ``path`` is asked for."""

    def __init__(self, path: str) -> None:
        self._path, self._open = path, os.open
        self.refused = 0
        self._next = True

    def __call__(self, path: str, *more: int, **others: int) -> int:
        if path.startswith(self._path):
            self._next = not self._next
            if not self._next:
                self.refused += 1
                raise OSError(errno.ENFILE, os.strerror(errno.ENFILE), path)
        return self._open(path, *more, **others)


def test_a_lock_that_cannot_be_looked_at_just_now_may_be_a_successors(
    tmp_path: Path, orphan: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what the successor has taken over would be ended under its hands."""
    wanting = Wanting(str(tmp_path / "lock"))
    monkeypatch.setattr(guardian, "POLL_SECONDS", 0.01)
    with InstanceLock(tmp_path / "lock"):
        monkeypatch.setattr(os, "open", wanting)
        assert guardian.returned(str(tmp_path / "lock"))
        guardian.end_all(tmp_path.name, str(tmp_path / "lock"))
        assert orphan.poll() is None
    assert wanting.refused == 2


@pytest.mark.parametrize("place", ["/proc/", "lock"])
def test_a_want_of_descriptors_delays_the_ending_and_does_not_prevent_it(
    tmp_path: Path, orphan: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    lock = str(tmp_path / "lock")
    Path(lock).touch()
    wanting = Wanting(lock if place == "lock" else f"/proc/{orphan.pid}/environ")
    living = _reaping(guardian.tags.living, orphan)
    monkeypatch.setattr(guardian.tags, "living", living)
    monkeypatch.setattr(os, "open", wanting)
    guardian.end_all(tmp_path.name, lock)
    assert orphan.wait(20) == -15
    assert wanting.refused


def test_it_leaves_to_a_late_successor_what_that_came_for(tmp_path: Path, orphan: subprocess.Popen[bytes]) -> None:
    with InstanceLock(tmp_path / "lock"):
        assert guardian.has_holder(str(tmp_path / "lock"))
        guardian.end_all(tmp_path.name, str(tmp_path / "lock"))
        assert orphan.poll() is None
    assert not guardian.has_holder(str(tmp_path / "lock"))


def test_a_daemon_that_returns_in_time_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guardian, "RETURN_SECONDS", 0.3)
    assert not guardian.returned(str(tmp_path / "lock"))
    with InstanceLock(tmp_path / "lock"):
        assert guardian.returned(str(tmp_path / "lock"))


def test_it_waits_for_the_end_of_its_parent() -> None:
    waits = "import os; from supervisord_async.supervise.recovery import guardian; parent = os.getppid(); print('waits', flush=True)"
    shell = f"{sys.executable} -c \"{waits}; guardian.wait_dead(parent); print('over')\" & exec sleep 1000"
    with subprocess.Popen(["/bin/sh", "-c", shell], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "waits\n"
        parent.kill()
        assert parent.stdout.readline() == "over\n"


def test_a_stranger_that_has_the_pid_of_a_dead_parent_is_not_waited_for(orphan: subprocess.Popen[bytes]) -> None:
    guardian.wait_dead(orphan.pid)
    assert orphan.poll() is None


STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(1000)"
BY_USR1 = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGUSR1, lambda *_: (time.sleep(1.0), exit(7)))
print(flush=True)
while True:
    time.sleep(1)  # a signal that comes just before it does not interrupt it
"""


def test_each_program_is_told_by_its_own_signal_and_has_its_own_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_settings = {"short": StopSettings(15, 0.2), "own": StopSettings(10, 60.0), "main": StopSettings(15, 60.0, "main")}
    persist.save(str(tmp_path), SavedState(boot_id="", instance=tmp_path.name, stop_settings=stop_settings))
    with ExitStack() as stack:

        def run(name: str, code: str) -> subprocess.Popen[bytes]:
            environment = {**os.environ, ENV_TAG: f"{tmp_path.name}/{name}/1"}
            command = [sys.executable, "-c", code]
            child = stack.enter_context(subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.PIPE))
            stack.callback(child.kill)
            assert child.stdout is not None and child.stdout.readline() == b"\n"
            return child

        children = [run("short", STUBBORN), run("own:1", BY_USR1), run("usual", "print(flush=True); import time; time.sleep(1000)")]
        monkeypatch.setattr(guardian.tags, "living", _reaping(guardian.tags.living, *children))
        guardian.end_all(tmp_path.name, str(tmp_path / "lock"))
        assert [child.wait(20) for child in children] == [-9, 7, -15]


@pytest.mark.parametrize("content", [None, b"", b"asupd-state 1 x\n{}", b'asupd-state 1 x\n{"manners": {"web": [1]}}', b"\xff\n[]"])
def test_without_a_sound_state_all_are_told_as_usual(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "state.json").write_bytes(content)
    assert termination.stop_settings(str(tmp_path)) == {}
    persist.save(str(tmp_path), SavedState(boot_id="", instance="", stop_settings={"web": StopSettings(2, 1.5, "main")}))
    assert termination.stop_settings(str(tmp_path)) == {"web": StopSettings(2, 1.5, "main")}
    if content is not None:
        (tmp_path / "state.json.previous").write_bytes((tmp_path / "state.json").read_bytes())
        (tmp_path / "state.json").write_bytes(content)
        assert termination.stop_settings(str(tmp_path)) == {"web": StopSettings(2, 1.5, "main")}


@pytest.mark.parametrize("leads", [False, True])
@pytest.mark.parametrize("scope", ["main", "mixed"])
def test_only_the_main_process_is_told_while_there_is_one(scope: str, leads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether its worker is in its session, or ``leads`` one of its own."""
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(termination, "send_signal", lambda identity, signum: not sent.append((identity.pid, signum)))
    main, worker = (Tagged(Identity(pid, 1, "boot"), "web", 1, pid == 1 or leads) for pid in (1, 2))
    ending = Termination("nobody", {"web": StopSettings(3, 60.0, scope)}, None)
    ending.advance([main, worker])
    ending.advance([main, worker])
    assert sent == [(1, 3), (1, 18)]
    ending.advance([worker])
    assert sent[2:] == [(2, 3), (2, 18)]


def test_what_a_run_begins_to_end_itself_is_not_told_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(termination, "send_signal", lambda identity, signum: not sent.append((identity.pid, signum)))
    main, worker, late = (Tagged(Identity(pid, 1, "boot"), "web", 1, pid == 1) for pid in (1, 2, 3))
    other = Tagged(Identity(4, 1, "boot"), "web", 2, True)
    ending = Termination("nobody", {}, 60.0)
    ending.advance([main, worker])
    ending.advance([main, worker, late])
    assert sent == [(1, 15), (1, 18), (2, 15), (2, 18)]
    ending.advance([late, other])  # a run that was born meanwhile
    assert sent[4:] == [(4, 15), (4, 18)]


def test_only_the_cgroup_of_a_run_whose_time_is_over_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[str] = []
    tags = [f"nobody/{name}/1" for name in ("late", "patient")]
    found = {tag: SimpleNamespace(kill=lambda tag=tag: killed.append(tag)) for tag in tags}
    monkeypatch.setattr(termination.cgroups, "of_instance", lambda _instance: found)
    monkeypatch.setattr(termination, "send_signal", lambda _identity, _signum: True)
    late, patient = (Tagged(Identity(pid, 1, "boot"), name, 1, True) for pid, name in enumerate(("late", "patient"), 1))
    Termination("nobody", {"late": StopSettings(15, 0.0), "patient": StopSettings(15, 60.0)}, None).advance([late, patient])
    assert killed == ["nobody/late/1"]


def test_who_may_not_be_ended_keeps_nobody_else_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    def end(who: str) -> bool:
        if who in ("1", "nobody/1/1"):
            raise PermissionError(1, "Operation not permitted")
        return not ended.append(who)

    found = {tag: SimpleNamespace(kill=lambda tag=tag: end(tag)) for tag in ("nobody/1/1", "nobody/2/1")}
    monkeypatch.setattr(termination.cgroups, "of_instance", lambda _instance: found)
    monkeypatch.setattr(termination, "send_signal", lambda identity, _signum: end(str(identity.pid)))
    Termination("nobody", {}, 0.0).advance([Tagged(Identity(pid, 1, "boot"), str(pid), 1, True) for pid in (1, 2)])
    assert ended[:2] == ["nobody/2/1", "2"]


@pytest.mark.parametrize("returns", [True, False])
def test_it_acts_when_the_daemon_is_gone_for_good(returns: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[object, ...]] = []
    monkeypatch.setattr(guardian.signal, "signal", lambda *_: None)
    monkeypatch.setattr(guardian, "wait_dead", lambda pid: done.append(("dead", pid)))
    monkeypatch.setattr(guardian, "returned", lambda lock: done.append(("looked", lock)) or returns)
    monkeypatch.setattr(guardian, "end_all", lambda *what: done.append(("ended", *what)))
    assert guardian.main(["i", "/run/asupd.lock", "42"]) == 0
    assert done == [("dead", 42), ("looked", "/run/asupd.lock"), *([] if returns else [("ended", "i", "/run/asupd.lock")])]


def _reaping(living: object, *children: subprocess.Popen[bytes]) -> object:
    """``living``, burying our children as its parent, whom the guardian does not wait for, would."""

    def look(instance: str) -> object:
        for child in children:
            child.poll()
        return living(instance)  # type: ignore[operator]

    return look
