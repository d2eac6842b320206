"""State that survives a restart: saved completely or not at all, loaded as it was saved or not at all.

The file is JSON: a marker, a version, the time, a checksum, and last the state. It is written under a temporary name,
synced, and renamed; the previous copy stays as ``NAME.previous``, and is used if the newest is damaged. A lock
file, which is never removed, serializes saves of several threads and processes. Nothing here raises because of a file's
content or a disk's state.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from supervisord_async.app import encoding

log = logging.getLogger(__name__)

DEFAULT_PATH: Final = "data/restart_state.json"
FORMAT: Final = "supervisord_async.restart_state"
VERSION: Final = 1
#: The exact bytes between the header and the state, so that the state's bytes can be found and their checksum verified.
_BORDER: Final = b',\n"state": '
_END: Final = b"}\n"
#: Set if the state was not saved before a restart; the value is the process's PID, so that its children ignore it.
ENV_FRESH_START: Final = "ASUP_FRESH_START"

_thread_locks: dict[Path, threading.Lock] = {}
_loaded: set[Path] = set()


class _DamagedError(Exception):
    """The file is not what was saved."""


class _NotOursError(Exception):
    """The file is sound, but not a state that this version can read."""


class _Checked(NamedTuple):
    """Identifies a file that was found sound: inode, size, modification time."""

    inode: int
    size: int
    modified_ns: int


class StateSerializer:
    """Saves and loads ``self_state``, ``event_queue`` and ``config`` together. Safe to use from several threads and processes."""

    def __init__(
        self,
        path: str | os.PathLike[str] = DEFAULT_PATH,
        *,
        classes: Iterable[type] = (),
        lock_timeout: float = 10.0,
    ) -> None:
        """Use the file ``path``; its directory is created when needed.

        Instances of ``classes`` (with ``to_dict``/``from_dict``, or dataclasses, or enumerations) come back as objects;
        those of other classes as dictionaries. A save waits at most ``lock_timeout`` seconds for another one.
        Raises ValueError if two classes have the same name.
        """
        self.path = Path(os.path.abspath(path))
        self.previous_path = self.path.with_name(self.path.name + ".previous")
        self.lock_path = self.path.with_name(f".{self.path.name}.lock")
        self.lock_timeout = lock_timeout
        self._known: dict[str, type] = {}
        for kind in classes:
            self.register(kind)
        self._sound: _Checked | None = None

    def register(self, kind: type) -> type:
        """Instances of ``kind`` come back as objects; usable as a decorator. Raises ValueError for a second class with that name."""
        if self._known.setdefault(kind.__qualname__, kind) is not kind:
            raise ValueError(f"two classes are named {kind.__qualname__}")
        return kind

    def save_restart_state(self, self_state: Any, event_queue: Any = None, config: Any = None) -> bool:
        """The complete state is on disk; or False, and the earlier file is unchanged. The reason is in the log.

        It fails for a value without a faithful form, on a full or read-only disk, and if another save holds the lock for too long.
        """
        try:
            state = {"self_state": self_state, "event_queue": event_queue, "config": config}
            encoded = encoding.encode(state, self._known)
            payload = json.dumps(encoded, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
            del encoded
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._locked():
                self._write(payload)
        except OSError as error:
            log.error("cannot save the state to %s: %s", self.path, error)  # noqa: TRY400 - the reason says enough
            return False
        except Exception as error:  # whatever a to_dict() raises must not end the program
            log.error("cannot save the state to %s: %s: %s", self.path, type(error).__name__, error, exc_info=_surprise(error))  # noqa: TRY400
            return False
        os.environ.pop(ENV_FRESH_START, None)
        return True

    def load_restart_state(self) -> dict[str, Any] | None:
        """The last saved state, with ``self_state``, ``event_queue`` and ``config``; None if there is no sound one.

        If the file is damaged, the previous copy is used; if it is not ours, or from a newer version, the result is None. Each
        case is logged as a warning, none raises.
        """
        if os.environ.get(ENV_FRESH_START) == str(os.getpid()):
            log.warning("the state was not saved before this restart; starting fresh")
            return None
        for path in (self.path, self.previous_path):
            try:
                state = self._read(path)
            except FileNotFoundError:
                continue
            except _NotOursError as reason:
                log.warning("%s is not used: %s", path, reason)
                return None
            except Exception as error:  # no file's content may end the program
                log.warning("%s is damaged and not used: %s: %s", path, type(error).__name__, error)
                continue
            if path != self.path:
                log.warning("using the copy before it, %s", path)
            _loaded.add(self.path)
            return state
        return None

    def cleanup_restart_state(self) -> None:
        """No saved state is left, and nothing that a killed save left behind; only the empty lock file stays."""
        if not self.path.parent.is_dir():
            return
        try:
            with self._locked():
                for path in (self.path, self.previous_path, *self._leftovers()):
                    path.unlink(missing_ok=True)
                self._sound = None
        except OSError as error:
            log.warning("cannot remove the saved state %s: %s", self.path, error)

    @property
    def loaded(self) -> bool:
        """Whether this process has loaded the state of this path, with this object or another one."""
        return self.path in _loaded

    # Writing

    def _write(self, payload: bytes) -> None:
        """The file contains ``payload``. To be called under the lock. Raises OSError, then nothing has changed."""
        for leftover in self._leftovers():
            leftover.unlink(missing_ok=True)
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb", buffering=0) as file:
                for part in (_header(payload), _BORDER, payload, _END):
                    _write_all(file.fileno(), part)
                os.fsync(file.fileno())
                checked = _checked(os.fstat(file.fileno()))
            self._keep_previous()
            os.rename(temporary, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        self._sound = checked
        _sync_directory(self.path.parent)

    def _keep_previous(self) -> None:
        """The newest file, if it is sound, is now also the previous one; a damaged one does not replace a sound previous one."""
        try:
            if self._sound != _checked(os.stat(self.path)):
                _verified(self.path.read_bytes())
        except FileNotFoundError:
            return
        except (_DamagedError, _NotOursError) as reason:
            log.warning("%s is replaced, the copy before it is kept: %s", self.path, reason)
            return
        second_name = self.path.with_name(f".{self.path.name}.{os.getpid()}.{threading.get_ident()}.previous.tmp")
        try:
            os.link(self.path, second_name)
        except OSError:  # no hard links here: for a moment only the previous name exists, which is enough for loading
            os.rename(self.path, self.previous_path)
            return
        os.rename(second_name, self.previous_path)
        # If both are names of the same file, rename() does nothing and leaves this one.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(second_name)

    def _leftovers(self) -> list[Path]:
        """Temporary files of saves that were killed. To be called under the lock, when nobody else is saving."""
        return list(self.path.parent.glob(f".{glob.escape(self.path.name)}.*.tmp"))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Meanwhile no other thread or process saves. Raises TimeoutError (an OSError) after ``lock_timeout``."""
        deadline = time.monotonic() + self.lock_timeout
        lock = _thread_locks.setdefault(self.path, threading.Lock())
        if not lock.acquire(timeout=self.lock_timeout):
            raise TimeoutError(f"another thread has been saving for {self.lock_timeout:g} s")
        try:
            fd = os.open(self.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                _flock(fd, deadline)
                yield
            finally:
                os.close(fd)
        finally:
            lock.release()

    # Reading

    def _read(self, path: Path) -> dict[str, Any]:
        payload = _verified(path.read_bytes())
        state = encoding.decode(payload, self._known)
        if not isinstance(state, dict) or state.keys() != {"self_state", "event_queue", "config"}:
            raise _DamagedError("the state lacks its parts")
        return state


def _header(payload: bytes) -> bytes:
    header = {
        "format": FORMAT,
        "is_restart": True,
        "version": VERSION,
        "saved_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "pid": os.getpid(),
        "checksum": _checksum(payload),
    }
    return json.dumps(header).removesuffix("}").encode("ascii")


def _checksum(payload: bytes | memoryview) -> str:
    return "sha256:" + hashlib.sha256(payload).hexdigest()


def _verified(data: bytes) -> bytes:
    """The state's bytes in ``data``, a whole file. Raises _DamagedError or _NotOursError."""
    if not data.startswith(b"{"):
        raise _DamagedError("it does not begin like a saved state" if data else "it is empty")
    border = data.find(_BORDER, 0, 4096)
    if border < 0:
        raise _complaint(data)
    try:
        header = json.loads(data[:border] + b"}")
    except ValueError as error:
        raise _complaint(data) from error
    _accept(header)
    payload = data[border + len(_BORDER) : -len(_END)]
    if not data.endswith(_END) or _checksum(payload) != header.get("checksum"):
        raise _DamagedError("the checksum does not fit: it is truncated or was changed")
    return payload


def _accept(header: dict[str, Any]) -> None:
    """Raises _NotOursError unless the header belongs to a state of this version or an older one."""
    if header.get("format") != FORMAT or header.get("is_restart") is not True:
        raise _NotOursError("it is some other program's file")
    version = header.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise _NotOursError(f"its version is {version!r}, newer than {VERSION}")


def _complaint(data: bytes) -> Exception:
    """Why a file without our border is not used: it is sound JSON but not ours (or of a later layout), or it is damaged."""
    try:
        _accept(json.loads(data))
    except _NotOursError as reason:
        return reason
    except (ValueError, RecursionError) as error:
        return _DamagedError(str(error))
    return _DamagedError("another program has rewritten it, which the checksum does not cover")


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _checked(status: os.stat_result) -> _Checked:
    return _Checked(status.st_ino, status.st_size, status.st_mtime_ns)


def _sync_directory(directory: Path) -> None:
    """The rename is on disk too, if the file system can sync directories."""
    with contextlib.suppress(OSError):
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _flock(fd: int, deadline: float) -> None:
    pause = 0.001
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError("another process is saving and does not finish") from None
            time.sleep(pause)
            pause = min(pause * 2, 0.05)
        else:
            return


def _surprise(error: Exception) -> Exception | None:
    """The error, for its traceback, unless its message says enough."""
    return None if isinstance(error, encoding.CannotEncodeError | RecursionError) else error


class _Shared:
    """The program's one serializer."""

    lock = threading.Lock()
    serializer: StateSerializer | None = None


def get_state_serializer(path: str | os.PathLike[str] | None = None) -> StateSerializer:
    """The program's one StateSerializer, created at the first call (``path``: data/restart_state.json by default).

    Another ``path`` at a later call replaces it, which is logged.
    """
    with _Shared.lock:
        present = _Shared.serializer
        if present is None or (path is not None and Path(os.path.abspath(path)) != present.path):
            if present is not None:
                log.warning("the program's saved state moves from %s to %s", present.path, path)
            present = _Shared.serializer = StateSerializer(DEFAULT_PATH if path is None else path)
        return present
