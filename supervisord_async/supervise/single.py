"""``asup-run``: one command under supervision, without a configuration file or a run_dir.

The same :class:`~supervisord_async.supervise.process.Process` with the same machine as in the daemon, in a context
that keeps nothing: no lock, socket, history or captured log. The command has our stdin, stdout, stderr, descriptors and
terminal. With a terminal it stays in our session and process group, so that job control is left to the kernel;
without one it leads a session of its own, as under the daemon.
"""

from __future__ import annotations

import errno
import hashlib
import os
import signal
from collections.abc import Callable

import anyio
import anyio.lowlevel
import msgspec
from msgspec.structs import replace

from supervisord_async import wire
from supervisord_async.config.model import Daemon, Heartbeat, Program
from supervisord_async.core.inputs import SignalRequested, StartRequested, StopRequested
from supervisord_async.core.policy import RestartPolicy
from supervisord_async.core.record import Record
from supervisord_async.core.state import DOWN, Cause, State
from supervisord_async.errors import SpawnError
from supervisord_async.logs.journal import Journal
from supervisord_async.logs.writer import Writer
from supervisord_async.supervise.host import ChildProcess, Signature
from supervisord_async.supervise.machine_host import MachineHost
from supervisord_async.supervise.monitors.context import POLLS_PER_TIMEOUT
from supervisord_async.supervise.process import Process
from supervisord_async.supervise.records.bus import Bus
from supervisord_async.supervise.records.narrate import detail_words, exit_words
from supervisord_async.supervise.shared_context import SharedContext
from supervisord_async.supervise.sources.filewatch.watching import FileWatching
from supervisord_async.system import identity, orphans, procfs, signals
from supervisord_async.system.child import Ended
from supervisord_async.system.descriptors import is_unread
from supervisord_async.system.spawn import SpawnSpec
from supervisord_async.system.terminal import SignalsWithOrigin, Terminal
from supervisord_async.words import counted

#: Signals that ask us to end.
ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGQUIT})
#: Those of them that keys of a terminal send.
BY_KEYS = (signal.SIGINT, signal.SIGQUIT)
#: Signals whose meaning only the command knows.
PASSED_ON = frozenset({signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2})
#: A stop signal repeated within this time counts once: timeout(1) signals us, and then our group.
ECHO_SECONDS = 0.1
#: The exit codes of a shell for a command that it cannot execute, or does not find.
CANNOT_EXECUTE, NOT_FOUND = 126, 127
#: Errors of executing a command that no second attempt will mend.
HOPELESS = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ENOEXEC, errno.ELOOP, errno.ENAMETOOLONG, errno.E2BIG, errno.EINVAL}
)
#: The exit code when the restart limit was reached by a missed heartbeat.
LIMIT_BY_HEARTBEAT = 1


class Streams(msgspec.Struct, frozen=True):
    """The descriptors that the command inherits from us besides stdout and stderr."""

    stdin: int
    others: tuple[int, ...]  #: have the same numbers in the command

    @classmethod
    def ours(cls) -> Streams:
        """Those that are inheritable now; to be called before we open anything, and with the standard streams open."""
        others = [int(name) for name in os.listdir("/proc/self/fd") if int(name) > 2]
        return cls(0, tuple(fd for fd in others if _is_inheritable(fd)))


