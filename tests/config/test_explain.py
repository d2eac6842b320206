"""What is wrong is said: all of it at once, each at its place, in words that help."""

import pytest

from supervisord_async.config import other_words, schema
from supervisord_async.config.load import load
from supervisord_async.errors import ConfigError


def test_every_problem_is_reported_at_once_in_order(project):
    problems = project.problems("""\
        daemon: {http: "0.0.0.0:80", exit_whn: never}
        defaults: {restart: {polcy: always}}
        programs:
          web:
            command: [sleep, 60]
            restart: {backof: {initial: 1s}, backoff: {initial: soon, max: -4, jitter: 2}}
            replicas: 0
            stop: {signal: TREM}
            logs: {format: jsn, max_size: 5 parsecs}
          db:
            comand: postgres
            restart: no
            heartbeat: soon
            environment: {A: [1], B: null}
          a b: {command: "x 'y"}
          all: {command: []}
          k: 5
    """)
    assert [problem.removeprefix("programs.yaml:") for problem in problems] == [
        (
            "1:16: daemon.http: others can reach '0.0.0.0:80', and without TLS they can read the token; set http_tls, choose a loopback "
            "address such as 127.0.0.1, or accept it by http_insecure: true"
        ),
        "1:30: daemon.exit_whn: unknown key; did you mean 'exit_when'?",
        "2:22: defaults.restart.polcy: unknown key; did you mean 'policy'?",
        "6:15: programs.web.restart.backof: unknown key; did you mean 'backoff'?",
        "6:57: programs.web.restart.backoff.initial: expected a duration such as 5s, 500ms or 1m30s, found 'soon'",
        "6:68: programs.web.restart.backoff.max: expected a duration such as 5s, 500ms or 1m30s, found -4",
        "6:80: programs.web.restart.backoff.jitter: expected a number from 0 to 1, found 2",
        "7:15: programs.web.replicas: expected a whole number from 1 to 10000, found 0",
        "8:20: programs.web.stop.signal: expected a signal such as TERM, HUP or 15, found 'TREM'; did you mean 'TERM'?",
        "9:20: programs.web.logs.format: expected json, raw or timestamp, found 'jsn'; did you mean 'json'?",
        "9:35: programs.web.logs.max_size: expected a size such as 50MiB, 10MB or a number of bytes, found '5 parsecs'",
        "11:5: programs.db.comand: unknown key; did you mean 'command'?",
        "12:14: programs.db.restart: expected always, on-failure, never, or a mapping, found no; did you mean 'never'?",
        "13:16: programs.db.heartbeat: expected a duration such as 5s, 500ms or 1m30s, or a mapping, found 'soon'",
        "14:19: programs.db.environment.A: expected text, found a list",
        '14:30: programs.db.environment.B: expected text, found nothing; did you mean ""?',
        (
            "15:3: programs.a b: expected a name of letters A-Z and a-z, digits, '_', '-', '.', '+' and '@', the first a letter, digit "
            "or '_', at most 100 long, found 'a b'"
        ),
        "15:18: programs.a b.command: a quote is opened and never closed, or a backslash ends it",
        "16:3: programs.all: 'all' cannot be a program's name: in commands it means every program",
        "16:9: programs.all.command: expected a list with at least one item, found an empty list",
        "17:6: programs.k: expected a mapping, found 5",
    ]


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("command: ''", "command: expected a command, found nothing to run"),
        ("command: ' '\nshell: true", "command: expected a command, found nothing to run"),
        ("command: [ls]\nshell: true", "command: expected a string with shell: true, found a list"),
        ("command: 5\nreplicas: 20000", "replicas: expected a whole number from 1 to 10000, found 20000"),
        (
            "command: x\nrestart: {max_restarts: -2}",
            "restart.max_restarts: expected a whole number from -1 (no limit) to 1000000, found -2",
        ),
        ("command: x\nrestart: {backoff: {factor: 0.5}}", "restart.backoff.factor: expected a number from 1 to 1000, found 0.5"),
        ("command: x\nrestart: {on_limit: {}}", "restart.on_limit: 'retry_after' is missing: FATAL for this long"),
        ("command: x\nrestart: {on_limit: explode}", "restart.on_limit: expected fatal, shutdown or {retry_after: 10m}, found 'explode'"),
        ("command: x\nrestart: {on_limit: {retry_after: 0}}", "restart.on_limit.retry_after: expected a duration above 0, found 0"),
        ("command: x\nheartbeat: 0s", "heartbeat.timeout: expected a duration above 0, found '0s'"),
        ("command: x\nheartbeat: {timeout: 5, fiel: y}", "heartbeat.fiel: unknown key; did you mean 'file'?"),
        (
            "command: x\nrestart: {success_exit_codes: [0, 300]}",
            "restart.success_exit_codes[1]: expected an exit code from 0 to 255, found 300",
        ),
        ("command: x\numask: '0999'", "umask: expected octal digits such as \"022\", found '0999'"),
        ("command: x\numask: '1777'", 'umask: expected octal digits from "000" to "777", found \'1777\''),
        ("command: x\nwatch: {ignore: [a]}", "watch: 'paths' is missing"),
        ("command: x\nwatch: [{pathes: [a]}]", "watch[0].pathes: unknown key; did you mean 'paths'?"),
        ("command: x\nautostart: 'yes'", "autostart: expected true or false, found 'yes'; did you mean yes, without quotes?"),
        ("limits: {nice: '5'}", "limits.nice: expected a whole number from -20 to 19, found '5'; did you mean 5, without quotes?"),
        ("command: x\nreplicas: 08", "replicas: expected a whole number from 1 to 10000, found '08'; did you mean 8?"),
        ("command: x\nstop: {scope: everything}", "stop.scope: expected main, mixed or tree, found 'everything'"),
        ("command: x\nlogs: {stdout: stdout}", "logs.stdout: expected a path, none or inherit, found 'stdout'"),
        ("command: x\nenvironment: {'A=B': c}", "environment.A=B: a variable's name cannot be empty, and holds no '='"),
        ("command: x\nenvironment: nothing", "environment: expected a mapping of names to values, found 'nothing'"),
        ("command: x\ngroup: 'a:b'", "group: expected a name of letters"),
        ('command: x\ngroup: "a\\n"', "group: expected a name of letters"),
        ("command: x\nname: other", "name: the program's name is its key, 'web'; leave this out"),
        ("command: a | b", "warning: command: '|' is passed on as it stands; only a shell understands it: set shell: true"),
        ("command: x\nenvironment: {ASUP_NAME: y}", "warning: environment.ASUP_NAME: the daemon gives this variable to each run"),
        ("command: x\nrestart: {backoff: {initial: 2m}}", "warning: restart.backoff.initial: the first delay is above backoff.max"),
    ],
)
def test_a_wrong_setting_says_what_was_expected(project, lines, complaint):
    found = project.program_problems(lines)
    assert any(problem.startswith(complaint) for problem in found), found


