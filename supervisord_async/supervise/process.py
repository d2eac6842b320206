"""The driver of one process: one mailbox, one deadline, and no task while nothing is under way.

The driver is called when an input has come or the deadline has passed. It lets the machine decide, commits the snapshot, begins
the effects, and only then publishes, so that reporting the end of one run does not delay the next. Nothing else assigns the
snapshot. An effect that takes time is a background task, which answers with an input like everything else.

A bug in a decision or in a background task ends the tasks of this process and nothing else: the traceback is logged, the
process is UNKNOWN with its child left alone, and its supervision resumes after a pause, longer after each further bug.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
from anyio.abc import TaskGroup
from msgspec.structs import replace

from supervisord_async.config.model import Program
from supervisord_async.core import effects as do
from supervisord_async.core.inputs import (
    Adopted,
    BecameReady,
    DeadlinePassed,
    Exited,
    HealthReported,
    Input,
    RestartRequested,
    Spawned,
    SpawnFailed,
    StopRequested,
    SupervisionBroke,
    TreeGone,
)
from supervisord_async.core.machine import deadline, step
from supervisord_async.core.policy import Policy
from supervisord_async.core.state import DOWN, Cause, ExitStatus, Health, Snapshot, State
from supervisord_async.errors import BusyError, SpawnError
from supervisord_async.supervise.background_tasks import BackgroundTasks
from supervisord_async.supervise.mailbox import Mailbox
from supervisord_async.supervise.monitors.context import HEARTBEAT_CHECK
from supervisord_async.supervise.monitors.files import monitor_watches
from supervisord_async.supervise.records.masking import without_secrets
from supervisord_async.supervise.records.pending import Change, PendingChanges
from supervisord_async.supervise.recovery.persist import SavedProcess
from supervisord_async.supervise.recovery.takeover import LIVE, Inherited, tell_adopted
from supervisord_async.supervise.runs import run_spec
from supervisord_async.supervise.runs.output import Output
from supervisord_async.supervise.runs.run import Run
from supervisord_async.supervise.runs.run_factory import RunFactory
from supervisord_async.supervise.shared_context import SharedContext
from supervisord_async.system.child import Ended

_log = logging.getLogger(__name__)

#: The pauses after which supervision resumes after a bug, the last one repeated.
RESUME_PAUSES_SECONDS = (0.1, 1.0, 5.0, 30.0)
#: After this long without a bug the pauses start with the first one again.
CALM_SECONDS = 600.0


class Process:
    """One supervised slot of a program."""

    __slots__ = (
        "_background", "_breaks", "_broke_at", "_inherited", "_mailbox", "_pending", "_resume_at", "_run", "_runs", "_settings", "_shared",
        "_taken_over", "_watch_scope", "name", "output", "policy", "program", "replica", "scheduled_at", "snapshot",
    )  # fmt: skip

    def __init__(self, name: str, replica: int, program: Program, shared: SharedContext) -> None:
        self.name = name
        self.replica = replica
        self.program = program
        self.policy: Policy = program.policy(name)
        self.snapshot = Snapshot()
        self.output = Output(name, replica, shared)
        self.scheduled_at: float | None = None  #: when its schedule is due next: wall time, as schedules are
        self._shared = shared
        self._runs = RunFactory(name, replica, self.output, shared, post=self.post, snapshot=self._snapshot)
        self._mailbox = Mailbox()
        self._run: Run | None = None
        self._settings: str | Program = ""  #: the settings that the run was started with, or their digest
        self._inherited: Inherited | None = None  # what an earlier daemon left of it, until that is taken over
        self._taken_over: anyio.Event | None = None
        self._background = BackgroundTasks(self._broke)
        self._pending = PendingChanges(name, shared.bus, self._background.fail)
        self._breaks = 0
        self._broke_at = 0.0
        self._resume_at: float | None = None  # when supervision resumes after a bug; None: it is not broken
        self._watch_scope: anyio.CancelScope | None = None

    # For other parts of the daemon

    def post(self, input_: Input) -> None:
        """The driver will decide on ``input_``. Raises BusyError where too many requests wait already."""
        self._mailbox.post(without_secrets(input_, self.program))

    def ask(self, request: Input) -> None:
        """As :meth:`post`, for requests that nobody waits for: that there are too many is logged."""
        try:
            self.post(request)
        except BusyError as error:
            _log.error("%s: %s", self.name, error)

    @property
    def next_at(self) -> float | None:
        """When the next attempt or KILL is due (monotonic); None if neither is."""
        if self.snapshot.state in (State.BACKOFF, State.STOPPING, State.FATAL):
            return deadline(self.snapshot, self.policy)
        return None

    @property
    def waits_for(self) -> str:
        """Which of its dependencies are not met and why, in words; a WAITING process waits for them."""
        return self._shared.waits_for(self.program)

    @property
    def stop_ordered(self) -> bool:
        """True when it is stopped, is stopping with no restart to follow, or has a stop waiting in its mailbox."""
        now = self.snapshot
        on_its_way = now.state is State.STOPPING and not now.wanted
        return now.state is State.STOPPED or on_its_way or self._mailbox.holds(StopRequested)

    @property
    def last_ended(self) -> Ended | None:
        """How its last run ended, if this daemon saw that; None while a run goes on."""
        return self._run.ended if self._run is not None else None

    @property
    def settled(self) -> bool:
        """True once everything that an earlier daemon left of it has been taken over or ended."""
        return self._inherited is None

    @property
    def in_motion(self) -> bool:
        """True when it is about to change: an input waits, a start has no process yet, or a run's end is not yet decided on."""
        now, run = self.snapshot, self._run
        begins = now.state is State.STARTING and now.pid is None
        ends = run is not None and run.ended is not None and run.context.run == now.run != now.ended_run
        return begins or ends or self._mailbox.holds(Input)

    @property
    def status_text(self) -> str:
        """The last STATUS that its run sent by sd_notify; empty if it sent none."""
        return self._runs.notify_socket.state.text if self._runs.notify_socket is not None else ""

    def reconfigure(self, program: Program) -> None:
        """The settings of ``program`` apply from now on; to a live run, as far as they can change without a restart."""
        before, self.program = self.program, program
        self.policy = program.policy(self.name)
        self.output.reconfigure(program.logs)
        if program.stop != before.stop:
            self._shared.committed()  # so that it is saved: the guardian and ``asupctl cleanup`` stop it as the saved state says
        if self._run is not None:
            self._run.reconfigure(program)
        self._drop_verdicts()
        if program.watch != before.watch:
            self._watch_files()
        self._mailbox.wake()  # the deadline may have changed

    def began_with(self, program: Program) -> bool:
        """Whether it has a run that was started with those settings of ``program`` whose change needs a restart."""
        return self._run is not None and run_spec.has_digest(program, self._settings_digest())

    def hasten(self) -> None:
        """From now on a stop has no grace period: KILL follows at once, and ``after_exit`` has little time."""
        self.policy = replace(self.policy, grace_seconds=0.0)
        if self._run is not None:
            self._run.hasten()
        self._mailbox.wake()

    def begin(self, tasks: TaskGroup) -> None:
        """It is supervised until :meth:`dismiss`, by tasks in ``tasks``; none of their exceptions reaches the group."""
        self._background.open(tasks)
        self._take_up()
        self._mailbox.open(self._turn)

    def dismiss(self) -> None:
        """It is no longer supervised, and its tasks are cancelled."""
        self._mailbox.close()
        self._background.close()

    def hand_over(self, successor: Process) -> None:
        """What was requested of it since :meth:`dismiss` is requested of ``successor``."""
        while (input_ := self._mailbox.receive_nowait()) is not None:
            successor.ask(input_)

    def remove_heartbeat_file(self) -> None:
        """Its heartbeat file in the run_dir, if it has one, is removed."""
        run_spec.remove_heartbeat_file(self.program, self.name, self._shared.daemon)

    def close_notify_socket(self) -> None:
        """Its notify socket is closed, and so are the descriptors that its runs have stored with us."""
        if self._runs.notify_socket is not None:
            self._runs.notify_socket.close()

    def saved(self) -> SavedProcess:
        """What the next daemon needs to know of it."""
        left = self._inherited.main if self._inherited is not None else None  # until the takeover is done, this is all that is known
        main = self._run.child.identity if self._run is not None and self._run.ended is None else left
        return SavedProcess(
            name=self.name,
            program=self.program.name,
            replica=self.replica,
            snapshot=self.snapshot,
            start_ticks=main.start_ticks if main is not None and main.pid == self.snapshot.pid else 0,
            settings=self._settings_digest(),
            streams=self.output.saved(),
            notify_socket=self._runs.notify_socket.saved() if self._runs.notify_socket is not None else None,
        )

    # The driver

    def _turn(self) -> None:
        """Decide on all waiting inputs, and on the deadline if it has passed; the next call is set for the next deadline."""
        if self._background.failing:
            return  # the next call comes when supervision resumes
        now = anyio.current_time()
        try:
            if self._resume_at is not None:
                if now < self._resume_at:
                    self._mailbox.wake_at(self._resume_at)
                    return
                self._resume_at = None
                self._take_up()
            while (input_ := self._next_input(now)) is not None:
                self._decide(input_, now)
            self._pending.publish_soon()  # not at once, so that a run that was ordered begins first
        except Exception as error:
            self._background.fail(error)

    def _next_input(self, now: float) -> Input | None:
        """The input to decide on now; None if there is none before the next deadline, for which the mailbox is set."""
        if self._resume_at is not None:
            return None  # supervision broke again as it resumed: the driver is called when it resumes once more
        input_ = self._mailbox.receive_nowait()
        if input_ is None:
            at = deadline(self.snapshot, self.policy) if self.settled else None  # of what is not taken over yet, nothing is overdue
            if at is not None and now >= at:
                return DeadlinePassed()
            self._mailbox.wake_at(at)
        return input_

    def _decide(self, input_: Input, now: float) -> None:
        after, effects = step(self.snapshot, input_, self.policy, now)
        if after is not self.snapshot:
            self._commit(after, now)
        for effect in effects:
            self._perform(effect)

    def _commit(self, after: Snapshot, now: float) -> None:
        before, self.snapshot = self.snapshot, after
        if after.state is State.STOPPING:
            self._runs.give_up()
        if after.state in DOWN and self._runs.notify_socket is not None:
            self._runs.notify_socket.store.clear()  # the descriptors were kept for the next run, and none follows by itself
        self._shared.committed()
        if before.pid is None and after.pid is not None:
            self._shared.spawned(self.program.name)
        self._pending.changes += (Change(before, after, self.policy, now, self.last_ended),)

    def _perform(self, effect: do.Effect) -> None:
        match effect:
            case do.Spawn():
                self._start_at_turn(self._spawn, effect.run)
            case do.Terminate():
                self._start(self._terminate)
            case do.Kill() if self._run is not None:
                self._start(self._run.kill)
            case do.SendSignal():
                self._start(self._send_signal, effect.signal)
            case do.ShutDown():
                self._shared.shut_down(f"{self.name}: {effect.detail}")

    def _start(self, function: Callable[..., Coroutine[Any, Any, None]], *arguments: object) -> None:
        self._background.start_soon(function, *arguments, name=f"{function.__name__} {self.name}")

    def _start_at_turn(self, function: Callable[..., Coroutine[Any, Any, None]], argument: object) -> None:
        self._background.start_at(self._shared.host.at_turn, function, argument, name=f"{function.__name__} {self.name}")

    # Effects

    async def _spawn(self, run: int) -> None:
        """Spawn the run; Spawned or SpawnFailed is posted."""
        await self.wait_settled()
        program = self.program
        self._settings = program  # the digest is computed after the fork, not to delay it
        try:
            wanted = self.snapshot.state is not State.STOPPING  # a stop may have come while the spawn waited for its turn
            begun = await self._runs.begin(program, run) if wanted else None
        except SpawnError as error:
            self.post(SpawnFailed(run, str(error)))
            return
        if begun is None:
            self.post(SpawnFailed(run, "the start is not wanted any more"))
            return
        self._hold(begun)
        self.post(Spawned(run, begun.child.pid))
        begun.watch(self._background)

    def _hold(self, run: Run) -> None:
        """``run`` is the current one, with the current settings: they may have changed while it started."""
        self._run = run
        if self.program is not run.context.program:
            run.reconfigure(self.program)

    def _settings_digest(self) -> str:
        """The digest of the settings that the run was started with, by which a later daemon sees whether they changed."""
        if isinstance(self._settings, Program):
            self._settings = run_spec.settings_digest(self._settings)
        return self._settings

    def _drop_verdicts(self) -> None:
        """The verdicts of checks that the program has no more, by new settings, will no longer count."""
        asked = {HEARTBEAT_CHECK} if self.program.notify is not None else set()  # a program may ask for a watchdog by itself
        for check in self.snapshot.checks:
            if check.name not in {*self.policy.checks, *asked}:
                self.post(HealthReported(self.snapshot.run, check.name, Health.NONE))

    def _snapshot(self) -> Snapshot:
        return self.snapshot

    async def _terminate(self) -> None:
        await self.wait_settled()
        if self._run is not None:
            await self._run.terminate()

    async def _send_signal(self, signum: int) -> None:
        await self.wait_settled()
        if self._run is not None:
            await self._run.signal(signum, "main")

    # File changes

    def _watch_files(self) -> None:
        """The program's paths are watched as its current settings say, whatever its state."""
        if self._watch_scope is not None:
            self._watch_scope.cancel()
            self._watch_scope = None
        if self.program.watch:
            self._watch_scope = anyio.CancelScope()  # not in the task: this may be called again before that begins
            since_ns = self._inherited.watched_since_ns if self._inherited is not None else None
            self._start(self._monitor_files, self._watch_scope, since_ns)

    async def _monitor_files(self, scope: anyio.CancelScope, since_ns: int | None) -> None:
        with scope:
            await monitor_watches(self._shared, self.name, self.program.watch, self._files_changed, since_ns)

    def _files_changed(self, input_: Input) -> None:
        if not isinstance(input_, RestartRequested) or not self._shared.roll(self.name, input_):
            self.post(input_)

    # Taking over

    def inherit(self, inherited: Inherited) -> None:
        """Start from what an earlier daemon knew and left of this process; to be called before :meth:`begin`."""
        self._inherited = inherited
        self._taken_over = anyio.Event()
        self._settings = inherited.settings
        self.snapshot = inherited.snapshot
        # its line may have been printed before the daemon died, after its last save
        printed = inherited.snapshot.state is State.RUNNING or not inherited.by_reexec
        self.output.search(self.program.log_patterns(), found=printed)
        self.output.inherit(self.program.logs, inherited)
        if inherited.saved is not None and inherited.saved.notify_socket is not None and inherited.by_reexec:
            self._runs.inherit_notify_socket(inherited.saved.notify_socket)

    async def _take_over(self, inherited: Inherited) -> None:
        """The run of the former daemon is adopted; or its end is posted, if it has ended."""
        run = inherited.snapshot.run
        grace_seconds = self.program.stop.grace_seconds if inherited.ending else 0.0  # all were signalled, and have their grace period
        for stray in inherited.stray_runs if self.program.stop.ends_all else ():
            await self._runs.kill_strays(stray, grace_seconds)
        if inherited.main is not None:
            try:
                resumed = await self._runs.resume(self.program, run, inherited.main)
            except ProcessLookupError:
                if self.program.stop.ends_all:  # its descendants go before anything follows
                    await self._runs.kill_strays(run, grace_seconds)
                self.post(Exited(run, ExitStatus()))
                self._end_taking_over()
                return
            self._go_on_with(resumed, inherited)
        elif inherited.snapshot.state in LIVE:
            in_flight = inherited.snapshot.ended_run != run
            self.post(Exited(run, ExitStatus()) if in_flight else TreeGone(run))  # in flight: perhaps it lived and ended unseen
        self._end_taking_over()
        if inherited.ending and self._run is not None and self.snapshot.state is State.STOPPING:
            # Whoever was ending all programs may not have come to this one. Only the main process: what it has started since is left alone.
            self._start(self._run.signal, self.program.stop.signal, "main")
        if self._run is None and self.snapshot.state is State.UNKNOWN and inherited.snapshot.state is not State.UNKNOWN:
            await self._abandon(self.snapshot.run)  # a run had begun when a bug broke an earlier attempt at the takeover

    def _go_on_with(self, resumed: Run, inherited: Inherited) -> None:
        """Supervise the run of the former daemon; it is asked to restart if its settings have changed since it was started."""
        self._hold(resumed)
        run, pid = inherited.snapshot.run, resumed.child.pid
        if self.snapshot.pid != pid or not inherited.by_reexec:
            self.post(Adopted(run, pid))
            tell_adopted(self._shared.bus, self.name, inherited.snapshot, pid, anyio.current_time())
        if self.program.notify is not None and self.program.readiness is None and not inherited.by_reexec:
            self.post(BecameReady(run))  # READY=1 is sent once, perhaps while no daemon listened
        resumed.watch(self._background)
        self._drop_verdicts()
        if not run_spec.has_digest(self.program, self._settings_digest()):
            request = RestartRequested(Cause.CONFIG_CHANGED, "the configuration changed while no daemon was there")
            if not self._shared.roll(self.name, request):
                self.post(request)

    def _end_taking_over(self) -> None:
        self._inherited = None  # only now, so that a takeover that a bug broke is tried again
        if self._taken_over is not None:
            self._taken_over.set()
        self._mailbox.wake()  # from now on there is a deadline

    async def wait_settled(self) -> None:
        """Return once everything that an earlier daemon left of it has been taken over or ended."""
        if self._taken_over is not None:
            await self._taken_over.wait()

    # Bugs in the daemon

    def _broke(self, error: Exception) -> None:
        now = anyio.current_time()
        self._breaks = self._breaks + 1 if now - self._broke_at < CALM_SECONDS else 1
        self._broke_at = now
        _log.critical("%s: a bug broke its supervision; its process is left alone", self.name, exc_info=error)
        after, _ = step(self.snapshot, SupervisionBroke(f"internal error: {error!r}"), self.policy, now)
        try:
            message = f"a bug broke its supervision: {error!r}; it will resume soon"
            self._shared.bus.publish("supervision", name=self.name, run=self.snapshot.run, message=message)
            self._commit(after, now)
            self._pending.publish_now()  # here, not later: if publishing is what failed, it would break the supervision again
        except Exception:
            _log.exception("%s: cannot tell that a bug broke its supervision", self.name)
        if self._run is not None:
            self._run.unwatch()
        self._resume_at = now + RESUME_PAUSES_SECONDS[min(self._breaks, len(RESUME_PAUSES_SECONDS)) - 1]
        self._mailbox.wake_at(self._resume_at)

    async def _abandon(self, run: int) -> None:
        """Kill whatever may have been spawned of ``run``, which is lost here, and report it as failed, so that another one can begin."""
        await self._runs.kill_strays(run)
        self.post(SpawnFailed(run, "internal error while it was spawned"))

    def _take_up(self) -> None:
        """Resume the supervision of what an earlier daemon, or this one before a bug, supervised."""
        self._watch_files()
        if self._inherited is not None:
            self._start_at_turn(self._take_over, self._inherited)  # spread, so that the control socket answers before a thousand are done
            return
        if self.snapshot.state is not State.UNKNOWN:
            return
        run, number = self._run, self.snapshot.run
        if run is None or run.context.run != number:
            self._start(self._abandon, number)
            return
        if run.ended is None:
            self.post(Adopted(number, run.child.pid))
        run.watch(self._background)
