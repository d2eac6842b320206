"""A file system whose disk hangs, as a network's does when its server is away: a FUSE of one directory and one file.

Needs root and /dev/fuse (:func:`can_hang`). The protocol is ``include/uapi/linux/fuse.h`` of the kernel.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import stat
import struct
import threading
import time
from pathlib import Path
from types import TracebackType

_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _STATFS, _RELEASE, _FLUSH, _INIT = 1, 2, 3, 14, 15, 17, 18, 25, 26
_OPENDIR, _READDIR, _RELEASEDIR, _INTERRUPT, _BATCH_FORGET = 27, 28, 29, 36, 42
#: All that somebody waits for.
_ALL = frozenset(range(1, 60)) - {_FORGET, _INTERRUPT, _BATCH_FORGET, _INIT, _RELEASE, _RELEASEDIR}
_HEADER = struct.Struct("<IIQQIIII")
_ROOT, _FILE = 1, 2
_MNT_DETACH = 2
#: The kernel asks again for all it wants to know, as it does of a network's file system.
_NEVER_CACHED = 0


def can_hang() -> bool:
    """Whether such a file system may be mounted here."""
    return os.geteuid() == 0 and os.access("/dev/fuse", os.R_OK | os.W_OK)


class HangingDisk:
    """Mounted at ``folder`` while its context lasts; the one file in it is an executable, ``name``, of that ``content``.

    Reads of it wait for :meth:`answer`, and after :meth:`hang` all does that anybody asks; on leaving it fails, and nobody waits any more.
    """

    def __init__(self, folder: Path, name: str, content: bytes) -> None:
        self.folder = folder
        self.path = folder / name
        self._name = name.encode()
        self._content, self._saved_ns = content, 0
        self._silent = frozenset({_READ})
        self._held: list[tuple[int, int, int, bytes]] = []  #: requests that wait
        self._lock = threading.Lock()
        self.waiting = threading.Event()  #: somebody waits

    def __enter__(self) -> HangingDisk:
        self.folder.mkdir(exist_ok=True)
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        options = f"fd={self._device},rootmode=40755,user_id=0,group_id=0,allow_other,default_permissions"
        if self._libc().mount(b"hanging", bytes(self.folder), b"fuse.hanging", 0, options.encode()) != 0:
            number = ctypes.get_errno()
            os.close(self._device)
            raise OSError(number, os.strerror(number), str(self.folder))
        self._end_reading, self._end_writing = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._serve, name="hanging disk")
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._end_writing)
        self._thread.join()
        self._libc().umount2(bytes(self.folder), _MNT_DETACH)
        os.close(self._device)  # whatever waits fails
        os.close(self._end_reading)

    def hang(self) -> None:
        """The server is away: nothing is answered any more."""
        with self._lock:
            self._silent = _ALL
            self.waiting.clear()

    def save(self, content: bytes) -> None:
        """Somebody else has given the file another content, of another length."""
        with self._lock:
            self._content, self._saved_ns = content, time.time_ns()

    def answer(self) -> None:
        """The disk is back: who waits is answered, and who asks from now on is answered at once."""
        with self._lock:
            self._silent = frozenset()
            held, self._held = self._held, []
            for request in held:
                self._handle(*request)

    @staticmethod
    def _libc() -> ctypes.CDLL:
        return ctypes.CDLL(None, use_errno=True)

    def _serve(self) -> None:
        while True:
            ready = select.select([self._device, self._end_reading], [], [])[0]
            if self._end_reading in ready:
                return
            try:
                request = os.read(self._device, 1 << 17)
            except (BlockingIOError, FileNotFoundError):  # somebody else took it; it was interrupted
                continue
            _, opcode, unique, node, *_ = _HEADER.unpack_from(request)
            with self._lock:
                asked = (opcode, unique, node, request[_HEADER.size :])
                if opcode in self._silent:
                    self._held.append(asked)
                    self.waiting.set()
                else:
                    self._handle(*asked)

    def _handle(self, opcode: int, unique: int, node: int, body: bytes) -> None:
        match opcode:
            case n if n == _INTERRUPT:
                self._let_go(*struct.unpack_from("<Q", body))
            case n if n in (_FORGET, _BATCH_FORGET):
                return  # not answered
            case n if n == _INIT:
                _, _, readahead, _ = struct.unpack_from("<IIII", body)
                self._reply(unique, struct.pack("<IIIIHHIIHHI7I", 7, 31, readahead, 0, 16, 12, 1 << 16, 1, 0, 0, 0, *[0] * 7))
            case n if n == _LOOKUP and body.rstrip(b"\0") == self._name:
                self._reply(unique, struct.pack("<QQQQII", _FILE, 0, _NEVER_CACHED, _NEVER_CACHED, 0, 0) + self._attributes(_FILE))
            case n if n == _LOOKUP:
                self._fail(unique, errno.ENOENT)
            case n if n == _GETATTR:
                self._reply(unique, struct.pack("<QII", _NEVER_CACHED, 0, 0) + self._attributes(node))
            case n if n in (_OPEN, _OPENDIR):
                self._reply(unique, struct.pack("<QII", 1, 0, 0))
            case n if n == _READ:
                _, offset, size = struct.unpack_from("<QQI", body)
                self._reply(unique, self._content[offset : offset + size])
            case n if n == _READDIR:
                _, offset = struct.unpack_from("<QQ", body)
                entry = struct.pack("<QQII", _FILE, 1, len(self._name), stat.S_IFREG >> 12) + self._name
                self._reply(unique, b"" if offset else entry + bytes(-len(entry) % 8))
            case n if n in (_FLUSH, _RELEASE, _RELEASEDIR):
                self._reply(unique, b"")
            case n if n == _STATFS:
                self._reply(unique, bytes(80))
            case _:
                self._fail(unique, errno.ENOSYS)

    def _let_go(self, unique: int) -> None:
        """Who got a signal waits no more, as with NFS: else not even SIGKILL would end it."""
        if any(request[1] == unique for request in self._held):
            self._held = [request for request in self._held if request[1] != unique]
            self._fail(unique, errno.EINTR)

    def _attributes(self, node: int) -> bytes:
        mode, size = (stat.S_IFDIR | 0o755, 0) if node == _ROOT else (stat.S_IFREG | 0o755, len(self._content))
        seconds, nanoseconds = divmod(self._saved_ns, 10**9)
        times = (seconds, seconds, seconds, nanoseconds, nanoseconds, nanoseconds)
        return struct.pack("<QQQQQQIIIIIIIIII", node, size, (size + 511) // 512, *times, mode, 1, 0, 0, 0, 4096, 0)

    def _reply(self, unique: int, data: bytes) -> None:
        self._write(struct.pack("<IiQ", 16 + len(data), 0, unique) + data)

    def _fail(self, unique: int, number: int) -> None:
        self._write(struct.pack("<IiQ", 16, -number, unique))

    def _write(self, answer: bytes) -> None:
        try:
            os.write(self._device, answer)
        except FileNotFoundError:  # who asked was interrupted, and waits no more
            return