@pytest.mark.parametrize(("where", "found"), [("", "none of them"), (", command: mail, url: 'http://x/'", "command and url")])
def test_an_event_goes_to_a_command_or_to_a_url(project, where, found):
    (problem,) = project.problems(f"{{daemon: {{on_event: [{{events: [fatal]{where}}}]}}, programs: {{w: {{command: x}}}}}}")
    assert problem.endswith(f"daemon.on_event[0]: expected exactly one of command and url, found {found}")


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("readiness: {}", "readiness: expected exactly one of http, tcp, command and log, found none of them"),
        ("readiness: {http: 'http://x', tcp: 'x:1'}", "readiness: expected exactly one of http, tcp, command and log, found http and tcp"),
        ("readiness: {http: 'ftp://x'}", "readiness.http: expected a URL such as"),
        ("readiness: {tcp: x}", "readiness.tcp: expected HOST:PORT"),
        ("liveness: {log: '('}", "liveness.log: expected a regular expression, found '('"),
        ("readiness: {log: '(?=x)y'}", "readiness.log: expected a regular expression, found '(?=x)y' (invalid perl operator: (?=)"),
        ("watch: {paths: [x], ignore: [a, '!']}", "watch.ignore[1]: expected a pattern as in .gitignore, found '!'"),
        ("watch: [{paths: [x], ignore: ['a\\']}]", "watch[0].ignore[0]: expected a pattern as in .gitignore, found 'a"),
        ("liveness: {log: x, start_timeout: 5s}", "liveness.start_timeout: unknown key"),
        ("sockets: {a: 'http://x:1'}", "sockets.a.url: expected tcp://HOST:PORT, udp://HOST:PORT or unix:PATH"),
        ("sockets: {a: {url: 'tcp:x'}}", "sockets.a.url: expected tcp://HOST:PORT, udp://HOST:PORT or unix:PATH"),
        ("sockets: {'a:b': 'tcp://:1'}", "sockets.a:b: a socket's name is printable ASCII without ':'"),
        ("schedule: sometimes", "schedule.at: expected a cron line"),
        ("schedule: '@every 1ms'", "schedule.at: expected an interval of 100ms or longer, found '@every 1ms'"),
        ("schedule: {at: '@every 0s'}", "schedule.at: expected a duration above 0"),
        (
            "schedule: {at: '0 * * * *', timezone: Mars/Base}",
            "schedule.timezone: expected a time zone such as Europe/Berlin, found 'Mars/Base'",
        ),
        ("limits: {nice: 99}", "limits.nice: expected a whole number from -20 to 19, found 99"),
        ("limits: {ionice: fast}", "limits.ionice: expected idle, best-effort"),
        ("start_on_connect: true", "start_on_connect: this needs sockets"),
    ],
)
def test_a_wrong_setting_of_later_work_says_what_was_expected(project, lines, complaint):
    found = project.program_problems(f"command: x\n{lines}")
    assert any(problem.startswith(complaint) for problem in found), found


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("Daily", "found 'Daily' (Wrong number of fields); did you mean '@daily'?"),
        ("5m", "found '5m' (Wrong number of fields); did you mean '@every 5m'?"),
        ("every 1h30m", "found 'every 1h30m' (Wrong number of fields); did you mean '@every 1h30m'?"),
        ("'@reboot'", "; what runs once when the daemon starts has 'autostart: true' and no schedule"),
        ("0 25 * * *", "found '0 25 * * *' (Bad hour)"),
    ],
)
def test_a_schedule_in_others_words_is_told_ours(project, line, meant):
    (found,) = project.program_problems(f"command: x\nschedule: {line}")
    assert found.endswith(meant)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "programs.yaml:1:1: expected a mapping with 'programs'; the file is empty"),
        ("# nothing\n", "programs.yaml:1:1: expected a mapping with 'programs'; the file is empty"),
        ("- a", "programs.yaml:1:1: expected a mapping with 'programs'; found a list"),
        ("version: 1", "programs.yaml:1:1: programs: missing; expected a mapping of names to programs"),
        ("version: 2\nprograms: {}", "programs.yaml:1:10: version: expected 1, the only version of this format, found 2"),
        (
            "programs: web",
            "programs.yaml:1:11: programs: expected a mapping of names to programs, or a list of items with 'name', found 'web'",
        ),
        ("programs: {}\nprogrms: {}", "programs.yaml:2:1: progrms: unknown key; did you mean 'programs'?"),
        ("programs: {}", "programs.yaml:1:1: warning: programs: there are no programs"),
        ("programs:", "programs.yaml:1:1: warning: programs: there are no programs"),
        ("programs: {web: }", "programs.yaml:1:12: programs.web.command: a program needs a command: a list of words, or a string"),
        ("daemon: 5\nprograms: {}", "programs.yaml:1:9: daemon: expected a mapping, found 5"),
        ("programs: {w: {command: x}}\ndefaults: {name: y}", "programs.yaml:2:12: defaults.name: 'defaults' cannot have a name"),
    ],
)
def test_a_file_that_is_no_configuration_says_why(project, text, complaint):
    assert complaint in project.problems(text)


