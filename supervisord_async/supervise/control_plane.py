"""What serves the control API, as the daemon sees it; the layer above provides it."""

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
        """Of the listening sockets."""

    async def pause(self) -> None:
        """Connections are closed, soon; new clients wait in the kernel's queue."""

    async def resume(self) -> None:
        """After a pause: clients that wait are answered."""

    async def renew(self) -> bool:
        """The unix socket is at its path; returns whether it was gone, so that a new one was bound in its place."""


class ControlPlane(Protocol):
    """The API; given by the layer above."""

    async def serve(self, *, inherited: list[int], on_serving: Callable[[Listeners], None]) -> None:
        """Serve until cancelled, on ``inherited`` listening sockets where a former self left some.

        ``on_serving`` is called once they answer.
        """


#: Makes the API of a daemon, before its first record is published.
MakeControl: TypeAlias = Callable[["Supervisor", "History | None"], ControlPlane]
