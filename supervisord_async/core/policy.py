"""The settings of a program that the state machine decides by, and the calculations that follow from them."""

from __future__ import annotations

import zlib
from enum import StrEnum

import msgspec

#: KILL is repeated this often while something of a run survives it (a process in state D does).
KILL_REPEAT_SECONDS = 5.0


class RestartPolicy(StrEnum):
    """When a run that ended is followed by another one."""

    ALWAYS = "always"
    ON_FAILURE = "on-failure"
    NEVER = "never"


class OnLimit(StrEnum):
    """What happens at the restart limit, besides entering FATAL."""

    FATAL = "fatal"
    SHUTDOWN = "shutdown"  #: the daemon stops everything and exits non-zero
    RETRY = "retry"  #: start over after ``retry_after_seconds``


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one process that decisions depend on; other settings concern only the code that carries decisions out."""

    restart: RestartPolicy = RestartPolicy.ON_FAILURE
    success_exit_codes: tuple[int, ...] = (0,)
    prevent_exit_codes: tuple[int, ...] = ()
    max_restarts: int = -1  #: -1: no limit
    within_seconds: float | None = None  #: count restarts in a sliding window of this length, instead of consecutive ones
    on_limit: OnLimit = OnLimit.FATAL
    retry_after_seconds: float = 600.0
    backoff_initial_seconds: float = 0.5
    backoff_factor: float = 2.0
    backoff_max_seconds: float = 60.0
    backoff_jitter: float = 0.1  #: fraction of the delay, added or subtracted
    reset_after_seconds: float = 60.0
    start_seconds: float = 1.0
    start_timeout_seconds: float | None = None  #: not None: STARTING lasts until BecameReady, this long at most
    grace_seconds: float = 10.0
    tells_main_first: bool = False  #: a stop signals the main process alone, and the rest of the run once that has exited
    has_dependencies: bool = False
    checks: tuple[str, ...] = ()  #: the names of the checks that report on a run
    seed: str = ""  #: the process's name, which gives each process its own jitter


def backoff_delay(policy: Policy, attempt: int, run: int) -> float:
    """The seconds to wait before automatic restart number ``attempt`` (from 0).

    ``min(max, initial * factor ** attempt)``, spread by ``jitter`` both ways. The spread is a hash of the process's name
    and run, not a random number, so that any later daemon derives the same deadline.
    """
    try:
        delay = policy.backoff_initial_seconds * policy.backoff_factor**attempt
    except OverflowError:  # factor ** attempt is beyond a float; an initial delay of 0 stays 0 all the same
        delay = policy.backoff_max_seconds if policy.backoff_initial_seconds else 0.0
    delay = min(policy.backoff_max_seconds, delay)
    unit = zlib.crc32(f"{policy.seed}/{run}".encode()) / 0xFFFFFFFF
    return delay * (1.0 + policy.backoff_jitter * (2.0 * unit - 1.0))


def limit_reached(policy: Policy, restarts: int, recent: tuple[float, ...], now: float) -> bool:
    """Whether one more automatic restart at ``now`` is one too many."""
    if policy.max_restarts < 0:
        return False
    if policy.within_seconds is None:
        return restarts >= policy.max_restarts
    return len(within_window(policy, recent, now)) >= policy.max_restarts


def within_window(policy: Policy, recent: tuple[float, ...], now: float) -> tuple[float, ...]:
    """Those of ``recent`` that still lie in the sliding window; empty where the policy has no window or no limit."""
    if policy.within_seconds is None or policy.max_restarts < 0:
        return ()
    return tuple(at for at in recent if now - at < policy.within_seconds)