@pytest.mark.parametrize("text", ["programs: web", "programs: [web]", "programs: [{command: x}]"])
def test_programs_that_cannot_be_read_are_not_told_to_be_none(project, text):
    [problem] = project.problems(text)
    assert "warning" not in problem


def test_an_included_file_may_be_empty_and_all_together_may_not(project):
    project.write("conf.d/a.yaml", "programs: {}\n")
    project.write("conf.d/b.yaml", "programs: {web: {command: x}}\n")
    assert project.problems("include: [conf.d/a.yaml, conf.d/b.yaml]") == []
    assert project.problems("include: [conf.d/a.yaml]\nprograms: {}") == ["programs.yaml:2:1: warning: programs: there are no programs"]


def test_problems_of_included_files_name_them_as_the_user_would(project):
    project.write("conf.d/a.yaml", "programs:\n  web: {command: x, bad: 1}\ndaemon: {}\n")
    assert project.problems("include: [conf.d/*.yaml, gone.yaml, nowhere/*.yaml]\nprograms:\n  web: {command: x}") == [
        "conf.d/a.yaml:2:3: programs.web: this program is defined twice; first at programs.yaml:3:3",
        "conf.d/a.yaml:3:1: daemon: only the main file has a daemon section",
        f"programs.yaml:1:26: include[1]: cannot read {project.folder}/gone.yaml: no such file",
        f"programs.yaml:1:37: warning: include[2]: there is no folder {project.folder}/nowhere",
    ]


