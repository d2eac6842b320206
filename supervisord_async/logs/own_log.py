"""The daemon's own log: a handler for ``logging`` that writes to stderr or a file, as text or JSON.

Text is one line per message, with further lines indented: ``2026-11-20T12:00:00.123Z info    web  STARTING → RUNNING``. JSON is
one object per line: ``at level name message logger`` and, for exceptions, ``traceback``. Where text goes to systemd's
journal, which records time and priority itself, each line begins with ``<N>`` for its priority instead (``man 3 sd-daemon``).
Logging never blocks the loop and never raises; messages for which there is no room are counted and the count is logged. A
message that comes more than :data:`BURST` times within :data:`WINDOW_SECONDS` is counted instead of repeated. A file is rotated
like the programs' logs by default, even if others rotate it too: a daemon writes for years.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
import time
import traceback
from collections import OrderedDict
from typing import Literal

from supervisord_async.logs import rotation
from supervisord_async.logs.formats import stamp
from supervisord_async.logs.target import STANDARD_STREAMS
from supervisord_async.logs.writer_thread import WriterThread
from supervisord_async.system.descriptors import is_journal

#: The size from which a file is rotated before the next write, and how many backups are kept: the defaults of ``logs.max_size``
#: and ``logs.backups``.
MAX_BYTES = 50 * 1024 * 1024
BACKUPS = 5
#: The pause before a rotation that failed is tried again; the file grows meanwhile.
ROTATION_RETRY_SECONDS = 60.0
#: How many equal messages are written within how many seconds; further ones are counted.
BURST = 5
WINDOW_SECONDS = 10.0
#: How many different messages are remembered for that.
REMEMBERED = 512

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

#: The journal's priorities of the levels.
PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3}

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code not in (9, 10)}


#: What makes messages equal: the level's name, the process, the logger, the text. A record of ``logging`` would take a kilobyte.
_Message = tuple[str, str | None, str, str]


class _Repeats:
    """How often one message has come in its window."""

    __slots__ = ("seen", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        self.seen = 0


class OwnLog(logging.Handler):
    """A handler for ``logging``; a record's extra ``subject`` is the process that it is about."""

    def __init__(
        self,
        *,
        path: str | None = None,
        level: Literal["debug", "info", "warning", "error"] = "info",
        format: Literal["text", "json"] = "text",  # noqa: A002  the configuration's word
        fd: int = 2,
    ) -> None:
        """Write to the file at ``path`` (0644 less the umask), or to ``fd`` where it is None."""
        super().__init__(LEVELS[level])
        if path is not None and path in STANDARD_STREAMS:
            fd, path = STANDARD_STREAMS[path], None
        self._json = format == "json"
        self._to_journal = path is None and is_journal(fd)
        self._repeats: OrderedDict[_Message, _Repeats] = OrderedDict()
        self._repeats_lock = threading.Lock()
        self._rotate_after = 0.0
        self._writer = WriterThread(fd=fd if path is None else None, path=path, lost=self._lost_notice, idle=self._before_writing)

    def install(self, logger: str = "") -> None:
        """Handle what is logged below ``logger`` (default: everything), from this handler's level on."""
        target = logging.getLogger(logger)
        target.addHandler(self)
        target.setLevel(self.level)

    def emit(self, record: logging.LogRecord) -> None:
        """The record will be written, or counted; never raises."""
        try:
            if self._is_new(record):
                self._writer.put(self._render(record))
        except Exception:
            self._writer.put(self._line(time.time(), "error", None, record.name, f"a message could not be written: {record.msg!r}"))

    def reopen(self) -> None:
        """From now on the file that is now at the path is written."""
        self._writer.reopen()

    def flush(self) -> None:
        """Wait until what was logged is written, at most a second."""
        self._writer.flush(1.0)

    def close(self) -> None:
        """As :meth:`flush`; nothing is written after that."""
        self._writer.close()
        super().close()

    def _is_new(self, record: logging.LogRecord) -> bool:
        """Whether to write the message: it has come no more than :data:`BURST` times in its window. Else it is counted."""
        message = (_level(record), _process(record), record.name, record.getMessage())
        now = time.monotonic()
        with self._repeats_lock:
            repeats = self._repeats.get(message)
            if repeats is None or (now >= repeats.until and repeats.seen <= BURST):
                repeats = self._repeats[message] = _Repeats(now + WINDOW_SECONDS)
                self._repeats.move_to_end(message)
                if len(self._repeats) > REMEMBERED:
                    oldest, its_repeats = self._repeats.popitem(last=False)
                    if its_repeats.seen > BURST:
                        self._writer.put(self._summary(oldest, its_repeats.seen))
            repeats.seen += 1
            return repeats.seen <= BURST

    def _before_writing(self) -> tuple[bytes, float | None]:
        """The writer's ``idle``, called in its thread: rotate; returns what else to write, and after how many seconds to call again."""
        trouble = self._rotate()
        repeats, again = self._summaries()
        return trouble + repeats, again

    def _rotate(self) -> bytes:
        """Rotate the file if it is a regular one of :data:`MAX_BYTES` or more; returns a line to log if that failed, else nothing.

        Where a link leads to it, the link stays, as with programs' logs.
        """
        path = self._writer.real_path
        if path is None or time.monotonic() < self._rotate_after:
            return b""
        try:
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode) or status.st_size < MAX_BYTES:
                return b""
            rotation.shift(path, BACKUPS)
        except FileNotFoundError:  # not made yet, or somebody else has renamed it
            return b""
        except OSError as error:
            self._rotate_after = time.monotonic() + ROTATION_RETRY_SECONDS
            what = f"cannot rotate {path}: {error.strerror} (it keeps growing until that is fixed)"
            return self._line(time.time(), "warning", None, __name__, what)
        self._writer.reopen()
        return b""

    def _summaries(self) -> tuple[bytes, float | None]:
        """The summaries of windows that are over, and the seconds until the next one is."""
        now = time.monotonic()
        summaries = []
        with self._repeats_lock:
            for message, repeats in list(self._repeats.items()):
                if now >= repeats.until:
                    del self._repeats[message]
                    if repeats.seen > BURST:
                        summaries.append(self._summary(message, repeats.seen))
            counted = [repeats.until for repeats in self._repeats.values() if repeats.seen > BURST]
        return b"".join(summaries), max(min(counted) - now, 0.01) if counted else None

    def _summary(self, message: _Message, seen: int) -> bytes:
        level, process, logger, text = message
        return self._line(time.time(), level, process, logger, f"repeated {seen - BURST} times: {text}")

    def _lost_notice(self, count: int) -> bytes:
        return self._line(time.time(), "warning", None, __name__, f"{count} messages were lost: this log could not be written")

    def _render(self, record: logging.LogRecord) -> bytes:
        trace = "".join(traceback.format_exception(*record.exc_info)).rstrip() if record.exc_info else ""
        return self._line(record.created, _level(record), _process(record), record.name, record.getMessage(), trace)

    def _line(self, at: float, level: str, process: str | None, logger: str, message: str, trace: str = "") -> bytes:
        when = stamp(int(at * 1000))
        if self._json:
            fields = {"at": when, "level": level, "name": process, "message": message, "logger": logger}
            if trace:
                fields["traceback"] = trace
            return (json.dumps(fields, ensure_ascii=False) + "\n").encode(errors="backslashreplace")
        text = f"{message}\n{trace}" if trace else message
        about = f"{process}  " if process else ""
        if self._to_journal:
            return for_journal(level, f"{about}{text.translate(_CONTROLS)}")
        text = text.translate(_CONTROLS).replace("\n", "\n    ")
        return f"{when} {level:<7} {about}{text}\n".encode(errors="backslashreplace")


def for_journal(level: str, text: str) -> bytes:
    """The lines of ``text`` in the form for systemd's journal on a service's stderr, with the priority of ``level``."""
    prefix = f"<{PRIORITIES.get(level, PRIORITIES['info'])}>"
    return (prefix + text.replace("\n", f"\n{prefix}    ") + "\n").encode(errors="backslashreplace")


def _process(record: logging.LogRecord) -> str | None:
    """The supervised process that the record is about; not in ``process``, which is our own PID in ``logging``."""
    process = record.__dict__.get("subject")
    return process if isinstance(process, str) else None


def _level(record: logging.LogRecord) -> str:
    return {"CRITICAL": "error"}.get(record.levelname, record.levelname.lower())
