"""``daemon.on_death: stop``: a small process that outlives a killed daemon and ends its programs if it does not return.

It waits on the daemon's pidfd and does nothing else. When the daemon is gone it gives a successor
:data:`RETURN_SECONDS` to take the run_dir's lock; where one does, the programs are the successor's, and the successor has
a guardian of its own. Else everything of the instance is told to go, and killed after
:data:`GRACE_SECONDS`. A clean end of the daemon leaves nothing to do; the daemon ends the guardian itself.

Run as ``python -m supervisord_async.supervise.outlive.guardian INSTANCE LOCK DAEMON_PID``; imports next to nothing.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
import time

from supervisord_async.system import cgroups, tags
from supervisord_async.system.pidfd import send_signal

RETURN_SECONDS = 10.0
GRACE_SECONDS = 10.0
LOOK_SECONDS = 0.2


def wait_dead(parent: int) -> None:
    """Returns when our parent, which had the PID ``parent`` when it started us, is gone."""
    try:
        descriptor = os.pidfd_open(parent)
    except ProcessLookupError:
        return
    if os.getppid() == parent:  # else it died before we looked, and its PID may be a stranger's by now
        select.select([descriptor], [], [])
    os.close(descriptor)


def has_holder(lock: str) -> bool:
    """Whether a daemon holds the run_dir's lock."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False  # no run_dir, no daemon
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def returned(lock: str) -> bool:
    """Whether a successor took over within :data:`RETURN_SECONDS`."""
    until = time.monotonic() + RETURN_SECONDS
    while time.monotonic() < until:
        if has_holder(lock):
            return True
        time.sleep(LOOK_SECONDS)
    return False


def end_all(instance: str, lock: str) -> None:
    """Nothing of the instance lives, unless a daemon came for it meanwhile."""
    kill_at = time.monotonic() + GRACE_SECONDS
    told: set[int] = set()
    while living := tags.living(instance):
        if has_holder(lock):
            return
        kill = time.monotonic() >= kill_at
        if kill:
            cgroups.kill_all(instance)
        for process in living:
            try:
                if kill:
                    send_signal(process.identity, signal.SIGKILL)
                elif process.identity.pid not in told:
                    told.add(process.identity.pid)
                    send_signal(process.identity, signal.SIGTERM)
                    send_signal(process.identity, signal.SIGCONT)
            except PermissionError as error:
                print(f"asupd guardian: cannot end {process.name}, pid {process.identity.pid}: {error}", file=sys.stderr)  # noqa: T201  it has no log
        time.sleep(LOOK_SECONDS)
    cgroups.remove_all(instance)


def main(arguments: list[str]) -> int:
    """Guard until the daemon is gone for good."""
    instance, lock, daemon = arguments
    for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(signum, signal.SIG_IGN)  # a terminal's keys are meant for the daemon
    wait_dead(int(daemon))
    if not returned(lock):
        end_all(instance, lock)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
