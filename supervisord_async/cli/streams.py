"""The standard streams of a command that was started without some of them (``>&-``), or with one that cannot be written."""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import TextIO

#: The exit code of a command whose output's reader has gone.
BROKEN_PIPE = 141
#: Errors with which a write to the caller's device, file or terminal can fail.
UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENXIO})


def open_missing() -> None:
    """Stdin, stdout and stderr are open: those that were closed are /dev/null now, so that no other file gets their numbers."""
    if sys.stdin and sys.stdout and sys.stderr:
        return
    from supervisord_async.system.descriptors import open_missing_stdio

    open_missing_stdio()
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115  they live as long as we do
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def silence(stream: TextIO) -> None:
    """Everything written to ``stream`` from now on is discarded, as is what is still buffered."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def end_with_reader() -> None:
    """From now on this process ends once nobody reads its output, also while there is nothing to write, as ``tail -f`` does.

    Else a script's ``… -f NAME | grep -m1 ready``, or a connection that broke, would leave it there until the next line.
    """
    if not stat.S_ISFIFO(os.fstat(1).st_mode):
        return
    import select
    import threading

    def wait() -> None:
        output = select.poll()
        output.register(1, 0)  # what is told unasked: that there is no reader
        output.poll()
        os._exit(BROKEN_PIPE)

    threading.Thread(target=wait, daemon=True).start()


def unwritten(error: OSError, command: str) -> int:
    """The exit code of ``command``, whose output cannot be written, which was reported. Raises ``error`` if it means something else."""
    from supervisord_async.cli.output import complain

    if not isinstance(error, BrokenPipeError) and error.errno not in UNWRITABLE:
        raise error
    silence(sys.stdout)
    if isinstance(error, BrokenPipeError):
        return BROKEN_PIPE
    complain(f"cannot print: {error.strerror}", begin=f"{command}: ")
    return 1