def test_words_of_other_supervisors_are_told_ours(project):
    found = project.program_problems(
        "command: x\nautorestart: true\nstopsignal: INT\nExecStartPre: y\nnumprocs: 2\nworking_dir: /\nretsart: always"
    )
    assert found == [
        "autorestart: unknown key; here it is called 'restart'",
        "stopsignal: unknown key; here it is called 'stop.signal'",
        "ExecStartPre: unknown key; here it is called 'hooks.before_start'",
        "numprocs: unknown key; here it is called 'replicas'",
        "working_dir: unknown key; here it is called 'directory'",
        "retsart: unknown key; did you mean 'restart'?",
    ]


def test_units_of_systemd_are_told_ours_or_what_to_do_without(project):
    found = project.program_problems(
        "command: x\nReadWritePaths: /srv\nAmbientCapabilities: CAP_NET_RAW\nLoadCredential: a:/b\nRestartMaxDelaySec: 5m\n"
        "OOMScoreAdjust: 5\nPersistent: true\nStartLimitAction: reboot\nBefore: web\nRemainAfterExit: true\ntimeout: 5m\n"
        "hooks: {before: x}\nnotify: {timeout: 5}"
    )
    assert [problem.partition(": unknown key")[::2] for problem in found] == [
        ("ReadWritePaths", "; there is no sandboxing: keep such a service a unit"),
        ("AmbientCapabilities", "; capabilities are kept as they are: let the command begin with setpriv(1)"),
        ("LoadCredential", "; a secret comes by 'environment_files', or from a file that the program reads"),
        ("RestartMaxDelaySec", "; here it is called 'restart.backoff'"),
        ("OOMScoreAdjust", "; here it is called 'limits.oom_score_adj'"),
        ("Persistent", "; here it is called 'schedule.catch_up'"),
        ("StartLimitAction", "; here it is called 'restart.on_limit'"),
        ("Before", "; the other program names this one in its 'depends_on'"),
        ("RemainAfterExit", "; a job that ends well stays EXITED, and 'depends_on: {it: succeeded}' holds from then on"),
        ("timeout", "; no run is ended for its age: let the command begin with timeout(1)"),
        ("hooks.before", "; here it is called 'before_start'"),
        ("notify.timeout", "; did you mean 'start_timeout'?"),
    ]


def test_what_looks_like_a_key_of_ours_and_means_another_is_told(project):
    """systemd's Group is who it runs as, and our group is only a name for several programs."""
    found = project.program_problems(
        "command: x\nGroup: www-data\nOnFailure: mail@%n.service\ndeploy: {replicas: 2}\ninit: true\nhostname: web\nread_only: true\n"
        "is_tty: true\ndisabled: true\nTimeoutSec: 5\nstdout_events_enabled: true\nstartdelaysecs: 3\nrestart: {exit_on_end: true}"
    )
    assert [problem.partition(": unknown key; ")[::2] for problem in found] == [
        ("Group", "here it is called 'group_name'"),
        ("OnFailure", "'restart' says what follows a failure; 'daemon.on_event' runs a command, or calls a URL, where it is one for good"),
        ("deploy", "of it 'replicas' is a key here, 'limits' what it may use, and 'restart' when it is started again"),
        ("init", "asupd ends and reaps whatever a program leaves behind"),
        ("hostname", "programs run on the machine itself and use its network"),
        ("read_only", "programs run on the machine itself and see its files"),
        (
            "is_tty",
            (
                "programs have no terminal, and nothing to read from; what only looks for a terminal finds that of script(1): "
                "[script, -qefc, COMMAND, /dev/null]"
            ),
        ),
        ("disabled", "here it is 'autostart: false'"),
        ("TimeoutSec", "'readiness.start_timeout' bounds the start, 'stop.grace_period' the stop"),
        ("stdout_events_enabled", "`asupctl logs -f NAME --json` gives each line to another program"),
        ("startdelaysecs", "'depends_on' waits for what it needs; for a mere delay 'hooks.before_start: [sleep, 3]'"),
        (
            "restart.exit_on_end",
            "'restart: {max_restarts: 0, on_limit: shutdown}' ends the daemon with this program, 'daemon.exit_when: any_fatal' with any",
        ),
    ]


