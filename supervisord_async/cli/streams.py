"""The standard streams of a command that was started without some of them (``>&-``), or with one that takes no output."""

from __future__ import annotations

import errno
import os
import sys

#: The exit code of a command whose output nobody reads.
BROKEN_PIPE = 141
#: What a write to a device, file or terminal of the caller's choice can end with.
UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENXIO})


def open_missing() -> None:
    """Stdin, stdout and stderr are there, those that the caller closed being /dev/null: nothing else gets their numbers."""
    if sys.stdin and sys.stdout and sys.stderr:
        return
    from supervisord_async.system.descriptors import open_missing_stdio

    open_missing_stdio()
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115  they live as long as we do
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def silence_stdout() -> None:
    """What is written to stdout from now on, and what is still buffered, is discarded."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, sys.stdout.fileno())
    os.close(silence)


def unwritten(error: OSError, command: str) -> int | None:
    """The exit code of ``command``, whose output could not be written, which was told; None: ``error`` says something else."""
    from supervisord_async.cli.output import complain

    if not isinstance(error, BrokenPipeError) and error.errno not in UNWRITABLE:
        return None
    silence_stdout()
    if isinstance(error, BrokenPipeError):
        return BROKEN_PIPE
    complain(f"cannot print: {error.strerror}", begin=f"{command}: ")
    return 1
