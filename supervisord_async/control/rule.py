"""Which rule decided about a process, with the numbers behind the decision, and which keys would change it. Pure."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, NamedTuple

from supervisord_async.config.secrets import masked_text, masked_words
from supervisord_async.control.words import span
from supervisord_async.core.machine import deadline, succeeded
from supervisord_async.core.policy import OnLimit, Policy, RestartPolicy, backoff_delay, within_window
from supervisord_async.core.state import Cause, Health, Snapshot, State
from supervisord_async.supervise.records.narrate import OUT_OF_MEMORY
from supervisord_async.words import counted

if TYPE_CHECKING:
    from supervisord_async.config.model import Probe, Program
    from supervisord_async.supervise.process import Process


class Ruling(NamedTuple):
    """What decided, in words, and the keys of ``programs.NAME`` that would change it, most relevant first."""

    words: tuple[str, ...]
    keys: tuple[str, ...]


#: The keys that belong to a cause.
KEYS: dict[Cause, tuple[str, ...]] = {
    Cause.HEARTBEAT_MISSED: ("heartbeat.timeout", "heartbeat.initial_delay"),
    Cause.LIVENESS_FAILED: ("liveness.failures", "liveness.timeout", "liveness.interval"),
    Cause.READINESS_FAILED: ("readiness.start_timeout",),
    Cause.FILE_CHANGED: ("watch",),
    Cause.MEMORY_LIMIT: ("limits.memory",),
    Cause.SCHEDULE: ("schedule",),
    Cause.DEPENDENCY: ("depends_on", "on_dependency_failure"),
}
#: The keys that belong to the stage at which a spawn failed. ``fork`` has none: it fails if the machine is short of resources.
STAGES = {
    "environment": ("environment_files",),
    "user": ("user",),
    "directory": ("directory",),
    "log": ("logs",),
    "limits": ("limits",),
    "hook": ("hooks.before_start",),
    "socket": ("sockets",),
    "notify": ("notify",),
    "heartbeat": ("heartbeat.file",),
    "exec": ("command",),
}


def ruling(process: Process, now: float) -> Ruling:
    """What decided about the state that ``process`` has at ``now`` (monotonic)."""
    found = _ruling(process, now)
    return found._replace(words=(*_killed(process.snapshot, process.policy), *_unheard(process), *_lacking(process), *found.words))


def _ruling(process: Process, now: float) -> Ruling:
    s, p = process.snapshot, process.policy
    match s.state:
        case State.BACKOFF:
            words = (_counted(s, p, now), _delay(s, p))
            return Ruling(words, (*_cause_keys(process), "restart.backoff", "restart.max_restarts"))
        case State.FATAL if s.cause is Cause.RESTART_LIMIT:
            return Ruling((_limit(p), _after_limit(p)), ("restart.max_restarts", "restart.within", "restart.on_limit", "restart.backoff"))
        case State.FATAL:
            waited = s.cause is Cause.DEPENDENCY
            word = _on_dependency_failure(process) if waited else f"restart.policy {p.restart}: no further attempt"
            return Ruling((word,), (*_cause_keys(process), *(() if waited else ("restart.policy",))))
        case State.EXITED:
            return _exited(s, p)
        case State.STOPPING:
            word = f"KILL follows {span(p.grace_seconds)} after the stop signal" + (f"; it was sent {s.kills} times" if s.kills else "")
            return Ruling((word,), ("stop.grace_period", "stop.signal", "stop.scope"))
        case State.STARTING:
            return _starting(process, now)
        case State.WAITING:
            return Ruling(
                ("it starts when everything that it depends on is ready for it", _on_dependency_failure(process)),
                ("depends_on", "on_dependency_failure"),
            )
        case State.STOPPED:
            return _stopped(s, process.program)
        case State.RUNNING if s.restarts:
            calm = f"the counter returns to 0 once it is up for {span(p.reset_after_seconds)}"
            return Ruling((_counted(s, p, now), calm), (*_cause_keys(process), "restart.reset_after"))
        case _:
            return Ruling((), _cause_keys(process))


def _stopped(s: Snapshot, program: Program) -> Ruling:
    if s.cause is Cause.OPERATOR and program.schedule is not None:
        return Ruling(("its schedule is paused, since an operator stopped it, until somebody starts it",), ("schedule",))
    if s.cause is Cause.OPERATOR:
        return Ruling(("it stays stopped until somebody starts it",), ())
    if s.run == 0 and program.schedule is not None:
        return Ruling(("it starts by its schedule",), ("schedule",))
    if s.run == 0 and program.start_on_connect:
        return Ruling(("it starts with the first connection to one of its sockets",), ("start_on_connect", "autostart"))
    if s.run == 0 and not program.autostart:
        return Ruling(("autostart is false and nobody has started it",), ("autostart",))
    return Ruling(("it stays stopped until somebody starts it",), ())


def _killed(s: Snapshot, p: Policy) -> tuple[str, ...]:
    """Who may have sent a SIGKILL that the daemon did not send, if one ended the last run."""
    of_itself = s.cause in (Cause.EXITED, Cause.RESTART_LIMIT) and not s.kills and not succeeded(s, p)
    if not of_itself or s.exit is None or s.exit.signal != signal.SIGKILL:
        return ()
    if OUT_OF_MEMORY in s.detail:
        return ("the kernel sent this KILL, to free memory (see dmesg); limits.memory can restart it before that",)
    return ("asupd did not send this KILL: somebody else did, or the kernel, which was out of memory (see dmesg)",)


def _unheard(process: Process) -> tuple[str, ...]:
    """What to suspect if a start failed because no READY=1 was received."""
    s, program = process.snapshot, process.program
    in_vain = s.cause is Cause.READINESS_FAILED or (s.cause is Cause.RESTART_LIMIT and "; last: not ready within" in s.detail)
    if not in_vain or s.state is State.RUNNING or program.notify is None or program.readiness is not None:
        return ()
    if program.notify.access == "all":
        return ("none of its processes sent READY=1; if the program does not speak sd_notify, leave out notify",)
    return ("its main process did not send READY=1; if another of its processes does, set notify: {access: all}; if none does, no notify",)


def _lacking(process: Process) -> tuple[str, ...]:
    """For a process in trouble, the dependency that is not ready: when many fail at once, the cause may be one that the others need."""
    s = process.snapshot
    restarted = s.state in (State.STARTING, State.RUNNING) and (s.restarts > 0 or s.health is Health.UNHEALTHY)
    in_trouble = restarted or s.state is State.BACKOFF or (s.state is State.FATAL and s.cause is not Cause.DEPENDENCY)
    lacks = process.waits_for if in_trouble else ""
    return (f"it depends on {lacks}; an automatic restart does not wait for that",) if lacks else ()


def _counted(s: Snapshot, p: Policy, now: float) -> str:
    bound = "no limit" if p.max_restarts < 0 else f"at most {p.max_restarts}"
    if p.within_seconds is not None and p.max_restarts >= 0:
        restarts = counted(len(within_window(p, s.recent, now)), "automatic restart")
        return f"{restarts} in the last {span(p.within_seconds)} ({bound} in that time)"
    return f"{counted(s.restarts, 'automatic restart')} in a row ({bound})"


def _delay(s: Snapshot, p: Policy) -> str:
    formula = f"min({p.backoff_max_seconds:g}, {p.backoff_initial_seconds:g} × {p.backoff_factor:g}^{max(0, s.restarts - 1)})"
    spread = f", spread by {p.backoff_jitter:.0%}" if p.backoff_jitter else ""
    return f"backoff of {span(backoff_delay(p, s.restarts - 1, s.run))} = {formula} s{spread}"


def _limit(p: Policy) -> str:
    window = f"within {span(p.within_seconds)}" if p.within_seconds is not None else "in a row"
    return f"the limit is {counted(p.max_restarts, 'automatic restart')} {window}"


def _after_limit(p: Policy) -> str:
    match p.on_limit:
        case OnLimit.RETRY:
            return f"on_limit: start over after {span(p.retry_after_seconds)}"
        case OnLimit.SHUTDOWN:
            return "on_limit: the daemon shuts down"
        case _:
            return "on_limit: it stays down until somebody starts it"


def _exited(s: Snapshot, p: Policy) -> Ruling:
    code = s.exit.code if s.exit is not None else None
    if p.restart is RestartPolicy.NEVER:
        return Ruling(("restart.policy never: it is not started again however it ends",), ("restart.policy",))
    if code in p.prevent_exit_codes:
        return Ruling((f"exit code {code} is one of restart.prevent_exit_codes: it is not started again",), ("restart.prevent_exit_codes",))
    if succeeded(s, p) and code is None:
        how = "it ended by the signal that an operator, or its watch, had sent; only always would start it again"
        return Ruling((f"restart.policy {p.restart}: {how}",), ("restart.policy",))
    if succeeded(s, p):
        how = f"exit code {code} counts as success"
        return Ruling((f"restart.policy {p.restart}: {how}",), ("restart.policy", "restart.success_exit_codes"))
    return Ruling((f"restart.policy {p.restart}",), ("restart.policy",))


def _on_dependency_failure(process: Process) -> str:
    """What the key means here, in words."""
    if process.program.on_dependency_failure == "fail":
        return "on_dependency_failure fail: it is FATAL as soon as one of them is"
    return "on_dependency_failure wait: it keeps waiting, even if one of them has failed"


def _starting(process: Process, now: float) -> Ruling:
    s, p, program = process.snapshot, process.policy, process.program
    if s.pid is None:
        return Ruling(("its process is being created",), ())
    left = max(0.0, (deadline(s, p) or now) - now)
    if p.start_timeout_seconds is None:
        return Ruling((f"it is RUNNING once it is up for {span(p.start_seconds)}: in {span(left)}",), ("start_seconds",))
    bound = f"it has {span(left)} left of {span(p.start_timeout_seconds)}, then the start has failed"
    probe = program.readiness
    if probe is None:
        return Ruling(("it is RUNNING once it says READY=1", bound), ("notify.start_timeout",))
    times = f" {probe.successes} times in a row" if probe.successes > 1 else ""
    asks = f"it is RUNNING once its readiness probe ({_target(probe)}, every {probe.interval_seconds:g} s) succeeds{times}"
    return Ruling((asks, bound), ("readiness", "readiness.start_timeout"))


def _target(probe: Probe) -> str:
    """What a probe checks, with secrets masked."""
    if probe.tcp is not None:
        return f"tcp {probe.tcp[0]}:{probe.tcp[1]}"
    if probe.command is not None:
        return "command " + " ".join(masked_words(probe.command, ()))
    return f"{probe.kind} {masked_text(probe.http or probe.log or '', ())}"


def fault_keys(process: Process, end_cause: str | None) -> tuple[str, ...]:
    """At the restart limit, the keys of what ended the last run, for ``end_cause``; () otherwise, or if no key has to do with that."""
    s = process.snapshot
    if s.cause is not Cause.RESTART_LIMIT:
        return ()
    stage = s.detail.rpartition("; last: ")[2].partition(":")[0]
    if stage in STAGES:
        return STAGES[stage]
    return next((_keys_of(cause, process.program) for cause in KEYS if cause == end_cause), ())


def _cause_keys(process: Process) -> tuple[str, ...]:
    s = process.snapshot
    if s.cause is Cause.SPAWN_FAILED:
        return STAGES.get(s.detail.partition(":")[0], ())
    return _keys_of(s.cause, process.program) if s.cause is not None else ()


def _keys_of(cause: Cause, program: Program) -> tuple[str, ...]:
    by_notify = cause is Cause.READINESS_FAILED and program.readiness is None
    return ("notify", "notify.start_timeout") if by_notify else KEYS.get(cause, ())
