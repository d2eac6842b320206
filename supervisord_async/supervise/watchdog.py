"""The daemon's own heartbeat to the service manager that started it: ``WATCHDOG=1`` (``man 3 sd_watchdog_enabled``).

Sent from the event loop that supervises: if that hangs, the beats stop and the manager replaces the daemon. Its programs
live on (``KillMode=process``), and the next daemon adopts them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import anyio

from supervisord_async.system import descriptors

#: Beats per interval that the manager demands, so that one may be late.
BEATS = 3


def interval_seconds(environment: Mapping[str, str], pid: int) -> float | None:
    """The pause between two beats; None where the environment demands none of ``pid``."""
    micros = environment.get("WATCHDOG_USEC", "")
    if not micros.isdecimal() or int(micros) == 0:
        return None
    if environment.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    return int(micros) / 1e6 / BEATS


async def beat() -> None:
    """Send beats until cancelled; return at once where none are demanded."""
    interval = interval_seconds(os.environ, os.getpid())
    while interval is not None:
        descriptors.sd_notify("WATCHDOG=1")
        await anyio.sleep(interval)