def test_the_words_of_others_lead_to_keys_that_exist():
    known = schema.reference_text()
    assert all(f"| `{key}` |" in known for key in (*other_words._WORDS, *other_words._INSIDE))
    assert all(f"| `{kind}.{key}` |" in known for key in other_words._PROBE for kind in ("readiness", "liveness"))


def test_the_top_of_other_files_is_told_ours(project):
    assert project.problems("version: 3\nservices: {}\nunix_http_server: {}\nnonsense: 1") == [
        "programs.yaml:1:10: version: expected 1, the only version of this format, found 3",
        "programs.yaml:2:1: services: unknown key; here it is called 'programs'",
        "programs.yaml:3:1: unix_http_server: unknown key; here it is called 'daemon.socket'",
        "programs.yaml:4:1: nonsense: unknown key",
    ]


def test_values_of_other_supervisors_are_told_ours(project):
    found = project.program_problems(
        "command: x\nrestart: unless-stopped\ndepends_on: {db: {condition: service_healthy}}\nlimits: {memory: 512m}\n"
        "readiness: {tcp: 1, periodSeconds: 3}\nimage: y\nenvironment: [A=1]\npriority: 3"
    )
    assert found == [
        "restart: expected always, on-failure, never, or a mapping, found 'unless-stopped'; did you mean 'always'?",
        "depends_on.db: expected completed, ready, started or succeeded, found a mapping; did you mean 'ready'?",
        "limits.memory: expected a size such as 50MiB, 10MB or a number of bytes, found '512m'; did you mean '512MiB'?",
        "readiness.periodSeconds: unknown key; here it is called 'interval'",
        "image: unknown key; programs run on the machine itself, without images",
        "environment: expected a mapping of names to values, found a list; did you mean {NAME: value, …}?",
        "priority: unknown key; what must be up first is named by 'depends_on'",
    ]
    assert project.program_problems("command: x\nrestart: on-abnormal\nRuntimeDirectory: web\nLimitMEMLOCK: 1") == [
        "restart: expected always, on-failure, never, or a mapping, found 'on-abnormal'; did you mean 'on-failure'?",
        (
            "RuntimeDirectory: unknown key; /run is empty after a boot: a program {command: [install, -d, -o, USER, /run/NAME], "
            "restart: never} makes the folder, and 'depends_on: {it: succeeded}' waits for that"
        ),
        "LimitMEMLOCK: unknown key; let the command begin with prlimit(1)",
    ]
    assert project.program_problems("command: x\nrestart: no") == [
        "restart: expected always, on-failure, never, or a mapping, found no; did you mean 'never'?"
    ]


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("watch: true", "watch: expected a list of paths, or a mapping with paths, found true; did you mean ['.']?"),
        ("watch: src", "found 'src'; did you mean [src]?"),
        ("depends_on: db", "found 'db'; did you mean [db]?"),
        ("environment: [TOKEN=hunter22]", "found a list; did you mean {NAME: value, …}?"),
        ("logs: /tmp/x.log", "logs: expected a mapping, found '/tmp/x.log'; did you mean {stdout: /tmp/x.log}?"),
        ("logs: false", "did you mean {stdout: none}?"),
        ("stop: 30s", "did you mean {grace_period: 30s}?"),
        ("stop: QUIT", "did you mean {signal: QUIT}?"),
        ("logs: {stdout: off}", "logs.stdout: expected a path, found off; did you mean none?"),
        ("schedule: '@every 10 minutes'", "found '10 minutes'; did you mean '10m'?"),
        ("stop: {grace_period: 10 s}", "found '10 s'; did you mean '10s'?"),
        ("start_seconds: 5min", "found '5min'; did you mean '5m'?"),
        ("heartbeat: 1 hour 30 secs", "found '1 hour 30 secs'; did you mean '1h30s'?"),
        ("liveness: {tcp: 'x:1', timeout: 500 msec}", "found '500 msec'; did you mean '500ms'?"),
        ("environment: {EMPTY: }", 'environment.EMPTY: expected text, found nothing; did you mean ""?'),
        ("readiness: 'http://x/'", "did you mean {http: http://x/}?"),
        ("readiness: {http: {port: 80}}", "readiness.http: expected a URL such as http://127.0.0.1:8080/healthz, found a mapping"),
        ("limits: {memory: 300}", "warning: limits.memory: no program needs so little: a number alone is bytes; write 300MiB"),
        ("stop: {command: 'kill $ASUP_MAIN_PID'}", "warning: stop.command: '$ASUP_MAIN_PID' is passed on as it stands"),
        ("stop: {command: 'kill $ASUP_MAIN_PID'}", "for the daemon's variable, or make it [sh, -c, '…']"),
    ],
)
def test_what_others_write_in_another_shape_is_told_in_ours(project, lines, complaint):
    found = project.program_problems(f"command: x\n{lines}")
    assert any(complaint in problem for problem in found), found


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("serve --port=$PORT", "'--port=$PORT' is passed on as it stands: write ${NAME} for the daemon's variable, or set shell: true"),
        ("[serve, $PORT]", "'$PORT' is passed on"),
        ("PASSWORD=hunter22 serve", "'PASSWORD=…' is taken for the program: set variables in 'environment', or set shell: true"),
        ("~/bin/serve", "'~/bin/serve' is passed on as it stands: write ${HOME}/bin/serve, or set shell: true"),
        ("[serve, ~/data]", "'~/data' is passed on as it stands: write ${HOME}/data, or set shell: true"),
        ("cd /srv", "'cd' is a shell's own command: 'directory' says where it runs, or set shell: true"),
        (
            "[source, venv/bin/activate]",
            "'source' is a shell's own command: begin with the environment's own interpreter, such as venv/bin/python",
        ),
        ("source venv/bin/activate && serve\nshell: true", "'source' is bash's own word, which many a /bin/sh lacks: there it is '.'"),
        ("serve; other", "';' is passed on as it stands; only a shell understands it"),
        ("serve >out.log", "'>' is passed on as it stands"),
        ("serve 2>/dev/null", "'2>' is passed on as it stands"),
        ("serve 2>&1", "'2>&1' is passed on as it stands"),
        ("serve &>>out.log", "'&>>' is passed on as it stands"),
        ("serve && other", "'&&' is passed on as it stands"),
        ("serve&", "'&' is passed on as it stands"),
        ('"serve x\\nother y"', "its line breaks are taken for spaces; for a script of several lines set shell: true"),
        ('"serve x\\n  y\\n--z \\\\\\n  a\\n"', None),
        ("find . -exec touch {} \\;", None),
        ("echo '|' \">\"", None),
        ("curl http://127.0.0.1/?a=1&b=2;c -w %{http_code}>", None),
        ("sh -c 'echo $PORT'", None),
        ("[sh, -c, $PORT]", None),
        ("awk $NF", None),
        ("grep x$ $1", None),
    ],
)
def test_what_only_a_shell_would_replace_is_warned_of(project, command, complaint):
    found = project.program_problems(f"command: {command}")
    assert len(found) == (complaint is not None) and all(complaint in problem for problem in found), found
    assert "hunter22" not in str(found)


