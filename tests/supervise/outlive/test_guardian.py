"""The guardian of ``on_death: stop`` ends what nobody came for, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisord_async.supervise.outlive import guardian
from supervisord_async.system.lock import InstanceLock
from supervisord_async.wire import ENV_TAG

pytestmark = pytest.mark.real


@pytest.fixture
def orphan(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that carries a tag of the instance ``tmp_path``."""
    environment = {**os.environ, ENV_TAG: f"{tmp_path.name}/web/1"}
    with subprocess.Popen(["sleep", "1000"], env=environment, start_new_session=True) as child:
        yield child
        child.kill()


def test_it_ends_what_nobody_came_for(tmp_path: Path, orphan: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guardian.tags, "living", _reaping(guardian.tags.living, orphan))
    guardian.end_all(tmp_path.name, str(tmp_path / "lock"))
    assert orphan.wait(20) == -15


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
    waits = "import os; from supervisord_async.supervise.outlive import guardian; parent = os.getppid(); print('waits', flush=True)"
    shell = f"{sys.executable} -c \"{waits}; guardian.wait_dead(parent); print('over')\" & exec sleep 1000"
    with subprocess.Popen(["/bin/sh", "-c", shell], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "waits\n"
        parent.kill()
        assert parent.stdout.readline() == "over\n"


def test_a_stranger_that_has_the_pid_of_a_dead_parent_is_not_waited_for(orphan: subprocess.Popen[bytes]) -> None:
    guardian.wait_dead(orphan.pid)
    assert orphan.poll() is None


def _reaping(living: object, child: subprocess.Popen[bytes]) -> object:
    """``living``, burying our child as its parent, whom the guardian does not wait for, would."""

    def look(instance: str) -> object:
        child.poll()
        return living(instance)  # type: ignore[operator]

    return look
