"""A descriptor or file that is written by a thread of its own, so that the caller never waits.

For the daemon's own messages: a terminal stopped by Ctrl-S, a pipe that nobody reads, or a full disk costs some messages,
which are counted, and nothing else. If no thread can be started, the caller writes what the descriptor accepts at once: so that
the reason why nothing works is logged even then.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
from collections import deque
from collections.abc import Callable

from supervisord_async.system import safe_open

#: The most bytes that may wait.
BOUND_BYTES = 1024 * 1024
#: The pause before a file that could not be written is opened again.
RETRY_SECONDS = 1.0
#: How much is written at a time without a thread: a pipe that poll reports writable has room for this (_POSIX_PIPE_BUF).
PIECE_BYTES = 512


class WriterThread:
    """Writes what is put, in order, to ``fd`` or to the file at ``path``."""

    def __init__(
        self,
        *,
        fd: int | None = None,
        path: str | None = None,
        lost: Callable[[int], bytes],
        idle: Callable[[], tuple[bytes, float | None]] | None = None,
    ) -> None:
        """Give either ``fd``, which the caller still owns, or ``path``. The thread is started by the first :meth:`put`.

        ``lost`` returns the notice that so many puts were lost. ``idle`` is called in the thread before each write, and returns what else
        to write, and after how many seconds to call it again (None: at the next put).
        """
        self.real_path: str | None = None  #: of the file opened last: where a link at ``path`` leads
        self._fd = -1 if fd is None else fd
        self._path = path
        self._lost_notice = lost
        self._idle = idle
        self._news = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._lost = 0
        self._busy = False
        self._resting = False
        self._reopen = False
        self._closing = False
        self._thread: threading.Thread | None = None

    def put(self, data: bytes) -> None:
        """``data`` will be written, or is counted as lost if too much waits already. Never waits, never fails."""
        with self._news:
            if self._closing or self._waiting_bytes + len(data) > BOUND_BYTES:
                self._lost += 1
                return
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            if self._thread is None:
                self._start_thread()
            self._news.notify()

    def reopen(self) -> None:
        """From now on the file that is now at the path is written; nothing changes for a descriptor."""
        with self._news:
            self._reopen = self._path is not None
            self._news.notify()

    def flush(self, timeout_seconds: float) -> bool:
        """Wait until everything that was put is written; returns False if that takes longer than ``timeout_seconds``."""
        with self._news:
            if self._thread is None:
                self._write_at_once()
                return not self._waiting
            return self._news.wait_for(lambda: self._is_idle, timeout_seconds)

    def close(self, timeout_seconds: float = 1.0) -> None:
        """What waits is written, if that takes no longer than ``timeout_seconds``; nothing more is taken, and the thread ends soon.

        Where nothing could be written just now, nothing is waited for: it is tried once more.
        """
        with self._news:
            if self._thread is None:
                self._write_at_once()
            else:
                self._news.wait_for(lambda: self._resting or self._is_idle, timeout_seconds)
            self._closing = True
            self._news.notify()
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    @property
    def _is_idle(self) -> bool:
        return not self._waiting and not self._busy

    def _start_thread(self) -> None:
        """Start the thread; if that fails, write here what can be written without waiting. The next put tries again."""
        self._thread = threading.Thread(target=self._serve, name="writer", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None
            self._write_at_once()

    def _write_at_once(self) -> None:
        """Write as much as possible without waiting; what cannot be written at all is counted as lost."""
        try:
            self._open_file()
            ready = select.poll()
            ready.register(self._fd, select.POLLOUT)
            while self._waiting and ready.poll(0):
                piece = self._waiting[0]
                written = os.write(self._fd, piece[:PIECE_BYTES])
                self._waiting_bytes -= written
                if written < len(piece):
                    self._waiting[0] = piece[written:]
                else:
                    self._waiting.popleft()
        except BlockingIOError:  # it had less room than poll reported
            return
        except OSError:
            self._lost += len(self._waiting)
            self._waiting.clear()
            self._waiting_bytes = 0
            self._close_file()

    def _serve(self) -> None:
        again: float | None = None
        while True:
            with self._news:
                self._news.wait_for(lambda: bool(self._waiting) or self._closing or self._reopen, again)
                closing = self._closing
                pieces = list(self._waiting)
                lost, self._lost = self._lost, 0
                self._waiting.clear()
                self._waiting_bytes = 0
                self._busy = True
            added = self._lost_notice(lost) if lost else b""
            if self._idle is not None:
                more, again = self._idle()
                added += more
            unwritten = self._write(b"".join(pieces) + added)
            with self._news:
                if unwritten:
                    self._lost += lost + _cut_off(pieces, unwritten - len(added))
                self._busy = False
                self._news.notify_all()
            if closing:
                self._close_file()
                return

    def _write(self, data: bytes) -> int:
        """Write ``data``, however long that takes; returns how many bytes at its end could not be written."""
        try:
            self._open_file()
            while data:
                try:
                    data = data[os.write(self._fd, data) :]
                except BlockingIOError:
                    select.select([], [self._fd], [], RETRY_SECONDS)
                    if self._closing:
                        return len(data)
        except OSError as error:
            self._close_file()
            if error.errno != errno.EPIPE:
                self._rest()
        return len(data)

    def _rest(self) -> None:
        """Nothing is tried for a while, or until it is closed, which does not wait for what is lost already."""
        with self._news:
            self._busy, self._resting = False, True
            self._news.notify_all()
            self._news.wait_for(lambda: self._closing, RETRY_SECONDS)
            self._resting = False

    def _open_file(self) -> None:
        if self._path is None:
            return
        if self._fd >= 0 and (self._reopen or os.fstat(self._fd).st_nlink == 0):
            self._close_file()
        self._reopen = False
        if self._fd < 0:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
            self._fd = safe_open.open_file(self._path, flags, 0o644, make_folders=True)
            self.real_path = os.readlink(f"/proc/self/fd/{self._fd}")

    def _close_file(self) -> None:
        if self._path is not None and self._fd >= 0:
            with contextlib.suppress(OSError):  # a late error of the disk: what it lost was counted, or is not known
                os.close(self._fd)
            self._fd = -1


def _cut_off(pieces: list[bytes], count: int) -> int:
    """How many of ``pieces`` are incomplete if the last ``count`` bytes of all were not written."""
    cut = 0
    for piece in reversed(pieces):
        if count <= 0:
            break
        count -= len(piece)
        cut += 1
    return cut
