"""Keys against each other, and the file against this machine."""

import os

import pytest

from supervisord_async.config import rules
from supervisord_async.config.check import check


def restart_problems(project, settings):
    return project.program_problems(f"command: x\nrestart: {{{settings}}}")


def test_a_schedule_of_a_program_that_never_ends_is_doubtful(project):
    loaded = project.load("programs: {web: {command: x, restart: always, schedule: '@every 5m'}}")
    assert any("nothing for the schedule to start" in str(warning) for warning in loaded.warnings)


def test_a_limit_that_can_never_trip_says_the_sum(project):
    assert restart_problems(project, "max_restarts: 5, within: 1m, backoff: {initial: 10s, max: 30s}") == [
        (
            "warning: restart.within: the limit can never trip: the delays of 5 restarts are 10s + 20s + 30s + 30s + … = 2m, "
            "longer than within (1m); lengthen within, or lower max_restarts or backoff"
        )
    ]


@pytest.mark.parametrize(
    "settings",
    [
        "max_restarts: 3, within: 10m, backoff: {initial: 30s, factor: 1}",
        "max_restarts: 5, within: 2m, backoff: {initial: 10s, max: 30s}",
        "max_restarts: 1000000, within: 1s, backoff: {initial: 0s}",
        "max_restarts: -1, within: 1s",
        "max_restarts: 0, within: 1ms",
        "max_restarts: 1000000",
    ],
)
def test_a_limit_that_can_trip_is_no_matter(project, settings):
    assert restart_problems(project, settings) == []


def test_the_sum_of_a_million_delays_is_exact(project):
    (problem,) = restart_problems(project, "max_restarts: 1000000, within: 1s, backoff: {initial: 1s, factor: 1}")
    assert "= 11d13h46m40s, longer than" in problem


def test_the_sum_counts_delays_that_still_grow_each_for_itself(project):
    (problem,) = restart_problems(project, "max_restarts: 8, within: 4m, backoff: {initial: 1s, factor: 2, max: 1h}")
    assert "1s + 2s + 4s + 8s + … = 4m15s, longer than within (4m)" in problem


def test_two_processes_do_not_share_a_log(project):
    problems = project.problems("""\
        daemon: {log: {file: d.log}}
        programs:
          a: {command: x, logs: {stdout: one.log, stderr: two.log}}
          b: {command: x, logs: {stdout: ./one.log}}
          c: {command: x, logs: {stderr: two.log}}
          d: {command: x, logs: {stdout: d.log}}
          e: {command: x, replicas: 2}
          e-1: {command: x}
          f: {command: x, logs: {stdout: none, stderr: inherit}}
          g: {command: x, logs: {stdout: /dev/null, stderr: none}}
          h: {command: x, logs: {stdout: /dev/null}}
    """)
    folder = project.folder
    assert [problem.removeprefix("programs.yaml:").removesuffix("; each needs its own") for problem in problems] == [
        f"4:34: programs.b.logs.stdout: the log {folder}/one.log is taken by stdout of a (programs.yaml:3:34)",
        f"5:34: programs.c.logs.stderr: the log {folder}/two.log is taken by stderr of a (programs.yaml:3:51)",
        f"6:34: programs.d.logs.stdout: the log {folder}/d.log is taken by the daemon's own log (programs.yaml:1:22)",
        f"8:3: programs.e-1.logs.stdout: the log {folder}/.asupd/logs/e-1.log is taken by stdout of e:1 (programs.yaml:7:3)",
    ]


def test_two_programs_do_not_share_a_heartbeat_file(project):
    (problem,) = project.problems("""\
        programs:
          a: {command: x, heartbeat: {file: beat}}
          b: {command: x, heartbeat: {file: beat}}
    """)
    assert "programs.b.heartbeat.file: the heartbeat file" in problem
    assert "is taken by program a (programs.yaml:2:37)" in problem


def test_replicas_need_heartbeat_files_of_their_own(project):
    (problem,) = project.program_problems("command: x\nreplicas: 2\nheartbeat: {file: beat}")
    assert problem.startswith("heartbeat.file: 2 replicas would share this file; put '{replica}' into it")
    program = project.program("command: x\nreplicas: 2\nheartbeat: {file: 'beat-{replica}'}")
    assert program.heartbeat.file == f"{project.folder}/beat-{{replica}}"
    assert project.program("command: x\nheartbeat: {file: '{program}-{replica}'}").heartbeat.file == f"{project.folder}/web-{{replica}}"