@pytest.mark.parametrize("key", ["comand", "ExecStart"])
def test_a_command_under_another_name_is_told_once(project, key):
    [problem] = project.problems(f"programs: {{web: {{{key}: x}}}}")
    assert "unknown key" in problem


def test_a_command_in_the_place_of_a_program_is_told_where_it_belongs(project):
    assert project.problems("programs: {web: sleep 5}") == [
        "programs.yaml:1:17: programs.web: expected a mapping, found 'sleep 5'; did you mean {command: 'sleep 5'}?"
    ]


def test_a_key_that_is_indented_too_little_is_told_so(project):
    assert project.problems("programs:\n  web:\n  command: sleep 5\n  environment:\n    A: b\nrestart: always\n") == [
        "programs.yaml:2:3: programs.web.command: a program needs a command: a list of words, or a string",
        "programs.yaml:3:3: programs.command: 'command' is a program's key: indent it further, below the program's name",
        "programs.yaml:4:3: programs.environment: 'environment' is a program's key: indent it further, below the program's name",
        "programs.yaml:6:1: restart: unknown key; 'restart' is a program's key: indent it further, below the program's name",
    ]
    assert project.problems("watch:\n  command: sleep 5\n") == [
        "programs.yaml:1:1: programs: missing; expected a mapping of names to programs",
        "programs.yaml:1:1: watch: unknown key; a program belongs below 'programs'",
    ]


