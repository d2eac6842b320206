"""Stop signals that come before the daemon handles signals.

Such a signal is meant for all that runs from this run_dir, also what an earlier daemon has left; so it must not just end the process.
"""

from __future__ import annotations

import os
import signal
import time

STOPS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
#: A signal repeated within this time counts once: timeout(1) signals us, and at the same time our group.
ECHO_SECONDS = 0.03


def note() -> list[int]:
    """A list to which the first stop signal will be added; a second one kills the process, as a disk may hang that it waits for.

    This lasts until other handlers are installed. To be called on the main thread. Blocking the signals would not do: threads
    that were started before would still receive them.
    """
    came: list[int] = []
    came_at = 0.0

    def on_signal(number: int, _frame: object) -> None:
        nonlocal came_at
        now = time.monotonic()
        if not came:
            came.append(number)
            came_at = now
        elif now - came_at > ECHO_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    for number in STOPS:
        signal.signal(number, on_signal)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)  # they were blocked during a re-exec
    return came