def test_a_replicas_heartbeat_file_is_no_other_programs(project):
    (problem,) = project.problems("""\
        programs:
          a: {command: x, replicas: 2, heartbeat: {file: 'beat-{replica}'}}
          b: {command: x, heartbeat: {file: beat-1}}
        """)
    assert "programs.b.heartbeat.file: the heartbeat file" in problem


def test_a_circle_of_dependencies_is_shown_whole(project):
    problems = project.problems("""\
        programs:
          web: {command: x, depends_on: [api, cache]}
          api: {command: x, depends_on: {db: ready}}
          db: {command: x, depends_on: [web]}
          cache: {command: x}
          self: {command: x, depends_on: [self]}
    """)
    assert problems == [
        "programs.yaml:2:21: programs.web.depends_on: dependency cycle, a program cannot wait for itself: web → api → db → web",
        "programs.yaml:6:22: programs.self.depends_on: dependency cycle, a program cannot wait for itself: self → self",
    ]


def test_a_dependency_has_to_exist(project):
    problems = project.problems("""\
        programs:
          web: {command: x, depends_on: [dab, broken]}
          db: {command: x}
          broken: {command: []}
    """)
    assert problems[0] == "programs.yaml:2:21: programs.web.depends_on.dab: there is no program 'dab'; did you mean 'db'?"
    assert not any("no program 'broken'" in problem for problem in problems)


def test_long_chains_of_dependencies_are_followed(project):
    lines = "\n".join(f"  p{n}: {{command: x, depends_on: [p{n + 1}]}}" for n in range(3000))
    assert project.problems(f"programs:\n{lines}\n  p3000: {{command: x}}\n") == []


def test_settings_that_mean_nothing_are_doubted(project):
    assert project.program_problems("command: x\nrolling: true") == ["warning: rolling: this means nothing without replicas"]
    assert project.program_problems("command: x\nrestart_with_dependency: true") == [
        "warning: restart_with_dependency: this means nothing without depends_on"
    ]


def test_a_grace_period_beyond_the_shutdown_is_doubted(project):
    assert project.program_problems("command: x\nstop: {grace_period: 2m}") == [
        "warning: stop.grace_period: at shutdown daemon.stop_timeout (1m) cuts the 2m short"
    ]


def test_folders_and_watched_files_that_are_not_there_are_doubted(project):
    folder = project.folder
    assert project.program_problems("command: x\ndirectory: gone\nwatch: {paths: [., src]}") == [
        f"warning: directory: there is no folder {folder}/gone (yet)",
        f"warning: watch.paths[1]: {folder}/src is not there (yet)",
    ]
    assert project.program_problems("command: x\nwatch: [src]") == [f"warning: watch[0]: {folder}/src is not there (yet)"]


def test_an_exit_code_cannot_mean_both(project):
    assert restart_problems(project, "success_exit_codes: [0, 2], prevent_exit_codes: [2]") == [
        "warning: restart.prevent_exit_codes: 2 is in success_exit_codes too"
    ]


def test_more_processes_than_any_machine_has_are_refused(project, monkeypatch):
    monkeypatch.setattr(rules, "MAX_PROCESSES", 5)
    (problem,) = project.problems("programs: {a: {command: x, replicas: 2}, b: {command: x, replicas: 4}}")
    assert problem == "programs.yaml:1:68: programs.b.replicas: all programs together have more than 5 processes"


