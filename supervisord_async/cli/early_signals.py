"""Signals that arrive while the daemon is still being imported.

A signal to reload, reopen logs or re-exec may be sent as soon as the process exists, and is meant for the daemon that it will
become. These stay pending until the daemon handles them; otherwise the kernel would end the process. Signals to stop are noted,
see :mod:`~supervisord_async.system.stop_signals`.
"""

from __future__ import annotations

import signal

SIGNALS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def hold() -> None:
    """All of :data:`SIGNALS` are blocked, until the daemon has handlers for them and unblocks them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def interrupt_quietly() -> None:
    """Until there is a handler for it, Ctrl-C ends the process like any other signal, without a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
