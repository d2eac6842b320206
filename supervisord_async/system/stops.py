"""Signals to stop that come before the daemon listens for them.

Whoever sends one means all that runs from this run_dir, also what an earlier daemon has left; so it does not just end the process.
"""

from __future__ import annotations

import os
import signal
import time

STOPS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
#: One that comes twice within this counts once: timeout(1) signals us, and at the same time our group.
ECHO_SECONDS = 0.03


def note() -> list[int]:
    """The first that comes, in a list that is empty until then; a second one ends the process: a disk may hang that is waited for.

    That holds until something else handles them. To be called on the main thread. A mask would not do: threads that were begun
    earlier do not have it.
    """
    came: list[int] = []
    came_at = 0.0

    def heed(number: int, _frame: object) -> None:
        nonlocal came_at
        now = time.monotonic()
        if not came:
            came.append(number)
            came_at = now
        elif now - came_at > ECHO_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    for number in STOPS:
        signal.signal(number, heed)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)  # blocked over a re-exec
    return came
