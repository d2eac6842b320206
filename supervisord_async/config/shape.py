"""What people may write into a file: every key, its type, its default as they would write it, its meaning.

The one source of the JSON Schema, of the reference of keys, and of every default. ``msgspec`` checks a file against
these types; ``resolve`` turns them into the model, and checks ranges that a schema cannot express (a duration above
zero); ``rules`` checks keys that depend on each other.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from supervisord_async.config import units


def _doc(text: str) -> Meta:
    """The key's meaning, for editors and the reference."""
    return Meta(description=text)


def _expected(text: str) -> Meta:
    """What a problem says was expected of this type; not part of the published schema."""
    return Meta(extra_json_schema={"x-expected": text})


Duration: TypeAlias = Annotated[
    Annotated[float, Meta(ge=0)] | Annotated[str, Meta(pattern=units.DURATION_PATTERN)], _expected(units.DURATION_EXPECTED)
]
Size: TypeAlias = Annotated[Annotated[int, Meta(ge=0)] | Annotated[str, Meta(pattern=units.SIZE_PATTERN)], _expected(units.SIZE_EXPECTED)]
SignalName: TypeAlias = Annotated[int | Annotated[str, Meta(pattern=units.SIGNAL_PATTERN)], _expected(units.SIGNAL_EXPECTED)]
Octal: TypeAlias = Annotated[int | Annotated[str, Meta(pattern=units.OCTAL_PATTERN)], _expected('octal digits such as "022"')]
Text: TypeAlias = Annotated[str | float | bool, _expected("text")]
Name: TypeAlias = Annotated[str | int, _expected("a name")]
Words: TypeAlias = Annotated[list[Text], Meta(min_length=1)]
Address: TypeAlias = Annotated[str | int, _expected("an address such as 127.0.0.1:8080")]
Url: TypeAlias = Annotated[str, _expected("a URL such as http://127.0.0.1:8080/healthz")]
Command: TypeAlias = Annotated[str | Words, _expected("a command: a list of words, or a string")]
Variables: TypeAlias = Annotated[dict[str, Text], _expected("a mapping of names to values")]
FilePath: TypeAlias = Annotated[Annotated[str, Meta(min_length=1)], _expected("a path")]
Fraction: TypeAlias = Annotated[float, Meta(ge=0, le=1), _expected("a number from 0 to 1")]
Count: TypeAlias = Annotated[int, Meta(ge=1, le=1000), _expected("a whole number from 1 to 1000")]
Status: TypeAlias = Annotated[int, Meta(ge=100, le=599), _expected("an HTTP status from 100 to 599")]
ExitCode: TypeAlias = Annotated[int, Meta(ge=0, le=255), _expected("an exit code from 0 to 255")]
Event: TypeAlias = Literal["fatal", "failed", "flapping", "unhealthy", "restart_limit"]
Condition: TypeAlias = Literal["started", "ready", "completed", "succeeded"]


