"""Replacing the daemon in place: the installed code takes over under the same PID.

Children, pipes and listening sockets are kept over ``execv``; everything else is the state, passed in an anonymous
memory file, so that a full disk or a removed run_dir does not matter. Before the point of no return a trial process
of the new code imports everything, reads this very state and loads the configuration, which it hands on to the new code;
if it cannot, the old code stays in service and says why.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NoReturn

import anyio

from supervisord_async.errors import BusyError, FailedError, SpawnError
from supervisord_async.supervise.outlive import persist, prepared
from supervisord_async.supervise.outlive.persist import SavedState
from supervisord_async.supervise.patience import is_want
from supervisord_async.system import descriptors, orphans, own_python, signals, threads
from supervisord_async.system.disks import Disks, Executable
from supervisord_async.wire import ENV_STATE

if TYPE_CHECKING:
    from supervisord_async.supervise.control_plane import Listeners
    from supervisord_async.supervise.outlive.guard import Guard
    from supervisord_async.supervise.process import Process
    from supervisord_async.supervise.records.bus import Bus
    from supervisord_async.supervise.records.history import History
    from supervisord_async.supervise.supervisor import Supervisor
    from supervisord_async.system.lock import InstanceLock

TRIAL_SECONDS = 30.0
#: How long a trial that was killed is waited for.
DEATH_SECONDS = 1.0
#: A thread that a disk has held up for this long counts as hanging; and the time between two looks.
HANG_SECONDS = 5.0
LOOK_SECONDS = 0.05
#: How long starts that wait for their turn, and ends that are just being told, are waited for; and the time between two looks.
REST_SECONDS = 1.0
REST_LOOK_SECONDS = 0.01
MODULE = "supervisord_async.cli.asupd"


class Replacement:
    """Replaces one daemon when it is asked to, and can be."""

    def __init__(
        self,
        supervisor: Supervisor,
        bus: Bus,
        guard: Guard,
        lock: InstanceLock,
        *,
        state: Callable[[], SavedState],
        listeners: Callable[[], Listeners | None],
        history: Callable[[], History | None],
        heard: Collection[signal.Signals],
    ) -> None:
        """``state``, ``listeners`` and ``history`` give the daemon's present ones; signals in ``heard`` are kept for the new code."""
        self._supervisor, self._bus, self._guard, self._lock = supervisor, bus, guard, lock
        self._state, self._listeners, self._history, self._heard = state, listeners, history, heard
        self._go = anyio.Event()  # set when the new code was tried and is to take over
        self._prepared: list[int] = []  # the descriptor of the configuration that the last trial has loaded

    async def prepare(self) -> None:
        """The installed code was tried and will take over; raises FailedError where it cannot, BusyError during a shutdown."""
        left = await try_new_code(self._state())
        if self._supervisor.shutting_down:
            os.close(left)
            raise BusyError("cannot re-exec: the daemon is shutting down")
        while self._prepared:  # of an earlier trial, after which the re-exec did not take place
            os.close(self._prepared.pop())
        self._prepared.append(left)
        self._go.set()

    async def run(self) -> None:
        """Replace the daemon each time that was prepared. Where that fails it is published why, and this code goes on."""
        while True:
            await self._go.wait()
            self._go = anyio.Event()
            listeners = self._listeners()
            if listeners is not None:
                await listeners.pause()  # the client that asked for this gets its answer first
            await come_to_rest(self._supervisor.processes, self._bus, self._history())
            stopping = self._supervisor.shutting_down  # whoever asked for that meanwhile did not mean a successor to go on
            why = "the daemon is shutting down" if stopping else self._replace(listeners)
            self._bus.publish("daemon", message=f"cannot re-exec: {why}; this code stays in service", data={"what": "reexec_refused"})
            if listeners is not None:
                await listeners.resume()

    def _replace(self, listeners: Listeners | None) -> str:
        """Never returns where the new code takes over this process; else returns why it cannot, and everything is as it was."""
        self._bus.catch_up()
        history = self._history()
        kept = {"lock": [self._lock.fd], prepared.KEY: self._prepared, "listening": listeners.descriptors if listeners is not None else []}
        state = persist.with_descriptors(self._state(), kept, history.unwritten() if history is not None else ())
        descriptors.sd_notify("RELOADING=1")
        self._guard.dismiss()  # the new code has one of its own
        try:
            become_new_code(state, self._heard)
        except OSError as error:
            descriptors.sd_notify("READY=1")  # else the unit would stay "reloading"
            return why_not(error)


