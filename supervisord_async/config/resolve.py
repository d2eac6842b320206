"""From a program's merged data to the model: shorthands, units, defaults and paths become plain values."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from supervisord_async.config import environment, model, shape, units
from supervisord_async.config.document import found
from supervisord_async.config.files import absolute, apart
from supervisord_async.config.other_words import foreign_expansion, foreign_log
from supervisord_async.config.place import Origin
from supervisord_async.config.shorthand import PROBE_KINDS, without_nulls
from supervisord_async.config.values import Values, text
from supervisord_async.core.policy import OnLimit, RestartPolicy

Settings = TypeVar("Settings", bound=msgspec.Struct)


class ResolveContext(msgspec.Struct, frozen=True):
    """What a program's settings are resolved against."""

    run_dir: str
    variables: Mapping[str, str]
    files: environment.EnvironmentFiles
    starting: bool = False  #: as in :func:`.load.load`
    _known: dict[Any, Any] = msgspec.field(default_factory=dict)

    def shared(self, settings: Settings) -> Settings:
        """``settings``, or an earlier program's equal ones: most of a thousand programs have the same, which are kept once."""
        known: Settings = self._known.setdefault(settings, settings)
        return known

    def shared_environment(self, variables: dict[str, str]) -> dict[str, str]:
        """The same for an environment, order included; environments are never changed in place."""
        known: dict[str, str] = self._known.setdefault(tuple(variables.items()), variables)
        return known


def resolve_program(name: str, data: shape.Data, origin: Origin, directory: str, context: ResolveContext) -> model.Program | None:
    """The program that ``data`` describes; None if it is too incomplete. Problems are reported to ``origin``.

    ``data`` has shorthands spelt out, ``defaults`` merged and absolute paths; ``directory`` is its file's.
    """
    values = Values(origin)
    try:
        given = msgspec.convert(without_nulls(data), shape.Program)
    except msgspec.ValidationError as error:  # may be incomplete because wrong parts were reported and removed
        if not origin.report.errors:
            origin.error((), str(error))
        return None
    if given.command is None:
        origin.error(("command",), "a program needs a command: a list of words, or a string", at_key=True)
        return None
    reload_signal = None if given.reload_signal is None else values.signal(given.reload_signal, ("reload_signal",))
    own, unread = _own_environment(given, origin, context)
    inherited = environment.inherited(given.inherit_environment, context.variables, with_user=given.user is not None)
    return model.Program(
        name=name,
        command=values.command(given.command, ("command",), shell=given.shell),
        shell=given.shell,
        description=given.description,
        group=name if given.group is None else values.name(given.group, ("group",)),
        directory=given.directory if os.path.isabs(given.directory) else directory,
        environment=context.shared_environment(inherited | own),
        own_variables=tuple(sorted(own)),
        unread=unread,
        secrets=tuple(given.secrets or ()),
        user=None if given.user is None else text(given.user),
        group_name=None if given.group_name is None else text(given.group_name),
        umask=values.umask(given.umask, ("umask",)),
        replicas=given.replicas,
        autostart=given.autostart and (not (given.schedule or given.start_on_connect) or data.get("autostart") is not None),
        depends_on=_depends_on(given.depends_on or {}),
        on_dependency_failure=given.on_dependency_failure,
        restart_with_dependency=given.restart_with_dependency,
        start_seconds=values.duration(given.start_seconds, ("start_seconds",), zero=True),
        restart=context.shared(_restart(given.restart, values)),
        stop=context.shared(_stop(given.stop or shape.Stop(), values)),
        heartbeat=_heartbeat(given, name, values),
        notify=_notify(given.notify, values),
        readiness=_probe(given.readiness, "readiness", values),
        liveness=_probe(given.liveness, "liveness", values),
        watch=_watches(given.watch, reload_signal, values),
        reload_signal=reload_signal,
        sockets=_sockets(given.sockets or {}, directory, context, values),
        start_on_connect=given.start_on_connect,
        rolling=given.rolling,
        schedule=_schedule(given.schedule, values),
        logs=_logs(given, name, values, context),
        limits=context.shared(_limits(given.limits or shape.Limits(), values)),
        hooks=context.shared(_hooks(given.hooks or shape.Hooks(), values)),
    )


