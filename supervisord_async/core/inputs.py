"""What can happen to a process, named in the past tense: requests by people or other parts of the daemon, and news of a run.

News carries its run's number; :func:`~supervisord_async.core.machine.step` ignores news of an older run.
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


class Request(Input, frozen=True, kw_only=True):
    """Somebody wants the process up, down or anew."""

    by: str = ""  #: who, if an operator does and it is known: a user, or what else the transport knows of them


class StartRequested(Request, frozen=True):
    """Somebody wants the process up."""

    cause: Cause = Cause.OPERATOR


class StopRequested(Request, frozen=True):
    """Somebody wants the process down; wins over every pending restart."""

    cause: Cause = Cause.OPERATOR


class RestartRequested(Request, frozen=True):
    """Somebody wants a new run; free of backoff and of the restart limit."""

    cause: Cause = Cause.OPERATOR
    detail: str = ""


class SignalRequested(Input, frozen=True):
    """Somebody wants a signal sent to the current run."""

    signal: int
    cause: Cause = Cause.OPERATOR


class DependenciesMet(Input, frozen=True):
    """Every dependency of the process is met."""


class DependencyFailed(Input, frozen=True):
    """A dependency can no longer be met, and ``on_dependency_failure`` is ``fail``."""

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
    """The run announced that it is ready, or a probe found it ready."""


class HealthReported(News, frozen=True):
    """A check has a new verdict on the run."""

    check: str
    health: Health
    detail: str = ""  #: what the check found wrong, in words


class Faulted(News, frozen=True):
    """A monitor found that the run must be replaced."""

    cause: Cause
    detail: str


class Exited(News, frozen=True):
    """The run's main process has exited.

    ``remains``: the run is not over yet: descendants live on, or work that must follow its end is not done.
    ``detail``: what the status alone does not tell, for people.
    """

    status: ExitStatus
    remains: bool = False
    detail: str = ""


class TreeGone(News, frozen=True):
    """The last process of the run is gone."""


class MainChanged(News, frozen=True):
    """The run named another of its processes as its main process, and the claim was verified."""

    pid: int


class TimeoutExtended(News, frozen=True):
    """The run asked for more time: its start, or its stop, is not overdue before ``until`` (monotonic seconds)."""

    until: float


class Adopted(News, frozen=True):
    """The run's process was found alive: by a daemon that did not spawn it, or after a bug in its supervision."""

    pid: int


class SupervisionBroke(Input, frozen=True):
    """Supervising the process failed because of a bug; its child was left alone."""

    detail: str
