"""Signals to a daemon that is being loaded.

Reload, reopen, re-exec: whoever sends one as soon as there is a process means the daemon that it will be. They stay pending until
that listens; by default the kernel would end the process. Signals that tell it to stop are not held: they end it.
"""

from __future__ import annotations

import signal

SIGNALS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def hold() -> None:
    """All of :data:`SIGNALS` are blocked, until the daemon listens for them and unblocks them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
