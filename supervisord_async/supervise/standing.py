"""What the service manager that started the daemon is told of how its programs stand: ``STATUS``, and ``STOPPING`` (``man 3 sd_notify``).

A function of the records and of the processes they are about; `systemctl status` shows it. Readiness is told by whoever
serves the control socket, life by :mod:`.watchdog`.
"""

from __future__ import annotations

import os
from collections import defaultdict
from typing import TYPE_CHECKING

import anyio

from supervisord_async.core.record import Record
from supervisord_async.core.state import State
from supervisord_async.system import descriptors

if TYPE_CHECKING:
    from supervisord_async.supervise.supervisor import Supervisor

#: What follows each other closely is told as one.
PAUSE_SECONDS = 1.0
#: Records after which the words may be others.
HEEDED = frozenset({"state", "reload", "config_refused", "scale"})
#: Processes in these are named, as many as this.
NAMED = (State.FATAL, State.UNKNOWN, State.BACKOFF)
MOST_NAMES = 3
#: From the end of the whole stop's bound, at which what is left is killed, to the daemon's own end.
LAST_SECONDS = 15.0


class Standing:
    """Tells the service manager, if there is one."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._news = anyio.Event()
        self._told = ""

    def heed(self, record: Record) -> None:
        """``record`` was published; that everything is being stopped is told at once, and how long it may take."""
        if record.type == "daemon" and record.data.get("what") == "stopping":
            seconds = self._supervisor.configuration.daemon.stop_timeout_seconds + LAST_SECONDS
            descriptors.sd_notify(f"STOPPING=1\nSTATUS={record.message}\nEXTEND_TIMEOUT_USEC={seconds * 1e6:.0f}")
        elif record.type in HEEDED:
            self._news.set()

    async def run(self) -> None:
        """The manager knows how the programs stand, a moment late, until cancelled; returns at once where there is none."""
        self._news.set()
        while os.environ.get("NOTIFY_SOCKET"):
            await self._news.wait()
            await anyio.sleep(PAUSE_SECONDS)
            self._news = anyio.Event()
            words = self.words()
            if words != self._told and descriptors.sd_notify(f"STATUS={words}"):
                self._told = words

    def words(self) -> str:
        """How many processes are in which state, the most first; those in trouble by name."""
        names: defaultdict[State, list[str]] = defaultdict(list)
        for process in self._supervisor.processes.values():
            names[process.snapshot.state].append(process.name)
        counted = sorted(names.items(), key=lambda each: -len(each[1]))
        words = ", ".join(f"{len(those)} {state}{_named(those) if state in NAMED else ''}" for state, those in counted) or "no programs"
        return f"{words}; the file on disk was refused" if self._supervisor.refused else words


def _named(names: list[str]) -> str:
    return f" ({', '.join(names[:MOST_NAMES])}{', …' if len(names) > MOST_NAMES else ''})"
