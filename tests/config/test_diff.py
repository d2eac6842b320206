"""What a reload does: only what changed, and only as much of it as the change needs."""

import msgspec
import pytest
import yaml

from supervisord_async.config import diff as diff_module
from supervisord_async.config.diff import NEXT_START, Plan, ProgramChange, diff, needs_restart
from supervisord_async.config.model import Daemon, Program


def plan(project, before, after):
    """The plan from one program ``web`` to another, both given by their lines."""
    texts = [yaml.safe_dump({"programs": {"web": {"command": "x", **yaml.safe_load(lines or "{}")}}}) for lines in (before, after)]
    old, new = (project.configuration(text) for text in texts)
    return diff(old, new)


def test_the_same_file_changes_nothing(project):
    nothing = plan(project, "restart: always", "restart: {policy: always}")
    assert nothing == Plan(unchanged=1)
    assert nothing.describe() == ("= 1 unchanged",)


def test_a_variable_given_as_it_is_inherited_changes_nothing(project):
    old, new = (project.configuration(f"programs: {{a: {{command: x, environment: {{{own}}}}}}}", LANG="C") for own in ("", "LANG: C"))
    assert diff(old, new) == Plan(unchanged=1)


def test_programs_come_and_go(project):
    old = project.configuration("programs: {a: {command: x}, b: {command: x}}")
    new = project.configuration("programs: {c: {command: x}, b: {command: x}}")
    result = diff(old, new)
    assert (result.added, result.removed, result.changed, result.unchanged) == (("c",), ("a",), (), 1)
    assert result.describe() == ("+ c added", "- a removed", "= 1 unchanged")


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        ("", "command: y", "command"),
        ("", "environment: {A: b}", "environment"),
        ("", "user: nobody", "user"),
        ("", "group_name: adm", "group_name"),
        ("", "directory: /tmp", "directory"),
        ("", "umask: '077'", "umask"),
        ("", "limits: {nice: 5}", "limits.nice"),
        ("", "sockets: {a: 'tcp://:1'}", "sockets"),
        ("", "notify: true", "notify"),
        ("", "heartbeat: 5s", "heartbeat"),
        ("heartbeat: 5s", "", "heartbeat"),
        ("heartbeat: 5s", "heartbeat: {timeout: 5s, file: x}", "heartbeat.file"),
        ("{heartbeat: 5s, notify: true}", "{heartbeat: 6s, notify: true}", "heartbeat.timeout"),
        ("notify: true", "notify: {access: all}", "notify.access"),
        ("", "logs: {stdout: inherit}", "logs.stdout"),
        ("logs: {stdout: none}", "", "logs.stdout"),
        ("", "logs: {stderr: none}", "logs.stderr"),
        ("", "logs: {stderr: err.log}", "logs.stderr"),
        ("logs: {stdout: inherit, stderr: err.log}", "logs: {stdout: inherit}", "logs.stderr"),
    ],
)
def test_what_a_process_was_started_with_needs_a_restart(project, before, after, key):
    (change,) = plan(project, before, after).changed
    assert (change.restart, change.keys, change.in_place) == (True, (key,), ())
    assert plan(project, before, after).restarted() == {"web": (key,)}
    assert plan(project, before, after).describe() == (f"~ web restart: {key}",)


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        ("", "logs: {max_size: 1MiB}", "logs.max_size"),
        ("", "logs: {stdout: a.log}", "logs.stdout"),
        ("", "logs: {stdout: none}", "logs.stdout"),
        ("logs: {stderr: err.log}", "logs: {stderr: a.log}", "logs.stderr"),
        ("logs: {stderr: err.log}", "logs: {stderr: none}", "logs.stderr"),
        ("logs: {stderr: err.log}", "", "logs.stderr"),
        ("", "logs: {backups: 1}", "logs.backups"),
        ("", "logs: {compress: true}", "logs.compress"),
        ("", "logs: {format: json}", "logs.format"),
        ("", "restart: {policy: always}", "restart.policy"),
        ("", "restart: {max_restarts: 5}", "restart.max_restarts"),
        ("", "restart: {within: 5s}", "restart.within"),
        ("restart: {on_limit: {retry_after: 5s}}", "restart: {on_limit: {retry_after: 6s}}", "restart.on_limit.retry_after"),
        ("", "restart: {backoff: {initial: 1s}}", "restart.backoff.initial"),
        ("", "restart: {reset_after: 1s}", "restart.reset_after"),
        ("", "stop: {signal: INT}", "stop.signal"),
        ("", "stop: {grace_period: 1s}", "stop.grace_period"),
        ("", "description: words", "description"),
        ("", "group: other", "group"),
        ("", "autostart: false", "autostart"),
        ("", "start_seconds: 5s", "start_seconds"),
        ("heartbeat: 5s", "heartbeat: 6s", "heartbeat.timeout"),
        ("", "watch: [src]", "watch"),
        ("", "reload_signal: HUP", "reload_signal"),
        ("", "readiness: {tcp: 'x:1'}", "readiness"),
        ("readiness: {tcp: 'x:1'}", "readiness: {tcp: 'x:1', interval: 5s}", "readiness.interval"),
        ("autostart: false", "{autostart: false, schedule: '@every 5m'}", "schedule"),
        ("", "hooks: {before_start: x}", "hooks.before_start"),
        ("", "rolling: true", "rolling"),
        ("", "limits: {memory: 5MiB}", "limits.memory"),
        ("notify: true", "notify: {start_timeout: 5s}", "notify.start_timeout"),
        ("", "secrets: [A]", "secrets"),
    ],
)
def test_what_the_daemon_decides_by_is_taken_over_in_place(project, before, after, key):
    result = plan(project, before, after)
    (change,) = result.changed
    assert (change.restart, change.keys, change.in_place) == (False, (key,), (key,))
    assert result.restarted() == {}
    assert result.describe() == (f"~ web in place: {key}",)


