"""Dependencies and probes on real processes."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemons import LiveDaemon, alive

Make = Callable[..., LiveDaemon]
pytestmark = pytest.mark.real

#: Serves /healthz with the status that the file ``status`` says, 200 without one, from the moment that ``up`` exists.
SERVER = """
import http.server, os, sys, time
while not os.path.exists('up'): time.sleep(0.01)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(open('status').read()) if os.path.exists('status') else 200); self.end_headers()
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()
"""


def server(port: int) -> str:
    return f"[{sys.executable}, -c, {json.dumps(SERVER)}, '{port}']"


def test_a_dependent_waits_until_its_dependency_is_ready(daemon: Make, tmp_path: Path, free_port: int) -> None:
    live = daemon(f"""
programs:
  web: {{command: [sleep, "1000"], depends_on: {{db: ready}}, start_seconds: 0}}
  db: {{command: {server(free_port)}, readiness: {{http: "http://127.0.0.1:{free_port}/healthz", interval: 50ms}}}}
  free: {{command: [sleep, "1000"], start_seconds: 0}}
""")
    live.wait_for("free", "RUNNING")
    assert live.wait_for("web", "WAITING")["pid"] is None
    assert "db to be ready" in live.process_of("web")["description"] + live.do("why", "web")
    assert live.process_of("db")["state"] == "STARTING" and live.process_of("db")["health"] == "starting"
    (tmp_path / "up").touch()
    live.wait_for("db", "RUNNING", health="healthy")
    live.wait_for("web", "RUNNING")


def test_a_readiness_that_fails_later_shows_and_restarts_nothing(daemon: Make, tmp_path: Path, free_port: int) -> None:
    (tmp_path / "up").touch()
    live = daemon(
        f"programs: {{db: {{command: {server(free_port)}, readiness: {{http: 'http://localhost:{free_port}/healthz', interval: 50ms, failures: 2}}}}}}"
    )
    pid = live.wait_for("db", "RUNNING", health="healthy")["pid"]
    (tmp_path / "status").write_text("503")
    assert live.wait_for("db", "RUNNING", health="unhealthy")["pid"] == pid
    (tmp_path / "status").unlink()
    assert live.wait_for("db", "RUNNING", health="healthy")["pid"] == pid


def test_a_probe_may_expect_another_status(daemon: Make, tmp_path: Path, free_port: int) -> None:
    (tmp_path / "up").touch()
    (tmp_path / "status").write_text("200")
    settings = f"readiness: {{http: 'http://127.0.0.1:{free_port}/healthz', expect_status: [401, 503], interval: 50ms, failures: 1}}"
    live = daemon(f"programs: {{db: {{command: {server(free_port)}, {settings}}}}}")
    live.wait_for("db", "STARTING")
    (tmp_path / "status").write_text("503")
    live.wait_for("db", "RUNNING", health="healthy")


def test_a_run_that_is_never_ready_is_replaced(daemon: Make) -> None:
    live = daemon(
        "programs: {slow: {command: [sleep, '1000'], readiness: {command: ['false'], interval: 50ms, start_timeout: 500ms}, restart: {max_restarts: 1, backoff: {initial: 10ms}}}}"
    )
    status = live.wait_for("slow", "FATAL")
    assert status["run"] == 2
    assert "not ready within 0.5 s; the probe exited with 1" in live.do("why", "slow")
    assert live.tagged() == []


def test_what_a_failed_probe_said_last_is_told_without_secrets(daemon: Make) -> None:
    probe = "echo trying; echo cannot log in as $$DB_PASSWORD >&2; echo; exit 3"
    live = daemon(
        f"""programs:
  web:
    command: [sleep, "1000"]
    environment: {{DB_PASSWORD: hunter2hunter2}}
    readiness: {{command: [sh, -c, {json.dumps(probe)}], interval: 50ms}}
  loud:
    command: [sleep, "1000"]
    start_seconds: 0
    liveness: {{command: [sh, -c, "yes; exit 1"], timeout: 300ms, interval: 10s, failures: 1}}
    restart: never
