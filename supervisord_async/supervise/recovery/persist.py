"""What the next daemon needs to take over: a small file in run_dir, replaced atomically at every change that matters.

The file is one line with a version and a checksum, then JSON, then newlines as padding. The new state is written over the
last but one, ``.previous``, synced, and the two files exchange their names: so a good copy exists in whatever instant the daemon
dies, and on a full disk there is the room that the two files have already. Saving is done off the loop and coalesced: under load
a save covers all changes since the last one began. A failure is reported once, retried with every later change, and stops nothing.

Absent on purpose: settings (the configuration file has them), logs, and anything that /proc knows better.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import msgspec

from supervisord_async.config.model import Program, Stop
from supervisord_async.core.inputs import RestartRequested
from supervisord_async.core.record import Record
from supervisord_async.core.state import Cause, Snapshot
from supervisord_async.daemon_registry import LOCK_NAME
from supervisord_async.jsontext import json_bytes, json_value
from supervisord_async.supervise.fleet.sockets import SavedSocket
from supervisord_async.supervise.recovery.termination import STATE_NAMES, StopSettings
from supervisord_async.supervise.sources.fdstore import StoredDescriptor
from supervisord_async.system.exchange import exchange
from supervisord_async.system.shortage import is_shortage
from supervisord_async.system.threads import in_thread

_log = logging.getLogger("asupd")

VERSION = 1
FILE_NAME, SPARE_NAME = STATE_NAMES
#: The file's size is a multiple of this, the unit in which a filesystem allocates.
ROOM_BYTES = 4096
#: The least and the longest pause between two saves; between these it is ten times the duration of a save.
SAVE_INTERVAL_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 0.4
#: The pause before a save that failed is tried again.
RETRY_SECONDS = 1.0
#: The longest that an answer to a client waits for a save.
TIMEOUT_SECONDS = 1.0
MAGIC = "asupd-state"

#: The fields of a snapshot that say what a process is doing, whether and why it is wanted, and which its run is.
VITAL = frozenset({"state", "since", "wanted", "cause", "run", "pid", "run_since", "ended_run", "exit", "restarts"})

_DEFAULTS = Stop()


class SavedStream(msgspec.Struct, frozen=True):
    """One pipe of a process: its inode, and our descriptors of it, which are valid only after a re-exec."""

    inode: int
    read_fd: int = -1
    child_fd: int = -1


class SavedNotifySocket(msgspec.Struct, frozen=True):
    """What a re-exec carries over of a process's sd_notify side: its socket, and the descriptors that the program stored with us."""

    fd: int
    address: str
    status: str = ""
    stored: tuple[StoredDescriptor, ...] = ()

    def descriptors(self) -> set[int]:
        """Every descriptor in it."""
        return {self.fd, *(each.fd for each in self.stored)}


class SavedProcess(msgspec.Struct, frozen=True, kw_only=True):
    """One process."""

    name: str
    program: str
    replica: int
    snapshot: Snapshot
    start_ticks: int = 0  #: with the snapshot's pid and the boot ID, the identity of the main process
    settings: str = ""  #: digest of the settings that the run was started with, as far as a change of them needs a restart
    streams: dict[str, SavedStream] = {}
    notify_socket: SavedNotifySocket | None = msgspec.field(default=None, name="voice")  #: of a program with ``notify``


class SavedRoll(msgspec.Struct, frozen=True):
    """One rolling restart that is under way."""

    request: RestartRequested
    turns: tuple[tuple[str, int], ...]  #: those that are not over: a process, and its run that a newer one is to replace
    down: frozenset[str]  #: the processes that were stopped when it was requested


