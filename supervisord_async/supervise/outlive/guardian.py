"""``daemon.on_death: stop``: a small process that outlives a killed daemon and ends its programs if it does not return.

It waits on the daemon's pidfd and does nothing else. When the daemon is gone it gives a successor
:data:`RETURN_SECONDS` to take the run_dir's lock; where one does, the programs are the successor's, and the successor has
a guardian of its own. Else everything of the instance is told to go, and killed, each as
its program wants it (:mod:`.farewell`). A clean end of the daemon leaves nothing to do; the daemon ends the guardian itself.

Run as ``python -m supervisord_async.supervise.outlive.guardian INSTANCE LOCK DAEMON_PID``; imports next to nothing.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from supervisord_async.supervise.outlive import ending
from supervisord_async.supervise.outlive.farewell import Farewell, manners
from supervisord_async.system import cgroups, tags
from supervisord_async.system.lock import open_lock

RETURN_SECONDS = 10.0
LOOK_SECONDS = 0.2


def wait_dead(parent: int) -> None:
    """Returns when our parent, whose PID was ``parent`` when it started us, is gone."""
    try:
        descriptor = os.pidfd_open(parent)
    except ProcessLookupError:
        return
    if os.getppid() == parent:  # else it died before we looked, and its PID may be a stranger's by now
        select.select([descriptor], [], [])
    os.close(descriptor)


@contextmanager
def holding(lock: str) -> Iterator[bool]:
    """Whether we hold the run_dir's lock meanwhile, since no daemon does; also True where the run_dir is gone."""
    try:
        descriptor = open_lock(lock)
    except OSError:
        yield True
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)


def has_holder(lock: str) -> bool:
    """Whether a daemon holds the run_dir's lock."""
    with holding(lock) as ours:
        return not ours


def returned(lock: str) -> bool:
    """Whether a successor took over within :data:`RETURN_SECONDS`."""
    until = time.monotonic() + RETURN_SECONDS
    while time.monotonic() < until:
        if has_holder(lock):
            return True
        time.sleep(LOOK_SECONDS)
    return False


def end_all(instance: str, lock: str) -> None:
    """Nothing of the instance lives; or a daemon has come meanwhile, and finishes this."""
    run_dir = os.path.dirname(lock)
    farewell = Farewell(instance, manners(run_dir), None)
    while living := tags.living(instance):
        with holding(lock) as ours:  # for a moment: a daemon that starts now waits that long
            if not ours:
                return
            ending.begin(run_dir)
            farewell.tell(living)
        time.sleep(LOOK_SECONDS)
    with holding(lock) as ours:
        if ours:
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
