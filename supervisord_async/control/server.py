"""The control server, as the daemon starts it. Light: HTTP is imported only when serving begins; the caller reports a failed import."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING

import anyio

from supervisord_async.control.counters import Counters
from supervisord_async.system.shortage import is_shortage
from supervisord_async.system.threads import in_thread

if TYPE_CHECKING:
    from supervisord_async.control.listener import Listening
    from supervisord_async.core.record import Record
    from supervisord_async.supervise.records.history import History
    from supervisord_async.supervise.supervisor import Supervisor


class ControlServer:
    """The API of one daemon: it counts records from the daemon's start on, and answers while :meth:`serve` runs."""

    def __init__(self, supervisor: Supervisor, history: History | None) -> None:
        """Nothing listens yet. To be made before the first record is published, so that the counts are complete."""
        self._supervisor, self._history = supervisor, history
        self._counters = Counters()
        supervisor.bus.listen(self._count)

    def _count(self, record: Record) -> None:
        self._counters.on_record(record)
        if record.type in ("reload", "scale"):  # processes that the one before has removed are gone by now
            self._counters.keep_only(self._supervisor.processes)

    async def serve(self, *, inherited: Sequence[int] = (), on_serving: Callable[[Listening], None] = lambda _: None) -> None:
        """Answer until cancelled; then all connections are closed. May be called again after a failure.

        ``inherited`` are descriptors of listening sockets from before a re-exec. ``on_serving`` is called once the sockets answer.
        Raises DaemonError if not even the unix socket can be bound, ImportError if HTTP cannot be imported.
        """
        await _loaded()
        from supervisord_async.control.commands import Commands
        from supervisord_async.control.listener import listening
        from supervisord_async.control.operation import Api
        from supervisord_async.supervise.records.figures import Sampler

        api = Api(Commands(self._supervisor, history=self._history, figures=Sampler()), self._counters)
        async with listening(self._supervisor.configuration.daemon, api, inherited) as listeners:
            on_serving(listeners)
            await anyio.sleep_forever()


def load_ahead() -> None:
    """A thread is importing HTTP, which takes 40 ms, while the daemon waits for the kernel and for disks."""
    with suppress(RuntimeError):  # no thread can be started: serve() imports it
        Thread(target=_load_quietly, name="load-http", daemon=True).start()


def _load_quietly() -> None:
    with suppress(Exception):  # serve() meets the same error, and reports it
        _load()


def _load() -> None:
    importlib.import_module("supervisord_async.control.listener")


async def _loaded() -> None:
    """HTTP is imported, without blocking the loop. Raises ImportError."""
    try:
        await in_thread(_load)
    except OSError as error:
        if not is_shortage(error):
            raise
        # no thread can be started: the caller's own import blocks the loop instead
