"""A run's main process, held by a pidfd: wait for it, signal it, take it back after the daemon was replaced."""

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
    """One process that is watched; not necessarily born of us."""

    __slots__ = ("_watch",)

    def __init__(self, watch: ExitWatch) -> None:
        self._watch = watch

    @classmethod
    def adopt(cls, identity: Identity) -> Child:
        """Watch a process that this life of the daemon did not spawn. To be called on the running loop.

        The end's status is known if it is our child (after ``execv``), or as far as the kernel tells others.

        Raises ProcessLookupError: that very process is gone for good. OSError: no free descriptor.
        """
        found = procfs.stat(identity.pid)
        if found is None or of(found) != identity:
            raise ProcessLookupError(f"process {identity.pid} is gone")
        watch = ExitWatch(asyncio.get_running_loop(), identity, ours=found.parent == os.getpid(), room=ADOPTION_ROOM)
        again = procfs.stat(identity.pid)  # whom did pidfd_open find?
        if again is not None and of(again) != identity:
            watch.close()
            raise ProcessLookupError(f"process {identity.pid} is gone")
        return cls(watch)

    @property
    def identity(self) -> Identity:
        """Which process, exactly."""
        return self._watch.identity

    @property
    def pid(self) -> int:
        """Its number; somebody else's, perhaps, once it has ended."""
        return self._watch.identity.pid

    @property
    def pidfd(self) -> int:
        """The descriptor that means this very process; -1 once it has ended or was closed."""
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
        """How it ended, as soon as it is dead, whoever may still hold its pipes.

        Any number of tasks may wait, also after the end. After :meth:`close` of a living one: unknown.
        """
        return self._watch.wait()

    def on_end(self, callback: Callable[[Ended], None]) -> None:
        """Call ``callback`` once, on the loop, when it is dead; at once if it is already. :meth:`wait` without a task."""
        self._watch.on_end(callback)

    def forget(self, callback: Callable[[Ended], None]) -> None:
        """``callback`` is not called any more."""
        self._watch.forget(callback)

    def send_signal(self, signum: int) -> bool:
        """Send to the main process alone, never to a stranger with its PID; False if it is gone already.

        Raises PermissionError: it runs as somebody whom we may not signal.
        """
        if self._watch.pidfd < 0:
            return False
        try:
            signal.pidfd_send_signal(self._watch.pidfd, signum)
        except ProcessLookupError:
            return False
        return True

    def close(self) -> None:
        """Let go of it: no more news, nothing kept open; if it runs it is left alone."""
        self._watch.close()