def new_code(*options: str) -> list[str]:
    """The command that runs the code that is installed now, with the options of this daemon, of which ``-d`` is none."""
    return [sys.executable, "-m", MODULE, *sys.argv[1:], *options]


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
    """The state that this process had before a re-exec, with its children, of which none is reaped until it is adopted.

    None where there was no re-exec. Raises StateError.
    """
    number = os.environ.pop(ENV_STATE, None)
    if number is None:
        return None
    with os.fdopen(int(number), "rb") as stream:
        state = persist.decode(stream.read())
    orphans.spare(process.snapshot.pid for process in state.processes if process.snapshot.pid is not None)
    return state


async def try_new_code(state: SavedState) -> int:
    """The installed code can take over; returns a descriptor of what it has prepared for that (:mod:`.prepared`).

    Raises FailedError, with what it said, where it cannot.
    """
    try:
        loaded = os.memfd_create("asupd-prepared")
        try:
            await _ask_disks()
            await _try_new_code(persist.with_descriptors(state, {prepared.KEY: [loaded]}), loaded)
            if not os.fstat(loaded).st_size:  # a module that is being installed may be empty, and ends in peace
                raise FailedError(
                    "cannot re-exec: the new code ended without a word (is it installed as a whole?); this one stays in service"
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
    try:
        process = await asyncio.create_subprocess_exec(
            *new_code("--trial"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(descriptor, loaded),
            env={**os.environ, ENV_STATE: str(descriptor)},
        )
    finally:
        os.close(descriptor)
    said = b""
    with anyio.move_on_after(TRIAL_SECONDS):
        _, said = await process.communicate()
    if process.returncode is None:
        process.kill()
        with anyio.move_on_after(DEATH_SECONDS):  # whoever still has its stderr must not hold us up
            await process.wait()
        raise FailedError(f"cannot re-exec: the new code did not answer in {TRIAL_SECONDS:g} s; this one stays in service")
    if process.returncode != 0:
        words = said.decode(errors="replace").strip()[-2000:] or f"it ended with {process.returncode}"
        raise FailedError(f"cannot re-exec: the new code cannot take over; this one stays in service: {words}")


async def _ask_disks() -> None:
    """Nothing that a child needs, or closes at its birth, is on a disk that hangs; raises FailedError where something is."""
    try:
        await Disks().wait_answered(Executable(sys.executable, "/", None))
    except SpawnError as error:
        raise FailedError(f"cannot re-exec: {error}; this code stays in service") from error
    except RuntimeError as error:
        if not is_want(error):
            raise
        raise FailedError(f"cannot re-exec: {error}; this code stays in service") from error


async def _wait_for_disks() -> None:
    """No thread hangs in the kernel: ``execve`` ends all threads first, and would wait for it, with nothing supervised meanwhile.

    Raises FailedError where one hangs for :data:`HANG_SECONDS`.
    """
    held_up = threads.held_up()
    until = anyio.current_time() + HANG_SECONDS
    while held_up:
        if anyio.current_time() >= until:
            raise FailedError("cannot re-exec: a disk that does not answer a thread would hold it up; this code stays in service")
        await anyio.sleep(LOOK_SECONDS)
        held_up &= threads.held_up()


async def come_to_rest(processes: Mapping[str, Process], bus: Bus, history: History | None) -> None:
    """No process is between two states, which the new code would have to guess from what lives, and the history is written.

    Each is waited for :data:`REST_SECONDS` at most; what is not written by then is handed over. Pending signals have been handled.
    The rest comes last, and nothing is waited for behind it: the next start may be due in a moment.
    """
    bus.catch_up()
    if history is not None:
        with anyio.move_on_after(REST_SECONDS):
            await history.flush()
    until = anyio.current_time() + REST_SECONDS
    await signals.heeded()
    while any(process.in_motion for process in processes.values()) and anyio.current_time() < until:
        await anyio.sleep(REST_LOOK_SECONDS)
        await signals.heeded()


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
    """Never returns; or raises OSError, and everything is as it was. Signals that come meanwhile wait for the new code."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads it
            stream.flush()
    memory = state_file(state)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, heard)
    try:
        with _inherited(state.all_descriptors()):
            os.execve(sys.executable, new_code(), {**os.environ, ENV_STATE: str(memory)})  # noqa: S606  ourselves
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(memory)
