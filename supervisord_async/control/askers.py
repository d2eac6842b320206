"""Who sent a request, in words for records: the user of a client on a unix socket; over TCP only the token and the address are known."""

from __future__ import annotations

import pwd

import anyio

from supervisord_async.control.message import Request
from supervisord_async.system.threads import DaemonThreads

#: The user's name may have to be asked for over the network (NSS); an order does not wait longer for it.
NAME_SECONDS = 0.5


class Askers:
    """Finds out who they are. Each time anew: in a daemon's long life a user is removed, and the number given to somebody else."""

    def __init__(self) -> None:
        self._threads = DaemonThreads(1, "asker")

    async def name_of(self, request: Request) -> str:
        """The user's name, ``uid N`` if they have none or it cannot be found out now; over TCP ``token from ADDRESS``."""
        if request.peer is None:
            return f"token from {request.address}" if request.address else "token"
        uid = request.peer.uid
        try:
            with anyio.fail_after(NAME_SECONDS):
                return (await self._threads.run(pwd.getpwuid, uid)).pw_name
        except (KeyError, OSError):  # unknown, too slow (TimeoutError is an OSError), or no thread
            return f"uid {uid}"
