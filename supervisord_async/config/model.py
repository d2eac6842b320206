"""The configuration as the daemon uses it: resolved, checked, frozen.

Only ``load`` makes one, from YAML. Shorthands are spelt out (``restart: always`` is a :class:`Restart`), durations are
seconds, sizes bytes, paths absolute, variables expanded, ``defaults`` merged. Equal values mean equal behaviour: ``diff``
relies on it. A field's default means that the key is absent.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from supervisord_async.core.policy import OnLimit, Policy, RestartPolicy


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A frozen group of settings."""


class Backoff(Struct, frozen=True, kw_only=True):
    """The delay before restart n, from 0: ``min(max, initial * factor ** n)``, spread both ways by the fraction ``jitter``."""

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
    """How a program is stopped: ``stop.signal``, ``stop.grace_period`` and ``stop.scope``."""

    signal: int = 15
    grace_seconds: float = 10.0
    command: tuple[str, ...] | None = None
    scope: Literal["tree", "mixed", "main"] = "tree"  #: ``mixed``: first the main process is signalled, the rest once it has ended

    @property
    def ends_all(self) -> bool:
        """Whether no process of a run may outlive it."""
        return self.scope != "main"

    def audience(self, *, led: bool) -> Literal["tree", "main"]:
        """Which processes of a run get the stop signal while its main process is alive (``led``), or after it has ended."""
        if self.scope == "mixed":
            return "main" if led else "tree"
        return self.scope


class Heartbeat(Struct, frozen=True, kw_only=True):
    """A file that the program changes at least once in ``timeout_seconds``.

    ``file`` None: one in run_dir, whose path the program gets as ``ASUP_HEARTBEAT_FILE``. A path may contain ``{replica}``
    for the replica's number; that of a replicated program does.
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
    poll_seconds: float | None = None  #: poll this often; None: the kernel's notifications where possible


class Notify(Struct, frozen=True, kw_only=True):
    """The program speaks sd_notify."""

    access: Literal["main", "all"] = "main"
    start_timeout_seconds: float = 60.0


class Probe(Struct, frozen=True, kw_only=True):
    """A check that is run at intervals: of ``http``, ``tcp``, ``command`` and ``log``, the one that ``kind`` names is set."""

    kind: Literal["http", "tcp", "command", "log"]
    http: str | None = None  #: a URL
    expect_status: tuple[int, ...] = ()  #: statuses that mean success; empty: 200 to 399
    tcp: tuple[str, int] | None = None  #: host and port
    command: tuple[str, ...] | None = None
    log: str | None = None  #: a regular expression that a line of output matches
    interval_seconds: float = 1.0
    timeout_seconds: float = 3.0
    failures: int = 3
    successes: int = 1
    initial_delay_seconds: float = 0.0
    start_timeout_seconds: float = 60.0  #: used by readiness only


class Socket(Struct, frozen=True, kw_only=True):
    """A listening socket that the daemon binds; ``path`` is set for ``unix``, else ``host`` and ``port`` are."""

    name: str
    kind: Literal["tcp", "udp", "unix"]
    host: str = ""
    port: int = 0
    path: str = ""
    mode: int = 0o660
    user: str | None = None
    backlog: int = 128


class Schedule(Struct, frozen=True, kw_only=True):
    """When the clock starts a program: at the times of the cron line ``at``, or every ``every_seconds``."""

    at: str
    every_seconds: float | None = None
    timezone: str | None = None  #: None: the machine's
    catch_up: Literal["once", "none"] = "none"


class Limits(Struct, frozen=True, kw_only=True):
    """What a program may use; None: as the daemon's own."""

    open_files: int | None = None
    processes: int | None = None
    core_size_bytes: int | None = None
    memory_bytes: int | None = None  #: resident size of the whole tree, watched by the daemon
    nice: int | None = None
    ionice: str | None = None  #: ``idle``, ``best-effort[:0-7]``, ``realtime[:0-7]``
    oom_score_adj: int | None = None
    cpu_affinity: tuple[int, ...] | None = None
    no_new_privileges: bool = False


class Hooks(Struct, frozen=True, kw_only=True):
    """Commands around a run."""

    before_start: tuple[str, ...] | None = None
    after_exit: tuple[str, ...] | None = None


