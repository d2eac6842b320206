"""The re-exec: the installed code replaces the running one, under the same PID.

Children, pipes and listening sockets are kept over ``execve``; everything else is in the state, passed in an anonymous
memory file, so that a full disk or a removed run_dir does not matter. Before the point of no return a trial process
of the new code imports everything, reads this very state and loads the configuration, which it hands on to the new code;
if it cannot, the old code stays in service and says why.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NoReturn

import anyio

from supervisord_async.errors import BusyError, CommandError, FailedError, SpawnError
from supervisord_async.supervise.records.narrate import exit_words
from supervisord_async.supervise.recovery import persist, prepared
from supervisord_async.supervise.recovery.persist import SavedState
from supervisord_async.supervise.retry import retry_on_shortage
from supervisord_async.system import descriptors, orphans, own_python, signals, spawn, threads
from supervisord_async.system.disks import Disks, Executable
from supervisord_async.wire import ENV_STATE

if TYPE_CHECKING:
    from supervisord_async.config.model import Configuration
    from supervisord_async.supervise.control_plane import Listeners
    from supervisord_async.supervise.process import Process
    from supervisord_async.supervise.records.bus import Bus
    from supervisord_async.supervise.records.history import History
    from supervisord_async.supervise.recovery.guardian_process import GuardianProcess
    from supervisord_async.supervise.supervisor import Supervisor
    from supervisord_async.system.lock import InstanceLock

_log = logging.getLogger(__name__)

TRIAL_SECONDS = 30.0
#: A thread that a disk has held up for this long counts as hanging; and the pause between two checks of that.
HANG_SECONDS = 5.0
POLL_SECONDS = 0.05
#: How long to wait for starts and ends of runs that are just under way; and the pause between two checks of that.
REST_SECONDS = 1.0
REST_POLL_SECONDS = 0.01
MODULE = "supervisord_async.cli.asupd"


class Replacement:
    """Replaces one daemon on request, if the new code is able to take over."""

    def __init__(
        self,
        supervisor: Supervisor,
        bus: Bus,
        guardian: GuardianProcess,
        lock: InstanceLock,
        *,
        state: Callable[[], SavedState],
        listeners: Callable[[], Listeners | None],
        history: Callable[[], History | None],
        heard: Collection[signal.Signals],
    ) -> None:
        """``state`` to ``history`` return the daemon's current ones; signals in ``heard`` are kept for the new code."""
        self._supervisor, self._bus, self._guardian, self._lock = supervisor, bus, guardian, lock
        self._state, self._listeners, self._history, self._heard = state, listeners, history, heard
        self._go = anyio.Event()  # set when the trial of the new code has succeeded
        self._prepared: list[int] = []  # the descriptor of the configuration that the last trial has loaded
        self._tried_with: Configuration | None = None  # what was in force when that trial began

    async def prepare(self) -> None:
        """Try the installed code; it will take over soon. Raises FailedError where it cannot, BusyError during a shutdown."""
        await self._try()
        self._go.set()

    async def _try(self) -> None:
        configuration = self._supervisor.configuration
        left = await try_new_code(self._state())
        if self._supervisor.shutting_down:
            os.close(left)
            raise BusyError("cannot re-exec: the daemon is shutting down")
        while self._prepared:  # from an earlier trial whose re-exec failed, or came too late
            os.close(self._prepared.pop())
        self._prepared.append(left)
        self._tried_with = configuration

    async def run(self) -> None:
        """Replace the daemon after each :meth:`prepare`. If that fails, publish why, and go on with this code."""
        while True:
            await self._go.wait()
            self._go = anyio.Event()
            listeners = self._listeners()
            try:
                why = f"cannot re-exec: {await self._replace(listeners)}; this code stays in service"
            except CommandError as error:
                why = str(error)
            except Exception as error:
                _log.exception("a re-exec failed because of a bug")
                why = f"cannot re-exec: internal error: {error!r}; this code stays in service"
            self._bus.publish("daemon", message=why, data={"what": "reexec_refused"})
            if listeners is not None:
                await retry_on_shortage("listen again", listeners.resume)

    async def _replace(self, listeners: Listeners | None) -> str:
        """Does not return if the new code takes over this process; else returns why it cannot; only ``listeners`` are paused then.

        Raises CommandError where a reload has changed something since the trial, and another trial failed.
        """
        if listeners is not None:
            await listeners.pause()  # after the client that asked for the re-exec has its answer
        await come_to_rest(self._supervisor.processes, self._bus, self._history())
        while self._supervisor.configuration != self._tried_with:  # a reload came after the trial had loaded the file
            await self._try()
            await come_to_rest(self._supervisor.processes, self._bus, self._history())
        if self._supervisor.shutting_down:  # a shutdown requested meanwhile wins: the new code must not go on
            return "the daemon is shutting down"
        self._bus.catch_up()
        history = self._history()
        kept = {"lock": [self._lock.fd], prepared.KEY: self._prepared, "listening": listeners.descriptors if listeners is not None else []}
        state = persist.with_descriptors(
            self._state(),
            kept,
            unwritten=history.unwritten() if history is not None else (),
            recent=self._bus.since(0)[0],
            open_files=descriptors.original_soft_limit(),
        )
        descriptors.sd_notify("RELOADING=1")
        self._guardian.dismiss()  # the new code starts one of its own
        try:
            become_new_code(state, self._heard)
        except OSError as error:
            return why_not(error)
        finally:
            descriptors.sd_notify("READY=1")  # else the unit would stay "reloading"