"""
    )
    words = "the probe exited with 3: cannot log in as ********"
    live.wait_until(lambda: live.process_of("web")["description"] == f"not ready yet: {words}", "the probe has failed")
    assert words in live.do("why", "web")
    live.wait_until(lambda: "liveness failed: the probe did not end within 0.3 s: y" in live.do("why", "loud"), "it was loud")
    assert "hunter2" not in live.do("events") + live.text()


def test_a_liveness_failure_restarts_once_with_its_cause(daemon: Make, tmp_path: Path) -> None:
    live = daemon(
        "programs: {w: {command: [sleep, '1000'], start_seconds: 0, liveness: {command: [test, '!', -e, sick], interval: 50ms, failures: 2}, restart: {backoff: {initial: 10ms}}}}"
    )
    first = live.wait_for("w", "RUNNING", health="healthy")["pid"]
    (tmp_path / "sick").touch()
    live.wait_until(lambda: not alive(first), "the sick run is ended")
    (tmp_path / "sick").unlink()
    status = live.wait_for("w", "RUNNING", health="healthy")
    assert status["cause"] == "liveness_failed" and status["restarts"] >= 1 and status["pid"] != first


def test_a_line_of_output_means_ready(daemon: Make, tmp_path: Path) -> None:
    script = "echo warming up; while [ ! -e go ]; do sleep 0.05; done; echo Server listening on port 80; sleep 1000"
    live = daemon(
        f"programs: {{s: {{command: {json.dumps(script)}, shell: true, readiness: {{log: 'listening on port [0-9]+', interval: 50ms}}}}}}"
    )
    live.wait_until(lambda: (tmp_path / ".asupd/logs/s.log").exists(), "it has said something")
    assert live.process_of("s")["state"] == "STARTING"
    (tmp_path / "go").touch()
    live.wait_for("s", "RUNNING", health="healthy")
    assert "listening" in (tmp_path / ".asupd/logs/s.log").read_text()


def test_a_line_of_output_means_ready_after_a_hook_has_run(daemon: Make) -> None:
    live = daemon(
        """programs:
  s:
    command: [sh, -c, echo serving; exec sleep 1000]
    readiness: {log: serving, interval: 50ms}
    hooks: {before_start: [echo, not yet]}
"""
    )
    live.wait_for("s", "RUNNING", health="healthy")


def test_a_line_that_a_reload_asks_for_is_looked_for(daemon: Make) -> None:
    """In the next run; the present one may have printed it before anybody looked, and is running."""
    programs = "programs: {s: {command: [sh, -c, echo serving; exec sleep 1000], start_seconds: 0%s}}"
    live = daemon(programs % "")
    first = live.wait_for("s", "RUNNING")["pid"]
    live.write(programs % ", readiness: {log: serving, interval: 50ms}")
    live.do("reload")
    assert live.wait_for("s", "RUNNING", health="healthy")["pid"] == first
    live.do("restart", "s", "--timeout", "10")
    assert live.wait_for("s", "RUNNING", health="healthy")["run"] == 2


def test_a_line_that_a_reload_asks_for_during_a_start_is_looked_for(daemon: Make, tmp_path: Path) -> None:
    programs = """programs:
  s:
    command: [sh, -c, echo serving; exec sleep 1000]
    hooks: {before_start: [sh, -c, until test -e go; do sleep 0.05; done]}
