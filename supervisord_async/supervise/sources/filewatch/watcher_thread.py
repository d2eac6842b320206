"""A watcher and its thread, kept as long as something on its disks is watched.

If the disks hang, so does the thread, and it cannot be ended. No second one is started for the same disks while it lives.
"""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio

from supervisord_async.supervise.sources.filewatch.view import View, WatchedPath
from supervisord_async.supervise.sources.filewatch.watcher import Pace, Reports, Watcher
from supervisord_async.system import threads

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

#: The thread is kept this long after the last subscription, in case another follows: a reload ends and begins many.
LINGER_SECONDS = 1.0
#: How often to look whether a thread that was told to stop has ended. It ends between two system calls …
JOIN_SECONDS = 0.002
#: … and if one hangs, with the disk, the thread is abandoned after this time.
JOIN_MAX_SECONDS = 1.0
#: How often a thread that waits for the loop checks whether it is to stop.
REPORT_SECONDS = 0.05


class WatcherThread:
    """Watches its paths while :meth:`serve` is awaited."""

    def __init__(self, reports: Reports, pace: Pace, devices: frozenset[int]) -> None:
        """For the disks ``devices``; if empty, for any. There is no thread yet. ``reports`` is called on the loop."""
        self.devices = devices
        self.watched_paths: Mapping[WatchedPath, int] = {}  #: the ones to watch, each with the time since when changes of a new one count
        self._reports, self._pace = reports, pace
        self._generation = 0
        self._handed: list[View] = []
        self._watcher: Watcher | None = None
        self._news = anyio.Event()

    def want(self, generation: int, watched_paths: Mapping[WatchedPath, int], *, handed: Iterable[View] = ()) -> None:
        """Watch ``watched_paths``, see :meth:`.Watcher.want`; before :meth:`serve`, this is passed on when the watcher starts."""
        self._generation, self.watched_paths = generation, watched_paths
        self._handed += handed
        self._tell()
        self._news.set()

    async def serve(self, portal: BlockingPortal) -> None:
        """Watch until there are no paths left; then the thread has ended, or was abandoned if it hangs. Raises what it raised."""
        failures: list[Exception] = []

        def on_loop(report: Callable[..., None], *arguments: object) -> None:
            """Call ``report``, and wait until it returns, unless the watcher is to stop: a loop that is being cancelled may never call."""
            if not stopping.is_set():
                future = portal.start_task_soon(report, *arguments)
                while not stopping.is_set():
                    if concurrent.futures.wait((future,), REPORT_SECONDS).done:
                        future.result()
                        return

        self._watcher = watcher = Watcher(self._reports, self._pace, self.devices, call=on_loop)
        stopping = watcher.stopping  # all that on_loop has of it: else each would keep the other, and what is known of 100,000 files
        self._tell()
        ended = anyio.Event()
        thread = threading.Thread(target=_look, args=(watcher, portal, ended, failures), name="asup-files", daemon=True)
        try:
            threads.start(thread)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._stop_when_deserted, watcher)
                await ended.wait()
                tasks.cancel_scope.cancel()
        finally:
            self._stop(watcher)
            with anyio.move_on_after(JOIN_MAX_SECONDS, shield=True):
                while thread.is_alive():  # noqa: ASYNC110  no event tells of its end
                    await anyio.sleep(JOIN_SECONDS)
        if failures:
            raise failures[0]

    def _tell(self) -> None:
        if self._watcher is not None:
            handed, self._handed = self._handed, []
            self._watcher.want(self._generation, self.watched_paths, handed=handed)

    def _stop(self, watcher: Watcher) -> None:
        self._watcher = None
        watcher.stop()

    async def _stop_when_deserted(self, watcher: Watcher) -> None:
        while self.watched_paths:
            self._news = anyio.Event()
            await self._news.wait()
            if not self.watched_paths:
                await anyio.sleep(LINGER_SECONDS)
        self._stop(watcher)


def _look(watcher: Watcher, portal: BlockingPortal, ended: anyio.Event, failures: list[Exception]) -> None:
    """The thread's function: serve until stopped, then set ``ended`` on the loop, if that still runs."""
    try:
        watcher.serve()
    except concurrent.futures.CancelledError:  # the loop is ending, and handles no report any more
        return
    except Exception as error:  # raised again on the loop
        failures.append(error)
    with suppress(RuntimeError):  # this thread was abandoned, and the loop is gone
        portal.start_task_soon(_set, ended)


def _set(event: anyio.Event) -> None:
    event.set()
