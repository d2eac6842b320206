"""Signals to a daemon that is being loaded.

Reload, reopen, re-exec: whoever sends one as soon as there is a process means the daemon that it will be. Until it can hear them they
wait; the kernel would end the process otherwise. Those that tell it to go end it.
"""

from __future__ import annotations

import signal

SIGNALS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def hold() -> None:
    """They wait, for whoever lets them through (the daemon, when it listens) or for the end of the process."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