def test_a_range_of_numbers_is_not_taken_for_one_of_them(project):
    assert project.program_problems("command: x\nlimits: {cpu_affinity: 0-3}") == [
        "limits.cpu_affinity: expected a list of CPU numbers, found '0-3'"
    ]


def test_slips_in_the_daemons_section_are_told(project):
    assert project.problems("daemon: {log: own.log, port: 80}\nprograms: {web: {command: x}}") == [
        "programs.yaml:1:15: daemon.log: expected a mapping, found 'own.log'; did you mean {file: own.log}?",
        "programs.yaml:1:24: daemon.port: unknown key",
    ]


def test_a_folder_is_no_file_to_include(project):
    (project.folder / "conf.d").mkdir()
    [problem] = project.problems("include: [conf.d]\nprograms: {}")
    assert problem.endswith("/conf.d: it is a folder; its files are meant by FOLDER/*.yaml")


def test_a_program_may_be_called_as_one_of_the_keys(project):
    assert project.problems("programs: {watch: {command: x}, notify: {comand: y}}") == [
        "programs.yaml:1:42: programs.notify.comand: unknown key; did you mean 'command'?"
    ]
    assert project.problems("defaults: {command: x}\nprograms: {notify: {replicas: 2}}") == []


def test_an_item_of_the_list_of_programs_needs_its_name_as_a_key(project):
    for item in ("web: {command: x}", "{web: , command: x}"):
        [problem] = project.problems(f"programs:\n  - {item}\n")
        assert problem.endswith(": programs[0]: expected a mapping with 'name', found one without; did you mean 'name: web'?")


@pytest.mark.parametrize("text", ["# ours\n\n[program:web]\ncommand=x\n", "[Unit]\nDescription = x\n[Service]\n"])
def test_an_ini_file_is_taken_for_one(project, text):
    [problem] = project.problems(text)
    assert "this looks like an INI file" in problem
    assert problem.startswith(f"programs.yaml:{text[: text.index('[')].count(chr(10)) + 1}:1:")
    [other] = project.problems("[a, b]\nc: d\n")
    assert "INI" not in other


@pytest.mark.parametrize(
    ("text", "line", "whose"),
    [
        ("// pm2\nmodule.exports = { apps: [{\n  name: 'api',\n}] };\n", 2, "JavaScript"),
        ("apiVersion: v1\nkind: Pod\nspec: {}\n---\nkind: Service\n", 2, "a Kubernetes manifest"),
        ("apiVersion: v1\nkind: Pod\nspec: {}\n", 2, "a Kubernetes manifest"),
        ("# ours\n\nweb: serve --port ${PORT}\nworker: env A=b python w.py", 3, "a Procfile"),
        ("web: sh -c 'a: b'\n", 1, "a Procfile"),
    ],
)
def test_another_supervisors_file_is_told_as_one_and_nothing_else(project, text, line, whose):
    [problem] = project.problems(text)
    assert problem.startswith(f"programs.yaml:{line}:1: this looks like {whose}")


@pytest.mark.parametrize(
    "text", ["version: 1\n", "programs: {web: {command: x}}\nkind: Pod\n", "programs: web: x\n", "include: x: y\n", "prgrams:\n  web: x\n"]
)
def test_a_slip_is_not_taken_for_another_supervisors_file(project, text):
    assert not [problem for problem in project.problems(text) if "looks like" in problem]


def test_words_of_containers_and_of_node_are_told_ours_also_inside_of_their_sections(project):
    found = project.program_problems(
        "command: x\nterminationGracePeriodSeconds: 30\nbackoffLimit: 3\ninitContainers: []\ncron_restart: '0 3 * * *'\nwait_ready: true\n"
        "stop: {preStop: x, timeout: 5}\nlimits: {cpu: 500m, nofile: 5}\nschedule: {at: '@every 5m', concurrencyPolicy: Forbid}\n"
        "hooks: {after_start: x}"
    )
    assert [problem.partition(": unknown key; ")[::2] for problem in found] == [
        ("terminationGracePeriodSeconds", "here it is called 'stop.grace_period'"),
        ("backoffLimit", "here it is called 'restart.max_restarts'"),
        ("initContainers", "each is a program of its own; 'depends_on: {it: succeeded}' waits for it"),
        (
            "cron_restart",
            "a program with a schedule restarts another: {command: [asupctl, restart, NAME], schedule: '0 3 * * *'}",
        ),
        ("wait_ready", "process.send('ready') is not heard: say READY=1 by 'notify', or let 'readiness' look for a line or ask"),
        ("stop.preStop", "here it is called 'command'"),
        ("stop.timeout", "here it is called 'grace_period'"),
        ("limits.cpu", "there is no limit of CPU time but 'limits.nice' and 'limits.cpu_affinity'"),
        ("limits.nofile", "here it is called 'open_files'"),
        ("schedule.concurrencyPolicy", "a schedule never starts what still runs, like Forbid"),
        ("hooks.after_start", "what follows the start is a program of its own, with 'depends_on: {this: ready}'"),
    ]