"""
    live = daemon(programs)
    live.write(programs + "    readiness: {log: serving, interval: 50ms}\n")
    live.do("reload", "--no-wait")
    (tmp_path / "go").touch()
    assert live.wait_for("s", "RUNNING", health="healthy")["run"] == 1


@pytest.mark.parametrize("how", ["reload", "reexec", "kill"])
def test_a_probe_that_the_file_has_no_more_says_nothing_more(daemon: Make, tmp_path: Path, how: str) -> None:
    programs = (
        "programs: {s: {command: [sleep, '1000'], start_seconds: 0, readiness: {command: [test, -e, up], interval: 50ms, failures: 1}}}"
    )
    live = daemon(programs)
    (tmp_path / "up").touch()
    live.wait_for("s", "RUNNING", health="healthy")
    (tmp_path / "up").unlink()
    pid = live.wait_for("s", "RUNNING", health="unhealthy")["pid"]
    live.write("programs: {s: {command: [sleep, '1000'], start_seconds: 0}}")
    if how == "kill":
        live.kill()
        live.start()
    else:
        live.do(how)
    assert live.wait_for("s", "RUNNING", health="none")["pid"] == pid
    live.do("wait", "s", "--for", "ready", "--timeout", "10")


def test_a_tcp_probe(daemon: Make, tmp_path: Path, free_port: int) -> None:
    live = daemon(f"programs: {{s: {{command: {server(free_port)}, readiness: {{tcp: '127.0.0.1:{free_port}', interval: 50ms}}}}}}")
    live.wait_for("s", "STARTING")
    (tmp_path / "up").touch()
    live.wait_for("s", "RUNNING", health="healthy")


def test_a_probe_that_hangs_is_killed_with_its_tree(daemon: Make, tmp_path: Path) -> None:
    probe = "echo $$$$ > probe.pid; sleep 1000 & wait"
    live = daemon(
        f"programs: {{s: {{command: [sleep, '1000'], start_seconds: 0, liveness: {{command: [sh, -c, {json.dumps(probe)}], timeout: 200ms, interval: 100ms, failures: 1000}}}}}}"
    )
    pids: list[int] = []

    def ran() -> bool:
        """Each probe writes the file anew: for a moment it is empty."""
        text = (tmp_path / "probe.pid").read_text() if (tmp_path / "probe.pid").exists() else ""
        pids.extend(map(int, text.split()))
        return bool(pids)

    live.wait_until(ran, "the probe ran")
    pid = pids[0]
    live.wait_until(lambda: not alive(pid), "the probe is killed")
    assert live.process_of("s")["state"] == "RUNNING"
    assert live.end() == 0 and live.tagged() == []


@pytest.mark.parametrize(("on_failure", "need"), [("wait", "ready"), ("fail", "ready"), ("wait", "succeeded"), ("fail", "succeeded")])
def test_a_dependency_that_is_lost(daemon: Make, on_failure: str, need: str) -> None:
    live = daemon(f"""
programs:
  job: {{command: ["false"], restart: never}}
  after: {{command: [sleep, "1000"], depends_on: {{job: {need}}}, on_dependency_failure: {on_failure}, start_seconds: 0}}
""")
    live.wait_for("job", "EXITED")
    asked = live.ctl("start", "after")
    assert asked.returncode == 1 and "job is EXITED, it was to" in asked.stderr
    assert live.process_of("job")["run"] == 2, "it was tried once more"
    if on_failure == "fail":
        assert live.wait_for("after", "FATAL")["cause"] == "dependency"
    else:
        assert live.wait_for("after", "WAITING")["pid"] is None


def test_a_chain_starts_in_order_and_stops_in_reverse(daemon: Make) -> None:
    live = daemon("""
programs:
  c: {command: [sleep, "1000"], depends_on: [b], start_seconds: 0}
  b: {command: [sleep, "1000"], depends_on: {a: succeeded, d: started}, start_seconds: 0}
  a: {command: ["true"]}
  d: {command: [sleep, "1000"], start_seconds: 0, autostart: false}
""")
    live.wait_for("c", "RUNNING")
    reached = [event["name"] for event in live.events() if event.get("to") in ("RUNNING", "EXITED")]
    assert reached.index("a") < reached.index("b") < reached.index("c") and reached.index("d") < reached.index("b")
    assert live.end() == 0
    stopped = [line.split()[2] for line in live.text().splitlines() if "→ STOPPED" in line]
    assert stopped.index("c") < stopped.index("b") < stopped.index("d")


def test_a_restart_follows_a_dependency(daemon: Make) -> None:
    live = daemon("""
programs:
  db: {command: [sleep, "1000"], start_seconds: 0, restart: {backoff: {initial: 10ms}}}
  web: {command: [sleep, "1000"], depends_on: [db], restart_with_dependency: true, start_seconds: 0}
  other: {command: [sleep, "1000"], depends_on: [db], start_seconds: 0}
""")
    web, other = (live.wait_for(name, "RUNNING") for name in ("web", "other"))
    os.kill(live.process_of("db")["pid"], signal.SIGKILL)
    live.wait_for("db", "RUNNING", run=2)
    again = live.wait_for("web", "RUNNING", run=2)
    assert again["cause"] == "dependency" and again["restarts"] == 0 and again["pid"] != web["pid"]
    assert live.process_of("other")["pid"] == other["pid"]


def test_all_that_is_restarted_comes_up_in_order(daemon: Make, tmp_path: Path) -> None:
    """Each says that it is ready only a while after it began; whoever needs it begins later than that."""
    say = "sleep 0.3; echo ready; exec sleep 1000"
    live = daemon(f"""
