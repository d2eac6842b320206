"""What can happen to a process. Past tense: requests of people and other parts, and news of a run.

News carries the number of its run; :func:`~supervisord_async.core.machine.step` drops that of an older one.
"""

from __future__ import annotations

import msgspec

from supervisord_async.core.state import Cause, ExitStatus, Health


class Input(msgspec.Struct, frozen=True):
    """Something that happened."""


class News(Input, frozen=True):
    """Something that happened to one run."""

    run: int


# Requests


class StartRequested(Input, frozen=True):
    """Somebody wants the process up."""

    cause: Cause = Cause.OPERATOR


class StopRequested(Input, frozen=True):
    """Somebody wants the process down; wins over every pending restart."""

    cause: Cause = Cause.OPERATOR


class RestartRequested(Input, frozen=True):
    """Somebody wants a new run; free of backoff and of the restart limit."""

    cause: Cause = Cause.OPERATOR
    detail: str = ""


class SignalRequested(Input, frozen=True):
    """Somebody wants a signal sent to the present run."""

    signal: int
    cause: Cause = Cause.OPERATOR


class DependenciesMet(Input, frozen=True):
    """All that the process waits for is there."""


class DependencyFailed(Input, frozen=True):
    """Something that the process waits for will not come."""

    detail: str


class DeadlinePassed(Input, frozen=True):
    """The clock reached :func:`~supervisord_async.core.machine.deadline`."""


# News of a run


class Spawned(News, frozen=True):
    """The run has a process."""

    pid: int


class SpawnFailed(News, frozen=True):
    """The run could not be given a process; ``detail`` names the stage and the errno's text."""

    detail: str


class BecameReady(News, frozen=True):
    """The run said, or was found, to be ready to serve."""


class HealthReported(News, frozen=True):
    """A check has a new word on the run."""

    check: str
    health: Health
    detail: str = ""  #: what it found wrong, in words


class Faulted(News, frozen=True):
    """A monitor found that the run must be replaced."""

    cause: Cause
    detail: str


class Exited(News, frozen=True):
    """The run's main process is gone.

    ``remains``: something of the run is not over: descendants of it live on, or what is to follow its end has not yet.
    ``detail``: more than the status tells, for people.
    """

    status: ExitStatus
    remains: bool = False
    detail: str = ""


class TreeGone(News, frozen=True):
    """Nothing of the run lives any more."""


class MainChanged(News, frozen=True):
    """Another process of the run is its main process now; the run told so, and it was proven."""

    pid: int


class TimeoutExtended(News, frozen=True):
    """The run asked for time: its start, or its stop, is not to be called overdue before ``until`` (monotonic seconds)."""

    until: float


class Adopted(News, frozen=True):
    """The run's process was found alive by a daemon, or a task, that did not spawn it."""

    pid: int


class SupervisionBroke(Input, frozen=True):
    """A bug in this process's own task; its child was left alone."""

    detail: str
