"""What the service manager that started the daemon is told (``man 3 sd_notify``): ``STATUS``, ``STOPPING``, and ``WATCHDOG`` beats.

The status derives from the records and the processes they are about; `systemctl status` shows it. ``READY`` is sent by the code that
serves the control socket. The watchdog's beats are sent from the event loop that supervises: if that hangs, they stop and the manager
replaces the daemon. Its programs live on (``KillMode=process``), and the next daemon adopts them.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

import anyio

from supervisord_async.core.record import Record
from supervisord_async.core.state import State
from supervisord_async.system import descriptors
from supervisord_async.words import listed

if TYPE_CHECKING:
    from supervisord_async.supervise.supervisor import Supervisor

#: Changes within this time are reported as one.
PAUSE_SECONDS = 1.0
#: The types of records that may change the status.
RECORD_TYPES = frozenset({"state", "reload", "config_refused", "scale"})
#: The status names processes in these states, up to :data:`MAX_NAMES` for each.
NAMED = (State.FATAL, State.UNKNOWN, State.BACKOFF)
MAX_NAMES = 3
#: What the daemon may take to end after ``stop_timeout``, when it kills what is left.
LAST_SECONDS = 15.0
#: Beats per interval that the manager demands, so that one may be late.
BEATS = 3


class ServiceStatus:
    """Reports to the service manager, if there is one."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._news = anyio.Event()
        self._sent = ""

    def on_record(self, record: Record) -> None:
        """``record`` was published. A shutdown is reported at once, with the time that it may take; a change of the status soon."""
        if record.type == "daemon" and record.data.get("what") == "stopping":
            seconds = self._supervisor.configuration.daemon.stop_timeout_seconds + LAST_SECONDS
            descriptors.sd_notify(f"STOPPING=1\nSTATUS={record.message}\nEXTEND_TIMEOUT_USEC={seconds * 1e6:.0f}")
        elif record.type in RECORD_TYPES:
            self._news.set()

    async def run(self) -> None:
        """Report the status after each change, until cancelled; return at once where there is no service manager."""
        self._news.set()
        while os.environ.get("NOTIFY_SOCKET"):
            await self._news.wait()
            await anyio.sleep(PAUSE_SECONDS)
            self._news = anyio.Event()
            words = self.words()
            if words != self._sent and descriptors.sd_notify(f"STATUS={words}"):
                self._sent = words

    def words(self) -> str:
        """How many processes are in each state, the most frequent first; those in trouble by name."""
        names: defaultdict[State, list[str]] = defaultdict(list)
        for process in self._supervisor.processes.values():
            names[process.snapshot.state].append(process.name)
        counted = sorted(names.items(), key=lambda each: -len(each[1]))
        words = (
            ", ".join(f"{len(those)} {state}{f' ({listed(those, MAX_NAMES)})' if state in NAMED else ''}" for state, those in counted)
            or "no programs"
        )
        return f"{words}; the file on disk was refused" if self._supervisor.refused else words


def beat_interval_seconds(environment: Mapping[str, str], pid: int) -> float | None:
    """The pause between two beats; None where the environment demands none of ``pid``."""
    micros = environment.get("WATCHDOG_USEC", "")
    if not micros.isdecimal() or int(micros) == 0:
        return None
    if environment.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    return int(micros) / 1e6 / BEATS


async def beat() -> None:
    """Send beats until cancelled; return at once where none are demanded."""
    interval = beat_interval_seconds(os.environ, os.getpid())
    while interval is not None:
        descriptors.sd_notify("WATCHDOG=1")
        await anyio.sleep(interval)
