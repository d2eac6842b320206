"""Whether the kernel ended a process because memory was short, as far as the kernel tells.

It counts such kills for everybody (``oom_kill`` of /proc/vmstat) and names them in its log (/dev/kmsg, ``Killed
process PID``), which only some may read.
"""

from __future__ import annotations

import os
import re

from supervisord_async.system import procfs

#: More than the kernel's log holds on any machine; a bound, since it may be written while we read.
_RECORDS = 200_000


def has_killed(*, vmstat: str = "/proc/vmstat") -> bool:
    """False: the kernel has not ended any process for want of memory since it began. True: it has, or does not tell."""
    counted = re.search(rb"^oom_kill (\d+)$", procfs.read_file(vmstat) or b"", re.MULTILINE)
    return counted is None or int(counted[1]) != 0


def was_oom_killed(pid: int, *, kmsg: str = "/dev/kmsg", vmstat: str = "/proc/vmstat") -> bool | None:
    """True: the kernel's log names ``pid``, which has just ended. False: it was not. None: nobody tells us. Blocking."""
    if not has_killed(vmstat=vmstat):
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
