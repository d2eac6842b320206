"""Whether the kernel ended a process because memory was short, as far as the kernel tells.

It counts such kills for everybody (``oom_kill`` of /proc/vmstat) and names them in its log (/dev/kmsg, ``Killed
process PID``), which only some may read.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable

from supervisord_async.system import procfs

#: More than the kernel's log holds on any machine; a bound, since it may be written while we read.
_RECORDS = 200_000


#: A large process takes its time to die, after it was counted.
SUSPICION_SECONDS = 60.0


def kills(*, vmstat: str = "/proc/vmstat") -> int | None:
    """How many processes the kernel has ended for lack of memory since boot; None: it does not tell."""
    counted = re.search(rb"^oom_kill (\d+)$", procfs.read_file(vmstat) or b"", re.MULTILINE)
    return int(counted[1]) if counted is not None else None


class Toll:
    """Whether one that dies now may be one of those that the kernel has just ended; of earlier ones, nobody asks the log again.

    That log takes a thread and milliseconds to read, and on a machine that once was short of memory each SIGKILL would cost them.
    """

    def __init__(self, count: int | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """``count``: of :func:`kills`, now; whom they were of is known or nobody's matter. ``clock``: monotonic, in seconds."""
        self._count = count
        self._clock = clock
        self._rose_at = float("-inf")

    def may_include_one(self, count: int | None) -> bool:
        """False: ``count``, of now, has been the same for :data:`SUSPICION_SECONDS`, or is none at all. True: so recent, or untold."""
        if count != self._count:
            self._count, self._rose_at = count, self._clock()
        return count is None or (count > 0 and self._clock() - self._rose_at < SUSPICION_SECONDS)


def was_oom_killed(pid: int, *, kmsg: str = "/dev/kmsg", vmstat: str = "/proc/vmstat") -> bool | None:
    """True: the kernel's log names ``pid``, which has just ended. False: it was not. None: nobody tells us. Blocking."""
    if kills(vmstat=vmstat) == 0:
        return False
    try:
        log = os.open(kmsg, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    victim = f"Killed process {pid} (".encode()
    try:
        for _ in range(_RECORDS):
            try:
                record = os.read(log, 8192)
            except BlockingIOError:
                return False
            except BrokenPipeError:  # records were overwritten meanwhile: go on with what there is
                continue
            if not record:
                return False
            if victim in record:
                return True
    except OSError:
        return None
    finally:
        os.close(log)
    return None
