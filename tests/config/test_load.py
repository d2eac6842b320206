"""From files to a configuration: merging, shorthands, paths, includes, defaults."""

import errno
import os

import msgspec
import pytest

from supervisord_async.config import files, model
from supervisord_async.config.load import load
from supervisord_async.core.policy import OnLimit, RestartPolicy
from supervisord_async.errors import ConfigError


@pytest.mark.parametrize("block", ["|", ">"])
def test_a_backslash_at_the_end_of_a_line_takes_the_line_break_away_as_in_a_shell(project, block):
    program = project.program(f"""
        command: {block}
          serve \\
            --bind :80 "a \\
            b" \\
            'c\\
            d' e\\\\
    """)
    assert program.command == ("serve", "--bind", ":80", "a   b", "c\\\n  d", "e\\")


def test_a_command_alone_is_a_program_with_the_models_defaults(project):
    program = project.program("command: [sleep, 60]")
    plain = model.Program(
        name="web",
        command=("sleep", "60"),
        group="web",
        directory=str(project.folder),
        environment=project.environ,
        logs=model.Logs(stdout=f"{project.folder}/.asupd/logs/web.log"),
    )
    assert program == plain


def test_the_daemon_has_defaults_beside_the_file(project):
    daemon = project.configuration("programs: {a: {command: x}}").daemon
    run_dir = f"{project.folder}/.asupd"
    assert daemon == model.Daemon(name="programs", run_dir=run_dir, socket=f"{run_dir}/asupd.sock")


def test_every_daemon_key_reaches_the_model(project):
    project.write("c.pem", "")
    daemon = project.configuration("""
        daemon:
          name: shop
          run_dir: run
          socket: run/s
          socket_mode: 0660
          socket_group: adm
          http: 0.0.0.0:9001
          http_token_file: token
          http_tls: {certificate: c.pem, key: c.pem}
          log: {file: d.log, level: debug, format: json}
          exit_when: any_fatal
          stop_timeout: 5
          history: {max_age: 2d, max_size: 5MB}
        programs: {a: {command: x}}
    """).daemon
    folder = str(project.folder)
    assert daemon == model.Daemon(
        name="shop",
        run_dir=f"{folder}/run",
        socket=f"{folder}/run/s",
        socket_mode=0o660,
        socket_group="adm",
        http=("0.0.0.0", 9001),
        http_token_file=f"{folder}/token",
        http_tls=model.HttpTls(certificate=f"{folder}/c.pem", key=f"{folder}/c.pem"),
        log=model.DaemonLog(file=f"{folder}/d.log", level="debug", format="json"),
        exit_when="any_fatal",
        stop_timeout_seconds=5.0,
        history=model.History(max_age_seconds=172800.0, max_size_bytes=5_000_000),
    )


def test_shorthands_mean_what_they_stand_for(project):
    program = project.program("""
        command: gunicorn 'app:app' --name "my app"
        restart: always
        heartbeat: 5s
        watch: [src, ../lib]
        umask: 022
        stop: {signal: sigint, command: [kill, 5]}
    """)
    assert program.command == ("gunicorn", "app:app", "--name", "my app")
    assert program.restart.policy is RestartPolicy.ALWAYS
    assert program.heartbeat == model.Heartbeat(timeout_seconds=5.0)
    assert program.watch == (model.Watch(paths=(f"{project.folder}/src", str(project.folder.parent / "lib"))),)
    assert program.umask == 0o22
    assert program.stop == model.Stop(signal=2, command=("kill", "5"))


@pytest.mark.parametrize(
    ("settings", "autostart"),
    [
        ("", True),
        ("schedule: '@every 10m'", False),
        ("start_on_connect: true\nsockets: {http: 'tcp://127.0.0.1:8080'}", False),
        ("schedule: '@every 10m'\nautostart: true", True),
        ("start_on_connect: true\nsockets: {http: 'tcp://127.0.0.1:8080'}\nautostart: true", True),
        ("autostart: false", False),
    ],
)
def test_what_the_clock_or_a_connection_starts_does_not_start_with_the_daemon(project, settings, autostart):
    assert project.program(f"command: x\n{settings}").autostart is autostart