class Single:
    """One command, supervised until it has ended for good; every change is a record on ``bus``."""

    def __init__(self, program: Program, streams: Streams, *, presumed: Heartbeat | None) -> None:
        """``presumed``: the default heartbeat, which is watched only once its file is seen to change."""
        self.bus = Bus()
        self._program = program
        self._presumed = presumed
        self._host = _Host(streams, Terminal.open(), self._refused)
        self._null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        heartbeat = program.heartbeat or presumed
        daemon = Daemon(name=program.name, run_dir="", socket=os.environ.get(wire.ENV_SOCKET, ""))
        self._shared = SharedContext(
            daemon=daemon,
            instance=_own_instance(),
            host=self._host,
            bus=self.bus,
            files=FileWatching(self.bus),
            writer=Writer(),
            journal=Journal(None),
            null_fd=self._null_fd,
            committed=self._after_change,
            remembered=anyio.lowlevel.checkpoint,  # nothing is saved, as there is no successor
            waits_for=lambda _program: "",
            shut_down=lambda _why: None,
            written_paths=lambda: (heartbeat.file,) if heartbeat is not None and heartbeat.file else (),
        )
        self._process = Process(program.name, 0, program, self._shared)
        self._stop_signal: int | None = None  #: the signal that asked us to end
        self._stop_signal_at = 0.0
        self._held: list[int] = []  #: signals to pass on that came before the command was known to live
        self._reclaimed_after: Ended | None = None
        self._faulted_run = 0  #: the last run that missed its heartbeat
        self._over = anyio.Event()

    async def run(self) -> int:
        """Supervise until the command has ended for good, or a signal asks us to end; returns the exit code."""
        try:
            orphans.become_subreaper()
        except OSError as error:
            self._say(f"degraded: no subreaper ({error.strerror}); what the command double-forks away is found by its environment only")
        self.bus.listen(self._on_record)
        with SignalsWithOrigin(_heard(), self._signalled):  # before any thread starts, as threads inherit the signal mask
            presumed, baseline = await self._presume()
            async with orphans.reaping(self._child_changed), anyio.create_task_group() as tasks:
                if self._program.watch:
                    tasks.start_soon(self._shared.files.run, name="file watching")
                if presumed is not None:
                    tasks.start_soon(self._expect_heartbeat, presumed, baseline, name="heartbeat to come")
                self._process.begin(tasks)
                try:
                    if self._stop_signal is None:  # else a signal came first, and the command is never started
                        self._process.post(StartRequested(Cause.AUTOSTART))
                        await self._over.wait()
                finally:
                    self._process.dismiss()
                tasks.cancel_scope.cancel()
            code = self._exit_code()
            self._say(self._last_words(code), what="ended" if self._stop_signal or not code else "gave_up", code=code)
        self._host.close()
        os.close(self._null_fd)
        return code

    def _on_record(self, record: Record) -> None:
        if record.type != "state":
            return
        if record.to == State.STOPPING and record.cause == Cause.HEARTBEAT_MISSED:
            self._faulted_run = record.run or 0
        if record.to in DOWN:
            self._over.set()
        elif record.to == State.BACKOFF and (why := self._why_no_other_run()):
            self._say(f"{why}: it is not restarted")
            self._process.post(StopRequested())

    def _why_no_other_run(self) -> str:
        """Why nobody wants another run after the one that has just failed; empty if it is to be restarted."""
        status, terminal = self._process.snapshot.exit, self._host.terminal
        number = status.signal if status is not None else None
        if number == signal.SIGPIPE and any(map(is_unread, (1, 2))):  # asup-run yes | head
            return "nobody reads what it writes any more, nor would read what another run writes"
        if number in BY_KEYS and terminal is not None and terminal.is_ours():  # sudo, which gives its command a terminal of its own
            return f"it died of {signals.name(number)}, as by a key of the terminal"
        return ""

    def _child_changed(self) -> None:
        """Stop together with a command that has stopped itself on a terminal."""
        pid = self._process.snapshot.pid
        if self._host.terminal is not None and pid is not None:
            self._host.terminal.heed_child(pid)

    def _refused(self, error: SpawnError) -> None:
        """No restart where the very first run could not be executed: the arguments are wrong. Later the command may just be missing."""
        if self._process.snapshot.run == 1 and error.stage == "exec" and error.errno in HOPELESS:
            restart = msgspec.structs.replace(self._program.restart, policy=RestartPolicy.NEVER)
            self._process.reconfigure(msgspec.structs.replace(self._process.program, restart=restart))

    # Signals

    def _signalled(self, number: int, from_terminal: bool) -> None:
        """Pass the signal on to the command, unless the terminal sent it to both of us; stop the command if it is a stop signal."""
        terminal = self._host.terminal
        hung_up = number == signal.SIGHUP and terminal is not None and (from_terminal or terminal.is_gone())  # a shell may send it too
        # A HUP is passed on in any case: the terminal's may have come before the command, and a second one does no harm.
        shared = from_terminal and self._host.shares_terminal and not hung_up
        name = signals.name(number)
        origin, consequence = " from the terminal" if from_terminal else "", "the command has it too" if shared else "passed on"
        self._say(f"{name}{origin}: {consequence}", what="signal", signal=name)
        if number not in ENDING and not hung_up:
            if not shared:
                self._pass_on(number)
            return
        now = anyio.current_time()
        if self._stop_signal is not None:  # a second one, which the command may take to mean "at once"
            if not shared and (number != self._stop_signal or now - self._stop_signal_at > ECHO_SECONDS):
                self._process.post(SignalRequested(number))
            return
        self._stop_signal, self._stop_signal_at = number, now
        stop = msgspec.structs.replace(self._program.stop, signal=signal.SIGCONT if shared else number, command=None)
        self._process.reconfigure(msgspec.structs.replace(self._process.program, stop=stop))
        if self._process.snapshot.state is State.STOPPING and not shared:
            self._process.post(SignalRequested(number))
        self._process.post(StopRequested())

    def _pass_on(self, number: int) -> None:
        """The command gets the signal; while it is being spawned, as soon as it lives: its output may be seen before we know that."""
        snapshot = self._process.snapshot
        if snapshot.run == 0 or (snapshot.state is State.STARTING and snapshot.pid is None):
            if number not in self._held:  # once each, as the kernel keeps pending signals
                self._held.append(number)
        else:
            self._process.post(SignalRequested(number))

    def _after_change(self) -> None:
        """After a run has ended the terminal is ours again; signals held back while a run began are passed on."""
        self._child_changed()  # it may have stopped itself before its PID was known here
        process, ended = self._process, self._process.last_ended
        if self._host.terminal is not None and ended is not None and ended is not self._reclaimed_after:
            self._reclaimed_after = ended
            self._host.terminal.reclaim(modes=ended.status.signal is not None)
        if self._held and (process.snapshot.pid is not None or process.snapshot.state is not State.STARTING):
            held, self._held = self._held, []
            for number in held:
                process.post(SignalRequested(number))

    # Heartbeat

    async def _presume(self) -> tuple[Heartbeat | None, Signature]:
        """The default heartbeat and its file's signature before the command starts; no heartbeat where the disk does not answer."""
        if self._presumed is None or self._presumed.file is None:
            return None, None
        try:
            return self._presumed, await self._host.signature(self._presumed.file)
        except TimeoutError as error:
            self._say(f"no heartbeat is watched: {error}", what="no_heartbeat")
            return None, None

    async def _expect_heartbeat(self, heartbeat: Heartbeat, baseline: Signature) -> None:
        """Demand the default heartbeat from its first beat on; say once if none comes in time."""
        assert heartbeat.file is not None  # noqa: S101  the usual file has a name
        patience = heartbeat.initial_delay_seconds + heartbeat.timeout_seconds
        silent, said = 0.0, False
        while True:
            await anyio.sleep(heartbeat.timeout_seconds / POLLS_PER_TIMEOUT)
            silent += heartbeat.timeout_seconds / POLLS_PER_TIMEOUT
            try:
                signature = await self._host.signature(heartbeat.file)
            except TimeoutError:
                continue
            if signature is not None and signature != baseline:
                break
            if silent >= patience and not said:
                said = True
                self._say(
                    f"no heartbeat in {heartbeat.file}: not watched unless one appears "
                    "(--heartbeat-file to demand it, --no-heartbeat to be silent)",
                    what="no_heartbeat",
                )
        self._say(f"heartbeat seen in {heartbeat.file}: one is due every {heartbeat.timeout_seconds:g} s from now on", what="heartbeat")
        self._process.reconfigure(msgspec.structs.replace(self._process.program, heartbeat=heartbeat))

    # The end

    def _exit_code(self) -> int:
        """128+n if signal n asked us to end, 1 if the restart limit was reached by a missed heartbeat, else as the last run ended."""
        snapshot = self._process.snapshot
        if self._stop_signal is not None:
            return 128 + self._stop_signal
        if snapshot.state is State.FATAL and self._faulted_run == snapshot.run:
            return LIMIT_BY_HEARTBEAT
        if self._host.refused is not None:
            return NOT_FOUND if self._host.refused.errno == errno.ENOENT else CANNOT_EXECUTE
        status = snapshot.exit
        if status is None or status.unknown:
            return 1
        return status.code if status.code is not None else 128 + (status.signal or 0)

    def _last_words(self, code: int) -> str:
        snapshot = self._process.snapshot
        restarts = counted(max(snapshot.run - 1, 0), "restart")
        if self._stop_signal is not None:
            why = f"stopped by {signals.name(self._stop_signal)}"
        elif snapshot.state is State.FATAL:
            why = f"giving up: {detail_words(snapshot) or snapshot.cause}"
        else:
            why = exit_words(snapshot.exit)
        return f"{why}; {restarts}; ending with {code}"

    def _say(self, message: str, *, what: str = "note", **data: object) -> None:
        self.bus.publish("daemon", message=message, data={"what": what, **data})


