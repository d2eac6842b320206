"""The daemon's own heartbeat to the service manager that started it: ``WATCHDOG=1`` (``man 3 sd_watchdog_enabled``).

Sent from the loop that supervises, so that a loop which hangs sends none and the manager replaces the daemon. Its
programs go on (``KillMode=process``) and the next daemon takes them back.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import anyio

from supervisord_async.system import descriptors

#: Beats per demanded interval: one may be late.
BEATS = 3


def interval_seconds(environment: Mapping[str, str], pid: int) -> float | None:
    """The pause between two beats; None where nobody expects any from ``pid``."""
    micros = environment.get("WATCHDOG_USEC", "")
    if not micros.isdecimal() or int(micros) == 0:
        return None
    if environment.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    return int(micros) / 1e6 / BEATS


async def beat() -> None:
    """Beats until cancelled; returns at once where nobody expects it."""
    interval = interval_seconds(os.environ, os.getpid())
    while interval is not None:
        descriptors.sd_notify("WATCHDOG=1")
        await anyio.sleep(interval)