def test_times_that_may_be_nothing_may_be_nothing(project):
    program = project.program("""
        command: x
        start_seconds: 0
        stop: {grace_period: 0}
        heartbeat: {initial_delay: 0}
        liveness: {tcp: "127.0.0.1:1", initial_delay: 0}
        watch: {paths: [.], debounce: 0}
        restart: {reset_after: 0, backoff: {initial: 0, max: 0}}
    """)
    assert program.start_seconds == program.stop.grace_seconds == program.watch[0].debounce_seconds == 0
    assert program.restart.reset_after_seconds == program.restart.backoff.initial_seconds == program.restart.backoff.max_seconds == 0


def test_a_shell_runs_the_string_as_it_is(project):
    program = project.program("command: echo $HOME | tr a b\nshell: true")
    assert program.command == ("/bin/sh", "-c", "echo $HOME | tr a b")


def test_restart_settings_reach_the_model(project):
    restart = project.program("""
        command: x
        restart:
          policy: never
          success_exit_codes: [0, 2]
          prevent_exit_codes: [9]
          max_restarts: 3
          within: 10m
          on_limit: {retry_after: 10m}
          backoff: {initial: 30s, factor: 1, max: 45s, jitter: 0}
    """).restart
    assert restart == model.Restart(
        policy=RestartPolicy.NEVER,
        success_exit_codes=(0, 2),
        prevent_exit_codes=(9,),
        max_restarts=3,
        within_seconds=600.0,
        on_limit=OnLimit.RETRY,
        retry_after_seconds=600.0,
        backoff=model.Backoff(initial_seconds=30.0, factor=1.0, max_seconds=45.0, jitter=0.0),
        reset_after_seconds=45.0,
    )


def test_defaults_lie_under_every_program_mapping_by_mapping(project):
    programs = project.configuration("""
        defaults:
          restart: {max_restarts: 3, backoff: {initial: 1s, max: 9s}, success_exit_codes: [0, 1]}
          environment: {A: "1", B: "1"}
          heartbeat: 20s
          logs: {max_size: 1MiB, stdout: "logs/{program}.txt"}
          watch: {paths: [a], ignore: ["*.o"]}
          autostart: false
        programs:
          one:
            command: x
            restart: always
            environment: {B: "2"}
            watch: [b]
          two:
            command: x
            restart: {backoff: {initial: 2s}, success_exit_codes: [5]}
            heartbeat: null
            autostart: true
            logs: {backups: 1}
    """).programs
    one, two = programs["one"], programs["two"]
    assert (one.restart.policy, one.restart.max_restarts, one.restart.backoff.max_seconds) == (RestartPolicy.ALWAYS, 3, 9.0)
    assert (one.environment["A"], one.environment["B"]) == ("1", "2")
    assert (one.heartbeat is not None, two.heartbeat) == (True, None)
    assert (two.restart.backoff.initial_seconds, two.restart.backoff.max_seconds, two.restart.success_exit_codes) == (2.0, 9.0, (5,))
    assert (one.watch[0].paths, one.watch[0].ignore) == ((f"{project.folder}/b",), ("*.o",))
    assert [program.logs.stdout for program in (one, two)] == [f"{project.folder}/logs/{name}.txt" for name in ("one", "two")]
    assert (two.logs.max_size_bytes, two.logs.backups, one.autostart, two.autostart) == (2**20, 1, False, True)


def test_programs_may_be_a_list_of_named_items(project):
    programs = project.configuration("programs: [{name: b, command: x}, {name: a, command: y}]").programs
    assert list(programs) == ["b", "a"]
    assert project.problems("programs: [{command: x}, 5, {name: a, command: x}, {name: a, command: x}]") == [
        "programs.yaml:1:12: programs[0]: expected a mapping with 'name', found one without",
        "programs.yaml:1:26: programs[1]: expected a mapping with 'name', found 5",
        "programs.yaml:1:52: programs.a: this program is defined twice; first at programs.yaml:1:29",
    ]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.EACCES, errno.ENOTCONN])
