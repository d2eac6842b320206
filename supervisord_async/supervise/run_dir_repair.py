"""What the daemon needs in its run_dir: lock, control socket and saved state, made again when somebody has removed them.

Logs and history recover with their next write, but the state may not be written for days. The kernel tells of removals; where it does
not (no inotify instance, a folder that cannot be watched), a thread looks now and then, since the disk may hang. A look also
follows each reload: if it was asked for by a signal, perhaps the socket was gone.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable

import anyio

from supervisord_async.core.record import Record
from supervisord_async.errors import DaemonError
from supervisord_async.supervise.retry import retry_on_shortage
from supervisord_async.system.lock import InstanceLock
from supervisord_async.system.removals import Removals
from supervisord_async.system.threads import DaemonThreads

_log = logging.getLogger("asupd")

#: The time between two looks where nobody tells of a removal, or for what nobody tells of.
POLL_SECONDS = 10.0
#: The time between two looks otherwise: a folder further up may have been moved.
TOLD_SECONDS = 600.0
#: How long after a removal we look: whoever removes a whole folder is not to find new files in it.
SETTLE_SECONDS = 1.0


class RunDirRepair:
    """Looks after the lock, the socket and the state of one daemon."""

    def __init__(
        self,
        lock: InstanceLock,
        socket: str,
        state: str,
        *,
        renew_socket: Callable[[], Awaitable[object]],
        save_anew: Callable[[], None],
        polls: bool,
    ) -> None:
        """``renew_socket`` makes ``socket`` again if it is gone; ``save_anew`` is called when the file ``state`` is gone.

        With ``polls`` it is called each :data:`POLL_SECONDS`, as it looks after more than the socket.
        """
        self._lock, self._socket, self._state = lock, socket, state
        self._renew_socket, self._save_anew, self._polls = renew_socket, save_anew, polls
        self._due = anyio.Event()
        self._trouble = ""

    def on_record(self, record: Record) -> None:
        """``record`` was published; a reload, also a refused one, is followed by a look."""
        if record.type in ("reload", "config_refused"):
            self._due.set()

    async def run(self) -> None:
        """Look after them until cancelled."""
        threads = DaemonThreads(1, "run_dir")
        removals, told = self._removals(), False
        try:
            while True:
                with anyio.move_on_after(TOLD_SECONDS if told and not self._polls else POLL_SECONDS):
                    await self._due.wait()
                self._due = anyio.Event()
                told, has_state = await retry_on_shortage("look after the run_dir", lambda: threads.run(self._look, removals))
                await self._renew_socket()
                if not has_state:
                    self._save_anew()  # without a warning: before the first change there is no state file either
        finally:
            if removals is not None:
                asyncio.get_running_loop().remove_reader(removals.fd)
                removals.close()

    def _removals(self) -> Removals | None:
        try:
            removals = Removals()
        except OSError:
            return None
        loop = asyncio.get_running_loop()

        def tell() -> None:
            if removals.read():
                loop.call_later(SETTLE_SECONDS, self._due.set)

        loop.add_reader(removals.fd, tell)
        return removals

    def _look(self, removals: Removals | None) -> tuple[bool, bool]:
        """The run_dir exists and its lock is held; whether removals are told from now on, and the state file exists. Called in a thread."""
        self._see_to_lock()
        told = removals is not None and self._watch(removals)
        self._see_to_lock()  # it may have been removed just before it was watched
        return told, os.path.lexists(self._state)

    def _watch(self, removals: Removals) -> bool:
        try:
            removals.watch((self._lock.path, self._socket, self._state), renamed=(self._state,))
        except OSError:
            return False
        return True

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
