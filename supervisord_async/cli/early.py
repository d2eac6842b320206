"""Signals to a daemon that is being loaded.

Reload, reopen, re-exec: a signal that is sent as soon as the process exists is meant for the daemon that it will be. These stay
pending until the daemon listens; without that the kernel would end the process. Signals to stop are noted, see
:mod:`~supervisord_async.system.stops`.
"""

from __future__ import annotations

import signal

SIGNALS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def hold() -> None:
    """All of :data:`SIGNALS` are blocked, until the daemon listens for them and unblocks them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def interrupt_quietly() -> None:
    """Ctrl-C ends the process like any other signal, and not by a traceback, until somebody listens for it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