def _own_environment(given: shape.Program, origin: Origin, context: ResolveContext) -> tuple[dict[str, str], str]:
    """The variables that the program's environment files and its ``environment`` set, and :attr:`.model.Program.unread`."""
    result: dict[str, str] = {}
    unread = ""
    for index, path in enumerate(given.environment_files or ()):
        sub = ("environment_files", index)
        try:
            result |= context.files.read(path)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            problem = f"cannot read the environment file {path}: {reason.lower()}"
            if context.starting:
                origin.warning(sub, f"{problem}; until it can be read, this program is not started")
                unread = unread or problem
            else:
                origin.error(sub, problem)
    for variable, value in (given.environment or {}).items():
        if not environment.is_name(variable):
            origin.error(("environment", variable), "a variable's name cannot be empty, and holds no '='", at_key=True)
            continue
        if variable in environment.NEVER_INHERITED:
            origin.warning(
                ("environment", variable), "the daemon gives this variable to each run; the value here is not used where it does"
            )
        result[variable] = text(value)
        if words := foreign_expansion(result[variable]):
            origin.warning(("environment", variable), words)
        if environment.names_itself(variable, result[variable]):
            origin.warning(("environment", variable), f"'${variable}' is passed on as it stands: write ${{{variable}}} for the daemon's")
    return result, unread


def _depends_on(given: Mapping[str, shape.Condition] | list[str]) -> dict[str, shape.Condition]:
    return dict.fromkeys(given, "started") if isinstance(given, list) else dict(given)


def _restart(given: str | shape.Restart | None, values: Values) -> model.Restart:
    if not isinstance(given, shape.Restart):
        given = shape.Restart()
    backoff = _backoff(given.backoff or shape.Backoff(), values)
    on_limit, retry_after = OnLimit.FATAL, 600.0
    if isinstance(given.on_limit, shape.RetryAfter):
        on_limit = OnLimit.RETRY
        retry_after = values.duration(given.on_limit.retry_after, ("restart", "on_limit", "retry_after"))
    else:
        on_limit = OnLimit(given.on_limit)
    reset = given.reset_after
    return model.Restart(
        policy=RestartPolicy(given.policy),
        success_exit_codes=tuple(given.success_exit_codes),
        prevent_exit_codes=tuple(given.prevent_exit_codes),
        max_restarts=given.max_restarts,
        within_seconds=None if given.within is None else values.duration(given.within, ("restart", "within")),
        on_limit=on_limit,
        retry_after_seconds=retry_after,
        backoff=backoff,
        reset_after_seconds=backoff.max_seconds if reset is None else values.duration(reset, ("restart", "reset_after"), zero=True),
    )


def _backoff(given: shape.Backoff, values: Values) -> model.Backoff:
    sub = ("restart", "backoff")
    backoff = model.Backoff(
        initial_seconds=values.duration(given.initial, (*sub, "initial"), zero=True),
        factor=float(given.factor),
        max_seconds=values.duration(given.max, (*sub, "max"), zero=True),
        jitter=float(given.jitter),
    )
    if backoff.initial_seconds > backoff.max_seconds:
        longest = units.format_duration(backoff.max_seconds)
        values.origin.warning((*sub, "initial"), f"the first delay is above backoff.max; every delay will be {longest}")
    return backoff


def _stop(given: shape.Stop, values: Values) -> model.Stop:
    return model.Stop(
        signal=values.signal(given.signal, ("stop", "signal")),
        grace_seconds=values.duration(given.grace_period, ("stop", "grace_period"), zero=True),
        command=values.optional_command(given.command, ("stop", "command")),
        scope=given.scope,
    )


def _heartbeat(program: shape.Program, name: str, values: Values) -> model.Heartbeat | None:
    given = program.heartbeat
    if not isinstance(given, shape.Heartbeat):
        return None
    file = given.file
    if file is not None:
        file = _placed(file, name)
        if program.replicas > 1 and "{replica}" not in file:
            advice = "put '{replica}' into it, or leave it out and use ASUP_HEARTBEAT_FILE"
            values.origin.error(("heartbeat", "file"), f"{program.replicas} replicas would share this file; {advice}")
    return model.Heartbeat(
        file=file,
        timeout_seconds=values.duration(given.timeout, ("heartbeat", "timeout")),
        initial_delay_seconds=values.duration(given.initial_delay, ("heartbeat", "initial_delay"), zero=True),
    )