class SavedState(msgspec.Struct, frozen=True, kw_only=True):
    """The saved state of one daemon."""

    boot_id: str
    instance: str
    file: str = ""  #: the configuration's real path
    run_dir: str = ""  #: the run_dir in which this was written
    last_record_id: int = 0
    processes: tuple[SavedProcess, ...] = ()
    sockets: tuple[SavedSocket, ...] = ()
    scaled: dict[str, int] = {}  #: programs that were scaled, with their number of replicas
    stopping: frozenset[str] = frozenset()  #: names of processes that a stop of several has still to end, each in its turn
    rolls: tuple[SavedRoll, ...] = ()  #: those that are under way
    #: how to stop programs whose ``stop`` is not the default, for the guardian and ``asupctl cleanup``
    stop_settings: dict[str, StopSettings] = msgspec.field(default_factory=dict, name="manners")
    descriptors: dict[str, list[int]] = {}  #: for a re-exec: the lock, listening sockets, and so on
    unwritten: tuple[Record, ...] = ()  #: for a re-exec: records that are not in the history yet
    recent: tuple[Record, ...] = ()  #: for a re-exec: the last records, for clients that reconnect
    #: until when every change of a watched file was acted on (nanoseconds since 1970, as files have it); 0: not known
    watched_until_ns: int = 0
    open_files: int = 0  #: for a re-exec: the limit of open files that programs get; 0: the daemon's

    def all_descriptors(self) -> set[int]:
        """Every descriptor that a re-exec carries over."""
        streams = {fd for process in self.processes for stream in process.streams.values() for fd in (stream.read_fd, stream.child_fd)}
        notify = {fd for process in self.processes if process.notify_socket is not None for fd in process.notify_socket.descriptors()}
        return streams | notify | {each.fd for each in self.sockets} | {fd for numbers in self.descriptors.values() for fd in numbers}


def with_descriptors(
    state: SavedState,
    descriptors: dict[str, list[int]],
    *,
    unwritten: Sequence[Record] = (),
    recent: Sequence[Record] = (),
    open_files: int = 0,
) -> SavedState:
    """``state`` for a re-exec: with what only that can carry over, as the fields of these names say."""
    carried = {"descriptors": descriptors, "unwritten": tuple(unwritten), "recent": tuple(recent), "open_files": open_files}
    return msgspec.structs.replace(state, **carried)


def stop_settings(programs: Iterable[Program]) -> dict[str, StopSettings]:
    """How to stop those of ``programs`` whose ``stop`` settings are not the defaults."""
    return {one.name: StopSettings(one.stop.signal, one.stop.grace_seconds, one.stop.scope) for one in programs if one.stop != _DEFAULTS}


class StateError(Exception):
    """A state file that cannot be used; the message says why."""


def encode(state: SavedState) -> bytes:
    """The file's content."""
    body = json_bytes(state)
    return f"{MAGIC} {VERSION} {hashlib.sha256(body).hexdigest()}\n".encode() + body


def decode(content: bytes) -> SavedState:
    """The state in a file's content. Raises StateError if that is damaged, not a state, or by a newer version."""
    try:
        return msgspec.convert(_data(content), SavedState, strict=False)
    except msgspec.ValidationError as error:
        raise StateError(f"it cannot be read: {error}") from error


def decode_what_is_known(content: bytes) -> tuple[SavedState, list[str]]:
    """The state as far as this version can read it, and complaints about the rest; raises StateError as :func:`decode`.

    Another version may write a state or a cause that this one does not know. That concerns one process, and must not lose what
    is saved of all others. A process that is left out here is still found by its tag, if it lives.
    """
    data = _data(content)
    left_out: list[str] = []
    try:
        raw = msgspec.convert(data, _Processes).processes
        state = msgspec.convert({**data, "processes": []}, SavedState, strict=False)
    except msgspec.ValidationError as error:
        raise StateError(f"it cannot be read: {error}") from error
    found = (_process(each, left_out) for each in raw)
    return msgspec.structs.replace(state, processes=tuple(each for each in found if each is not None)), left_out


class _Processes(msgspec.Struct, frozen=True):
    """The processes in a state, not decoded yet."""

    processes: tuple[Any, ...] = ()


