"""The terminal that a wrapper shares with the command it runs, and signals together with their origin.

The command stays in the wrapper's session and process group, as under ``env`` or ``nice``: the kernel makes Ctrl-Z, ``fg``
and ``bg`` stop and continue both, and reading in the background stop both. Ctrl-C reaches both too; so the wrapper must
distinguish a signal that the terminal sent, which it must not pass on, from one that a process sent to it alone. ``signalfd``
tells (``man 2 signalfd``, ``ssi_code``). When a command stops only itself (``suspend`` of a shell, ``~^Z`` of ssh), the user's
shell does not take the terminal back, as it waits for the wrapper: so the wrapper has to stop as well.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import select
import signal
import struct
import termios
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, Self

import msgspec

from supervisord_async.system import procfs, spawn
from supervisord_async.system.signals import group_exists

_SFD_CLOEXEC, _SFD_NONBLOCK = os.O_CLOEXEC, os.O_NONBLOCK
_SIGINFO_BYTES = 128
_SIGSET_BYTES = 128
#: ``si_code`` of signals that the kernel itself sends, as for a terminal's keys and hang-up.
_SI_KERNEL = 0x80

#: How long to wait after a command has stopped. If Ctrl-Z stopped both, we stop within this time; if not, it has stopped only itself.
ALONE_SECONDS = 0.05

Heard = Callable[[int, bool], None]


class Terminal(msgspec.Struct):
    """Our controlling terminal."""

    fd: int
    _attributes: list[Any] | None = None

    @classmethod
    def open(cls) -> Terminal | None:
        """Our controlling terminal; None without one."""
        try:
            return cls(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
        except OSError:
            return None

    def is_gone(self) -> bool:
        """Whether the terminal has hung up."""
        poll = select.poll()
        poll.register(self.fd, 0)
        return any(event & select.POLLHUP for _, event in poll.poll(0))

    def is_ours(self) -> bool:
        """Whether we are in the foreground."""
        try:
            return os.tcgetpgrp(self.fd) == os.getpgrp()
        except OSError:  # it is gone
            return False

    def remember(self) -> None:
        """Remember the terminal's modes, if we are in the foreground and may set them; to be called before a command starts."""
        try:
            if self.is_ours():
                self._attributes = termios.tcgetattr(self.fd)
        except termios.error:
            self._attributes = None

    def reclaim(self, *, modes: bool) -> None:
        """Take the terminal back if it was given to a process group that is gone; with ``modes``, restore the remembered modes.

        If another process group has the terminal (we are in the background), it is left alone. Errors are ignored: it may be gone.
        """
        earlier = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
        try:
            foreground = os.tcgetpgrp(self.fd)
            if foreground != os.getpgrp():
                if group_exists(foreground):
                    return
                os.tcsetpgrp(self.fd, os.getpgrp())
            if modes and self._attributes is not None:
                termios.tcsetattr(self.fd, termios.TCSANOW, self._attributes)
        except (OSError, termios.error):
            return
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, earlier)

    def heed_child(self, pid: int) -> None:
        """The state of our child ``pid`` may have changed: if it has stopped only itself, we stop soon, and it continues when we do.

        One that somebody stopped by SIGSTOP is left stopped, unless it has the terminal. To be called on the running loop.
        """
        try:
            found = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG)
        except ChildProcessError:  # it has ended
            return
        if found is not None:
            asyncio.get_running_loop().call_later(ALONE_SECONDS, self._stop_along, pid, found.si_status)

    def _stop_along(self, pid: int, signum: int) -> None:
        process = procfs.stat(pid)
        if process is None or process.parent != os.getpid() or process.state != "T":  # another process may have its PID by now
            return
        with suppress(OSError, termios.error):  # for example if the terminal is gone
            group = os.getpgid(pid)
            has_terminal = os.getpgrp() != group == os.tcgetpgrp(self.fd)
            if signum == signal.SIGSTOP and not has_terminal:
                return
            if _parent_controls_jobs():
                signal.raise_signal(signum)  # the shell takes the terminal back; at its fg or bg we continue here
            elif not has_terminal:  # somebody else's fg is yet to come: Ctrl-Z does not stop PID 1, but it stops its command
                return
            if has_terminal and os.tcgetpgrp(self.fd) == os.getpgrp():
                os.tcsetpgrp(self.fd, group)
            os.killpg(group, signal.SIGCONT)

    def close(self) -> None:
        """The terminal's descriptor is closed."""
        os.close(self.fd)


class SignalsWithOrigin:
    """A context manager that receives the signals ``numbers`` on the running loop. Main thread only.

    In the context the signals are blocked, in this thread and those that it starts, so enter it before there are others.
    Children that :mod:`.spawn` starts do not inherit that.
    """

    def __init__(self, numbers: Collection[int], heard: Heard) -> None:
        """``heard`` is called with the signal's number, and whether the kernel sent it for our terminal."""
        self._numbers = frozenset(numbers)
        self._heard = heard
        self._fd = -1
        self._loop: Any = None
        self._earlier: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        for number in self._numbers:
            self._earlier[number] = signal.signal(number, self._caught)
        signal.pthread_sigmask(signal.SIG_BLOCK, self._numbers)
        self._fd = _signalfd(self._numbers)
        self._loop.add_reader(self._fd, self._readable)
        spawn.fork_context = self._unblocked
        return self

    def __exit__(self, *_: object) -> None:
        spawn.fork_context = nullcontext
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._numbers)
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    @contextmanager
    def _unblocked(self) -> Iterator[None]:
        """The context of a fork, so that the child has the signals unblocked; one that arrives meanwhile is not lost."""
        self._readable()  # first read those that wait, as they still have their origin
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._numbers)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, self._numbers)

    def _readable(self) -> None:
        with suppress(BlockingIOError):
            while True:
                number, _, code = struct.unpack_from("=Iii", os.read(self._fd, _SIGINFO_BYTES))
                self._heard(number, code == _SI_KERNEL)

    def _caught(self, number: int, _frame: object) -> None:
        """A signal came during a fork, without its origin: taken to come from the keyboard if it can and we are in the foreground."""
        self._loop.call_soon_threadsafe(self._heard, number, number in (signal.SIGINT, signal.SIGQUIT) and _in_foreground())


def _parent_controls_jobs() -> bool:
    """Whether we are a job of our parent, which notices if we stop. If not, nobody would continue us."""
    parent = os.getppid()
    return parent != 0 and os.getsid(parent) == os.getsid(0) and os.getpgid(parent) != os.getpgrp()


def _in_foreground() -> bool:
    terminal = Terminal.open()
    if terminal is None:
        return False
    try:
        return terminal.is_ours()
    finally:
        terminal.close()


def _signalfd(numbers: Collection[int]) -> int:
    """A signalfd for these signals; raises OSError."""
    mask = struct.pack("Q", sum(1 << (number - 1) for number in numbers)).ljust(_SIGSET_BYTES, b"\0")
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.signalfd(-1, mask, _SFD_CLOEXEC | _SFD_NONBLOCK)
    if fd < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return int(fd)
