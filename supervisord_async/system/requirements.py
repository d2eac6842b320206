"""Checks, before anything is started, that the kernel or sandbox has what supervision cannot do without."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import NamedTuple

from supervisord_async.errors import DaemonError
from supervisord_async.system.shortage import is_shortage

MOUNT = "mount -t proc proc /proc"


class Lack(NamedTuple):
    """What is missing here, and what to do about it."""

    what: str
    advice: str


def lacking() -> Lack | None:
    """The first thing that is missing on this machine; None if nothing is. Raises OSError on a shortage, which is no lack."""
    if not os.path.exists("/proc/self/stat"):
        return Lack("/proc is not mounted", MOUNT)
    if os.readlink("/proc/self") != str(os.getpid()):  # no PID in it means the same process for us
        return Lack("/proc belongs to another PID namespace than this process", MOUNT)
    try:
        os.close(os.open(os.devnull, os.O_RDWR))
    except OSError as error:
        if is_shortage(error):
            raise
        return Lack(f"cannot open {os.devnull}: {error.strerror}", f"mount a /dev, or mknod -m 666 {os.devnull} c 1 3")
    return _lacking_call()


def require() -> None:
    """Raise DaemonError if something is missing without which programs could not be started or ended; OSError as :func:`lacking`."""
    lack = lacking()
    if lack is not None:
        raise DaemonError(f"cannot supervise here: {lack.what} ({lack.advice})")


def _lacking_call() -> Lack | None:
    """A missing call of pidfds: all signals and waits go by pidfd (``man 2 pidfd_open``), as a PID may be a stranger's by then."""
    advice = "use Linux 5.4 or newer; in a container, a seccomp profile that allows it (that of a newer engine does)"
    calls: tuple[tuple[str, Callable[[int], object]], ...] = (
        ("pidfd_send_signal", lambda fd: signal.pidfd_send_signal(fd, 0)),
        ("waitid by pidfd", _wait_for_nobody),
    )
    name = "pidfd_open"
    try:
        fd = os.pidfd_open(os.getpid())
        try:
            for name, call in calls:  # noqa: B007  the last one that was tried is named
                call(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if is_shortage(error):
            raise
        return Lack(f"the kernel refuses {name}: {error.strerror}", advice)
    return None


def _wait_for_nobody(fd: int) -> None:
    try:
        os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:  # the call works; it says that we are not our own child
        return
