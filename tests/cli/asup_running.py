"""How the tests of asup-run start it."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ASUP_RUN = [sys.executable, "-m", "supervisord_async.cli.asup_run"]
SECONDS = 60


def default_signals() -> None:
    """The tests' own starter may ignore signals; users' shells do not."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