def _notify(given: bool | shape.Notify, values: Values) -> model.Notify | None:
    if not isinstance(given, shape.Notify):
        return None
    return model.Notify(access=given.access, start_timeout_seconds=values.duration(given.start_timeout, ("notify", "start_timeout")))


def _probe(given: shape.Readiness | shape.Liveness | None, key: str, values: Values) -> model.Probe | None:
    if given is None:
        return None
    kind = values.only_one({kind: getattr(given, kind) for kind in PROBE_KINDS}, (key,))
    if kind is None:
        return None
    at = {kind: (key, kind) for kind in PROBE_KINDS}
    readiness = given if isinstance(given, shape.Readiness) else None
    return model.Probe(
        kind=kind,
        http=None if given.http is None else values.url(given.http, at["http"]),
        tcp=None if given.tcp is None else values.address(given.tcp, at["tcp"], any_port=False),
        expect_status=_expected_statuses(given, key, values),
        command=values.optional_command(given.command, at["command"]),
        log=None if given.log is None else values.pattern(given.log, at["log"]),
        interval_seconds=values.duration(given.interval, (key, "interval")),
        timeout_seconds=values.duration(given.timeout, (key, "timeout")),
        failures=given.failures,
        successes=given.successes,
        initial_delay_seconds=values.duration(given.initial_delay, (key, "initial_delay"), zero=True),
        start_timeout_seconds=values.duration(readiness.start_timeout, (key, "start_timeout")) if readiness else 60.0,
    )


def _expected_statuses(given: shape.Readiness | shape.Liveness, key: str, values: Values) -> tuple[int, ...]:
    if given.expect_status is None:
        return ()
    if given.http is None:
        values.origin.error((key, "expect_status"), "this means nothing without http", at_key=True)
    return tuple(given.expect_status) if isinstance(given.expect_status, list) else (given.expect_status,)


def _watches(given: Any, reload_signal: int | None, values: Values) -> tuple[model.Watch, ...]:
    if isinstance(given, list):
        return tuple(
            _watch(item, ("watch", index), reload_signal, values) for index, item in enumerate(given) if isinstance(item, shape.Watch)
        )
    return (_watch(given, ("watch",), reload_signal, values),) if given else ()


def _watch(given: shape.Watch, sub: tuple[str | int, ...], reload_signal: int | None, values: Values) -> model.Watch:
    signal = reload_signal
    if given.action is not None:
        signal = None if given.action == "restart" else values.signal(given.action, (*sub, "action"))
    return model.Watch(
        paths=tuple(given.paths),
        ignore=values.ignore_patterns(given.ignore, (*sub, "ignore")),
        debounce_seconds=values.duration(given.debounce, (*sub, "debounce"), zero=True),
        signal=signal,
        poll_seconds=None if given.poll is None else values.duration(given.poll, (*sub, "poll")),
    )


def _sockets(given: Mapping[str, Any], directory: str, context: ResolveContext, values: Values) -> tuple[model.Socket, ...]:
    sockets = []
    for name, item in given.items():
        sub = ("sockets", name)
        if not name or ":" in name or not name.isascii() or not name.isprintable() or len(name) > 255:
            values.origin.error(sub, "a socket's name is printable ASCII without ':'", at_key=True)
        socket = values.socket(name, item.url, (*sub, "url"), lambda path: absolute(path, directory, context.variables))
        sockets.append(
            msgspec.structs.replace(
                socket,
                mode=values.octal(item.mode, (*sub, "mode")),
                user=None if item.user is None else text(item.user),
                backlog=item.backlog,
            )
        )
    return tuple(sockets)


#: The shortest interval of a schedule.
MIN_EVERY_SECONDS = 0.1
#: cron's names for common lines.
_CRON_NAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