def test_http_beyond_this_machine_needs_tls_or_a_word(project):
    def problems(settings):
        return project.problems(f"daemon: {{{settings}}}\nprograms: {{a: {{command: x}}}}")

    assert problems("http: 9001") == []
    assert problems("http: 'localhost:9001'") == []
    assert "others can reach ':::9001'" not in str(problems("http: '[::1]:9001'"))
    assert "others can reach" in problems("http: 'example.org:80'")[0]
    assert problems("http: '0.0.0.0:9001', http_insecure: true") == []
    assert "c.pem is not there" in problems("http: '0.0.0.0:1', http_tls: {certificate: c.pem, key: k.pem}")[0]
    assert "means nothing without daemon.http" in problems("http_insecure: true")[0]
    assert "expected HOST:PORT" in problems("http: nowhere")[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs programs as another user")
def test_check_doubts_what_the_programs_user_may_not_execute(project, open_path):
    closed = open_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "in").mkdir()
    for path, line in ((closed / "in" / "run", "#!/bin/sh"), (open_path / "script", f"#!{closed}/in/run")):
        path.write_text(line)
        path.chmod(0o755)
    text = f"""
defaults: {{directory: {open_path}}}
programs:
  a: {{command: {closed}/in/run, user: nobody}}
  b: {{command: ./script, user: nobody}}
  c: {{command: run, user: nobody, environment: {{PATH: "{closed}/in:/bin"}}}}
  d: {{command: {closed}/in/run, user: root}}
  e: {{command: true, user: nobody, environment: {{PATH: "{closed}/in:/bin"}}}}
  f: {{command: ./run, user: nobody, directory: {closed}/in}}
"""
    assert [str(problem).partition("warning: programs.")[2] for problem in check(project.load(text))] == [
        f"a.command: {closed}/in/run: nobody may not enter {closed}",
        f"b.command: {open_path}/./script: its interpreter {closed}/in/run: nobody may not enter {closed}",
        f"c.command: {closed}/in/run: nobody may not enter {closed}",
        f"f.directory: nobody may not enter {closed}: the program will run there, but find files by absolute paths alone",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs programs as another user")
def test_check_doubts_a_directory_that_the_programs_user_may_not_enter(project, open_path):
    (open_path / "closed" / "in").mkdir(parents=True)
    (open_path / "closed").chmod(0o700)
    text = f"""
programs:
  a: {{command: /bin/true, user: nobody, directory: {open_path}}}
  b: {{command: /bin/true, user: nobody, directory: {open_path}/closed/in}}
  c: {{command: /bin/true, user: root, directory: {open_path}/closed/in}}
  d: {{command: /bin/true, user: nobody, directory: {open_path}/missing}}
"""
    words = f"nobody may not enter {open_path}/closed: the program will run there, but find files by absolute paths alone"
    assert [str(problem) for problem in check(project.load(text))] == [f"programs.yaml:4:52: warning: programs.b.directory: {words}"]


def test_check_doubts_users_groups_and_executables_that_are_not_here(project):
    project.write("plain", "text")
    loaded = project.load("""\
        programs:
          a: {command: /no/such/thing, user: nobody-of-that-name}
          b: {command: no-such-command-anywhere, group_name: no-such-group-either}
          c: {command: ./plain}
          d: {command: [sh, -c, "true"], user: 0}
          e: {command: echo x, shell: true, group_name: 5}
          f: {command: ./gone, directory: nowhere}
          g: {command: /}
    """)
    where, uid = "programs.yaml:", os.geteuid()
    assert [str(problem).removeprefix(where) for problem in check(loaded)] == [
        "2:16: warning: programs.a.command: there is no /no/such/thing here",
        "2:38: warning: programs.a.user: there is no user 'nobody-of-that-name' here",
        "3:16: warning: programs.b.command: there is no 'no-such-command-anywhere' in the program's PATH",
        "3:54: warning: programs.b.group_name: there is no group 'no-such-group-either' here",
        f"4:16: warning: programs.c.command: {project.folder}/./plain is not executable; chmod +x, or name its interpreter",
        *([f"5:41: warning: programs.d.user: only root can run a program as another user; this is user {uid}"] if uid else []),
        "8:16: warning: programs.g.command: / is a folder, and cannot be executed",
    ]


def test_check_asks_whether_a_whole_command_is_one_word(project):
    [warning] = check(project.load("programs: {a: {command: ['sleep 5']}}"))
    assert warning.message.endswith("there is no 'sleep 5' in the program's PATH; is the whole command in quotes?")


def test_check_finds_executables_in_the_programs_own_path(project):
    project.write("bin/tool", "#!/bin/sh\n").chmod(0o755)
    assert check(project.load("programs: {a: {command: tool, environment: {PATH: bin}}}")) == ()


def test_what_needs_a_limit_is_doubtful_without_one(project):
    words = ["warning: restart.within: this means nothing without max_restarts"]
    assert restart_problems(project, "within: 10m") == words
    assert restart_problems(project, "on_limit: shutdown") == ["warning: restart.on_limit: this means nothing without max_restarts"]
    assert restart_problems(project, "within: 10m, on_limit: {retry_after: 5m}, max_restarts: -1") == []  # said on purpose


def test_a_folder_is_no_file_and_a_heart_beats_somewhere(project):
    (project.folder / "here").mkdir()
    at = project.folder
    assert project.program_problems("command: x\nlogs: {stdout: here, stderr: .}\nheartbeat: {file: here}") == [
        f"warning: logs.stdout: expected the path of a file, found a folder: {at}/here; the output is lost while it is there",
        f"warning: logs.stderr: expected the path of a file, found a folder: {at}; the output is lost while it is there",
        f"warning: heartbeat.file: expected the path of a file, found a folder: {at}/here",
    ]
    assert project.program_problems("command: x\nheartbeat: {file: run/beat}") == [
        f"warning: heartbeat.file: there is no folder {at}/run (yet)"
    ]


def test_two_sockets_of_one_address_are_doubtful(project):
    problems = project.problems("""\
        daemon: {http: "127.0.0.1:9001"}
        programs:
          a: {command: x, sockets: {http: "tcp://127.0.0.1:8080", any: "tcp://127.0.0.1:0"}}
          b: {command: x, sockets: {http: "tcp://127.0.0.1:8080", any: "tcp://127.0.0.1:0"}}
          c: {command: x, sockets: {local: "unix:web.sock"}}
          d: {command: x, sockets: {local: "unix:web.sock"}}
          e: {command: x, sockets: {http: "tcp://127.0.0.1:9001"}}
    """)
    assert [problem.partition("warning: ")[2] for problem in problems] == [
        "programs.b.sockets.http: socket 'http' of a has this address; the second one cannot be bound",
        "programs.d.sockets.local: socket 'local' of c has this address; the second one cannot be bound",
        "programs.e.sockets.http: daemon.http has this address; the second one cannot be bound",
    ]


def test_a_control_socket_needs_a_place_and_a_group(project):
    problems = project.problems("{daemon: {socket: run/a.sock, socket_group: no-such-group}, programs: {a: {command: x}}}")
    assert [problem.partition("warning: ")[2] for problem in problems] == [
        f"daemon.socket: there is no folder {project.folder}/run (yet)",
        "daemon.socket_group: there is no group 'no-such-group' here",
    ]


def test_nothing_is_more_than_no_memory_and_nobody_connects_to_port_0(project):
    assert project.program_problems("command: x\nlimits: {memory: 0}\nreadiness: {tcp: 'localhost:0'}") == [
        "limits.memory: expected a size above 0, found 0",
        "readiness.tcp: expected a port to connect to, found 'localhost:0'",
    ]


def test_a_secret_in_a_missing_commands_path_is_masked(project):
    loaded = project.load("programs: {a: {command: /opt/hunter22/run, environment: {KEY_PASSWORD: hunter22}}}")
    assert [problem.message for problem in check(loaded)] == ["programs.a.command: there is no /opt/********/run here"]


def test_every_command_is_looked_for(project):
    loaded = project.load("""\
        programs:
          a:
            command: [sh]
            stop: {command: [no-such-stop]}
            hooks: {before_start: [no-such-before], after_exit: [sh]}
            readiness: {command: ./no-such-probe}
    """)
    assert [str(problem).partition("warning: ")[2] for problem in check(loaded)] == [
        "programs.a.stop.command: there is no 'no-such-stop' in the program's PATH",
        "programs.a.hooks.before_start: there is no 'no-such-before' in the program's PATH",
        f"programs.a.readiness.command: there is no {project.folder}/./no-such-probe here",
    ]


def test_inherited_output_cannot_be_searched(project):
    probes = "command: x\nreadiness: {log: ready}\nliveness: {log: alive}\nlogs:"
    assert project.program_problems(f"{probes} {{stdout: inherit}}") == [
        "readiness.log: there is no output to search: with 'inherit' it goes where the daemon's goes",
        "liveness.log: there is no output to search: with 'inherit' it goes where the daemon's goes",
    ]
    assert project.program_problems(f"{probes} {{stdout: inherit, stderr: x.log}}") == []
    assert project.program_problems(f"{probes} {{stdout: none}}") == []


def test_words_of_others_for_a_logs_place_are_taken_for_files_with_a_warning(project):
    warnings = project.program_problems("command: x\nlogs: {stdout: NONE, stderr: 'append:/var/log/web.log'}")
    assert warnings == [
        "warning: logs.stdout: 'NONE' is taken for a file of that name; here: none",
        "warning: logs.stderr: 'append:/var/log/web.log' is taken for a file of that name; here: a path alone, which is always appended to",
    ]
    assert project.program_problems("command: x\nlogs: {stdout: none, stderr: inherit}") == []


def test_the_word_before_a_test_of_docker_is_taken_for_the_program_with_a_warning(project):
    for test, ours in (("[CMD, redis-cli, ping]", "begin with the program"), ("[CMD-SHELL, redis-cli ping]", "make it [sh, -c, '…']")):
        [warning] = project.program_problems(f"command: x\nreadiness: {{command: {test}}}")
        assert warning.endswith(f"is taken for the program: it is docker's; {ours}")
