"""The control server, as the daemon starts it. Light: HTTP is loaded when it begins, and its absence is the caller's to say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from supervisord_async.supervise.history import History
    from supervisord_async.supervise.supervisor import Supervisor


async def serve(
    supervisor: Supervisor,
    history: History | None,
    *,
    inherited: Sequence[int] = (),
    on_serving: Callable[[list[int]], None] = lambda _: None,
) -> None:
    """Answer until cancelled; all connections are closed then.

    ``inherited`` are descriptors of listening sockets that a former self left. ``on_serving`` is called with those in use once
    they answer. Raises DaemonError where not even the unix socket can be had, ImportError where HTTP cannot.
    """
    from supervisord_async.control.commands import Commands
    from supervisord_async.control.listener import listening
    from supervisord_async.control.operations import Api
    from supervisord_async.supervise.figures import Sampler

    api = Api(Commands(supervisor, history=history, figures=Sampler()))
    async with listening(supervisor.configuration.daemon, api, inherited) as sockets:
        on_serving([sock.fileno() for sock in sockets])
        await anyio.sleep_forever()
