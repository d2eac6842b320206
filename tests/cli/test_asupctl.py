"""asupctl's verbs, flags and exit codes against a fake daemon."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisord_async import __version__
from tests.cli.conftest import Ended
from tests.cli.fake_daemon import FakeDaemon, RefusalError, process
from tests.waiting import wait_until_sync

Ctl = Callable[..., Ended]
Spawn = Callable[..., "subprocess.Popen[bytes]"]


# status


def test_status_table_is_plain_and_whole_in_a_pipe(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.add(process("job", "EXITED", exit_status={"code": 0}, cause="exited", description="x" * 300))
    ended = ctl("status")
    head, web, db, job = ended.out.splitlines()
    assert head.split() == ["NAME", "STATE", "HEALTH", "PID", "UPTIME", "RESTARTS", "DETAIL"]
    assert web.split() == ["web", "RUNNING", "-", "4242", "12s", "0"]
    assert db.split()[:2] == ["db", "STOPPED"]
    assert job.endswith("exited with 0; " + "x" * 300)
    assert "\x1b" not in ended.out
    assert ended.code == 0


def test_status_asks_for_no_figures_in_the_table(daemon: FakeDaemon, ctl: Ctl) -> None:
    ctl("status", "web")
    assert daemon.asked("GET", "/v1/processes") == [({"name": "web", "figures": "false"}, None)]


def test_status_says_that_the_file_on_disk_was_refused(daemon: FakeDaemon, ctl: Ctl) -> None:
    problem = {"file": "programs.yaml", "line": 4, "column": 3, "message": "unknown key", "warning": False}
    daemon.health["refused"] = [problem, {**problem, "line": 9}]
    first, head, *_ = ctl("status").out.splitlines()
    assert "refused" in first
    assert "programs.yaml:4:3: unknown key (and 1 more" in first
    assert head.startswith("NAME")


def test_status_json_is_the_list_of_the_contract(daemon: FakeDaemon, ctl: Ctl) -> None:
    ended = ctl("status", "--json")
    assert json.loads(ended.out) == list(daemon.processes.values())
    assert ended.out.count("\n") == 1


def test_json_and_socket_may_stand_before_or_after_the_verb(daemon: FakeDaemon, ctl: Ctl) -> None:
    assert json.loads(ctl("--json", "status").out)
    assert json.loads(ctl("status", "web", "-s", str(daemon.socket_path), "--json", socket=None).out)[0]["name"] == "web"


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ({"state": "RUNNING"}, False),
        ({"state": "RUNNING", "health": "unhealthy"}, False),
        ({"state": "STOPPED", "cause": "operator"}, False),
        ({"state": "STOPPED", "cause": None}, False),
        ({"state": "STOPPING", "cause": "operator"}, False),
        ({"state": "STOPPING", "cause": "heartbeat_missed"}, True),
        ({"state": "EXITED", "exit_status": {"code": 3}}, True),
        ({"state": "EXITED", "exit_status": {"code": 2}}, False),
        ({"state": "BACKOFF"}, True),
        ({"state": "FATAL"}, True),
        ({"state": "STARTING"}, True),
        ({"state": "WAITING"}, True),
        ({"state": "UNKNOWN"}, True),
    ],
)
def test_status_exit_code_3_means_missing(daemon: FakeDaemon, ctl: Ctl, fields: dict[str, object], missing: bool) -> None:
    daemon.add(process("x", **fields))  # type: ignore[arg-type]
    daemon.health["failed"] = ["x"] if fields.get("exit_status") == {"code": 3} else ["another"]
    for arguments in (["status"], ["status", "--json"], ["status", "x"]):
        assert ctl(*arguments).code == (3 if missing else 0)
    assert ctl("status", "web").code == 0


def test_status_of_no_programs(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.processes.clear()
    assert ctl("status") == Ended(0, "no programs\n", "")


def test_status_as_a_tree_has_below_each_what_it_needs(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.add(process("w:0"), process("w:1", "BACKOFF"))
    daemon.answers["GET /v1/dependencies"] = {
        "programs": [
            {"name": "web", "depends_on": {"w": "ready", "db": "started"}},
            {"name": "db", "depends_on": {}},
            {"name": "w", "depends_on": {"db": "started"}},
        ]
    }
    ended = ctl("status", "--tree")
    assert [line.split("  ")[0].rstrip() for line in ended.out.splitlines()] == ["NAME", "web", "├─ w", "│", "└─ db"]
    assert "1 RUNNING, 1 BACKOFF" in ended.out
    assert ended.code == 3
    (web,) = json.loads(ctl("status", "--tree", "--json", "web").out)
    assert [(one["program"], one["need"]) for one in web["depends_on"]] == [("w", "ready"), ("db", "started")]
    assert [one["name"] for one in web["depends_on"][0]["processes"]] == ["w:0", "w:1"]
    assert ctl("status", "--tree", "db").out.splitlines()[1].split()[:2] == ["db", "STOPPED"]
    daemon.health["refused"] = [{"file": "programs.yaml", "line": 3, "column": 5, "message": "x: unknown key", "warning": False}]
    assert ctl("status", "--tree").out.startswith("the file on disk was refused")


def test_control_characters_of_names_never_reach_the_output(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.add(process("evil\x1b]0;title\x07\nname", description="\x9b31m\u202egnp.exe"))
    ended = ctl("status")
    assert not set(ended.out) & {"\x1b", "\x07", "\x9b", "\u202e"}
    assert "evil\\x1b]0;title\\x07\\x0aname" in ended.out
    assert len(ended.out.splitlines()) == 4


# actions


@pytest.mark.parametrize(("verb", "state"), [("start", "RUNNING"), ("stop", "STOPPED"), ("restart", "RUNNING")])
def test_actions_say_per_name_what_happened(daemon: FakeDaemon, ctl: Ctl, verb: str, state: str) -> None:
    ended = ctl(verb, "web", "db")
    assert ended == Ended(0, f"web: {verb} done\ndb: {verb} done\n", "")
    assert {one["state"] for one in daemon.processes.values()} == {state}


@pytest.mark.parametrize("verb", ["start", "stop", "restart", "signal", "wait"])
def test_actions_without_a_name_are_usage_errors(ctl: Ctl, verb: str) -> None:
    ended = ctl(verb, *(["HUP"] if verb == "signal" else []))
    assert ended.code == 2
    assert "SELECTOR" in ended.err


def test_failed_action_exits_with_1_and_says_why(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.failing["db"] = "exited with 1 after 0.2 s"
    ended = ctl("start", "all")
    assert ended == Ended(1, "web: start done\n", "asupctl: cannot start db: exited with 1 after 0.2 s\n")


def test_a_terminal_is_told_the_sum_and_what_explains_a_failure(daemon: FakeDaemon, ctl: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.failing["db"] = "exited with 1 after 0.2 s"
    monkeypatch.setenv("NO_COLOR", "1")
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    ended = ctl("start", "all")
    assert ended.out == "web: start done\n1 of 2 done\n"
    assert ended.err.endswith("asupctl: cannot start db: exited with 1 after 0.2 s\n`asupctl why db` shows more\n")


def test_action_that_ran_out_of_time_exits_with_6(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.late.add("db")
    assert ctl("start", "all", "--timeout", "1s").code == 6
    daemon.failing["web"] = "no"
    assert ctl("start", "all").code == 1


@pytest.mark.parametrize("verb", ["start", "stop", "restart"])
def test_no_wait_and_timeout_reach_the_daemon(daemon: FakeDaemon, ctl: Ctl, verb: str) -> None:
    assert ctl(verb, "web").code == ctl(verb, "web", "--no-wait", "--timeout", "1m30s").code == 0
    assert daemon.asked("POST", f"/v1/processes/web/{verb}") == [({}, None), ({"wait": "false", "timeout": "90.0"}, None)]


def test_timeout_that_is_none_is_a_usage_error(ctl: Ctl) -> None:
    ended = ctl("stop", "web", "--timeout", "soon")
    assert ended.code == 2
    assert "5s" in ended.err


def test_action_json_is_the_document_with_its_exit_code(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.failing["db"] = "no"
    ended = ctl("start", "all", "--json")
    assert ended.code == 1
    results = json.loads(ended.out)["results"]
    assert [(one["name"], one["ok"]) for one in results] == [("web", True), ("db", False)]


def test_signal_names_the_signal(daemon: FakeDaemon, ctl: Ctl) -> None:
    assert ctl("signal", "USR1", "web") == Ended(0, "web: sent USR1\n", "")
    assert daemon.asked("POST", "/v1/processes/web/signal") == [({}, {"signal": "USR1"})]


def test_wait_sends_what_is_awaited(daemon: FakeDaemon, ctl: Ctl) -> None:
    assert ctl("wait", "web", "--for", "ready", "--timeout", "5").code == 0
    assert daemon.asked("POST", "/v1/processes/web/wait") == [({"for": "ready", "timeout": "5.0"}, None)]
    assert ctl("wait", "web").code == 2
    assert ctl("wait", "web", "--for", "fun").code == 2


def test_scale_shows_the_daemon_s_word(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.answers["POST /v1/processes/web/scale"] = RefusalError(409, "cannot scale web: not yet supported", kind="failed")
    assert ctl("scale", "web", "3") == Ended(1, "", "asupctl: cannot scale web: not yet supported\n")
    assert ctl("scale", "web", "-1").code == 2


@pytest.mark.parametrize(
    "words", [("status", ""), ("status", "web", ""), ("stop", ""), ("logs", ""), ("why", ""), ("wait", "", "--for", "ready")]
)
def test_an_empty_name_is_a_mistake_and_means_nothing_else(daemon: FakeDaemon, ctl: Ctl, words: tuple[str, ...]) -> None:
    assert ctl(*words) == Ended(2, "", "asupctl: cannot act: a name is empty\n")


def test_a_name_that_is_no_text_is_unknown(ctl: Ctl) -> None:
    assert ctl("status", "\udcff").code == ctl("start", "\udcff").code == 1


def test_scale_need_not_wait(daemon: FakeDaemon, ctl: Ctl) -> None:
    assert ctl("scale", "web", "3", "--no-wait", "--timeout", "5").code == 0
    assert daemon.asked("POST", "/v1/processes/web/scale") == [({"wait": "false", "timeout": "5.0"}, {"replicas": 3})]


# configuration


def test_reload_prints_what_was_done(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.answers["POST /v1/reload"] = lambda query, _: {"applied": not query, "lines": ["+ web added"], "plan": {"added": ["web"]}}
    assert ctl("reload") == Ended(0, "+ web added\n", "")
    assert json.loads(ctl("reload", "--plan", "--json").out)["applied"] is False


def test_reload_without_a_change_says_so(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.answers["POST /v1/reload"] = {"applied": True, "lines": [], "plan": {}}
    assert ctl("reload").out == "nothing changed\n"
    assert ctl("reload", "--plan").out == "nothing changes\n"


def test_reload_of_an_unsound_file_is_exit_code_2_with_every_problem(daemon: FakeDaemon, ctl: Ctl) -> None:
    problems = [{"file": "p.yaml", "line": line, "column": 1, "message": "no", "warning": False} for line in (1, 2)]
    daemon.answers["POST /v1/reload"] = RefusalError(422, "no", problems=problems)
    ended = ctl("reload")
    assert ended == Ended(2, "", "p.yaml:1:1: no\np.yaml:2:1: no\n")
    ended = ctl("reload", "--plan", "--json")
    assert ended.code == 2
    assert json.loads(ended.out) == {"problems": problems}


def test_reload_that_fails_for_a_name_is_exit_code_1_and_names_it(daemon: FakeDaemon, ctl: Ctl) -> None:
    results = [{"name": "a", "ok": True, "message": "running, pid 7, run 1"}, {"name": "b", "ok": False, "message": "run 1 exited with 3"}]
    done = {"applied": True, "lines": ["+ a added", "+ b added"], "plan": {}, "results": results}
    daemon.answers["POST /v1/reload"] = RefusalError(409, "b: no", **done)
    ended = ctl("reload")
    assert ended == Ended(1, "+ a added\n+ b added\na: running, pid 7, run 1\n", "asupctl: cannot reload b: run 1 exited with 3\n")
    daemon.answers["POST /v1/reload"] = RefusalError(504, "b: late", **done, timed_out=["b"])
    assert ctl("reload", "--timeout", "1s").code == 6
    assert json.loads(ctl("reload", "--json").out)["results"] == results
    daemon.answers["POST /v1/reload"] = lambda query, _: {**done, "results": [], "asked": query}
    assert json.loads(ctl("reload", "--no-wait", "--json").out)["asked"] == {"wait": "false"}


def test_config_is_yaml_for_people_and_json_for_programs(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.answers["GET /v1/config"] = lambda query, _: {"name": query.get("name"), "environment": {"TOKEN": "***"}}
    assert ctl("config", "web").out == "name: web\nenvironment:\n  TOKEN: '***'\n"
    assert json.loads(ctl("config", "--json").out) == {"name": None, "environment": {"TOKEN": "***"}}


def test_config_shows_letters_as_they_are_and_spells_out_what_reorders_a_line(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.answers["GET /v1/config"] = {"directory": "/srv/büro"}
    assert ctl("config", "web").out == "directory: /srv/büro\n"
    daemon.answers["GET /v1/config"] = {"directory": "/srv/\u202eoor"}
    assert ctl("config", "web").out == 'directory: "/srv/\\u202Eoor"\n'


def test_config_schema_needs_no_daemon(tmp_path: Path, ctl: Ctl) -> None:
    ended = ctl("config", "--schema", socket=tmp_path / "none.sock")
    assert ended.code == 0
    assert "programs" in json.loads(ended.out)["$defs"]["File"]["properties"]
    assert ctl("config", "web", "--schema").code == 2


# past


def test_why_prints_the_daemon_s_lines(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.answers["GET /v1/processes/web/why"] = {"lines": ["web is FATAL", "  last output:\ta\x1b[2J"], "state": "FATAL"}
    assert ctl("why", "web").out == "web is FATAL\n  last output:\ta\\x1b[2J\n"
    assert json.loads(ctl("why", "web", "--json").out)["state"] == "FATAL"


def test_history_lists_runs(daemon: FakeDaemon, ctl: Ctl) -> None:
    run = {"run": 2, "cause": "exited", "started_at": "2026-11-21T12:00:00.000Z", "ended_at": "2026-11-21T12:00:01Z",
           "duration_seconds": 1.25, "exit_status": {"signal": "SIGSEGV", "core": True}, "peak_memory_bytes": 3 * 2**20,
           "cpu_seconds": 0.5, "end_cause": "exited", "end_detail": None}  # fmt: skip
    daemon.answers["GET /v1/processes/web/history"] = {"runs": [{"run": 3, "cause": "operator"}, run], "restarts_total": 9}
    _, living, ended = ctl("history", "web", "-n", "5").out.splitlines()
    assert living.split()[0] == "3"
    assert living.endswith("still running")
    assert "3.0MiB" in ended
    assert ended.endswith("killed by SIGSEGV (core dumped)")
    assert json.loads(ctl("history", "web", "--json").out)["restarts_total"] == 9
    assert daemon.asked("GET", "/v1/processes/web/history")[0] == ({"limit": "5"}, None)


# the daemon


def test_version_with_and_without_a_daemon(tmp_path: Path, ctl: Ctl) -> None:
    assert ctl("version").out == f"asupctl {__version__}\nasupd 9.9 (pid {2**22 + 1})\n"
    assert ctl("version", socket=tmp_path / "none") == Ended(0, f"asupctl {__version__}\n", "")
    assert json.loads(ctl("version", "--json").out) == {"asupctl": __version__, "asupd": "9.9", "pid": 2**22 + 1}
    none = {"asupctl": __version__, "asupd": None, "pid": None}
    assert json.loads(ctl("version", "--json", socket=tmp_path / "none").out) == none
    assert ctl("--version") == Ended(0, f"asupctl {__version__}\n", "")


def test_web_prints_the_page_s_address(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.answers["GET /v1/web"] = {"url": "http://127.0.0.1:9001/?token=t"}
    assert ctl("web").out == "http://127.0.0.1:9001/?token=t\n"
    daemon.answers["GET /v1/web"] = RefusalError(409, "cannot show the page: daemon.http is not set")
    assert ctl("web").code == 1


def test_shutdown_waits_until_the_daemon_is_gone(daemon: FakeDaemon, spawn_ctl: Spawn) -> None:
    child = spawn_ctl("shutdown")
    wait_until_sync(lambda: daemon.asked("POST", "/v1/shutdown"))
    assert child.poll() is None
    daemon.stop()
    out, err = child.communicate(timeout=20)
    assert (child.returncode, out, err) == (0, b"stopped\n", b"")


def test_shutdown_that_takes_too_long_exits_with_6(ctl: Ctl) -> None:
    assert ctl("shutdown", "--timeout", "50ms").code == 6
    assert ctl("shutdown", "--no-wait") == Ended(0, "told to stop\n", "")


def test_shutdown_gives_a_busy_daemon_some_time_to_answer(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.answers["GET /v1/health"] = lambda *_: time.sleep(0.5) or daemon.health
    assert ctl("shutdown", "--no-wait") == Ended(0, "told to stop\n", "")


def test_reexec_waits_for_the_new_daemon(daemon: FakeDaemon, ctl: Ctl) -> None:
    def reexec(*_: object) -> dict[str, bool]:
        daemon.health["started_at"] = "2026-11-20T12:00:00.001Z"
        daemon.health["uptime_seconds"] = 70.0  # it took its time to answer, and the former one was young
        return {"accepted": True}

    daemon.answers["POST /v1/reexec"] = reexec
    assert ctl("reexec").out == f"re-executed, pid {2**22 + 1}, version 9.9\n"
    del daemon.answers["POST /v1/reexec"]
    assert ctl("reexec", "--timeout", "0.1").code == 6
    assert ctl("reexec", "--no-wait").code == 0


def test_reexec_of_a_daemon_that_dies_of_it_ends_at_once(daemon: FakeDaemon, ctl: Ctl) -> None:
    with subprocess.Popen(["sleep", "1000"]) as process:
        daemon.health["pid"] = process.pid
        daemon.answers["POST /v1/reexec"] = lambda *_: process.kill() or {"accepted": True}  # type: ignore[func-returns-value]
        ended = ctl("reexec")
    assert (ended.code, ended.out) == (4, "") and f"the daemon, pid {process.pid}, died" in ended.err


def test_top_without_a_terminal_or_as_json(ctl: Ctl) -> None:
    ended = ctl("top")
    assert ended.code == 2
    assert "status --json" in ended.err
    assert json.loads(ctl("top", "--json").out)[0]["name"] == "web"


def test_top_without_textual_says_how_to_install_it(ctl: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisord_async.cli.verbs.screen.find_spec", lambda _: None)
    ended = ctl("top")
    assert ended.code == 1
    assert "supervisord_async[tui]" in ended.err


# as a process


def test_status_loads_no_more_than_it_needs(spawn_ctl: Spawn) -> None:
    env = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    _, err = spawn_ctl("status", env=env).communicate(timeout=20)
    loaded = {line.rpartition(b"|")[2].strip() for line in err.splitlines()}
    assert b"supervisord_async.client.json_client" in loaded
    ours = {b"supervisord_async.client.api", b"supervisord_async.client.streams", b"click", b"http.client", b"dataclasses"}
    others = {
        b"yaml",
        b"anyio",
        b"asyncio",
        b"uvloop",
        b"msgspec",
        b"rich",
        b"textual",
        b"hashlib",
        b"click",
        b"http.client",
        b"dataclasses",
    }
    assert not (ours | others) & loaded


def test_reader_that_goes_away_is_quiet(daemon: FakeDaemon, spawn_ctl: Spawn) -> None:
    daemon.add(*(process(f"p{number}", description="d" * 200) for number in range(2000)))
    child = spawn_ctl("status")
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.readline()
    child.stdout.close()
    assert child.wait(timeout=20) == 141
    assert child.stderr.read() == b""
    child.stdout = None


def test_interrupt_is_quiet(daemon: FakeDaemon, spawn_ctl: Spawn) -> None:
    daemon.log("web", "line")
    child = spawn_ctl("logs", "-f", "web")
    assert child.stdout is not None
    assert child.stdout.readline() == b"line\n"
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=20)
    assert (child.returncode, err) == (130, b"")
