"""Checks in a thread whether the disks that a program is executed from answer, before it is executed on the loop.

``execve`` reads the beginning of a program and of the interpreter that its first line names, and the parent waits for it. On a
file system whose server is away, that takes for ever, in the kernel. So the same is read here first, each time; an answer from
local disks only counts for :data:`FRESH_SECONDS`, so that a thousand starts of one executable take one check.

A child closes the descriptors that it inherits before it executes anything, and closing a file on a network file system asks the
server. So the disks are checked too on which this process has files open: logs, and what is in the run_dir. Which these are is
looked up together with the mounts, a second apart at least: it takes a system call for each open file.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import time
from collections.abc import Iterator
from threading import Lock
from typing import NamedTuple

from supervisord_async.errors import SpawnError
from supervisord_async.system.mounts import FRESH_SECONDS as MOUNTS_SECONDS
from supervisord_async.system.mounts import is_served, mounts
from supervisord_async.system.threads import DaemonThreads

#: A start fails if a disk has not answered for this long.
ANSWER_SECONDS = 10.0
FRESH_SECONDS = 5.0
#: File systems that depend on no other machine, and on no other process.
LOCAL_KINDS = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "overlay", "squashfs", "erofs", "tmpfs", "ramfs", "rootfs"})
#: How many executables can be checked at a time; if so many hang, all others wait behind them.
THREADS = 64
#: How much of a file the kernel reads to find out what it is (``BINPRM_BUF_SIZE``).
_HEADER_BYTES = 256


class Executable(NamedTuple):
    """What a spawn looks up: ``program``, relative to ``directory``, and in the folders of ``path`` if it has no slash."""

    program: str
    directory: str
    path: str | None  #: None: the system's default

    def files(self) -> Iterator[str]:
        """The paths where it may be, in the order of the search."""
        folders = [""] if "/" in self.program else os.get_exec_path({"PATH": self.path} if self.path is not None else {})
        return (os.path.join(self.directory, folder, self.program) for folder in folders)


class Disks:
    """Waits for the disks of executables."""

    def __init__(self, answer_seconds: float = ANSWER_SECONDS) -> None:
        """A disk that takes longer than ``answer_seconds`` counts as hanging."""
        self._answer_seconds = answer_seconds
        self._threads = DaemonThreads(THREADS, "disk")
        self._looking = Lock()
        self._looked_at = float("-inf")  # when the mounts were read last (monotonic)
        self._local: frozenset[int] = frozenset()  # the devices of local file systems
        self._open: list[str] = []  # the mount points of network file systems on which we have files open
        self._asked: dict[Executable, asyncio.Future[bool]] = {}  # the checks under way, which later callers share
        self._fresh: dict[Executable, float] = {}  # when local executables were checked last, by the loop's clock, oldest first

    def have_answered(self, executable: Executable) -> bool:
        """Whether :meth:`wait_answered` has nothing to wait for."""
        answered_at = self._fresh.get(executable)
        return answered_at is not None and answered_at > asyncio.get_running_loop().time() - FRESH_SECONDS

    async def wait_answered(self, executable: Executable) -> None:
        """Return once all that a spawn of ``executable`` reads was read a moment ago; an error counts as an answer too.

        Raises SpawnError, stage ``exec``, without an answer within ``answer_seconds``; OSError if no thread can be started.
        """
        if self.have_answered(executable):
            return
        asked = self.begin_to_ask(executable)
        done, _ = await asyncio.wait([asked], timeout=self._answer_seconds)
        if not done:
            which = f"its disk, that of {executable.directory}, or one of a log or the run_dir"
            words = f"{which}, has not answered for {self._answer_seconds:g} s"
            raise SpawnError("exec", None, f"{executable.program}: {words} (is it a network's, and the server away?)")
        asked.result()

    def begin_to_ask(self, executable: Executable) -> asyncio.Future[bool]:
        """Begin to check the disks of ``executable``, or join the check under way. Raises OSError if no thread can be started."""
        asked = self._asked.get(executable)
        if asked is None:
            asked = self._asked[executable] = asyncio.wrap_future(self._threads.submit(self._ask, executable))
            asked.add_done_callback(lambda asked: self._heard(executable, asked))
        return asked

    def _ask(self, executable: Executable) -> bool:
        """In a thread: read all that executing it needs; returns whether only local disks are involved."""
        devices = _read(executable)
        with self._looking:  # no disk is accessed in here
            if time.monotonic() - self._looked_at > MOUNTS_SECONDS:
                found = list(mounts())
                self._local = frozenset(mount.device for mount in found if mount.kind in LOCAL_KINDS)
                self._open = _with_open_files([mount.point for mount in found if is_served(mount.kind)])
                self._looked_at = time.monotonic()
            points, local = self._open, self._local
        for point in points:
            with contextlib.suppress(OSError):  # an error is an answer
                os.statvfs(point)
        return not points and devices <= local

    def _heard(self, executable: Executable, asked: asyncio.Future[bool]) -> None:
        del self._asked[executable]
        now = asyncio.get_running_loop().time()
        while self._fresh and (oldest := next(iter(self._fresh.items())))[1] <= now - FRESH_SECONDS:
            del self._fresh[oldest[0]]
        if not asked.cancelled() and asked.exception() is None and asked.result():
            self._fresh.pop(executable, None)
            self._fresh[executable] = now


def _read(executable: Executable) -> set[int]:
    """Read what executing it reads; returns the devices that this is on. Errors are ignored: the spawn will report them better."""
    devices: set[int] = set()
    _visit(executable.directory, devices)
    for file in executable.files():
        _visit(os.path.dirname(file), devices)
        header = _header(file, devices)
        if header is not None:
            if header.startswith(b"#!") and (words := header[2:].split(b"\n", 1)[0].split(maxsplit=1)):
                _header(os.path.join(executable.directory, os.fsdecode(words[0])), devices)
            break
    return devices


def _with_open_files(points: list[str]) -> list[str]:
    """Those of the mount points below which this process has files open."""
    paths = []
    for number in os.listdir("/proc/self/fd") if points else ():
        with contextlib.suppress(FileNotFoundError):
            paths.append(os.readlink(f"/proc/self/fd/{number}"))
    return [point for point in points if any(path.startswith(f"{point}/") for path in paths)]


def _visit(folder: str, devices: set[int]) -> None:
    """Add the folder's device to ``devices``, if the folder exists."""
    with contextlib.suppress(OSError):
        devices.add(os.stat(folder).st_dev)


def _header(file: str, devices: set[int]) -> bytes | None:
    """The beginning of a file, whose device is added to ``devices``; empty if we may not read it, None if it is no regular file."""
    try:
        found = os.stat(file)
        if not stat.S_ISREG(found.st_mode):  # opening a device may have side effects
            return None
        devices.add(found.st_dev)
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except PermissionError:
        return b""
    except OSError:
        return None
    try:
        return os.read(descriptor, _HEADER_BYTES)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