def _schedule(given: str | shape.Schedule | None, values: Values) -> model.Schedule | None:
    if not isinstance(given, shape.Schedule):
        return None
    every = None
    at = _CRON_NAMES.get(given.at.strip(), given.at.strip())
    if at.startswith("@every"):
        every = values.duration(at.removeprefix("@every").strip(), ("schedule", "at"))
        if every < MIN_EVERY_SECONDS:  # it would only keep a processor busy
            least = units.format_duration(MIN_EVERY_SECONDS)
            values.origin.error(("schedule", "at"), f"expected an interval of {least} or longer, found {found(given.at)}")
    else:
        _check_cron(at, values)
    if given.timezone is not None:
        _check_zone(given.timezone, values)
    return model.Schedule(at=at, every_seconds=every, timezone=given.timezone, catch_up=given.catch_up)


def _check_cron(line: str, values: Values) -> None:
    from datetime import UTC, datetime

    from cronsim import CronSim, CronSimError

    try:
        if next(CronSim(line, datetime(2026, 1, 1, tzinfo=UTC)), None) is None:
            values.origin.error(("schedule", "at"), f"this cron line never comes true: {found(line)}")
    except CronSimError as error:
        expected = "expected a cron line such as '*/5 * * * *' or '@every 10m'"
        values.origin.error(("schedule", "at"), f"{expected}, found {found(line)} ({error}){_near_schedule(line)}")


def _near_schedule(line: str) -> str:
    """``did you mean`` for a name without its ``@``, an interval without ``@every``, or ``@reboot``; else nothing."""
    if line.lower() in ("@reboot", "@start", "@startup"):
        return "; what runs once when the daemon starts has 'autostart: true' and no schedule"
    name = f"@{line.lstrip('@').lower()}"
    if name in _CRON_NAMES:
        return f"; did you mean '{name}'?"
    interval = re.sub(r"^@?(every)?\s*", "", line, flags=re.IGNORECASE)
    return f"; did you mean '@every {interval}'?" if re.fullmatch(r"(\d+(ms|[smhd]))+", interval) else ""


def _check_zone(zone: str, values: Values) -> None:
    from zoneinfo import ZoneInfo

    try:
        ZoneInfo(zone)
    except (OSError, ValueError, KeyError):
        values.origin.error(("schedule", "timezone"), f"expected a time zone such as Europe/Berlin, found {found(zone)}")


def _limits(given: shape.Limits, values: Values) -> model.Limits:
    return model.Limits(
        open_files=given.open_files,
        processes=given.processes,
        core_size_bytes=values.optional_size(given.core_size, ("limits", "core_size")),
        memory_bytes=None if given.memory is None else values.size(given.memory, ("limits", "memory"), zero=False),
        nice=given.nice,
        ionice=given.ionice,
        oom_score_adj=given.oom_score_adj,
        cpu_affinity=None if given.cpu_affinity is None else tuple(sorted(set(given.cpu_affinity))),
        no_new_privileges=given.no_new_privileges,
    )


def _hooks(given: shape.Hooks, values: Values) -> model.Hooks:
    return model.Hooks(
        before_start=values.optional_command(given.before_start, ("hooks", "before_start")),
        after_exit=values.optional_command(given.after_exit, ("hooks", "after_exit")),
    )


def _placed(path: str, name: str) -> str:
    """``path`` with the program's name filled in; ``{replica}`` stays, since ``scale`` may add replicas later."""
    return path.replace("{program}", name)


def _log_path(path: str, name: str, replicas: int) -> str:
    path = _placed(path, name)
    return apart(path) if replicas > 1 else path


def _logs(program: shape.Program, name: str, values: Values, context: ResolveContext) -> model.Logs:
    given = program.logs or shape.Logs()
    if given.stdout == "stdout":
        values.origin.error(("logs", "stdout"), "expected a path, none or inherit, found 'stdout'")
    for key in ("stdout", "stderr"):
        value = getattr(given, key)
        if value == "":
            values.origin.error(("logs", key), "expected a path, none or inherit")
        elif value and value.startswith("/") and (words := foreign_log(os.path.relpath(value, values.origin.folder(("logs", key))))):
            values.origin.warning(("logs", key), words)
    stdout = _log_path(given.stdout or os.path.join(context.run_dir, "logs", f"{name}.log"), name, program.replicas)
    stderr = _log_path(given.stderr, name, program.replicas)
    return model.Logs(
        stdout=stdout,
        stderr="stdout" if stderr == stdout else stderr,
        max_size_bytes=values.size(given.max_size, ("logs", "max_size")),
        backups=given.backups,
        compress=given.compress,
        format=given.format,
    )