def _process(data: Any, left_out: list[str]) -> SavedProcess | None:
    """A saved process; with only the :data:`VITAL` fields of its snapshot, if not all can be read; None if not even those can."""
    try:
        return msgspec.convert(data, SavedProcess, strict=False)
    except msgspec.ValidationError as error:
        complaint = str(error)
    try:
        vital = {key: value for key, value in data["snapshot"].items() if key in VITAL}
        if vital.get("cause") not in (None, *Cause):
            vital["cause"] = Cause.OPERATOR  # so that what is wanted stays so: no fresh start, and no automatic restart that counts
        process = msgspec.convert({**data, "snapshot": vital}, SavedProcess, strict=False)
    except (LookupError, TypeError, AttributeError, msgspec.ValidationError):
        name = data.get("name") if isinstance(data, dict) else None
        left_out.append(f"what it says of {name} cannot be read ({complaint}), and counts as lost")
        return None
    left_out.append(f"what it says of {process.name} can be read in part: {complaint}")
    return process


def _data(content: bytes) -> Any:
    """The JSON in a file's content, upgraded to this version; raises StateError."""
    head, newline, body = content.rstrip(b"\n").partition(b"\n")
    words = head.split()
    if not newline or len(words) != 3 or words[0] != MAGIC.encode():
        raise StateError("it is not a state file of asupd")
    if hashlib.sha256(body).hexdigest().encode() != words[2]:
        raise StateError("it is damaged: its checksum is another")
    try:
        version = int(words[1])
        if version > VERSION:
            raise StateError(f"it was written by a newer asupd (version {version}, this one knows {VERSION})")
        data: Any = json_value(body)
        for upgrade in UPGRADES[version:]:
            data = upgrade(data)
    except ValueError as error:
        raise StateError(f"it cannot be read: {error}") from error
    return data


#: ``UPGRADES[n]`` turns the data of version n into that of version n + 1; there was no version 0.
UPGRADES: tuple[Callable[[Any], Any], ...] = (lambda data: data,)


def load(run_dir: str) -> tuple[SavedState | None, list[str]]:
    """The newest valid state in ``run_dir``, None without one; and what is wrong with other files, in words."""
    complaints: list[str] = []
    for name in STATE_NAMES:
        path = os.path.join(run_dir, name)
        try:
            state, left_out = decode_what_is_known(_content(path))
            if _is_copy(state, run_dir):
                raise StateError(f"it is a copy of what is in {state.run_dir}, whose processes are not ours")
            return state, [*complaints, *(f"{path}: {each}" for each in left_out)]
        except FileNotFoundError:
            continue
        except OSError as error:
            complaints.append(f"cannot use {path}: {error.strerror}")
        except StateError as error:
            complaints.append(f"cannot use {path}: {error}")
    return None, complaints


def _is_copy(state: SavedState, run_dir: str) -> bool:
    """Whether the state was written in another run_dir that still exists: then this one is a copy, and was not moved."""
    try:
        return (
            bool(state.run_dir) and not os.path.samefile(state.run_dir, run_dir) and os.path.lexists(os.path.join(state.run_dir, LOCK_NAME))
        )
    except OSError:  # the other one is gone
        return False


def _content(path: str) -> bytes:
    """The content of a file. Raises StateError for anything but a regular file: reading a FIFO or a device may never end."""
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise StateError("it is not a file")
        return stream.read()


