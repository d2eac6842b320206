"""What a dead daemon left running, and ending it without a daemon.

Only processes that carry the tag of that run_dir in their environment, or are in a cgroup of its daemon's runs, are touched,
each by its identity; and only while the caller holds the run_dir's lock, so that there is no daemon, and none can start.
"""

from __future__ import annotations

import os
import time

from supervisord_async.daemon_registry import LOCK_NAME, DaemonPlace, default_place
from supervisord_async.errors import DaemonError
from supervisord_async.supervise.recovery import ending
from supervisord_async.supervise.recovery.guardian import has_holder
from supervisord_async.supervise.recovery.termination import Termination, file_of, stop_settings
from supervisord_async.supervise.runs.run_spec import instance_of
from supervisord_async.system import cgroups, procfs, tags
from supervisord_async.system.tags import Tagged
from supervisord_async.words import shell_word

#: The pause between two looks at /proc.
POLL_SECONDS = 0.1
#: How long after KILL to wait before what is still alive is reported.
KILL_SECONDS = 5.0


def find(run_dir: str) -> list[Tagged]:
    """The living processes of this run_dir's daemon, oldest first."""
    return tags.living(instance_of(run_dir))


def refuse_elsewhere(file: str, run_dir: str, former: DaemonPlace | None) -> None:
    """Raise DaemonError if programs of a dead daemon of ``file`` live on by another run_dir: there would be two copies of each.

    ``former`` is where its last daemon was, if that is on record. A living daemon there is no error: then somebody wants two.
    """
    for place in {default_place(file).run_dir, *([former.run_dir] if former is not None else [])}:
        if os.path.realpath(place) == os.path.realpath(run_dir) or has_holder(os.path.join(place, LOCK_NAME)):
            continue
        if file_of(place) == os.path.realpath(file) and (found := find(place)):
            names = ", ".join(dict.fromkeys(each.name for each in found))
            word = shell_word(place)
            ways = f"`asupd --run-dir {word}` takes them over, `asupctl cleanup --run-dir {word} --apply` ends them"
            raise DaemonError(
                f"cannot start in {run_dir}: programs of an earlier daemon of this file still run from {place} ({names}): {ways}"
            )


def daemon_of(leftovers: list[Tagged], run_dir: str) -> int | None:
    """The PID of a living daemon among the parents of these, which its lock does not show, as its run_dir was removed under it.

    The run_dir may have been moved first. A daemon whose lock is elsewhere and still exists does not count: it has inherited these
    processes from a dead daemon that was its child. Nor does a process of a user who can have had no daemon there: a tag, and the file
    that it has open, are anybody's word.
    """
    own, removed = os.path.join(os.path.realpath(run_dir), LOCK_NAME), f"/{LOCK_NAME} (deleted)"
    parents = {found.parent for each in leftovers if (found := procfs.stat(each.identity.pid)) is not None}
    users = _users_of(run_dir)
    possible = [pid for pid in sorted(parents) if users is None or procfs.real_uid(pid) in users]
    return next((pid for pid in possible if any(path == own or path.endswith(removed) for path in _open_files(pid))), None)


def _users_of(run_dir: str) -> set[int] | None:
    """Whose daemon a daemon of ``run_dir`` can be; None where it is gone, and nobody can tell."""
    try:
        return {0, os.geteuid(), os.stat(run_dir).st_uid}
    except OSError:
        return None


def end(run_dir: str, grace_seconds: float | None) -> list[Tagged]:
    """Stop everything, and kill what outlives its grace period; returns what lives all the same, normally nothing.

    ``grace_seconds`` is for all; None: each program's own. Processes spawned meanwhile are found too. The next daemon starts the
    programs as after an orderly shutdown. Blocks; to be called while holding the lock.
    """
    living = find(run_dir)
    if living:
        ending.begin(run_dir)
    termination = Termination(instance_of(run_dir), stop_settings(run_dir), grace_seconds)
    while living and termination.overdue_seconds(living) < KILL_SECONDS:
        termination.advance(living)
        time.sleep(POLL_SECONDS)
        living = find(run_dir)
    if not living:
        cgroups.remove_all(instance_of(run_dir))
    return living


def command_of(pid: int) -> str:
    """The command line of a process, in one line; "" if it is gone."""
    return (procfs.read_file(f"/proc/{pid}/cmdline") or b"").replace(b"\0", b" ").decode(errors="replace").strip()


def _open_files(pid: int) -> set[str]:
    found = set()
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            found.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    except OSError:  # it has ended, or is another user's; what was read so far counts
        return found
    return found
