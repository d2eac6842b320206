"""The control server, as the daemon starts it. Light: HTTP is loaded when it begins, and its absence is the caller's to say."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from supervisord_async.control.tally import Tally
from supervisord_async.supervise.patience import is_want

if TYPE_CHECKING:
    from supervisord_async.control.listener import Listening
    from supervisord_async.supervise.records.history import History
    from supervisord_async.supervise.supervisor import Supervisor


class ControlServer:
    """The API of one daemon: counts what passes from the beginning, and answers while it is told to."""

    def __init__(self, supervisor: Supervisor, history: History | None) -> None:
        """Nothing listens yet. To be made before the first record is published, so that the counts are those of the whole life."""
        self._supervisor, self._history = supervisor, history
        self._tally = Tally()
        supervisor.bus.listen(self._tally.heed)

    async def serve(self, *, inherited: Sequence[int] = (), on_serving: Callable[[Listening], None] = lambda _: None) -> None:
        """Answer until cancelled; all connections are closed then. May be called again when it has failed.

        ``inherited`` are descriptors of listening sockets that a former self left. ``on_serving`` is called with those in use once
        they answer.
        Raises DaemonError where not even the unix socket can be had, ImportError where HTTP cannot.
        """
        await _loaded()
        from supervisord_async.control.commands import Commands
        from supervisord_async.control.listener import listening
        from supervisord_async.control.operation import Api
        from supervisord_async.supervise.records.figures import Sampler

        api = Api(Commands(self._supervisor, history=self._history, figures=Sampler()), self._tally)
        async with listening(self._supervisor.configuration.daemon, api, inherited) as listeners:
            on_serving(listeners)
            await anyio.sleep_forever()


def load_ahead() -> None:
    """HTTP is being loaded by a thread from now on: 40 ms that the daemon spends on waiting for the kernel and for disks."""
    with suppress(RuntimeError):  # no thread can be started: it is loaded by whoever serves first
        Thread(target=_load_quietly, name="load-http", daemon=True).start()


def _load_quietly() -> None:
    with suppress(Exception):  # who serves meets it again
        _load()


def _load() -> None:
    importlib.import_module("supervisord_async.control.listener")


async def _loaded() -> None:
    """HTTP is loaded; the loop went on meanwhile. Raises ImportError."""
    try:
        await anyio.to_thread.run_sync(_load)
    except RuntimeError as error:
        if not is_want(error):
            raise  # no thread can be started: whoever imports it next waits
