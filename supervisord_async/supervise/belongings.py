"""What the daemon needs in its run_dir: lock, control socket and state, made again when somebody has removed them.

Logs and history see to themselves with their next write; of a state nothing may be written for days. Looking is a ``stat`` now
and then, in a thread, since the disk may hang: a notifier could be refused, and is not worth one of its instances.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

import anyio

from supervisord_async.errors import DaemonError
from supervisord_async.supervise.patience import patiently
from supervisord_async.system.lock import InstanceLock
from supervisord_async.system.threads import DaemonThreads

_log = logging.getLogger("asupd")

#: The time between two looks.
LOOK_SECONDS = 10.0


class Belongings:
    """Looks after the lock, the socket and the state of one daemon."""

    def __init__(
        self, lock: InstanceLock, *, socket: str, serve_anew: Callable[[], None], state: str, save_anew: Callable[[], None]
    ) -> None:
        """``serve_anew`` is called when the socket is gone from its path, or is another's; ``save_anew`` when ``state`` is."""
        self._state, self._save_anew = state, save_anew
        self._lock = lock
        self._socket = socket
        self._serve_anew = serve_anew
        self._bound: int | None = None  #: the inode of the socket that answers; None: none is expected
        self._trouble = ""

    def serving(self) -> None:
        """The socket answers now."""
        self._bound = _inode(self._socket)

    async def run(self) -> None:
        """Look until cancelled."""
        threads = DaemonThreads(1, "belongings")
        while True:
            await anyio.sleep(LOOK_SECONDS)
            socket, state = await patiently("look after the run_dir", lambda: threads.run(self._look))
            if self._bound is not None and socket is not None and socket != self._bound:
                self._bound = None
                _log.warning("%s was removed: it is served again", self._socket)
                self._serve_anew()
            if state is None:
                self._save_anew()  # not reported: before the first change there is none either

    def _look(self) -> tuple[int | None, int | None]:
        """The lock is held; the inodes of the socket, None without a folder for it, and of the state, None without one. In a thread."""
        self._see_to_lock()
        socket = _inode(self._socket) or 0
        return socket if os.path.isdir(os.path.dirname(self._socket)) else None, _inode(self._state)

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


def _inode(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return None
    except OSError:
        return -1  # it cannot be looked at: not the file that we know, but not certainly gone either
