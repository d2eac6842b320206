"""Bytes out of pipes: moved to a file inside the kernel, read without being removed, or thrown away.

:func:`move` is why no output is lost. ``splice`` from a pipe into a file writes to the file and then removes what was
written from the pipe, with the pipe locked and without checking for signals in between
(``iter_file_splice_write`` in Linux's ``fs/splice.c``). A process killed with SIGKILL dies before or after the call, or
at the end of a shorter one: at every instant a byte is in the pipe or in the file, never in both, never in neither.

Where a sandbox refuses ``splice`` or ``tee`` (:func:`splices`), :func:`carry` reads and writes, without that guarantee.
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
from collections.abc import Callable
from functools import cache

_libc = ctypes.CDLL(None, use_errno=True)

#: The most bytes that :func:`peek` returns.
PEEK_BYTES = 65536


class LostError(OSError):
    """Bytes that had been read from a pipe could not be written, and are lost."""

    data: bytes = b""


class _Scratch:
    """A pipe for the copies that ``tee`` makes."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.read_fd, self.write_fd = read_fd, write_fd

    def __del__(self) -> None:
        os.close(self.read_fd)
        os.close(self.write_fd)


class _OfThread(threading.local):
    """Each thread's own scratch pipe, which is closed with its thread."""

    scratch: _Scratch | None = None


_of_thread = _OfThread()


@cache
def splices() -> bool:
    """Whether :func:`move` and :func:`peek` can be used: a sandbox (seccomp) may refuse their system calls. Raises other OSErrors."""
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        file = os.memfd_create("asup-splices", os.MFD_CLOEXEC)
        try:
            os.write(write_fd, b"x")
            return peek(read_fd, 1) == b"x" and move(read_fd, file, 1, 0) == 1
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EINVAL):
                raise
            return False
        finally:
            os.close(file)
    finally:
        _of_thread.scratch = None  # close it, as the calling thread may never peek again
        os.close(read_fd)
        os.close(write_fd)


def carry(pipe_fd: int, count: int, write: Callable[[bytes], int]) -> bytes:
    """Read up to ``count`` bytes from the pipe and pass them to ``write``, which returns how many it took. Returns them; b"": none.

    A kill in between loses them. So does an OSError of ``write``: it is raised as a LostError, which has the bytes that are lost.
    """
    try:
        data = os.read(pipe_fd, min(count, PEEK_BYTES))
    except BlockingIOError:
        return b""
    written = 0
    while written < len(data):
        try:
            written += write(data[written:])
        except OSError as error:
            lost = LostError(error.errno, error.strerror)
            lost.data = data[written:]
            raise lost from error
    return data


def move(pipe_fd: int, fd: int, count: int, offset: int | None) -> int:
    """Move up to ``count`` bytes from the pipe to ``fd``, at ``offset`` (None: at its position); returns how many.

    0 means that no process has the write end open any more. Raises BlockingIOError when the pipe is empty (or a ``fd`` that
    is no file is full), OSError EINVAL when ``fd`` cannot be spliced to, other OSErrors as ``write`` does.
    """
    return os.splice(pipe_fd, fd, count, offset_dst=offset, flags=os.SPLICE_F_NONBLOCK)


def peek(pipe_fd: int, count: int) -> bytes:
    """The pipe's first bytes, at most ``count`` and :data:`PEEK_BYTES`, which stay in it; b"" when it is empty."""
    scratch = _of_thread.scratch
    if scratch is None:
        scratch = _of_thread.scratch = _Scratch(*os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK))
    copied = int(_libc.tee(pipe_fd, scratch.write_fd, ctypes.c_size_t(min(count, PEEK_BYTES)), ctypes.c_uint(os.SPLICE_F_NONBLOCK)))
    if copied < 0:
        number = ctypes.get_errno()
        if number == errno.EAGAIN:
            return b""
        raise OSError(number, os.strerror(number))
    parts = []
    try:
        while copied:
            part = os.read(scratch.read_fd, copied)
            parts.append(part)
            copied -= len(part)
    except BaseException:
        _of_thread.scratch = None  # bytes left in it would be taken for those of the next pipe
        raise
    return b"".join(parts)


def discard(pipe_fd: int, count: int) -> tuple[int, int]:
    """Throw away ``count`` bytes of the pipe, or all if there are fewer, and the rest of the last line if its end is within reach.

    Returns how many bytes and how many newlines that were.
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
    if taken and not last.endswith(b"\n") and splices():
        end = peek(pipe_fd, PEEK_BYTES).find(b"\n") + 1
        if end:
            taken += len(os.read(pipe_fd, end))
            lines += 1
    return taken, lines


def pending_bytes(pipe_fd: int) -> int:
    """How many bytes the pipe holds. Blocks while a :func:`move` from it is under way: not to be called on the loop."""
    buffer = array.array("i", [0])
    fcntl.ioctl(pipe_fd, termios.FIONREAD, buffer)
    return buffer[0]


def is_readable(pipe_fd: int, timeout_seconds: float = 0.0) -> bool:
    """Whether the pipe holds something; waits for that up to ``timeout_seconds``. Does not take the pipe's lock."""
    poll = select.poll()
    poll.register(pipe_fd, select.POLLIN)
    return bool(poll.poll(timeout_seconds * 1000))


def is_full(write_fd: int) -> bool:
    """Whether a writer of this pipe would block now. Does not take the pipe's lock."""
    poll = select.poll()
    poll.register(write_fd, select.POLLOUT)
    return not poll.poll(0)
