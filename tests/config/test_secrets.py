"""What is shown of a configuration, and what is not."""

import json

import pytest
import yaml

from supervisord_async.config.diff import Plan, diff
from supervisord_async.config.effective import as_data
from supervisord_async.config.secrets import MASK, is_secret_name, masked, masked_words


@pytest.mark.parametrize(
    "name", ["PASSWORD", "db_password", "MY_SECRETS", "TOKEN", "GH_TOKEN_2", "API_KEY", "api_key", "Private_Key", "MINE"]
)
def test_names_like_secrets_are_secret(name):
    assert is_secret_name(name, ("MINE",))


@pytest.mark.parametrize("name", ["PATH", "KEY", "KEYBOARD", "MONKEY", "API_KEYS", "PASS", "mine"])
def test_other_names_are_not(name):
    assert not is_secret_name(name, ("MINE",))


def test_secrets_are_masked_wherever_they_stand(project):
    configuration = project.configuration("""
        programs:
          web:
            command: [run, "--dsn=pg://u:hunter22@db", "--flag", s3cr3t-value, "x=${HOME}"]
            stop: {command: [stop, s3cr3t-value]}
            description: knows s3cr3t-value
            secrets: [PLAIN]
            environment: {DB_PASSWORD: s3cr3t-value, PLAIN: also-hidden, URL: "http://me:p4ss@host/", SHOWN: yes, ALIAS: s3cr3t-value,
              A_TOKEN: x}
          job: {command: "echo also-hidden x", shell: true}
    """)
    shown = masked(configuration)
    web = shown["programs"]["web"]
    assert web["command"] == ["run", f"--dsn=pg://u:{MASK}@db", "--flag", MASK, "x=/home/me"]
    assert web["stop"]["command"] == ["stop", MASK]
    assert web["description"] == f"knows {MASK}"
    assert web["secrets"] == ["PLAIN"]
    assert {name: web["environment"][name] for name in ("DB_PASSWORD", "PLAIN", "URL", "SHOWN", "ALIAS", "A_TOKEN")} == {
        "DB_PASSWORD": MASK,
        "PLAIN": MASK,
        "URL": f"http://me:{MASK}@host/",
        "SHOWN": "yes",
        "ALIAS": MASK,
        "A_TOKEN": MASK,
    }
    text = json.dumps(shown)
    assert "s3cr3t-value" not in text
    assert "hunter22" not in text
    assert shown["programs"]["job"]["command"] == "echo also-hidden x"  # not this program's secret


def test_options_and_assignments_named_like_secrets_are_masked():
    assert masked_words(
        ["x", "--db-password=abc", "--api-token", "abc", "-v", "--token", "--next", "env", "API_KEY=abc", "--port=80"], ()
    ) == [
        "x",
        f"--db-password={MASK}",
        "--api-token",
        MASK,
        "-v",
        "--token",
        "--next",
        "env",
        f"API_KEY={MASK}",
        "--port=80",
    ]


def test_the_daemons_commands_are_masked_too(project):
    shown = masked(
        project.configuration("""
        daemon: {on_event: [{events: [fatal], command: [mail, s3cr3t-value]}]}
        programs: {a: {command: x, environment: {A_TOKEN: s3cr3t-value}}}
    """)
    )
    assert shown["daemon"]["on_event"] == [{"events": ["fatal"], "command": ["mail", MASK], "url": None}]


def test_the_effective_configuration_is_a_file_that_means_the_same(project):
    before = project.configuration("""
        daemon: {http: 9001, socket_mode: 0660, log: {level: debug}, history: {max_age: 1d}, on_event: [{events: [fatal], url: "http://x/"}]}
        defaults: {restart: {max_restarts: 3, within: 10m, on_limit: {retry_after: 5m}}, umask: 022}
        programs:
          web:
            command: echo 'a b' "c"
            replicas: 2
            heartbeat: {timeout: 1500ms, file: "beat-{replica}"}
            notify: {access: all}
            readiness: {tcp: "127.0.0.1:80"}
            liveness: {command: [test, -f, x]}
            sockets: {a: "tcp://127.0.0.1:80", b: "unix:s"}
            schedule: "@every 5m"
            depends_on: {job: succeeded}
            watch: [a, {paths: [b], action: HUP, poll: 2s}]
            reload_signal: USR1
            limits: {memory: 50MiB, core_size: 5, cpu_affinity: [0]}
            environment: {A: "1", B: "yes", C: "a: b"}
            logs: {stderr: none, max_size: 1000}
          job: {command: "echo $HOME | cat", shell: true, restart: never, start_seconds: 0.25, user: 5}
    """)
    after = project.configuration(yaml.safe_dump(as_data(before), sort_keys=False))
    assert diff(before, after) == Plan(unchanged=2)


def test_only_words_of_the_file_are_used(project):
    data = as_data(project.configuration("programs: {a: {command: x}}"))
    assert data["programs"]["a"]["restart"]["backoff"] == {"initial": "500ms", "factor": 2.0, "max": "1m", "jitter": 0.1}
    assert data["programs"]["a"]["stop"] == {"signal": "TERM", "command": None, "scope": "tree", "grace_period": "10s"}
    assert data["daemon"]["socket_mode"] == "0600"
    json.dumps(data)


@pytest.mark.parametrize("secret", ["hunter22", "hunter22" * 20, "hunter22\nand more\n", "hunter22\n" * 20])
def test_no_problem_of_a_file_shows_a_secret_that_was_put_in(project, secret):
    """Long ones are cut off, and line breaks are spelt out."""
    wrong = 'restart: "${DB_PASSWORD}", readiness: {tcp: "x${DB_PASSWORD}"}'
    for settings in ('directory: "/no/${DB_PASSWORD}"', wrong):  # a warning, and errors
        said = project.problems(f"programs: {{web: {{command: [sleep, '1'], {settings}}}}}", DB_PASSWORD=secret)
        assert said and all("hunter22" not in each and MASK in each for each in said)
