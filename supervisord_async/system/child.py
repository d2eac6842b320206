"""A run's main process, known by a pidfd: wait for it, signal it, adopt it after the daemon was replaced."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

from supervisord_async.system import procfs
from supervisord_async.system.descriptors import ADOPTION_ROOM
from supervisord_async.system.exits import Ended, ExitWatch, Rusage
from supervisord_async.system.identity import Identity, of

__all__ = ["Child", "Ended", "Rusage"]


class Child:
    """One process that is watched; not necessarily a child of ours."""

    __slots__ = ("_watch",)

    def __init__(self, watch: ExitWatch) -> None:
        self._watch = watch

    @classmethod
    def adopt(cls, identity: Identity) -> Child:
        """Watch a process that an earlier daemon, or this one before a re-exec, has spawned. To be called on the running loop.

        Its exit status will be known if it is our child (after ``execve``), else as far as the kernel tells others.

        Raises ProcessLookupError if that very process is gone, OSError if no descriptor is free.
        """
        found = procfs.stat(identity.pid)
        if found is None or of(found) != identity:
            raise ProcessLookupError(f"process {identity.pid} is gone")
        watch = ExitWatch(asyncio.get_running_loop(), identity, ours=found.parent == os.getpid(), room=ADOPTION_ROOM)
        again = procfs.stat(identity.pid)  # did pidfd_open find this very process?
        if again is not None and of(again) != identity:
            watch.close()
            raise ProcessLookupError(f"process {identity.pid} is gone")
        return cls(watch)

    @property
    def identity(self) -> Identity:
        """The identity of the process."""
        return self._watch.identity

    @property
    def pid(self) -> int:
        """Its PID, which may be another process's once this one has ended."""
        return self._watch.identity.pid

    @property
    def pidfd(self) -> int:
        """The pidfd; -1 once the process has ended, or this was closed."""
        return self._watch.pidfd

    @property
    def ours(self) -> bool:
        """True if it is a child of this process, so that what it leaves behind comes to us."""
        return self._watch.ours

    @property
    def ended(self) -> Ended | None:
        """How it ended; None while it runs."""
        return self._watch.ended

    def wait(self) -> Awaitable[Ended]:
        """How it ended, as soon as it is dead, even if others still have its pipes open.

        Any number of tasks may wait, also after the end. If this is closed while it lives, the result is an unknown status.
        """
        return self._watch.wait()

    def on_end(self, callback: Callable[[Ended], None]) -> None:
        """Call ``callback`` once, on the loop, when it is dead; at once if it is already. Like :meth:`wait`, without a task."""
        self._watch.on_end(callback)

    def forget(self, callback: Callable[[Ended], None]) -> None:
        """``callback`` is not called any more."""
        self._watch.forget(callback)

    def send_signal(self, signum: int) -> bool:
        """Send a signal to this very process, never to a stranger with its PID; returns False if it is gone already.

        Raises PermissionError if it runs as a user whom we may not signal.
        """
        if self._watch.pidfd < 0:
            return False
        try:
            signal.pidfd_send_signal(self._watch.pidfd, signum)
        except ProcessLookupError:
            return False
        return True

    def close(self) -> None:
        """Stop watching it and close the pidfd; if it still runs it is left alone."""
        self._watch.close()
