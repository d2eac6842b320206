"""What a dead daemon left: ended in bounded time, and what was begun of that known to the next daemon."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from supervisord_async.supervise.recovery import ending, leftovers, termination
from supervisord_async.system.identity import Identity, identify
from supervisord_async.system.tags import Tagged


def test_who_cannot_be_ended_is_named_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stays = [Tagged(Identity(42, 1, "boot"), "web", 1, True)]
    sent: list[int] = []
    monkeypatch.setattr(leftovers, "find", lambda _run_dir: stays)
    monkeypatch.setattr(leftovers, "KILL_SECONDS", 0.2)
    monkeypatch.setattr(termination, "send_signal", lambda _identity, signum: not sent.append(signum))
    assert leftovers.end(str(tmp_path), 0.0) == stays
    assert {15, 9} <= set(sent)
    assert ending.is_begun(str(tmp_path))


def test_a_parent_that_is_gone_is_no_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was there when it was looked up, and has ended by the time its files are looked at."""
    with subprocess.Popen(["true"]) as gone:
        pass
    monkeypatch.setattr(leftovers.procfs, "stat", lambda _pid: SimpleNamespace(parent=gone.pid))
    assert leftovers.daemon_of([Tagged(Identity(42, 1, "boot"), "web", 1, True)], str(tmp_path)) is None


def test_an_ending_whose_mark_cannot_be_written_goes_on(tmp_path: Path) -> None:
    ending.begin(str(tmp_path / "removed"))
    assert not ending.is_begun(str(tmp_path / "removed"))


HOLD = """
import os, subprocess, sys
held = open(sys.argv[1], "w")
os.unlink(sys.argv[1])
child = subprocess.Popen(["sleep", "1000"])
print(child.pid, flush=True)
sys.stdin.read()
child.kill()
"""


@pytest.mark.real
@pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/usr/bin/python3"), reason="NOT TESTED: needs root and the system's Python")
@pytest.mark.parametrize(("uid", "is_daemon"), [(0, True), (65501, False)])
def test_a_process_of_another_user_is_not_taken_for_the_daemon(tmp_path: Path, uid: int, is_daemon: bool) -> None:
    """He would keep root from cleaning up by a tag and a removed file of the lock's name."""
    run_dir, theirs = tmp_path / "run", Path(tempfile.mkdtemp(dir="/tmp"))
    run_dir.mkdir()
    os.chown(theirs, uid, uid)
    command = ["/usr/bin/python3", "-c", HOLD, str(theirs / "asupd.lock")]  # ours may be where they cannot go
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, user=uid, group=uid, extra_groups=[]) as parent:
        assert parent.stdin is not None and parent.stdout is not None
        child = identify(int(parent.stdout.readline()))
        assert child is not None
        found = [Tagged(child, "web", 1, False)]
        assert leftovers.daemon_of(found, str(run_dir)) == (parent.pid if is_daemon else None)
        run_dir.rmdir()
        assert leftovers.daemon_of(found, str(run_dir)) == parent.pid, "nobody can tell whose it was"
        parent.stdin.close()
    theirs.rmdir()
