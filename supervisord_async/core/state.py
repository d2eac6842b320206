"""What is known of one process: its state, its health, and the snapshot, which only the process's own driver replaces."""

from __future__ import annotations

from enum import StrEnum

import msgspec

#: This many automatic restarts without a calm ``reset_after`` in between are called flapping.
FLAPPING_RESTARTS = 5


class State(StrEnum):
    """What a process is doing: supervisord's names, plus WAITING."""

    STOPPED = "STOPPED"  #: nothing runs and nobody wants it to
    WAITING = "WAITING"  #: wanted; its dependencies are not there yet
    STARTING = "STARTING"  #: a run was ordered; it is not yet ready, or not yet up long enough
    RUNNING = "RUNNING"  #: up, and ready where a probe says so
    BACKOFF = "BACKOFF"  #: it failed; the next attempt is scheduled
    STOPPING = "STOPPING"  #: its run is being ended; some of it may still live
    EXITED = "EXITED"  #: it ended by itself and the restart policy wants no further run
    FATAL = "FATAL"  #: it failed; with ``retry_after`` there is another attempt, else only when somebody asks for one
    UNKNOWN = "UNKNOWN"  #: supervising it failed because of a bug; its child was left alone


#: The states in which nothing of a process lives and it is not about to be started again.
DOWN = frozenset({State.STOPPED, State.EXITED, State.FATAL})
#: The states in which the last run is over and nothing of it lives. From BACKOFF and WAITING another run follows.
RUN_ENDED = DOWN | {State.BACKOFF, State.WAITING}


class Health(StrEnum):
    """How a process is doing, independent of its state."""

    NONE = "none"  #: it has no checks
    STARTING = "starting"  #: a check has no verdict yet
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class Cause(StrEnum):
    """Why a process is in its state: short stable words for scripts."""

    OPERATOR = "operator"
    AUTOSTART = "autostart"
    EXITED = "exited"
    SPAWN_FAILED = "spawn_failed"
    HEARTBEAT_MISSED = "heartbeat_missed"
    LIVENESS_FAILED = "liveness_failed"
    READINESS_FAILED = "readiness_failed"
    FILE_CHANGED = "file_changed"
    CONFIG_CHANGED = "config_changed"
    DEPENDENCY = "dependency"
    MEMORY_LIMIT = "memory_limit"
    RESTART_LIMIT = "restart_limit"
    SCHEDULE = "schedule"
    DAEMON_STOP = "daemon_stop"
    ADOPTED = "adopted"
    INTERNAL_ERROR = "internal_error"  #: a bug in the daemon, see UNKNOWN


class ExitStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a run ended: by exit ``code`` or by ``signal`` (a number); both None where that can no longer be known."""

    code: int | None = None
    signal: int | None = None
    core: bool = False

    @property
    def unknown(self) -> bool:
        """True when the run ended while no daemon was there to collect its status."""
        return self.code is None and self.signal is None


class Check(msgspec.Struct, frozen=True, array_like=True):
    """The latest verdict of one check (readiness, liveness, heartbeat) on a run."""

    name: str
    health: Health = Health.STARTING
    detail: str = ""  #: what the check found wrong, for people; empty when nothing is


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is remembered about one process, and nothing that can be derived from it.

    Times are seconds of the monotonic clock. ``pid``, ``run_since``, ``checks``, ``sent`` and ``kills`` describe the
    current or, when nothing runs, the last run.
    """

    state: State = State.STOPPED
    since: float = 0.0  #: when ``state`` was entered
    wanted: bool = False  #: somebody wants it up; the second axis beside the state
    cause: Cause | None = None
    detail: str = ""  #: the cause in words, for people
    by: str = ""  #: who gave the last order of an operator that changed anything; "" before the first, or if it is not known who
    run: int = 0  #: the number of the current or last run; 0 before the first
    pid: int | None = None  #: of the run's main process, None without one
    run_since: float = 0.0  #: when the run was spawned
    ended_run: int = 0  #: the last run whose main process is known to have ended, or never to have been spawned
    exit: ExitStatus | None = None  #: of the last ended run that had a process
    restarts: int = 0  #: consecutive automatic restarts
    recent: tuple[float, ...] = ()  #: the times of automatic restarts, for the sliding window
    checks: tuple[Check, ...] = ()  #: the latest verdict of each check on this run, sorted by name
    sent: int = 0  #: the last signal that was sent to this run on request; 0: none
    kills: int = 0  #: how often KILL was sent to this run
    extended_until: float = 0.0  #: until when the run asked for more time in this state; 0: it did not ask

    @property
    def health(self) -> Health:
        """The worst of the checks' verdicts; NONE without checks."""
        if not self.checks:
            return Health.NONE
        verdicts = {check.health for check in self.checks}
        for worst in (Health.UNHEALTHY, Health.STARTING, Health.HEALTHY):
            if worst in verdicts:
                return worst
        return Health.NONE

    @property
    def told_cause(self) -> Cause | None:
        """The cause to show: ``dependency`` in WAITING, whatever asked for the start; else :attr:`cause`."""
        return Cause.DEPENDENCY if self.state is State.WAITING else self.cause

    @property
    def told_by(self) -> str:
        """Who asked for the state that it is in, if an operator did and it is known who; else empty."""
        return self.by if self.told_cause is Cause.OPERATOR else ""

    @property
    def is_ready(self) -> bool:
        """True when it is RUNNING (which, with a probe, means ready) and not unhealthy."""
        return self.state is State.RUNNING and self.health is not Health.UNHEALTHY

    @property
    def complaint(self) -> str:
        """What the checks find wrong, in words; empty when they find nothing wrong."""
        return "; ".join(check.detail for check in self.checks if check.detail)

    @property
    def flapping(self) -> bool:
        """True after :data:`FLAPPING_RESTARTS` automatic restarts without a calm time in between."""
        return self.restarts >= FLAPPING_RESTARTS
