"""The configuration as the daemon uses it: resolved, checked, frozen.

``load`` makes it from YAML; nothing else does. Shorthands are spelt out (``restart: always`` is a :class:`Restart`),
durations are seconds, sizes bytes, paths absolute, variables expanded, ``defaults`` merged. Two equal values mean
the same behaviour: ``diff`` relies on it. What INTERFACE.md knows and the daemon does not do yet is absent here.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from supervisord_async.core.policy import OnLimit, Policy, RestartPolicy


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A frozen group of settings."""


class Backoff(Struct, frozen=True, kw_only=True):
    """``min(max, initial * factor ** n)``, n from 0, spread by ``jitter`` (a fraction) both ways."""

    initial_seconds: float = 0.5
    factor: float = 2.0
    max_seconds: float = 60.0
    jitter: float = 0.1


class Restart(Struct, frozen=True, kw_only=True):
    """When, how often and after what delay a program is started again."""

    policy: RestartPolicy = RestartPolicy.ON_FAILURE
    success_exit_codes: tuple[int, ...] = (0,)
    prevent_exit_codes: tuple[int, ...] = ()
    max_restarts: int = -1
    within_seconds: float | None = None
    on_limit: OnLimit = OnLimit.FATAL
    retry_after_seconds: float = 600.0
    backoff: Backoff = Backoff()
    reset_after_seconds: float = 60.0


class Stop(Struct, frozen=True, kw_only=True):
    """How a program is told to go."""

    signal: int = 15
    grace_seconds: float = 10.0
    command: tuple[str, ...] | None = None
    scope: Literal["tree", "main"] = "tree"


class Heartbeat(Struct, frozen=True, kw_only=True):
    """A file that the program changes at least once in ``timeout_seconds``.

    ``file`` None: one in run_dir that the program learns by ``ASUP_HEARTBEAT_FILE``.
    """

    file: str | None = None
    timeout_seconds: float = 20.0
    initial_delay_seconds: float = 0.0


class Watch(Struct, frozen=True, kw_only=True):
    """Paths whose change restarts the program (``signal`` None) or sends it a signal."""

    paths: tuple[str, ...]
    ignore: tuple[str, ...] = ()  #: gitignore patterns, relative to each watched path
    debounce_seconds: float = 0.3
    signal: int | None = None
    poll_seconds: float | None = None  #: look this often instead of being told; None: be told where possible


class Logs(Struct, frozen=True, kw_only=True):
    """Where output goes. A stream is an absolute path, ``none``, ``inherit``, or, of stderr, ``stdout``.

    The path of a replicated program holds ``{replica}`` where the number goes.
    """

    stdout: str
    stderr: str = "stdout"
    max_size_bytes: int = 50 * 1024 * 1024
    backups: int = 5
    compress: bool = False
    format: Literal["raw", "timestamp", "json"] = "raw"


class Program(Struct, frozen=True, kw_only=True):
    """One entry of ``programs``."""

    name: str
    command: tuple[str, ...]  #: the argument vector; with ``shell: true`` that of /bin/sh -c
    shell: bool = False
    description: str = ""
    group: str
    directory: str
    environment: dict[str, str] = {}  #: the whole of it, inherited parts, environment files and own keys merged
    secrets: tuple[str, ...] = ()  #: names of variables whose values are masked beside those that look like secrets
    user: str | None = None
    group_name: str | None = None
    umask: int | None = None
    replicas: int = 1
    autostart: bool = True
    start_seconds: float = 1.0
    restart: Restart = Restart()
    stop: Stop = Stop()
    heartbeat: Heartbeat | None = None
    watch: tuple[Watch, ...] = ()
    reload_signal: int | None = None
    logs: Logs

    def process_names(self) -> tuple[str, ...]:
        """The names of its processes: its own, or ``name:0`` … with replicas."""
        if self.replicas == 1:
            return (self.name,)
        return tuple(f"{self.name}:{number}" for number in range(self.replicas))

    def policy(self, process_name: str) -> Policy:
        """What the state machine needs to know of these settings."""
        restart, backoff = self.restart, self.restart.backoff
        return Policy(
            restart=restart.policy,
            success_exit_codes=restart.success_exit_codes,
            prevent_exit_codes=restart.prevent_exit_codes,
            max_restarts=restart.max_restarts,
            within_seconds=restart.within_seconds,
            on_limit=restart.on_limit,
            retry_after_seconds=restart.retry_after_seconds,
            backoff_initial_seconds=backoff.initial_seconds,
            backoff_factor=backoff.factor,
            backoff_max_seconds=backoff.max_seconds,
            backoff_jitter=backoff.jitter,
            reset_after_seconds=restart.reset_after_seconds,
            start_seconds=self.start_seconds,
            grace_seconds=self.stop.grace_seconds,
            checks=("heartbeat",) if self.heartbeat else (),
            seed=process_name,
        )


class DaemonLog(Struct, frozen=True, kw_only=True):
    """The daemon's own log; ``file`` None: stderr."""

    file: str | None = None
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class Daemon(Struct, frozen=True, kw_only=True):
    """The settings of the daemon itself."""

    name: str
    run_dir: str
    socket: str
    socket_mode: int = 0o600
    socket_group: str | None = None
    log: DaemonLog = DaemonLog()
    exit_when: Literal["never", "all_exited", "any_fatal"] = "never"
    stop_timeout_seconds: float = 60.0


class Configuration(Struct, frozen=True, kw_only=True):
    """One loaded file with everything it includes."""

    file: str  #: absolute path
    daemon: Daemon
    programs: dict[str, Program]  #: by name, in file order
    files: tuple[str, ...] = ()  #: every file that was read: this one, includes, environment files