def new_code(*options: str) -> list[str]:
    """The command that runs the installed code, with the options of this daemon and ``options``."""
    return own_python.command(MODULE, *sys.argv[1:], *options)


def state_file(state: SavedState) -> int:
    """An inheritable descriptor of a memory file with ``state`` in it, to be read from the beginning."""
    descriptor = os.memfd_create("asupd-state")
    try:
        with os.fdopen(os.dup(descriptor), "wb") as stream:
            stream.write(persist.encode(state))
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.set_inheritable(descriptor, True)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def inherited_state() -> SavedState | None:
    """The state of this process before a re-exec; its children are not reaped until they are adopted.

    None if there was no re-exec. Raises StateError.
    """
    number = os.environ.pop(ENV_STATE, None)
    if number is None:
        return None
    with os.fdopen(int(number), "rb") as stream:
        state = persist.decode(stream.read())
    orphans.spare(process.snapshot.pid for process in state.processes if process.snapshot.pid is not None)
    return state


async def try_new_code(state: SavedState) -> int:
    """Check that the installed code can take over; returns a descriptor of what it has prepared for that (:mod:`.prepared`).

    Raises FailedError where it cannot, with the trial's error output.
    """
    try:
        loaded = os.memfd_create("asupd-prepared")
        try:
            await _ask_disks()
            await _try_new_code(persist.with_descriptors(state, {prepared.KEY: [loaded]}), loaded)
            if not os.fstat(loaded).st_size:  # a module that is just being installed may be empty, and exits with 0
                raise FailedError(
                    "cannot re-exec: the new code exited without an answer (is it installed completely?); this one stays in service"
                )
            await _wait_for_disks()
        except BaseException:
            os.close(loaded)
            raise
    except OSError as error:
        raise FailedError(f"cannot re-exec: the new code cannot be tried: {why_not(error)}; this one stays in service") from error
    return loaded


async def _try_new_code(state: SavedState, loaded: int) -> None:
    descriptor = state_file(state)
    with os.fdopen(os.memfd_create("asupd-trial"), "rb") as said:
        try:
            process = spawn.start_child(
                new_code("--trial"),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                pass_fds=(descriptor, loaded),
                env={**os.environ, ENV_STATE: str(descriptor)},
            )
        finally:
            os.close(descriptor)
        child = await spawn.watch_child(process)
        with anyio.move_on_after(TRIAL_SECONDS):
            await child.wait()
        if child.ended is None:
            child.send_signal(signal.SIGKILL)  # its end is noticed, and it is reaped, without anybody who waits for that
            raise FailedError(f"cannot re-exec: the new code did not answer in {TRIAL_SECONDS:g} s; this one stays in service")
        if child.ended.status.code != 0:
            said.seek(0)
            words = said.read().decode(errors="replace").strip()[-2000:] or f"it ended: {exit_words(child.ended.status)}"
            raise FailedError(f"cannot re-exec: the new code cannot take over; this one stays in service: {words}")


async def _ask_disks() -> None:
    """Check that no disk hangs that a spawn needs, or on which a new child closes files; raises FailedError where one does."""
    try:
        await Disks().wait_answered(Executable(sys.executable, "/", None))
    except SpawnError as error:
        raise FailedError(f"cannot re-exec: {error}; this code stays in service") from error


async def _wait_for_disks() -> None:
    """Wait until no thread hangs in the kernel: ``execve`` ends all threads first, and would wait for it while nothing is supervised.

    Raises FailedError if one hangs for :data:`HANG_SECONDS`.
    """
    held_up = threads.held_up()
    until = anyio.current_time() + HANG_SECONDS
    while held_up:
        if anyio.current_time() >= until:
            raise FailedError("cannot re-exec: a disk that does not answer a thread would hold it up; this code stays in service")
        await anyio.sleep(POLL_SECONDS)
        held_up &= threads.held_up()


async def come_to_rest(processes: Mapping[str, Process], bus: Bus, history: History | None) -> None:
    """Wait until the history is written, and no process is between two states, which the new code would have to guess from what lives.

    Each wait takes :data:`REST_SECONDS` at most; records not written by then are handed over. Pending signals have been handled.
    The wait for processes comes last, and nothing is awaited after it, as the next start may be due in a moment.
    """
    bus.catch_up()
    if history is not None:
        with anyio.move_on_after(REST_SECONDS):
            await history.flush()
    until = anyio.current_time() + REST_SECONDS
    await signals.wait_received()
    while any(process.in_motion for process in processes.values()) and anyio.current_time() < until:
        await anyio.sleep(REST_POLL_SECONDS)
        await signals.wait_received()


def why_not(error: OSError) -> str:
    """Why the new code cannot be executed, in words."""
    return own_python.refusal(error) if error.filename == sys.executable else error.strerror or str(error)


@contextmanager
def _inherited(fds: Iterable[int]) -> Iterator[None]:
    kept = list(fds)
    for descriptor in kept:
        os.set_inheritable(descriptor, True)
    try:
        yield
    finally:
        for descriptor in kept:
            os.set_inheritable(descriptor, False)


def become_new_code(state: SavedState, heard: Iterable[signal.Signals]) -> NoReturn:
    """Execute the new code: does not return, or raises OSError with everything as before. Signals in ``heard`` wait for the new code."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # for example a pipe without a reader
            stream.flush()
    memory = state_file(state)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, heard)
    try:
        with _inherited(state.all_descriptors()):
            os.execve(sys.executable, new_code(), {**os.environ, ENV_STATE: str(memory)})  # noqa: S606  ourselves
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(memory)
