"""Bytes out of pipes: moved to a file inside the kernel, looked at without being taken, or thrown away.

:func:`move` is what nothing-is-lost rests on. ``splice`` from a pipe into a file writes to the file and then takes what
was written out of the pipe, with the pipe locked and without looking at signals in between
(``iter_file_splice_write`` in Linux's ``fs/splice.c``). A process killed with SIGKILL dies before or after the call, or
at the end of a shorter one: at every instant a byte is in the pipe or in the file, never in both, never in neither.
"""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import os
import select
import termios
import threading

_libc = ctypes.CDLL(None, use_errno=True)

#: Most bytes that :func:`peek` returns.
PEEK_BYTES = 65536


class _Scratch:
    """A pipe for the copies that ``tee`` makes."""

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def __del__(self) -> None:
        os.close(self.read_fd)
        os.close(self.write_fd)


class _OfThread(threading.local):
    """Each thread's own scratch pipe; it goes with its thread."""

    scratch: _Scratch | None = None


_of_thread = _OfThread()


def move(pipe_fd: int, fd: int, count: int, offset: int | None) -> int:
    """Up to ``count`` bytes went from the pipe to ``fd``, at ``offset`` (None: wherever it stands); returns how many.

    0 means that no process holds the write end any more. Raises BlockingIOError when the pipe is empty (or a ``fd`` that
    is no file is full), OSError EINVAL when ``fd`` cannot be spliced to, other OSErrors as ``write`` does.
    """
    return os.splice(pipe_fd, fd, count, offset_dst=offset, flags=os.SPLICE_F_NONBLOCK)


def peek(pipe_fd: int, count: int) -> bytes:
    """The pipe's first bytes, at most ``count`` and :data:`PEEK_BYTES`, which stay in it; b"" when it is empty."""
    scratch = _of_thread.scratch
    if scratch is None:
        scratch = _of_thread.scratch = _Scratch()
    copied = int(_libc.tee(pipe_fd, scratch.write_fd, ctypes.c_size_t(min(count, PEEK_BYTES)), ctypes.c_uint(os.SPLICE_F_NONBLOCK)))
    if copied < 0:
        number = ctypes.get_errno()
        if number == errno.EAGAIN:
            return b""
        raise OSError(number, os.strerror(number))
    parts = []
    while copied:
        part = os.read(scratch.read_fd, copied)
        parts.append(part)
        copied -= len(part)
    return b"".join(parts)


def discard(pipe_fd: int, count: int) -> tuple[int, int]:
    """Throw away ``count`` bytes of the pipe, or what there is, and go on to the next line's beginning where one is in sight.

    Returns how many bytes and how many line ends went.
    """
    taken = lines = 0
    last = b""
    while taken < count:
        try:
            data = os.read(pipe_fd, min(PEEK_BYTES, count - taken))
        except BlockingIOError:
            break
        if not data:
            break
        taken += len(data)
        lines += data.count(b"\n")
        last = data
    if taken and not last.endswith(b"\n"):
        end = peek(pipe_fd, PEEK_BYTES).find(b"\n") + 1
        if end:
            taken += len(os.read(pipe_fd, end))
            lines += 1
    return taken, lines


def pending_bytes(pipe_fd: int) -> int:
    """How many bytes the pipe holds. Waits while somebody moves from it: not for the loop."""
    buffer = array.array("i", [0])
    fcntl.ioctl(pipe_fd, termios.FIONREAD, buffer)
    return buffer[0]


def is_readable(pipe_fd: int, timeout_seconds: float = 0.0) -> bool:
    """Whether the pipe holds something, at last after ``timeout_seconds``, for which this waits; asks without the pipe's lock."""
    poll = select.poll()
    poll.register(pipe_fd, select.POLLIN)
    return bool(poll.poll(timeout_seconds * 1000))


def is_full(write_fd: int) -> bool:
    """Whether a writer of this pipe would have to wait now; asks without the pipe's lock."""
    poll = select.poll()
    poll.register(write_fd, select.POLLOUT)
    return not poll.poll(0)
