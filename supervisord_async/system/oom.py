"""Whether the kernel killed a process for lack of memory, as far as the kernel tells, and whom it spares.

It counts the kills of the whole machine (``oom_kill`` in /proc/vmstat, readable for all) and names them in its log (/dev/kmsg,
``Killed process PID``), which only some may read.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from supervisord_async.system import procfs

#: More records than any kernel's log has; a bound, since the log may grow while we read.
_RECORDS = 200_000


#: How long after a kill was counted its process may die: a large one takes its time.
SUSPICION_SECONDS = 60.0
#: Our own protection from such kills, once it is kept for ourselves: an ``oom_score_adj`` below 0 (``man 5 proc_pid_oom_score_adj``).
_kept: list[int] = []


def keep_protection() -> None:
    """Processes that we spawn from now on do not inherit the protection that we were given, as by systemd's ``OOMScoreAdjust=-500``.

    Else the kernel would kill others first, sshd for example, where one of our programs takes all the memory.
    """
    with suppress(OSError, ValueError):
        score = int(Path("/proc/self/oom_score_adj").read_text(encoding="ascii"))
        if score < 0 and not _kept:
            _kept.append(score)


def take_protection(pid: int) -> None:
    """Our child ``pid``, which was just spawned, has a score of 0 where we keep our protection. It has ours for the moments before."""
    if _kept:
        with suppress(OSError):  # it has ended; or it is a set-uid program of a user that we are not root over
            Path(f"/proc/{pid}/oom_score_adj").write_text("0", encoding="ascii")


def kills(*, vmstat: str = "/proc/vmstat") -> int | None:
    """How many processes the kernel has killed for lack of memory since boot; None if it does not tell."""
    _, key, rest = (b"\n" + (procfs.read_file(vmstat) or b"")).partition(b"\noom_kill ")  # searching a pattern takes 20 µs of each death
    return int(rest.partition(b"\n")[0]) if key else None


class Toll:
    """Whether a process that has just died may be one that the kernel killed, by the count of such kills.

    This saves reading the log, which takes a thread and milliseconds: on a machine that was once short of memory, every SIGKILL
    would cost that.
    """

    def __init__(self, count: int | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """``count`` is the present result of :func:`kills`; earlier kills do not matter. ``clock`` is monotonic, in seconds."""
        self._count = count
        self._clock = clock
        self._rose_at = float("-inf")

    def may_include_one(self, count: int | None) -> bool:
        """True if ``count``, the present result of :func:`kills`, has risen within :data:`SUSPICION_SECONDS`, or is not known."""
        if count != self._count:
            self._count, self._rose_at = count, self._clock()
        return count is None or (count > 0 and self._clock() - self._rose_at < SUSPICION_SECONDS)


def was_oom_killed(pid: int, *, kmsg: str = "/dev/kmsg", vmstat: str = "/proc/vmstat") -> bool | None:
    """Whether the kernel's log says that ``pid``, which has just ended, was killed; None if we may not read it. Blocking."""
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
            except BrokenPipeError:  # records were overwritten meanwhile: go on with those that are left
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
