"""Signals, and waits for, any process by pidfd, so that never another process with its PID is meant."""

from __future__ import annotations

import asyncio
import os
import signal

from supervisord_async.system import procfs
from supervisord_async.system.identity import Identity, of


def open_pidfd(identity: Identity, *, session: int | None = None) -> int | None:
    """A pidfd of that very process, alive or a zombie; None if it is gone. The caller has to close it.

    With ``session``, None as well if it is not in that session: a stranger that got its PID within the same tick would not be.

    Raises OSError if no descriptor is free.
    """
    try:
        fd = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return None
    found = procfs.stat(identity.pid)  # read after opening: from then on the descriptor means the same process
    if found is None or of(found) != identity or session not in (None, found.session):
        os.close(fd)
        return None
    return fd


def send_signal(identity: Identity, signum: int, *, session: int | None = None) -> bool:
    """Signal that very process, never a stranger with its PID; False if it is gone, or has left the ``session``.

    Raises PermissionError if it runs as a user whom we may not signal, OSError if no descriptor is free.
    """
    fd = open_pidfd(identity, session=session)
    if fd is None:
        return False
    try:
        signal.pidfd_send_signal(fd, signum)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


async def wait_dead(identity: Identity) -> None:
    """Return when that very process is dead: a zombie, or gone. Raises OSError if no descriptor is free."""
    fd = open_pidfd(identity)
    if fd is None:
        return
    loop = asyncio.get_running_loop()
    dead: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        loop.remove_reader(fd)  # it stays readable, so the loop would call this for ever
        if not dead.done():
            dead.set_result(None)

    try:
        loop.add_reader(fd, wake)
        await dead
    finally:
        loop.remove_reader(fd)
        os.close(fd)