class Shape(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mapping with fixed keys."""


class Backoff(Shape, frozen=True, kw_only=True):
    """The delay before automatic restart n, from 0: min(max, initial * factor ** n), spread by jitter."""

    initial: Annotated[Duration, _doc("The first delay.")] = "500ms"
    factor: Annotated[
        Annotated[float, Meta(ge=1, le=1000), _expected("a number from 1 to 1000")], _doc("Each delay is this times the one before.")
    ] = 2
    max: Annotated[Duration, _doc("No delay is longer.")] = "60s"
    jitter: Annotated[
        Fraction, _doc("The fraction by which a delay is spread, both ways, so that programs do not all come back at once.")
    ] = 0.1


class RetryAfter(Shape, frozen=True, kw_only=True):
    """What `on_limit` may be besides a word."""

    retry_after: Annotated[Duration, _doc("FATAL for this long, then start over with the counter at 0.")]


OnLimit: TypeAlias = Annotated[Literal["fatal", "shutdown"] | RetryAfter, _expected("fatal, shutdown or {retry_after: 10m}")]


class Restart(Shape, frozen=True, kw_only=True):
    """When, how often and after what delay a program is started again."""

    policy: Annotated[
        Literal["always", "on-failure", "never"], _doc("`always`: after every end; `on-failure`: unless it ended well; `never`.")
    ] = "on-failure"
    success_exit_codes: Annotated[tuple[ExitCode, ...], _doc("Exit codes that mean it ended well.")] = (0,)
    prevent_exit_codes: Annotated[list[ExitCode], _doc("Never restart after one of these; the process is EXITED.")] = []
    max_restarts: Annotated[
        Annotated[int, Meta(ge=-1, le=1_000_000), _expected("a whole number from -1 (no limit) to 1000000")],
        _doc("This many automatic restarts in a row, then `on_limit`; -1: no limit, 0: none."),
    ] = -1
    within: Annotated[Duration | None, _doc("Count `max_restarts` in a sliding window of this length instead of in a row.")] = None
    on_limit: Annotated[
        OnLimit, _doc("At the limit: `fatal` (stay down), `shutdown` (end the daemon, non-zero), or `{retry_after: 10m}`.")
    ] = "fatal"
    backoff: Annotated[Backoff | None, _doc("The delays between automatic restarts.")] = Backoff()
    reset_after: Annotated[Duration | None, _doc("Up for this long, the counter returns to 0. Default: `backoff.max`.")] = None


class Stop(Shape, frozen=True, kw_only=True):
    """How a program is stopped: ``stop.signal``, ``stop.grace_period`` and ``stop.scope``."""

    signal: Annotated[SignalName, _doc("The signal that asks it to go.")] = "TERM"
    grace_period: Annotated[Duration, _doc("What still lives after this is killed.")] = "10s"
    command: Annotated[
        Command | None,
        _doc(
            "Run this instead of sending the signal, which is sent only if the command fails. `ASUP_MAIN_PID` tells it which process to "
            "end; it may return at once, the program still has the grace period to end in."
        ),
    ] = None
    scope: Annotated[
        Literal["tree", "mixed", "main"],
        _doc(
            "`tree`: the signal goes to everything that the program started; `mixed`: to its main process alone, and after that has ended "
            "to what it left behind; `main`: to its main process alone, and what it leaves behind runs on until it is ended by hand; "
            "no cgroup is used."
        ),
    ] = "tree"


class Heartbeat(Shape, frozen=True, kw_only=True):
    """A file that the program changes at least once in `timeout`."""

    file: Annotated[
        FilePath | None,
        _doc("The file; `{replica}` stands for the replica's number. Default: one in run_dir, given as ASUP_HEARTBEAT_FILE."),
    ] = None
    timeout: Annotated[Duration, _doc("If the file is unchanged for this long, the program is restarted.")] = "20s"
    initial_delay: Annotated[Duration, _doc("Extra time for the first beat of a run.")] = "0s"


class Notify(Shape, frozen=True, kw_only=True):
    """sd_notify: READY, WATCHDOG, STATUS, STOPPING, RELOADING, EXTEND_TIMEOUT_USEC, MAINPID."""

    access: Annotated[Literal["main", "all"], _doc("Whose messages count: the main process's, or those of all its descendants.")] = "main"
    start_timeout: Annotated[Duration, _doc("A run that is not READY after this long is ended.")] = "60s"


class Probe(Shape, frozen=True, kw_only=True):
    """A check that is run at intervals. Exactly one of `http`, `tcp`, `command` and `log`."""

    http: Annotated[Url | None, _doc("A URL that answers with 200 to 399.")] = None
    expect_status: Annotated[
        Status | list[Status] | None, _doc("With `http`: the one status, or the list of them, that means success, instead of 200 to 399.")
    ] = None
    tcp: Annotated[Address | None, _doc("HOST:PORT that accepts a connection; that of a hung program still does, for a while.")] = None
    command: Annotated[Command | None, _doc("A command that ends with 0; if it fails, the last line that it printed is told.")] = None
    log: Annotated[
        str | None,
        _doc(
            "A regular expression that a line of output, without its colours, matches, in RE2's syntax: no lookaround, no backreferences."
        ),
    ] = None
    timeout: Annotated[Duration, _doc("An answer that takes longer is a failure.")] = "3s"
    failures: Annotated[Count, _doc("This many failures in a row mean unhealthy.")] = 3
    successes: Annotated[Count, _doc("This many successes in a row mean healthy.")] = 1
    initial_delay: Annotated[Duration, _doc("The first check comes this long after the start.")] = "0s"


class Readiness(Probe, frozen=True, kw_only=True):
    """When a run is ready to serve; until then it is STARTING. Exactly one of `http`, `tcp`, `command` and `log`."""

    interval: Annotated[
        Duration, _doc("The time between two checks. Within the first interval checks come more often, until ready: after 0.1 s, 0.3 s, …")
    ] = "1s"
    start_timeout: Annotated[Duration, _doc("A run that is not ready after this long is ended.")] = "60s"


class Liveness(Probe, frozen=True, kw_only=True):
    """Whether a run still works; if not it is restarted. Exactly one of `http`, `tcp`, `command` and `log`."""

    interval: Annotated[Duration, _doc("The time between two checks.")] = "10s"


class Watch(Shape, frozen=True, kw_only=True):
    """Files whose change restarts the program."""

    paths: Annotated[list[str], Meta(min_length=1), _doc("Files and folders, folders with everything below them.")]
    ignore: Annotated[
        list[str],
        _doc(
            "Patterns as in .gitignore, relative to each path. Logs, heartbeat files, run_dir, caches and editors' temporary files are "
            "always ignored."
        ),
    ] = []
    debounce: Annotated[Duration, _doc("Act once nothing has changed for this long.")] = "300ms"
    action: Annotated[
        Annotated[SignalName | None, _expected("restart, or a signal such as HUP")],
        _doc("`restart`, or the name of a signal to send. Default: `reload_signal` where set, else `restart`."),
    ] = None
    poll: Annotated[
        Duration | None, _doc("Poll this often instead of relying on the kernel's notifications. Default: 2s on network file systems.")
    ] = None


WatchItem: TypeAlias = Annotated[str | Watch, _expected("a path, or a mapping with paths")]


class Socket(Shape, frozen=True, kw_only=True):
    """A listening socket that the daemon binds and keeps across restarts."""

    url: Annotated[str, _doc("`tcp://HOST:PORT`, `udp://HOST:PORT` or `unix:PATH`.")]
    mode: Annotated[Octal, _doc("The permissions of a unix socket.")] = "0660"
    user: Annotated[Name | None, _doc("The owner of a unix socket.")] = None
    backlog: Annotated[
        Annotated[int, Meta(ge=1, le=65535), _expected("a whole number from 1 to 65535")], _doc("Connections that may wait to be accepted.")
    ] = 128


class Schedule(Shape, frozen=True, kw_only=True):
    """When the clock starts a program."""

    at: Annotated[str, _doc('A cron line such as `"*/5 * * * *"`, `@daily` or `@hourly`, or `@every 10m`.')]
    timezone: Annotated[str | None, _doc("The time zone of the cron line, such as Europe/Berlin. Default: the machine's.")] = None
    catch_up: Annotated[Literal["once", "none"], _doc("What happens when the daemon was down at a due time.")] = "none"


class Logs(Shape, frozen=True, kw_only=True):
    """Where a program's output goes."""

    stdout: Annotated[
        FilePath | None,
        _doc(
            "A path, `none`, or `inherit` (the daemon's own). `{program}` and `{replica}` in it stand for the program's name and the "
            "replica's number; a path of several replicas without it gets `-{replica}` before its suffix. "
            "Default: run_dir/logs/NAME.log."
        ),
    ] = None
    stderr: Annotated[FilePath, _doc("`stdout` (the same place), a path, `none` or `inherit`.")] = "stdout"
    max_size: Annotated[Size, _doc("A log that would grow beyond this is rotated; 0: never.")] = "50MiB"
    backups: Annotated[
        Annotated[int, Meta(ge=0, le=10000), _expected("a whole number from 0 to 10000")],
        _doc("Rotated logs to keep: x.log.1 the youngest."),
    ] = 5
    compress: Annotated[bool, _doc("Compress rotated logs by gzip.")] = False
    format: Annotated[
        Literal["raw", "timestamp", "json"], _doc("`raw`: byte by byte; `timestamp`: the time before each line; `json`: an object a line.")
    ] = "raw"


class Limits(Shape, frozen=True, kw_only=True):
    """What a program may use. Absent: as the daemon's own."""

    open_files: Annotated[Annotated[int, Meta(ge=1, le=2**31 - 1)] | None, _doc("Open descriptors.")] = None
    processes: Annotated[Annotated[int, Meta(ge=1, le=2**31 - 1)] | None, _doc("Processes of the user.")] = None
    core_size: Annotated[Size | None, _doc("The size of a core dump.")] = None
    memory: Annotated[
        Size | None, _doc("Resident size of the whole tree, shared memory counted once; above it the process is restarted.")
    ] = None
    nice: Annotated[
        Annotated[int, Meta(ge=-20, le=19), _expected("a whole number from -20 to 19")] | None, _doc("The nice value, absolute.")
    ] = None
    ionice: Annotated[
        Annotated[
            str,
            Meta(pattern=r"^(?:idle|(?:best-effort|realtime)(?::[0-7])?)$"),
            _expected("idle, best-effort, best-effort:0 to :7, or realtime:0 to :7"),
        ]
        | None,
        _doc("The I/O class, with a priority from 0 to 7: `idle`, `best-effort:4`, `realtime:0`."),
    ] = None
    oom_score_adj: Annotated[
        Annotated[int, Meta(ge=-1000, le=1000), _expected("a whole number from -1000 to 1000")] | None,
        _doc("How soon the kernel ends it when memory is short."),
    ] = None
    cpu_affinity: Annotated[
        Annotated[list[Annotated[int, Meta(ge=0, le=8191)]], Meta(min_length=1), _expected("a list of CPU numbers")] | None,
        _doc("The CPUs that it may run on."),
    ] = None
    no_new_privileges: Annotated[bool, _doc("Neither it nor its children can gain privileges by set-uid files.")] = False


class Hooks(Shape, frozen=True, kw_only=True):
    """Commands around a run."""

    before_start: Annotated[Command | None, _doc("Runs before each run; if it fails, so does the start.")] = None
    after_exit: Annotated[Command | None, _doc("Runs after each run, with ASUP_EXIT_CODE or ASUP_EXIT_SIGNAL, and ASUP_CAUSE.")] = None


class Program(Shape, frozen=True, kw_only=True):
    """A program to supervise."""

    name: Annotated[Name | None, _doc("Its name, where `programs` is a list.")] = None
    command: Annotated[Command | None, _doc("A list of words, or a string that is split as a shell would, without a shell. Required.")] = (
        None
    )
    shell: Annotated[bool, _doc("Run the string by `/bin/sh -c`.")] = False
    description: Annotated[str, _doc("A sentence for people; `status` shows it while nothing is wrong.")] = ""
    group: Annotated[Name | None, _doc("A name that several programs share, for `GROUP:*`. Default: the program's own name.")] = None
    directory: Annotated[str, _doc("Where it runs; also if its `user` may not enter that, which `--check` warns of.")] = "."
    environment: Annotated[Variables | None, _doc("Variables; they beat `environment_files`, which beat what is inherited.")] = {}
    environment_files: Annotated[
        list[str] | None,
        _doc(
            "Files of NAME=value lines, later ones beating earlier ones; each must exist. Read with this file: a reload takes a change, "
            "a restart does not. A daemon that starts where one cannot be read starts all other programs; this one fails to start until "
            "it can be read."
        ),
    ] = []
    secrets: Annotated[
        list[str] | None,
        _doc("Variables whose values are masked wherever shown; `*PASSWORD*`, `*SECRET*`, `*TOKEN*` and `*_KEY` always are."),
    ] = []
    inherit_environment: Annotated[
        Annotated[bool | list[str], _expected("true, false or a list of names")],
        _doc("What it gets of the daemon's own environment: all, nothing, or these names."),
    ] = True
    user: Annotated[Name | None, _doc("Who it runs as, with all groups, HOME, USER and LOGNAME. Default: who the daemon is.")] = None
    group_name: Annotated[Name | None, _doc("The group it runs as, instead of the user's primary one.")] = None
    umask: Annotated[
        Octal | None, _doc("Permissions that new files do not get, in octal. Default: 022, whatever the daemon was started with.")
    ] = None
    replicas: Annotated[
        Annotated[int, Meta(ge=1, le=10_000), _expected("a whole number from 1 to 10000")], _doc("How many of it: `web:0`, `web:1`, ….")
    ] = 1
    autostart: Annotated[
        bool, _doc("Start it with the daemon, and with the reload that makes this true. With `schedule` the default is false.")
    ] = True
    depends_on: Annotated[
        Annotated[
            dict[str, Condition] | list[str] | None,
            _expected("a list of programs, or a mapping of them to started, ready, completed or succeeded"),
        ],
        _doc(
            "Programs that come first: `{db: ready}`, or `[db]` for `started`. An automatic restart does not wait for them. "
            "One that is stopped is started with the dependent; one that an operator stopped, or that has ended "
            "and is needed anew, only if an operator starts the dependent."
        ),
    ] = {}
    on_dependency_failure: Annotated[Literal["wait", "fail"], _doc("When a dependency fails: wait for it to come back, or be FATAL.")] = (
        "wait"
    )
    restart_with_dependency: Annotated[bool, _doc("Restart when a dependency restarts.")] = False
    start_seconds: Annotated[Duration, _doc("Without a readiness probe: up this long means RUNNING.")] = "1s"
    restart: Annotated[
        Annotated[Literal["always", "on-failure", "never"] | Restart | None, _expected("always, on-failure, never, or a mapping")],
        _doc("When and how often it is started again; a single word is the policy."),
    ] = Restart()
    stop: Annotated[Stop | None, _doc("How it is stopped.")] = Stop()
    heartbeat: Annotated[
        Annotated[Duration | Heartbeat | None, _expected(f"{units.DURATION_EXPECTED}, or a mapping")],
        _doc("A file that it must keep changing; a single duration is the timeout."),
    ] = None
    notify: Annotated[Annotated[bool | Notify, _expected("true, false or a mapping")], _doc("It speaks sd_notify.")] = False
    readiness: Annotated[Readiness | None, _doc("When a run is ready to serve.")] = None
    liveness: Annotated[Liveness | None, _doc("Whether a run still works.")] = None
    watch: Annotated[
        Annotated[list[WatchItem] | Watch | None, _expected("a list of paths, or a mapping with paths")],
        _doc(
            "Files whose change restarts it. After five changes in a row that come within two seconds of its start they are not followed "
            "for 30 s, or longer each time, and then acted on once: it may write them itself."
        ),
    ] = None
    reload_signal: Annotated[
        SignalName | None, _doc("A signal that makes it reload what changed; `watch` sends it instead of a restart.")
    ] = None
    sockets: Annotated[
        dict[str, Annotated[str | Socket, _expected("a URL such as tcp://127.0.0.1:8080, or a mapping")]] | None,
        _doc("Listening sockets that the daemon binds, passes as LISTEN_FDS, and keeps across restarts."),
    ] = {}
    start_on_connect: Annotated[bool, _doc("Start it at the first connection to one of its sockets.")] = False
    rolling: Annotated[bool, _doc("Restart replicas one at a time, the next when the last is ready.")] = False
    schedule: Annotated[
        Annotated[str | Schedule | None, _expected("a cron line, '@every 10m', or a mapping")],
        _doc("Start it at these times, if it does not run."),
    ] = None
    logs: Annotated[Logs | None, _doc("Where its output goes.")] = Logs()
    limits: Annotated[Limits | None, _doc("What it may use.")] = Limits()
    hooks: Annotated[Hooks | None, _doc("Commands around a run.")] = Hooks()


class DaemonLog(Shape, frozen=True, kw_only=True):
    """The daemon's own log."""

    file: Annotated[FilePath | None, _doc("A path; rotated at 50 MiB, with five backups. Default: stderr.")] = None
    level: Annotated[Literal["debug", "info", "warning", "error"], _doc("The lowest level that is logged.")] = "info"
    format: Annotated[Literal["text", "json"], _doc("Lines for people, or an object a line.")] = "text"


class HttpTls(Shape, frozen=True, kw_only=True):
    """The certificate of the HTTP API over TCP."""

    certificate: Annotated[FilePath, _doc("A PEM file with the certificate and its chain; a renewed one is used within ten seconds.")]
    key: Annotated[FilePath, _doc("A PEM file with the private key.")]


class History(Shape, frozen=True, kw_only=True):
    """How much of the past is kept."""

    max_age: Annotated[Duration, _doc("What is older is deleted, but for runs that go on.")] = "30d"
    max_size: Annotated[Size, _doc("Beyond this the oldest is deleted.")] = "100MiB"


class EventHook(Shape, frozen=True, kw_only=True):
    """What is done when something happens. Exactly one of `command` and `url`."""

    events: Annotated[
        list[Event], Meta(min_length=1), _doc("What has to happen: `fatal`, `failed`, `flapping`, `unhealthy` or `restart_limit`.")
    ]
    command: Annotated[Command | None, _doc("Runs, with the event as JSON on stdin.")] = None
    url: Annotated[str | None, _doc("Gets the event as JSON by POST.")] = None


class Daemon(Shape, frozen=True, kw_only=True):
    """The daemon itself."""

    name: Annotated[Name | None, _doc("Its name. Default: the file's, without suffix.")] = None
    run_dir: Annotated[FilePath, _doc("Lock, socket, state, history and logs are here.")] = ".asupd"
    socket: Annotated[FilePath | None, _doc("The control socket. Default: run_dir/asupd.sock.")] = None
    socket_mode: Annotated[Octal, _doc("The permissions of the control socket.")] = "0600"
    socket_group: Annotated[Name | None, _doc("The group of the control socket. Default: the daemon's.")] = None
    http: Annotated[Address | None, _doc("HOST:PORT where the same API, metrics and page are served over TCP. Default: nowhere.")] = None
    http_token_file: Annotated[
        FilePath | None, _doc("The file with the token that TCP asks for. Default: run_dir/http.token, made for its owner only.")
    ] = None
    http_tls: Annotated[HttpTls | None, _doc("Serve over TLS. Needed for an address that others can reach.")] = None
    http_insecure: Annotated[bool, _doc("Serve without TLS at an address that others can reach.")] = False
    log: Annotated[DaemonLog | None, _doc("The daemon's own log.")] = DaemonLog()
    exit_when: Annotated[
        Literal["never", "all_exited", "any_fatal"],
        _doc(
            "End when nothing runs and nothing will start by itself (by a schedule, a retry, a connection), non-zero if a program has "
            "failed; or when a program is FATAL (non-zero)."
        ),
    ] = "never"
    stop_timeout: Annotated[Duration, _doc("The longest that a shutdown may take; what is still alive then is killed.")] = "60s"
    on_death: Annotated[
        Literal["keep", "stop"], _doc("What becomes of programs when the daemon is killed and does not return within 10 s.")
    ] = "keep"
    history: Annotated[History | None, _doc("How much of the past is kept.")] = History()
    on_event: Annotated[list[EventHook] | None, _doc("What is done when something happens.")] = []


class File(Shape, frozen=True, kw_only=True):
    """A file of supervisord_async."""

    version: Annotated[Annotated[Literal[1], _expected("1, the only version of this format")], _doc("The version of this format.")] = 1
    include: Annotated[
        Annotated[str | list[str] | None, _expected("a list of paths")],
        _doc("Further files with `programs` and `defaults`: paths and globs, relative to this file."),
    ] = []
    daemon: Annotated[Daemon | None, _doc("The daemon itself; only in the main file.")] = None
    defaults: Annotated[Program | None, _doc("Merged deeply under every program of this file and of what it includes; lists replace.")] = (
        None
    )
    programs: Annotated[
        Annotated[
            dict[str, Program | None] | list[Program] | None, _expected("a mapping of names to programs, or a list of items with name")
        ],
        _doc("The programs, by name; or a list of items that carry `name`."),
    ] = None


#: A mapping whose shape has not been checked.
Data: TypeAlias = dict[str, Any]