def test_a_reload_signal_does_not_replace_a_restart_that_is_needed(project):
    assert plan(project, "reload_signal: HUP", "{reload_signal: HUP, command: y}").restarted() == {"web": ("command",)}


def test_both_kinds_of_change_are_told_apart(project):
    result = plan(project, "", "{command: y, environment: {A: b}, logs: {max_size: 5}}")
    assert result.describe() == ("~ web restart: command, environment", "~ web in place: logs.max_size")


def test_more_replicas_start_only_the_new_ones(project):
    result = plan(project, "replicas: 2", "replicas: 4")
    assert result.changed == (
        ProgramChange(program="web", restart=False, keys=("replicas",), in_place=(), added_processes=("web:2", "web:3")),
    )
    assert result.describe() == ("+ web:2, web:3 added",)


def test_fewer_replicas_and_a_new_command_restart_those_that_stay(project):
    result = plan(project, "replicas: 9", "{replicas: 2, command: y}")
    assert result.describe() == ("~ web restart: command", "- web:2 … web:8 (7) removed")


def test_between_one_and_many_all_processes_are_new(project):
    (change,) = plan(project, "", "{replicas: 2, command: y}").changed
    assert (change.restart, change.added_processes, change.removed_processes) == (False, ("web:0", "web:1"), ("web",))


def test_the_daemons_settings_say_when_they_take_effect(project):
    old = project.configuration("programs: {a: {command: x}}")
    new = project.configuration("""
        daemon: {socket: other.sock, log: {level: debug}, stop_timeout: 5s, http: 9001, history: {max_age: 1d}}
        programs: {a: {command: x, logs: {stdout: .asupd/logs/a.log}}}
    """)
    result = diff(old, new)
    assert result.daemon_keys == ("socket", "http")
    assert result.daemon_in_place == ("log.level", "stop_timeout", "history.max_age")
    assert result.describe() == (
        "~ daemon in place: log.level, stop_timeout, history.max_age",
        "! daemon at the next start: socket, http",
        "= 1 unchanged",
    )
    page = project.configuration("""
        daemon: {http: 9001}
        programs: {a: {command: x}}
    """)
    assert diff(old, page).describe()[0] == "! daemon at the next start (`asupctl reexec` is one): http"


def test_a_plan_is_plain_data_for_scripts(project):
    data = plan(project, "", "command: y").to_json()
    assert data["changed"] == [
        {
            "program": "web",
            "restart": True,
            "keys": ["command"],
            "in_place": [],
            "starts": False,
            "added_processes": [],
            "removed_processes": [],
        }
    ]
    assert msgspec.convert(data, Plan) == plan(project, "", "command: y")


def test_every_field_of_a_program_is_decided_about(project):
    program = project.program("command: x")
    decided = {field for field in Program.__struct_fields__ if needs_restart(field, program)}
    assert decided == {
        "command",
        "shell",
        "directory",
        "environment",
        "user",
        "group_name",
        "umask",
        "heartbeat",
        "notify",
        "sockets",
        "limits",
    }
    assert set(Daemon.__struct_fields__) >= NEXT_START
    fields = {diff_module._file_key(field) for field in Program.__struct_fields__}
    assert all(key.partition(".")[0] in fields for key in diff_module.NEEDS_RESTART | diff_module.IN_PLACE)