def save(run_dir: str, state: SavedState) -> None:
    """``state`` is in the file, and its former content in ``.previous``; the file exists and is valid at every instant.

    After the first one, a save needs no further room on the disk, unless the state has grown by more than a quarter. Raises
    OSError; then the file is as it was.
    """
    path, spare = (os.path.join(run_dir, name) for name in STATE_NAMES)
    os.makedirs(run_dir, mode=0o755, exist_ok=True)
    descriptor = _opened(spare)
    with os.fdopen(descriptor, "wb") as stream:
        content = encode(state)
        size = _size(os.fstat(descriptor).st_size, len(content))
        stream.write(content.ljust(size, b"\n"))
        stream.truncate()
        stream.flush()
        os.fsync(descriptor)
    try:
        exchange(spare, path)
    except FileNotFoundError:  # there was no file: this is the first save
        os.replace(spare, path)
        with suppress(OSError):  # reserves room for the next save, as the disk may be full by then
            _reserve(spare, size)
    except OSError:  # the filesystem cannot exchange names
        os.replace(spare, path)
    directory = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _opened(spare: str) -> int:
    """A descriptor for overwriting the file ``spare``, if it is a regular file with no other name; else it is replaced by a new one.

    Raises OSError.
    """
    try:
        descriptor = os.open(spare, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if is_shortage(error):
            raise  # a shortage, not a bad file: so that is kept, with the room that it has on the disk
    else:
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
            return descriptor
        os.close(descriptor)
    Path(spare).unlink(missing_ok=True)
    return os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _reserve(spare: str, size: int) -> None:
    """The file ``spare`` has ``size`` bytes of padding."""
    with os.fdopen(_opened(spare), "wb") as stream:
        stream.write(b"\n" * size)


def _size(present: int, needed: int) -> int:
    """The size to pad the file to: its present size if that fits, else enough for the state to grow by a quarter on a full disk."""
    if needed <= present <= 4 * needed + ROOM_BYTES:
        return present
    return -(-(needed + needed // 4) // ROOM_BYTES) * ROOM_BYTES


def forget(run_dir: str) -> None:
    """The state files are removed, as the daemon ended cleanly with everything down. A failure is logged."""
    for name in STATE_NAMES:
        try:
            Path(run_dir, name).unlink(missing_ok=True)
        except OSError as error:
            _log.warning("cannot remove %s: %s", os.path.join(run_dir, name), error.strerror)


class Saver:
    """Saves the state when something has changed."""

    def __init__(self, run_dir: str, collect: Callable[[], SavedState]) -> None:
        self._run_dir = run_dir
        self._collect = collect
        self._changed = anyio.Event()
        self._awaited = anyio.Event()  # set when an answer waits for a save, which then begins without a pause
        self._next = anyio.Event()  # set when the save that begins next has ended, successful or not
        self._present: anyio.Event | None = None  # the same for the save that is under way
        self._failing = False

    def changed(self) -> None:
        """A save will follow soon."""
        self._changed.set()

    async def caught_up(self) -> None:
        """Return once all changes so far are saved, or after :data:`TIMEOUT_SECONDS`, or when the save failed."""
        if self._changed.is_set():
            self._awaited.set()
            save = self._next
        elif self._present is not None:
            save = self._present
        else:
            return
        with anyio.move_on_after(TIMEOUT_SECONDS):
            await save.wait()

    async def run(self) -> None:
        """Save until cancelled."""
        while True:
            await self._changed.wait()
            await anyio.lowlevel.checkpoint()  # effects first: a spawn must not wait for a file
            self._changed, self._awaited = anyio.Event(), anyio.Event()
            self._present, self._next = self._next, anyio.Event()
            began = anyio.current_time()
            saved = False
            try:
                saved = await self.save()
            finally:  # also after a bug
                if not saved:
                    self._changed.set()
                self._present.set()
                self._present = None
            took = anyio.current_time() - began
            pause = min(max(SAVE_INTERVAL_SECONDS, 10 * took), LONGEST_PAUSE_SECONDS) if saved else RETRY_SECONDS
            with anyio.move_on_after(pause):
                await self._awaited.wait()

    async def save(self) -> bool:
        """Save the present state. Returns False if that failed, which is reported once; :meth:`run` will try again."""
        state = self._collect()
        try:
            await in_thread(save, self._run_dir, state)
        except OSError as error:
            if not self._failing:
                _log.error(
                    "degraded: cannot save the state in %s: %s; if the daemon dies now, children are found by their environment only",
                    self._run_dir,
                    error.strerror or error,
                )
            self._failing = True
            return False
        if self._failing:
            _log.info("the state is saved again in %s", self._run_dir)
        self._failing = False
        return True