class _Host(MachineHost):
    """The machine, on which the command is spawned with our streams and terminal."""

    def __init__(self, streams: Streams, terminal: Terminal | None, on_refusal: Callable[[SpawnError], None]) -> None:
        super().__init__()
        self._on_refusal = on_refusal
        self.terminal = terminal
        self.refused: SpawnError | None = None  #: why the last spawn failed; None if it did not
        self._streams = streams

    @property
    def shares_terminal(self) -> bool:
        """Whether the command is in our process group."""
        return self.terminal is not None

    async def spawn(self, spec: SpawnSpec) -> ChildProcess:
        """Start ``spec`` with our streams and terminal."""
        environment = dict(spec.environment)
        if not environment.get(wire.ENV_SOCKET):
            environment.pop(wire.ENV_SOCKET, None)
        if self.terminal is not None:
            self.terminal.remember()
        spec = replace(
            spec, stdin=self._streams.stdin, pass_fds=self._streams.others, environment=environment, session=not self.shares_terminal
        )
        try:
            child = await super().spawn(spec)
        except SpawnError as error:
            self.refused = error
            self._on_refusal(error)
            raise
        self.refused = None
        return child

    def close(self) -> None:
        """The terminal is closed."""
        if self.terminal is not None:
            self.terminal.close()


def _heard() -> frozenset[int]:
    """All signals that we handle; without HUP if it was ignored when we were started, as ``nohup`` does."""
    ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()
    return frozenset((ENDING | PASSED_ON) - ignored)


def _own_instance() -> str:
    """The prefix of the tags of our command's processes, different from that of every other asup-run and daemon."""
    own = procfs.stat(os.getpid())
    words = f"asup-run {os.getpid()} {own.start_ticks if own else 0} {identity.boot_id()}"
    return hashlib.blake2s(words.encode(), digest_size=8).hexdigest()


def _is_inheritable(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:  # closed by now: it was the one that listed the directory
        return False