defaults: {{shell: true, command: {json.dumps(say)}, readiness: {{log: ready, interval: 50ms}}, stop: {{grace_period: 5s}}}}
programs:
  web: {{depends_on: {{api: ready}}}}
  api: {{depends_on: {{db: ready}}}}
  db: {{}}
""")
    live.wait_for("web", "RUNNING")

    def check(run: int) -> None:
        live.wait_for("web", "RUNNING", run=run)
        found = [event for event in live.events() if event.get("run") == run]
        steps = [(event["name"], event["to"]) for event in found if event.get("to") in ("STARTING", "RUNNING")]
        assert steps == [(name, state) for name in ("db", "api", "web") for state in ("STARTING", "RUNNING")]

    check(1)
    live.do("restart", "all")
    check(2)
    assert {status["cause"] for status in live.status().values()} == {"operator"}
    live.write(live.file.read_text().replace("sleep 1000", "sleep 1001"))
    live.do("reload")
    check(3)
    assert {status["cause"] for status in live.status().values()} == {"config_changed"}
    assert live.end() == 0 and live.tagged() == []


def test_a_stop_of_a_dependency_stops_nothing_else_and_a_restart_brings_it_back(daemon: Make) -> None:
    live = daemon("""
defaults: {start_seconds: 0, command: [sleep, "1000"]}
programs:
  web: {depends_on: {db: ready}}
  db: {restart: {backoff: {initial: 10ms}}}
""")
    pid = live.wait_for("web", "RUNNING")["pid"]
    os.kill(live.wait_for("db", "RUNNING")["pid"], signal.SIGKILL)
    live.wait_for("db", "RUNNING", run=2)
    live.do("stop", "db")
    web = live.process_of("web")
    assert (web["state"], web["pid"]) == ("RUNNING", pid)
    live.do("restart", "web")
    assert live.process_of("db")["run"] == 3 and live.process_of("web")["run"] == 2


def test_a_crash_waits_for_no_dependency(daemon: Make) -> None:
    live = daemon("""
defaults: {start_seconds: 0, command: [sleep, "1000"]}
programs:
  web: {depends_on: {db: ready}, restart: {backoff: {initial: 10ms}}}
  db: {}
""")
    pid = live.wait_for("web", "RUNNING")["pid"]
    live.do("stop", "db")
    os.kill(pid, signal.SIGKILL)
    live.wait_for("web", "RUNNING", run=2)
    assert live.process_of("db")["state"] == "STOPPED"


def test_a_dependency_that_an_operator_stopped_stays_down_over_a_death(daemon: Make) -> None:
    live = daemon(
        "programs: {db: {command: [sleep, '1000'], readiness: {tcp: '127.0.0.1:1'}}, web: {command: [sleep, '1000'], depends_on: {db: ready}}}"
    )
    live.wait_for("db", "STARTING")
    live.wait_for("web", "WAITING")
    live.do("stop", "db")
    live.kill()
    live.start()
    live.wait_for("web", "WAITING")
    assert live.process_of("db")["state"] == "STOPPED"
    live.do("start", "--no-wait", "web")
    live.wait_for("db", "STARTING")


def test_order_holds_over_a_death(daemon: Make, tmp_path: Path) -> None:
    live = daemon("""
programs:
  job: {command: [sh, -c, "while [ ! -e go ]; do sleep 0.05; done"]}
  web: {command: [sleep, "1000"], depends_on: {job: succeeded}, start_seconds: 0}
""")
    live.wait_for("web", "WAITING")
    live.kill()
    live.start()
    assert live.wait_for("web", "WAITING")["pid"] is None
    (tmp_path / "go").touch()
    live.wait_for("job", "EXITED") if live.process_of("job")["exit_status"] == {"code": 0} else live.wait_until(
        lambda: live.process_of("web")["state"] == "RUNNING", "web runs after another run of job"
    )
    live.wait_for("web", "RUNNING")
