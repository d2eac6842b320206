"""Tells the supervisor that the program is alive: by changing a file, or by sd_notify.

A beat from a thread only proves that the process is alive; one from an asyncio task, that the event loop runs; one by hand,
that the work itself goes on: beat from whatever must not hang. A failed beat never raises: a program must not fail because
its watchdog cannot be reached. The failure is logged once, and once more when beats work again.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

log = logging.getLogger(__name__)

#: The default pause between two beats of a thread or task.
DEFAULT_INTERVAL_SECONDS = 1.0


class Heartbeat:
    """A source of heartbeats.

    By hand: ``beat()``. From a thread: ``start()`` and ``stop()``, or ``with heartbeat:``. From an event loop:
    ``async with heartbeat:``, or ``await heartbeat.beat_forever()`` in a task of your own.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        notify_socket: str | None = None,
        interval: float | None = None,
    ) -> None:
        """Beat the file ``path``, the sd_notify socket, both, or nothing (then ``enabled`` is False and beats are free).

        ``interval`` is the pause between two beats of a thread or task in seconds, above 0; default 1. Keep it well
        under half of the supervisor's timeout. Raises ValueError for an interval that is not positive.
        """
        self.interval = DEFAULT_INTERVAL_SECONDS if interval is None else interval
        if self.interval <= 0:
            raise ValueError(f"interval must be above 0, not {interval}")
        self.path = None if path is None else Path(os.path.abspath(path))
        self.notify_socket = notify_socket
        self._lock = threading.Lock()
        self._beats = 0
        self._failed = False
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._groups: list[TaskGroup] = []

    @classmethod
    def from_environment(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        interval: float | None = None,
    ) -> Heartbeat:
        """The heartbeat that the supervisor asks for: by ASUP_HEARTBEAT_FILE, by NOTIFY_SOCKET with WATCHDOG_USEC, or by both.

        ``path`` is used if the environment names no file. The interval defaults to the shorter of one second and
        a third of WATCHDOG_USEC. A watchdog that is meant for another process (WATCHDOG_PID) is ignored. If nothing is
        asked for, the heartbeat is not ``enabled``, so the same program also runs without a supervisor.
        """
        environ = os.environ if environ is None else environ
        file = environ.get("ASUP_HEARTBEAT_FILE") or path
        watchdog = _watchdog_seconds(environ)
        if interval is None:
            interval = min(DEFAULT_INTERVAL_SECONDS, watchdog / 3) if watchdog else DEFAULT_INTERVAL_SECONDS
        return cls(file, notify_socket=environ.get("NOTIFY_SOCKET") if watchdog else None, interval=interval)

    @property
    def enabled(self) -> bool:
        """Whether there is a file or a socket to beat."""
        return self.path is not None or bool(self.notify_socket)

    @property
    def beats(self) -> int:
        """How many beats have succeeded."""
        return self._beats

    def beat(self) -> bool:
        """The supervisor has been told that the program is alive; False if that failed, never an exception.

        Safe to call from every thread. Takes some microseconds.
        """
        if not self.enabled:
            return True
        with self._lock:
            try:
                if self.path is not None:
                    _change(self.path, f"{time.time():.6f} {self._beats + 1}\n")
                if self.notify_socket:
                    _send(self.notify_socket, "WATCHDOG=1")
            except OSError as error:
                if not self._failed:
                    log.warning("cannot beat %s: %s (the supervisor may restart this process)", self.path or self.notify_socket, error)
                self._failed = True
                return False
            if self._failed:
                log.warning("heartbeats reach %s again", self.path or self.notify_socket)
            self._failed = False
            self._beats += 1
            return True

    def notify(self, state: str) -> bool:
        """Send another sd_notify message, such as ``READY=1`` or ``STATUS=…``; False if there is no socket or it failed."""
        if not self.notify_socket:
            return False
        try:
            _send(self.notify_socket, state)
        except OSError as error:
            log.warning("cannot notify %s: %s", self.notify_socket, error)
            return False
        return True

    def start(self) -> Self:
        """A daemon thread beats from now on, and one beat has been made before this returns. No effect if it is running already."""
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return self
            self._stop = threading.Event()
            self._thread = threading.Thread(target=self._beat_until, args=(self._stop,), name="heartbeat", daemon=True)
        self.beat()
        if self.enabled:
            self._thread.start()
        return self

    def stop(self) -> None:
        """The thread of :meth:`start`, if any, no longer beats."""
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(5.0)

    def _beat_until(self, stop: threading.Event) -> None:
        while not stop.wait(self.interval):
            self.beat()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def beat_forever(self) -> None:
        """Beat every ``interval`` until cancelled; a stuck event loop does not beat. For asyncio and trio."""
        import anyio

        while True:
            # Blocks, but only for microseconds on a local file; from a thread it would prove nothing about the loop.
            self.beat()
            await anyio.sleep(self.interval)

    async def __aenter__(self) -> Self:
        import anyio

        group = anyio.create_task_group()
        entered = await group.__aenter__()
        self._groups.append(entered)
        entered.start_soon(self.beat_forever, name="heartbeat")
        return self

    async def __aexit__(self, *_: object) -> None:
        group = self._groups.pop()
        group.cancel_scope.cancel()
        # The body's exception propagates as it is, not wrapped in a group.
        await group.__aexit__(None, None, None)


def _watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    """The supervisor's watchdog timeout for this very process; None if there is none."""
    try:
        micros = int(environ.get("WATCHDOG_USEC", "0"))
        pid = int(environ.get("WATCHDOG_PID") or os.getpid())
    except ValueError:
        return None
    return micros / 1e6 if micros > 0 and pid == os.getpid() and environ.get("NOTIFY_SOCKET") else None


def _change(path: Path, text: str) -> None:
    """The file has the new text, without ever having been empty; its directory is created if missing. Raises OSError."""
    # O_NONBLOCK: if the path is a FIFO, opening it must not hang the program.
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(path, flags, 0o644)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, flags, 0o644)
    try:
        data = text.encode("ascii")
        if os.write(fd, data) != len(data):
            raise OSError(f"short write to {path}")
        if os.fstat(fd).st_size != len(data):
            os.ftruncate(fd, len(data))
    finally:
        os.close(fd)


def _send(address: str, state: str) -> None:
    """The message is in the socket's queue. Raises OSError, also if that queue is full."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.setblocking(False)
        sock.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