def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(project, monkeypatch, number):
    project.write("conf.d/b.yaml", "programs:\n  b: {command: x}\n")
    folder, scandir = str(project.folder / "conf.d"), os.scandir

    def refuse(path="."):
        if path == folder:
            raise OSError(number, os.strerror(number), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    told = project.problems("include: [conf.d/*.yaml]\nprograms: {}")
    assert told == [f"programs.yaml:1:11: include[0]: cannot list {folder}: {os.strerror(number).lower()}"]


def test_a_pattern_means_what_a_shell_makes_of_it(project):
    for name in ("b/x.yaml", "b/c/x.yaml", "b/.hidden.yaml", "b/c/.d/x.yaml", "b/[1].yaml", "b/y.yml"):
        project.write(name, "")
    (project.folder / "b" / "loop").symlink_to(project.folder)
    root = str(project.folder)

    def meant(pattern):
        return [path.removeprefix(f"{root}/") for path in files.matching(f"{root}/{pattern}")]

    assert meant("b/*.yaml") == ["b/[1].yaml", "b/x.yaml"]
    assert meant("**/x.yaml") == ["b/c/x.yaml", "b/x.yaml"]
    assert meant("b/.*") == ["b/.hidden.yaml"]
    assert meant("?/c/../[xy].y*ml") == ["b/c/../x.yaml", "b/c/../y.yml"]
    assert meant("b/[[]1].yaml") == ["b/[1].yaml"]
    assert meant("none/*/x") == meant("b/x.yaml/*") == []


def test_a_pattern_over_half_the_disk_is_refused(project, monkeypatch):
    monkeypatch.setattr(files, "MAX_NAMES", 5)
    for number in range(6):
        project.write(f"far/{number}", "")
    told = project.problems("include: ['**/x.yaml']\nprograms: {}")
    assert told == [f"programs.yaml:1:11: include[0]: cannot list {project.folder}/far: more than 5 names to look at"]


def test_a_machine_that_is_short_of_something_is_a_problem_of_the_file_as_a_whole(project, monkeypatch):
    def refuse():
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("supervisord_async.config.path_kinds.mounts", refuse)
    assert project.problems("programs: {a: {command: x}}") == ["programs.yaml:0:1: cannot be loaded now: too many open files"]


def test_included_files_bring_programs_with_their_own_paths_and_defaults(project):
    project.write("conf.d/a.yaml", "defaults: {stop: {grace_period: 1s}}\nprograms:\n  a: {command: x, logs: {stdout: a.txt}}\n")
    project.write("conf.d/b.yaml", "programs:\n  b: {command: x}\ninclude: [deeper/c.yaml]\n")
    project.write("conf.d/deeper/c.yaml", "programs: [{name: c, command: x}]\n")
    configuration = project.configuration("""
        include: [conf.d/*.yaml, "*.yaml"]
        defaults: {stop: {signal: INT}, directory: .}
        programs: {main: {command: x}}
    """)
    assert list(configuration.programs) == ["main", "a", "b", "c"]
    a, c = configuration.programs["a"], configuration.programs["c"]
    assert (a.logs.stdout, a.stop.signal, a.stop.grace_seconds) == (f"{project.folder}/conf.d/a.txt", 2, 1.0)
    assert (c.stop.signal, c.stop.grace_seconds, c.directory) == (2, 10.0, str(project.folder))


def test_files_without_end_are_not_read(project, monkeypatch):
    monkeypatch.setattr("supervisord_async.config.load.MAX_FILES", 3)
    for number in range(5):
        project.write(f"conf.d/{number}.yaml", f"programs: {{p{number}: {{command: x}}}}")
    assert project.problems("include: conf.d/*.yaml\nprograms: {}") == ["programs.yaml:1:10: include: more than 3 files"]


def test_without_a_directory_a_program_runs_beside_its_file(project):
    project.write("sub/a.yaml", "programs: {a: {command: x}}")
    assert project.configuration("include: sub/a.yaml\nprograms: {}").programs["a"].directory == f"{project.folder}/sub"


def test_a_run_dir_from_outside_moves_everything(project):
    path = project.write("p.yaml", "daemon: {run_dir: a, socket: b}\nprograms: {w: {command: x}}")
    configuration = load(path, environ={}, run_dir=str(project.folder / "elsewhere")).configuration
    elsewhere = f"{project.folder}/elsewhere"
    assert (configuration.daemon.run_dir, configuration.daemon.socket) == (elsewhere, f"{elsewhere}/asupd.sock")
    assert configuration.programs["w"].logs.stdout == f"{elsewhere}/logs/w.log"


def test_replicas_get_logs_of_their_own(project):
    def logs(lines):
        return project.program(f"command: x\nreplicas: 2\n{lines}").logs

    folder = project.folder
    assert logs("").stdout == f"{folder}/.asupd/logs/web-{{replica}}.log"
    assert logs("logs: {stdout: a.b.log, stderr: err}").stdout == f"{folder}/a.b-{{replica}}.log"
    assert logs("logs: {stdout: a.b.log, stderr: err}").stderr == f"{folder}/err-{{replica}}"
    assert logs("logs: {stdout: 'x/{replica}/{program}.log'}").stdout == f"{folder}/x/{{replica}}/web.log"
    assert logs("logs: {stdout: /dev/null, stderr: none}").stdout == "/dev/null"
    assert project.program("command: x\nlogs: {stdout: 'x-{replica}'}").logs.stdout == f"{folder}/x-{{replica}}"


def test_stderr_at_the_path_of_stdout_is_stdout(project):
    assert project.program("command: x\nlogs: {stdout: a, stderr: ./a}").logs.stderr == "stdout"


def test_watching_sends_the_reload_signal_unless_told_otherwise(project):
    def signals(lines):
        return [watch.signal for watch in project.program(f"command: x\n{lines}").watch]

    assert signals("watch: [a]") == [None]
    assert signals("watch: [a]\nreload_signal: HUP") == [1]
    assert signals("watch: {paths: [a], action: restart}\nreload_signal: HUP") == [None]
    assert signals("watch: [a, {paths: [b], action: USR1}]") == [None, 10]


def test_tilde_is_the_daemons_home(project):
    assert project.program("command: x\ndirectory: ~/app").directory == "/home/me/app"


def test_a_byte_order_mark_is_no_matter(tmp_path):
    (tmp_path / "p.yaml").write_bytes(b"\xef\xbb\xbfprograms: {a: {command: x}}")
    assert list(load(tmp_path / "p.yaml", environ={}).configuration.programs) == ["a"]


def test_equal_files_mean_equal_configurations(project):
    text = "programs: {a: {command: x, restart: always}, b: {command: y, replicas: 2}}"
    assert project.configuration(text) == project.configuration(text)
    assert msgspec.json.encode(project.configuration(text)) == msgspec.json.encode(project.configuration(text))


def test_a_thousand_programs_are_all_there(project):
    lines = "\n".join(f"  p{n}: {{command: [sleep, '{n}'], restart: {{max_restarts: {n}}}}}" for n in range(1000))
    programs = project.configuration(f"programs:\n{lines}\n").programs
    assert [program.restart.max_restarts for program in programs.values()] == list(range(1000))


def test_a_file_that_cannot_be_read_is_a_problem_like_others(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "latin").write_bytes(b"a: 1\nb: \xff")
    (tmp_path / "big").write_bytes(b"#" * (8 * 2**20 + 1))
    for name, words in (
        ("gone", "no such file"),
        (".", "is a directory"),
        ("fifo", "not a regular file"),
        ("latin", "2:1: this is not UTF-8"),
    ):
        with pytest.raises(ConfigError, match=words):
            load(tmp_path / name, environ={})
    with pytest.raises(ConfigError, match="more than 8388608 bytes"):
        load(tmp_path / "big", environ={})


def test_keys_of_later_work_reach_the_model(project):
    configuration = project.configuration("""
        programs:
          db: {command: x}
          web:
            command: x
            depends_on: [db]
            on_dependency_failure: fail
            restart_with_dependency: true
            notify: true
            readiness: {http: "http://127.0.0.1:8080/healthz"}
            liveness: {tcp: "127.0.0.1:8080", interval: 5s}
            sockets: {http: "tcp://127.0.0.1:8080", s: {url: "unix:s.sock", mode: "0600", user: nobody, backlog: 5}}
            start_on_connect: true
            rolling: true
            replicas: 2
            schedule: "*/5 * * * *"
            limits: {open_files: 5, core_size: 1MiB, memory: 1GiB, nice: 5, ionice: idle, cpu_affinity: [1, 0], no_new_privileges: true}
            hooks: {before_start: [echo, 1], after_exit: "echo 2"}
          nightly: {command: x, schedule: "@daily"}
          job: {command: x, schedule: {at: "@every 10m", timezone: Europe/Berlin, catch_up: once}, notify: {access: all, start_timeout: 5s}}
        daemon:
          on_death: stop
          on_event: [{events: [fatal], command: [mail, me]}, {events: [flapping], url: "http://x/y"}]
    """)
    web, job = configuration.programs["web"], configuration.programs["job"]
    assert web.depends_on == {"db": "started"}
    assert (web.on_dependency_failure, web.restart_with_dependency, web.start_on_connect, web.rolling) == ("fail", True, True, True)
    assert web.notify == model.Notify()
    assert web.readiness == model.Probe(kind="http", http="http://127.0.0.1:8080/healthz")
    assert web.liveness == model.Probe(kind="tcp", tcp=("127.0.0.1", 8080), interval_seconds=5.0)
    assert web.sockets == (
        model.Socket(name="http", kind="tcp", host="127.0.0.1", port=8080),
        model.Socket(name="s", kind="unix", path=f"{project.folder}/s.sock", mode=0o600, user="nobody", backlog=5),
    )
    assert web.schedule == model.Schedule(at="*/5 * * * *")
    assert web.limits == model.Limits(
        open_files=5, core_size_bytes=2**20, memory_bytes=2**30, nice=5, ionice="idle", cpu_affinity=(0, 1), no_new_privileges=True
    )
    assert web.hooks == model.Hooks(before_start=("echo", "1"), after_exit=("echo", "2"))
    assert configuration.programs["nightly"].schedule == model.Schedule(at="0 0 * * *")
    assert job.schedule == model.Schedule(at="@every 10m", every_seconds=600.0, timezone="Europe/Berlin", catch_up="once")
    assert job.notify == model.Notify(access="all", start_timeout_seconds=5.0)
    assert configuration.daemon.on_death == "stop"
    assert configuration.daemon.on_event == (
        model.EventHook(events=("fatal",), command=("mail", "me")),
        model.EventHook(events=("flapping",), url="http://x/y"),
    )
    policy = web.policy("web:0")
    assert (policy.start_timeout_seconds, policy.has_dependencies, policy.checks) == (60.0, True, ("readiness", "liveness"))


def test_a_probe_takes_back_another_kind_of_the_defaults(project):
    program = project.configuration("""
        defaults: {readiness: {http: "http://x/", interval: 9s}}
        programs: {web: {command: x, readiness: {tcp: "x:1"}}}
    """).programs["web"]
    assert program.readiness == model.Probe(kind="tcp", tcp=("x", 1), interval_seconds=9.0)


def test_a_quoted_variable_is_a_number_or_a_boolean_where_one_is_expected(project):
    variables = {"N": "2", "NO": "false", "TEXT": "many", "EMPTY": ""}
    program = project.program(
        """
        command: [sleep, "${N}"]
        description: "${N}"
        environment: {A: "${N}"}
        replicas: "${N}"
        autostart: "${NO}"
        notify: "${NO}"
        start_seconds: "${N}"
        restart: {max_restarts: "${M:-3}", success_exit_codes: ["${M:-0}"]}
        """,
        **variables,
    )
    assert (program.command[1], program.description, program.environment["A"]) == ("2", "2", "2")
    assert (program.replicas, program.autostart, program.notify, program.start_seconds) == (2, False, None, 2.0)
    assert (program.restart.max_restarts, program.restart.success_exit_codes) == (3, (0,))
    for value in ('"2"', '"${TEXT}"', '"${EMPTY}"', '"${N}0"', '"$${N}"'):
        with pytest.raises(ConfigError, match="replicas: expected a whole number"):
            project.program(f"command: x\nreplicas: {value}", **variables)