class Logs(Struct, frozen=True, kw_only=True):
    """Where output goes: each stream to an absolute path, ``none`` or ``inherit``; stderr also to ``stdout``.

    A path may contain ``{replica}`` for the replica's number; that of a replicated program does.
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
    command: tuple[str, ...]  #: the argument vector; with ``shell: true`` that of ``/bin/sh -c``
    shell: bool = False
    description: str = ""
    group: str
    directory: str
    #: The whole environment: inherited variables, environment files and own keys merged. PWD, and with ``user`` HOME, USER and LOGNAME,
    #: are in it only if the file gives them.
    environment: dict[str, str] = {}
    own_variables: tuple[str, ...] = ()  #: names in ``environment`` that the file gives, sorted; all others are inherited
    unread: str = ""  #: why an environment file could not be read as the daemon started; no run begins without what is in it
    secrets: tuple[str, ...] = ()  #: names of variables whose values are masked, besides names that look like a secret's
    user: str | None = None
    group_name: str | None = None
    umask: int | None = None
    replicas: int = 1
    autostart: bool = True
    start_seconds: float = 1.0
    depends_on: dict[str, Literal["started", "ready", "completed", "succeeded"]] = {}
    on_dependency_failure: Literal["wait", "fail"] = "wait"
    restart_with_dependency: bool = False
    restart: Restart = Restart()
    stop: Stop = Stop()
    heartbeat: Heartbeat | None = None
    notify: Notify | None = None
    readiness: Probe | None = None
    liveness: Probe | None = None
    watch: tuple[Watch, ...] = ()
    reload_signal: int | None = None
    sockets: tuple[Socket, ...] = ()
    start_on_connect: bool = False
    rolling: bool = False
    schedule: Schedule | None = None
    logs: Logs
    limits: Limits = Limits()
    hooks: Hooks = Hooks()

    def process_names(self) -> tuple[str, ...]:
        """The names of its processes: the program's own name, or ``name:0``, ``name:1`` … with replicas."""
        if self.replicas == 1:
            return (self.name,)
        return tuple(f"{self.name}:{number}" for number in range(self.replicas))

    def log_patterns(self) -> tuple[str, ...]:
        """The patterns that its ``log`` probes look for in its output."""
        return tuple(probe.log for probe in (self.readiness, self.liveness) if probe is not None and probe.log is not None)

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
            tells_main_first=self.stop.scope == "mixed",
            start_timeout_seconds=self.start_timeout_seconds,
            has_dependencies=bool(self.depends_on),
            checks=tuple(name for name in ("heartbeat", "readiness", "liveness") if getattr(self, name)),
            seed=process_name,
        )

    @property
    def start_timeout_seconds(self) -> float | None:
        """How long a run may take to become ready; None if it has neither readiness probe nor ``notify``."""
        if self.readiness:
            return self.readiness.start_timeout_seconds
        return self.notify.start_timeout_seconds if self.notify else None


class DaemonLog(Struct, frozen=True, kw_only=True):
    """The daemon's own log; ``file`` None: stderr."""

    file: str | None = None
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class HttpTls(Struct, frozen=True, kw_only=True):
    """PEM files of the HTTP API over TCP."""

    certificate: str
    key: str


class History(Struct, frozen=True, kw_only=True):
    """How much of the past is kept."""

    max_age_seconds: float = 30 * 86400.0
    max_size_bytes: int = 100 * 1024 * 1024


class EventHook(Struct, frozen=True, kw_only=True):
    """What to do when one of ``events`` happens: ``command`` or ``url`` is set."""

    events: tuple[str, ...]
    command: tuple[str, ...] | None = None
    url: str | None = None


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
    on_death: Literal["keep", "stop"] = "keep"
    http: tuple[str, int] | None = None  #: host and port; None: not over TCP
    http_token_file: str | None = None  #: None: one made in run_dir
    http_tls: HttpTls | None = None
    http_insecure: bool = False
    history: History = History()
    on_event: tuple[EventHook, ...] = ()


class Configuration(Struct, frozen=True, kw_only=True):
    """One loaded file with everything it includes."""

    file: str  #: absolute path
    daemon: Daemon
    programs: dict[str, Program]  #: by name, in file order
