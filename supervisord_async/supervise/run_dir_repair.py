"""What the daemon needs in its run_dir: lock, control socket and saved state, made again when somebody has removed them.

Logs and history recover with their next write, but the state may not be written for days. The check is a ``stat`` now and
then, in a thread, since the disk may hang; inotify might be refused, and its instances are too few to spend one on this. A
check also follows each reload: if it was asked for by a signal, perhaps the socket was gone.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable

import anyio

from supervisord_async.core.record import Record
from supervisord_async.errors import DaemonError
from supervisord_async.supervise.retry import retry_on_shortage
from supervisord_async.system.lock import InstanceLock
from supervisord_async.system.threads import DaemonThreads

_log = logging.getLogger("asupd")

#: The time between two checks.
POLL_SECONDS = 10.0


class RunDirRepair:
    """Looks after the lock, the socket and the state of one daemon."""

    def __init__(
        self, lock: InstanceLock, *, renew_socket: Callable[[], Awaitable[object]], state: str, save_anew: Callable[[], None]
    ) -> None:
        """``renew_socket`` makes the socket again if it is gone; ``save_anew`` is called when the file ``state`` is gone."""
        self._lock, self._state = lock, state
        self._renew_socket, self._save_anew = renew_socket, save_anew
        self._reloaded = anyio.Event()
        self._trouble = ""

    def on_record(self, record: Record) -> None:
        """``record`` was published; a reload, also a refused one, is followed by a check."""
        if record.type in ("reload", "config_refused"):
            self._reloaded.set()

    async def run(self) -> None:
        """Check until cancelled."""
        threads = DaemonThreads(1, "run_dir")
        while True:
            with anyio.move_on_after(POLL_SECONDS):
                await self._reloaded.wait()
            self._reloaded = anyio.Event()
            has_state = await retry_on_shortage("look after the run_dir", lambda: threads.run(self._look))
            await self._renew_socket()
            if not has_state:
                self._save_anew()  # without a warning: before the first change there is no state file either

    def _look(self) -> bool:
        """The run_dir exists and its lock is held; returns whether the state file exists. Called in a thread."""
        self._see_to_lock()
        return os.path.lexists(self._state)

    def _see_to_lock(self) -> None:
        try:
            if self._lock.renew():
                _log.warning("%s was removed: it was made and locked again", self._lock.path)
        except (DaemonError, OSError) as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                _log.error("degraded: %s; a second daemon would not be kept out", error)
        else:
            self._trouble = ""
