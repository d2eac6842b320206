"""``daemon.on_death: stop``: a small process that outlives a killed daemon and ends its programs if no daemon returns.

It waits on the daemon's pidfd and does nothing else. When the daemon is gone, another one has :data:`RETURN_SECONDS` to take
the run_dir's lock. If one does, it adopts the programs and has a guardian of its own; if not, everything of the instance is
stopped, each program by its own settings (:mod:`.termination`). At a clean end the daemon has nothing left to guard, and kills
the guardian itself.

Run as ``python -m supervisord_async.supervise.recovery.guardian INSTANCE LOCK DAEMON_PID``; imports next to nothing.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from supervisord_async.supervise.recovery import ending
from supervisord_async.supervise.recovery.termination import Termination, stop_settings
from supervisord_async.system import cgroups, tags
from supervisord_async.system.lock import open_lock
from supervisord_async.system.shortage import is_shortage

RETURN_SECONDS = 10.0
POLL_SECONDS = 0.2


def wait_dead(parent: int) -> None:
    """Return when our parent, whose PID was ``parent`` when it started us, is gone."""
    try:
        descriptor = os.pidfd_open(parent)
    except ProcessLookupError:
        return
    if os.getppid() == parent:  # else it has died, perhaps before the pidfd was opened, which may then be a stranger's
        select.select([descriptor], [], [])
    os.close(descriptor)


@contextmanager
def holding(lock: str) -> Iterator[bool]:
    """Hold the run_dir's lock in this context, and yield whether we have it: False if a daemon has it; True also without a run_dir.

    Raises OSError if that cannot be found out for lack of resources.
    """
    try:
        descriptor = open_lock(lock)
    except OSError as error:
        if is_shortage(error):
            raise
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
    """Whether a daemon holds the run_dir's lock. Raises OSError, as :func:`holding`."""
    with holding(lock) as ours:
        return not ours


def returned(lock: str) -> bool:
    """Wait up to :data:`RETURN_SECONDS` for another daemon; returns whether one took over."""
    until = time.monotonic() + RETURN_SECONDS
    while time.monotonic() < until:
        with suppress(OSError):
            if has_holder(lock):
                return True
        time.sleep(POLL_SECONDS)
    return False


def end_all(instance: str, lock: str) -> None:
    """End everything of the instance; returns early if a daemon starts meanwhile, which then finishes this."""
    run_dir = os.path.dirname(lock)
    termination = Termination(instance, stop_settings(run_dir), None)
    while True:
        try:
            if _end_more(instance, lock, run_dir, termination):
                return
        except OSError as error:
            if not is_shortage(error):
                raise
        time.sleep(POLL_SECONDS)


def _end_more(instance: str, lock: str, run_dir: str, termination: Termination) -> bool:
    """Terminate what lives, and kill what outlives its grace period; True: nothing lives, or another daemon is in charge by now."""
    living = tags.living(instance)
    with holding(lock) as ours:  # only for each round: a daemon that starts now waits no longer than that
        if not ours:
            return True
        if living:
            ending.begin(run_dir)
            termination.advance(living)
        else:
            cgroups.remove_all(instance)
    return not living


def main(arguments: list[str]) -> int:
    """Wait until the daemon is gone, then for another one; without one, end its programs."""
    instance, lock, daemon = arguments
    for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(signum, signal.SIG_IGN)  # from a terminal, these are meant for the daemon
    wait_dead(int(daemon))
    if not returned(lock):
        end_all(instance, lock)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