def test_expansions_of_supervisord_are_warned_of(project):
    found = project.program_problems(
        "command: serve %(ENV_PORT)s %(asctime)s\nenvironment: {A: '%(here)s/a'}\nlogs: {stdout: 'logs/%(program_name)s.log'}"
    )
    assert [line.partition(" is passed on as it stands")[0] for line in found] == [
        "warning: command: %(ENV_PORT)s",
        "warning: environment.A: %(here)s",
        "warning: logs.stdout: %(program_name)s",
    ]


def test_a_mistake_in_defaults_is_said_once_at_its_place(project):
    assert project.problems("""\
        defaults: {stop: {signal: NOPE}, heartbeat: {timeout: 0}}
        programs: {a: {command: x}, b: {command: x}, c: {command: x, stop: {grace_period: 1s}}}
    """) == [
        "programs.yaml:1:27: defaults.stop.signal: expected a signal such as TERM, HUP or 15, found 'NOPE'",
        "programs.yaml:1:55: defaults.heartbeat.timeout: expected a duration above 0, found 0",
    ]


def test_problems_name_the_file_as_it_was_given(tmp_path, monkeypatch):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/p.yaml").write_text("a: 1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^conf/p\.yaml:1:1: "):
        load("conf/p.yaml", environ={})


def test_a_long_socket_path_is_refused_with_advice(project):
    (problem,) = project.problems(f"daemon: {{run_dir: {'d' * 120}}}\nprograms: {{w: {{command: x}}}}")
    assert "daemon.run_dir: a unix socket's path holds 107 bytes" in problem
    assert "set daemon.socket to a shorter path" in problem


@pytest.mark.parametrize(
    "key",
    [
        "run_dir",
        "socket",
        "http_token_file",
        "log.file",
        "http_tls.certificate",
        "http_tls.key",
        "heartbeat.file",
        "logs.stdout",
        "logs.stderr",
    ],
)
def test_no_path_is_empty(project, key):
    """It would mean the folder of the file: a daemon without a log or a control socket."""
    outer, _, inner = key.rpartition(".")
    settings = f"{outer}: {{{inner}: ''}}" if outer else f"{inner}: ''"
    if outer in ("heartbeat", "logs"):
        problems = project.program_problems(f"command: x\n{settings}")
    else:
        problems = [
            problem.partition("daemon.")[2] for problem in project.problems(f"daemon: {{{settings}}}\nprograms: {{w: {{command: x}}}}")
        ]
    assert f"{key}: expected a path, found ''" in problems


def test_a_message_stays_on_one_line_and_shows_no_control_characters(project):
    problems = project.problems('programs: {"a\\nb\\e[31m": {command: x, "k\\x07": 1, umask: "\\x1b[2J"}}')
    assert len(problems) == 3
    assert all(problem.isprintable() for problem in problems)


@pytest.mark.parametrize(
    ("settings", "problems"),
    [
        (
            "restart: {on_limit: {retry_after: -1}}",
            ["restart.on_limit.retry_after: expected a duration such as 5s, 500ms or 1m30s, found -1"],
        ),
        ("watch: {paths: src}", ["watch.paths: expected a list with at least one item, found 'src'; did you mean [src]?"]),
        ("limits: {cpu_affinity: [-1]}", ["limits.cpu_affinity[0]: expected a whole number from 0 to 8191, found -1"]),
    ],
)
def test_what_is_wrong_is_not_missed_as_well(project, settings, problems):
    """A part that is wrong is taken out; that it is out is no further problem."""
    assert project.program_problems(f"command: x\n{settings}") == problems
