"""The interface of the control API's server, as the daemon uses it; the layer above implements it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from supervisord_async.supervise.records.history import History
    from supervisord_async.supervise.supervisor import Supervisor


class Listeners(Protocol):
    """The sockets on which the API is served."""

    @property
    def descriptors(self) -> list[int]:
        """The descriptors of the listening sockets."""

    async def pause(self) -> None:
        """Open connections are closed soon; new clients wait in the kernel's queue."""

    async def resume(self) -> None:
        """After a pause: waiting clients are served again."""

    async def renew(self) -> bool:
        """The unix socket is at its path; returns whether it was gone, so that a new one was bound there."""


class ControlPlane(Protocol):
    """The server of the control API."""

    async def serve(self, *, inherited: list[int], on_serving: Callable[[Listeners], None]) -> None:
        """Serve until cancelled, on the listening sockets ``inherited`` over a re-exec, if there are any.

        ``on_serving`` is called once the sockets are served.
        """


#: Makes the control API's server for a daemon, before its first record is published.
MakeControl: TypeAlias = Callable[["Supervisor", "History | None"], ControlPlane]
