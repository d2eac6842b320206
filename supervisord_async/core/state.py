"""What is known of one process: its states, its health, and the snapshot that only its own task replaces."""

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
    BACKOFF = "BACKOFF"  #: it failed; the next attempt has a time
    STOPPING = "STOPPING"  #: told to go; something of it may still live
    EXITED = "EXITED"  #: it ended by itself and the policy wants no more
    FATAL = "FATAL"  #: it failed and there will be no further attempt without a word from somebody
    UNKNOWN = "UNKNOWN"  #: supervision of it broke; its child was left alone


#: The states in which nothing of a process lives, and no further run follows by itself.
DOWN = frozenset({State.STOPPED, State.EXITED, State.FATAL})
#: The states that end a run: nothing of it lives. After BACKOFF, and after WAITING for dependencies, another one follows.
RUN_ENDED = DOWN | {State.BACKOFF, State.WAITING}


class Health(StrEnum):
    """How a process is doing; an axis of its own beside the state."""

    NONE = "none"  #: nobody checks
    STARTING = "starting"  #: checked, no verdict yet
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
    """How a run ended: by ``code`` or by ``signal`` (a number); both None where nobody can tell any more."""

    code: int | None = None
    signal: int | None = None
    core: bool = False

    @property
    def unknown(self) -> bool:
        """True when the run ended while nobody was there to hear how."""
        return self.code is None and self.signal is None


class Check(msgspec.Struct, frozen=True, array_like=True):
    """The last word of one check (readiness, liveness, heartbeat) on a run."""

    name: str
    health: Health = Health.STARTING
    detail: str = ""  #: what it found wrong, in words for people; empty when nothing is


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is remembered of one process, and nothing that can be derived from it.

    Times are seconds of the monotonic clock. A run's fields (``pid``, ``run_since``, ``checks``, ``sent``,
    ``kills``) are those of the present or last run.
    """

    state: State = State.STOPPED
    since: float = 0.0  #: when ``state`` was entered
    wanted: bool = False  #: somebody wants it up; the second axis beside the state
    cause: Cause | None = None
    detail: str = ""  #: the cause in a sentence's words, for people
    run: int = 0  #: the number of the present or last run; 0 before the first
    pid: int | None = None  #: of the run's main process, None without one
    run_since: float = 0.0  #: when the run was spawned
    ended_run: int = 0  #: the last run whose main process is known to be over, or never to have come
    exit: ExitStatus | None = None  #: of the last run that had a process and ended
    restarts: int = 0  #: consecutive automatic restarts
    recent: tuple[float, ...] = ()  #: when automatic restarts happened, for a sliding window
    checks: tuple[Check, ...] = ()  #: each check's last word on this run, by name
    sent: int = 0  #: the last signal that an operator had us send to this run; 0: none
    kills: int = 0  #: how often KILL was sent to this run
    extended_until: float = 0.0  #: until when the run has asked for time in this state; 0: it has not

    @property
    def health(self) -> Health:
        """The worst word of all checks."""
        words = {check.health for check in self.checks}
        for worst in (Health.UNHEALTHY, Health.STARTING, Health.HEALTHY):
            if worst in words:
                return worst
        return Health.NONE

    @property
    def told_cause(self) -> Cause | None:
        """The cause to show: ``dependency`` while it waits for its dependencies, whatever made it wanted; else :attr:`cause`."""
        return Cause.DEPENDENCY if self.state is State.WAITING else self.cause

    @property
    def is_ready(self) -> bool:
        """RUNNING, which with a probe means ready, and no check that found it unhealthy since."""
        return self.state is State.RUNNING and self.health is not Health.UNHEALTHY

    @property
    def complaint(self) -> str:
        """What the checks find wrong, in words; empty when nothing is."""
        return "; ".join(check.detail for check in self.checks if check.detail)

    @property
    def flapping(self) -> bool:
        """True after :data:`FLAPPING_RESTARTS` automatic restarts without a calm time in between."""
        return self.restarts >= FLAPPING_RESTARTS
