"""One process's side of sd_notify: a socket for all its runs, who may send to it, and what each assignment means.

What matters to decisions (READY, MAINPID, EXTEND_TIMEOUT_USEC) becomes an input; beats are counted for the monitor; the rest
(STATUS, RELOADING, STOPPING, ERRNO) is kept beside the snapshot, for people. A message's sender is known from the kernel, never from
the message: only the run's main process may send, or with ``access: all`` any process of the run.

A flood takes a bounded share of the loop: messages are read in batches with a pause after each full one, so that the kernel
blocks the sender. A message that is malformed, or from another sender, is dropped and its descriptors are closed; the first
one of each run is reported. Names and values mean what ``man 3 sd_notify`` says.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
from typing import TYPE_CHECKING

import anyio

from supervisord_async.config.model import Program
from supervisord_async.core.inputs import BecameReady, MainChanged, TimeoutExtended
from supervisord_async.core.state import State
from supervisord_async.errors import SpawnError
from supervisord_async.supervise.records.masking import words_without_secrets
from supervisord_async.supervise.recovery.persist import SavedNotifySocket
from supervisord_async.supervise.retry import retry_on_shortage
from supervisord_async.supervise.sources.fdstore import DescriptorStore
from supervisord_async.supervise.sources.notify_state import NotifyState
from supervisord_async.system import procfs
from supervisord_async.system.datagrams import Datagram, adopt_datagrams, bind_datagrams, read_datagrams
from supervisord_async.system.descriptors import need_free
from supervisord_async.system.identity import identify
from supervisord_async.system.sockets import PATH_LIMIT_BYTES
from supervisord_async.system.transfer import is_readable

if TYPE_CHECKING:
    from supervisord_async.supervise.runs.run import Run
    from supervisord_async.supervise.shared_context import SharedContext
    from supervisord_async.system.credentials import Credentials

_log = logging.getLogger(__name__)

#: How many messages are read in one turn of the loop.
BATCH = 64
#: The pause after a full batch: it limits a flood to some thousand messages a second.
PAUSE_SECONDS = 0.01
#: How many descriptors have to be free for a message: one that it may carry, and one to look its sender up.
DESCRIPTORS_NEEDED = 2
#: A longer STATUS is cut.
STATUS_CHARACTERS = 200
#: The longest extension that a single message can ask for.
MAX_EXTENSION_SECONDS = 86400.0
#: An extension that adds less than this is ignored.
EXTENSION_STEP_SECONDS = 0.05
#: The most records about one run; further messages only update what is kept here.
RECORDS_PER_RUN = 20


class NotifySocket:
    """One process's side of sd_notify."""

    def __init__(self, name: str, shared: SharedContext) -> None:
        self.state = NotifyState()  #: of the current run
        self.store = DescriptorStore()
        self._name = name
        self._shared = shared
        self._socket: socket.socket | None = None
        self._address = ""
        self._bound_for: object = None

    # The socket

    def open(self, program: Program, credentials: Credentials | None) -> str:
        """The value of NOTIFY_SOCKET for runs with these settings; raises SpawnError, stage ``notify``."""
        assert program.notify is not None  # noqa: S101  only called where it is set
        access = program.notify.access
        whom = (access, credentials)
        if self._socket is not None and self._bound_for in (None, whom) and self._is_reachable():
            self._bound_for = whom
            return self._address
        self._close_socket()
        path = os.path.join(self._shared.daemon.run_dir, "notify", f"{self._name}.sock")
        abstract = _abstract(self._shared.instance, self._name)
        try:
            self._socket, self._address = bind_datagrams(path, abstract, credentials, mode=0o666 if access == "all" else 0o600)
        except OSError as error:
            raise SpawnError("notify", error.errno, f"cannot bind {path}") from error
        self._bound_for = whom
        return self._address

    def _is_reachable(self) -> bool:
        """Whether the address still leads to the socket: its file goes with a removed run_dir."""
        return not self._address.startswith("/") or os.path.exists(self._address)

    def run_begins(self) -> None:
        """Forget all that an earlier run has sent; descriptors stay in the store."""
        self.state = NotifyState()
        if self._socket is not None:
            for datagram in read_datagrams(self._socket, 4 * BATCH):
                datagram.close()

    def saved(self) -> SavedNotifySocket | None:
        """What is carried over a re-exec; None without a socket."""
        if self._socket is None:
            return None
        return SavedNotifySocket(self._socket.fileno(), self._address, self.state.status, self.store.saved())

    def inherit(self, saved: SavedNotifySocket | None) -> None:
        """After a re-exec: go on with the same socket and the same store."""
        if saved is None:
            return
        self._socket, self._address = adopt_datagrams(saved.fd), saved.address
        self.state.status = saved.status
        self.store.inherit(saved.stored)

    def close(self) -> None:
        """The socket and all stored descriptors are closed, and the socket's file is removed."""
        self._close_socket()
        self.store.clear()

    def _close_socket(self) -> None:
        if self._socket is None:
            return
        self._socket.close()
        self._socket = None
        if self._address.startswith("/"):
            try:
                os.unlink(self._address)
            except FileNotFoundError:
                pass  # somebody else removed it
            except OSError as error:
                _log.debug("%s: cannot remove %s: %s", self._name, self._address, error.strerror)

    # Listening

    async def listen(self, run: Run) -> None:
        """Receive and act on the messages of ``run``, until cancelled."""
        while self._socket is not None:
            await anyio.wait_readable(self._socket)
            if await self.drain(run) == BATCH:
                await anyio.sleep(PAUSE_SECONDS)

    async def drain(self, run: Run) -> int:
        """Act on the messages that wait already, at most one batch; returns how many those were.

        They go on waiting while too few descriptors are free: what a message carries would be lost, and its sender could not be looked up.
        """
        count = 0

        async def act() -> None:
            nonlocal count
            while count < BATCH and self._socket is not None and is_readable(self._socket.fileno()):
                try:
                    need_free(DESCRIPTORS_NEEDED)
                except OSError:
                    self.state.beats += 1  # what waits may be a beat, so this is no silence
                    raise
                for datagram in read_datagrams(self._socket, 1):
                    count += 1
                    self._receive(run, datagram)

        await retry_on_shortage(f"hear {self._name}", act)
        return count

    def _receive(self, run: Run, datagram: Datagram) -> None:
        words = None if datagram.cut_off else parse(datagram.data)
        if words is None:
            self._ignore(run, datagram, "it is not an sd_notify message")
        elif not self._may_speak(run, datagram.pid):
            access = run.context.program.notify.access if run.context.program.notify else "main"
            whose = "the main process" if access == "main" else "a process of this run"
            gone = access == "all" and datagram.pid > 0 and procfs.stat(datagram.pid) is None
            why = "its sender had ended already, so its run is not known" if gone else f"it is not from {whose}"
            self._ignore(run, datagram, f"{why} (notify.access: {access})")
        else:
            left = datagram.descriptors
            try:
                if words.get("FDSTORE") == "1" and "BARRIER" not in words:
                    left = self.store.take(words.get("FDNAME", ""), left)
            finally:
                for fd in left:
                    os.close(fd)
            self._act(run, words)

    def _ignore(self, run: Run, datagram: Datagram, why: str) -> None:
        datagram.close()
        if not self.state.ignored:
            self.state.ignored = True
            self._publish(run, f"ignored a message of process {datagram.pid}: {why}; further ones are ignored silently")

    def _may_speak(self, run: Run, pid: int) -> bool:
        if pid == run.child.pid:
            return True
        settings = run.context.program.notify
        if pid <= 0 or settings is None or settings.access != "all":
            return False
        return run.ended is None and run.tree.includes(pid)

    def _act(self, run: Run, words: dict[str, str]) -> None:
        if "STATUS" in words:
            status = words_without_secrets(words["STATUS"], run.context.program)[:STATUS_CHARACTERS]  # then cut: no half of a secret
            self.state.status = "".join(sign if sign.isprintable() else " " for sign in status).strip()
        if "MAINPID" in words:
            self._change_main(run, words["MAINPID"])
        self._note_failure(run, words)
        self._act_on_watchdog(words)
        extension = _number(words.get("EXTEND_TIMEOUT_USEC"))
        if extension is not None:
            self._extend(run, min(extension / 1e6, MAX_EXTENSION_SECONDS))
        if words.get("RELOADING") == "1" and not self.state.reloading:
            self.state.reloading = True
            self._publish(run, "it says that it reloads")
        if words.get("READY") == "1":
            self._become_ready(run)
        if words.get("STOPPING") == "1" and not self.state.stopping:
            self.state.stopping = True
            self._publish(run, "it says that it stops")
        if words.get("FDSTOREREMOVE") == "1":
            self.store.remove(words.get("FDNAME", ""))

    def _act_on_watchdog(self, words: dict[str, str]) -> None:
        beat = words.get("WATCHDOG")
        if beat == "1":
            self.state.beats += 1
        elif beat == "trigger":
            self.state.triggered = True
            self.state.heard.notify()
        period = _number(words.get("WATCHDOG_USEC"))
        if period:
            self.state.watchdog_seconds = period / 1e6
            self.state.heard.notify()

    def _become_ready(self, run: Run) -> None:
        if self.state.reloading:
            self.state.reloading = False
            self._publish(run, "it says that it has reloaded")
        number = run.context.run
        # with a readiness probe, the probe alone decides
        if not self.state.ready and run.context.program.readiness is None:
            self.state.ready = True
            run.context.post(BecameReady(number))

    def _extend(self, run: Run, seconds: float) -> None:
        until = anyio.current_time() + seconds
        in_time = run.context.snapshot().state in (State.STARTING, State.STOPPING)
        if in_time and until > self.state.extended_until + EXTENSION_STEP_SECONDS:
            self.state.extended_until = until
            run.context.post(TimeoutExtended(run.context.run, until))

    def _note_failure(self, run: Run, words: dict[str, str]) -> None:
        errno, status = _number(words.get("ERRNO")), _number(words.get("EXIT_STATUS"))
        if errno is not None and errno <= 4095 and errno != self.state.errno:
            self.state.errno = errno
            self._publish(run, f"it says: {os.strerror(errno)} (errno {errno})")
        if status is not None and status <= 255 and status != self.state.exit_status:
            self.state.exit_status = status
            self._publish(run, f"it says: exit status {status}")

    def _change_main(self, run: Run, text: str) -> None:
        pid = _number(text)
        if pid is None or pid == run.child.pid:
            return
        identity = identify(pid) if 1 < pid < 1 << 22 and pid != os.getpid() else None
        if identity is None or not run.tree.includes(pid):
            self._publish(run, f"refused {text[:20]} as its main process: it does not descend from this run")
            return
        try:
            run.change_main(run.context.host.adopt(identity))
        except (ProcessLookupError, OSError) as error:
            self._publish(run, f"cannot take {pid} as its main process: {error}")
            return
        run.context.post(MainChanged(run.context.run, pid))
        self._publish(run, f"its main process is {pid} now")

    def _publish(self, run: Run, message: str) -> None:
        self.state.published += 1
        if self.state.published <= RECORDS_PER_RUN:
            self._shared.bus.publish("notify", name=self._name, run=run.context.run, message=message)


def _abstract(instance: str, name: str) -> str:
    """The abstract address, for when the socket's path cannot be used: it has the process's name, or a digest of one that is too long."""
    address = f"asupd/{instance}/{name}"
    if len(address) <= PATH_LIMIT_BYTES:
        return address
    return f"asupd/{instance}/{hashlib.blake2s(name.encode(), digest_size=16).hexdigest()}"


def parse(data: bytes) -> dict[str, str] | None:
    """The assignments in a message, by name; of several for one name, the last. None for what is not a message."""
    if not data or b"\0" in data:
        return None
    words = {}
    for line in data.split(b"\n"):
        name, equals, value = line.partition(b"=")
        if not equals:
            continue
        try:
            words[name.decode("ascii")] = value.decode()
        except UnicodeDecodeError:
            return None
    return words or None


def _number(text: str | None) -> int | None:
    """A decimal number of sane length; None for everything else."""
    return int(text) if text is not None and 0 < len(text) <= 18 and text.isascii() and text.isdigit() else None
