"""Keeps the guardian running while ``on_death`` is ``stop``: it is replaced when it ends, and ended with the daemon."""

from __future__ import annotations

import logging
import os
import signal
import sys

import anyio

from supervisord_async.errors import SpawnError
from supervisord_async.supervise.records.narrate import exit_words
from supervisord_async.system.child import Child
from supervisord_async.system.spawn import SpawnSpec, spawn

#: The least time between two starts of a guardian; one that has lived longer is replaced at once.
PAUSE_SECONDS = 5.0
MODULE = "supervisord_async.supervise.recovery.guardian"

_log = logging.getLogger("asupd")


class GuardianProcess:
    """One daemon's guardian."""

    def __init__(self, instance: str, lock: str, null_fd: int) -> None:
        command = (sys.executable, "-m", MODULE, instance, lock, str(os.getpid()))
        self._spec = SpawnSpec(command, "/", dict(os.environ), null_fd, null_fd)
        self._wanted = False
        self._changed = anyio.Event()
        self._child: Child | None = None
        self._trouble = ""  # what was logged of it last

    def follow(self, on_death: str) -> None:
        """From now on there is a guardian if ``on_death`` is ``stop``, else none."""
        self._wanted = on_death == "stop"
        if not self._wanted:
            self.dismiss()
        self._changed.set()

    def dismiss(self) -> None:
        """Kill the guardian; :meth:`run` starts a new one if it is still wanted."""
        if self._child is not None:
            self._child.send_signal(signal.SIGKILL)

    async def run(self) -> None:
        """Keep a guardian, while one is wanted, until cancelled."""
        try:
            while True:
                if self._wanted:
                    await self._keep_one()
                else:
                    await self._changed.wait()
                    self._changed = anyio.Event()
        finally:
            self.dismiss()

    async def _keep_one(self) -> None:
        began = anyio.current_time()
        try:
            self._child = await spawn(self._spec)
            if not self._wanted:  # any more: the setting changed during the spawn
                self.dismiss()
            trouble = f"it ended: {exit_words((await self._child.wait()).status)}"
            if anyio.current_time() - began > PAUSE_SECONDS:
                self._trouble = ""  # all was well for a while
        except SpawnError as error:
            trouble = str(error)
        self._child = None
        if self._wanted:
            self._report(trouble)
            await anyio.sleep_until(began + PAUSE_SECONDS)

    def _report(self, trouble: str) -> None:
        """``trouble`` is logged, unless it is the same as last time."""
        if trouble != self._trouble:
            self._trouble = trouble
            _log.error("degraded: no guardian (%s): if the daemon is killed now, its programs live on; trying again", trouble)
