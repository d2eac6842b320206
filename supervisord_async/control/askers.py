"""Who sent a request, in words for records: the user of a client on a unix socket; over TCP only the token and the address are known."""

from __future__ import annotations

import pwd

import anyio

from supervisord_async.control.message import Request
from supervisord_async.system.threads import DaemonThreads

#: The user's name may have to be asked for over the network (NSS); an order does not wait longer for it.
NAME_SECONDS = 0.5


class Askers:
    """The users who have sent requests so far."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._threads = DaemonThreads(1, "asker")

    async def name_of(self, request: Request) -> str:
        """The user's name, ``uid N`` if they have none or it cannot be found out now; over TCP ``token from ADDRESS``."""
        if request.peer is None:
            return f"token from {request.address}" if request.address else "token"
        uid = request.peer.uid
        if uid not in self._names:
            try:
                with anyio.fail_after(NAME_SECONDS):
                    self._names[uid] = (await self._threads.run(pwd.getpwuid, uid)).pw_name
            except (KeyError, OSError):  # unknown, too slow (TimeoutError is an OSError), or no thread: asked again next time
                return f"uid {uid}"
        return self._names[uid]
