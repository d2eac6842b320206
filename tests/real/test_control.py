"""In command of a real daemon: what its commands wait for, in which order they act, and how it is reached."""

from __future__ import annotations

import http.client
import json
import re
import signal
from collections import Counter
from pathlib import Path

import pytest

from supervisord_async.client.transport import connected
from tests.daemons import LiveDaemon

pytestmark = pytest.mark.real

LAYERS = """
version: 1
defaults: {start_seconds: 100ms}
programs:
  db: {command: "touch up; exec sleep 600", shell: true, readiness: {command: "test -e up", interval: 50ms}}
  api: {command: [sleep, "600"], depends_on: {db: ready}}
  web: {command: [sleep, "600"], depends_on: [api]}
"""


def changes(daemon: LiveDaemon, *states: str) -> list[tuple[str, str]]:
    events = json.loads(daemon.do("events", "--json", "-n", "1000"))
    return [(one["name"], one["to"]) for one in events if one["type"] == "state" and one["to"] in states]


def test_start_and_stop_of_all_keep_the_order_of_dependencies(tmp_path: Path) -> None:
    with LiveDaemon(tmp_path, LAYERS) as daemon:
        daemon.do("wait", "all", "--for", "ready", "--timeout", "30s")
        assert changes(daemon, "STARTING") == [("db", "STARTING"), ("api", "STARTING"), ("web", "STARTING")]
        begun = changes(daemon, "STARTING", "RUNNING")
        assert begun.index(("db", "RUNNING")) < begun.index(("api", "STARTING"))  # web needs api started, not RUNNING
        daemon.do("stop", "all")
        assert changes(daemon, "STOPPED") == [("web", "STOPPED"), ("api", "STOPPED"), ("db", "STOPPED")]
        daemon.do("start", "web")  # brings up what it needs
        assert {name: one["state"] for name, one in daemon.status().items()} == dict.fromkeys(("db", "api", "web"), "RUNNING")
        tree = daemon.do("status", "--tree")
        assert re.search(r"^└─ api +started +RUNNING", tree, re.MULTILINE), tree
        assert re.search(r"^   └─ db +ready +RUNNING +healthy", tree, re.MULTILINE), tree


def test_reload_waits_for_what_it_touched_and_fails_with_it(tmp_path: Path) -> None:
    with LiveDaemon(tmp_path, LAYERS) as daemon:
        daemon.do("wait", "all", "--for", "ready", "--timeout", "30s")
        more = (
            "  bad: {command: 'sleep 0.2; exit 3', shell: true, start_seconds: 5s}\n  needy: {command: [sleep, '9'], depends_on: [web]}\n"
        )
        daemon.write(LAYERS.replace('[sleep, "600"], depends_on: [api]', '[sleep, "601"], depends_on: [api]') + more)
        done = daemon.ctl("reload")
        assert done.returncode == 1
        assert "web: running, pid" in done.stdout
        assert "needy: running, pid" in done.stdout
        assert "cannot reload bad: run 1 exited with 3" in done.stderr
        daemon.write(LAYERS)
        assert "bad: removed" in daemon.do("reload")
        assert set(daemon.status()) == {"db", "api", "web"}
        assert daemon.do("reload", "--no-wait") == "= 3 unchanged\n"


def test_a_removed_control_socket_comes_back_at_a_hup(tmp_path: Path) -> None:
    with LiveDaemon(tmp_path, LAYERS) as daemon:
        (tmp_path / ".asupd" / "asupd.sock").unlink()
        assert daemon.ctl("status").returncode == 4
        daemon.send(signal.SIGHUP)
        daemon.wait_until(daemon.answers, "the daemon answers again")
        daemon.wait_until(lambda: "it was made again" in daemon.text(), "the log says so")
        daemon.do("reexec")
        assert daemon.answers()


def test_the_first_scrape_counts_every_record_since_the_daemon_began(tmp_path: Path) -> None:
    """Also those of before it answered, and of the time in which its socket could not be had."""
    socket = tmp_path / "elsewhere" / "asupd.sock"
    socket.mkdir(parents=True)
    hasty = {"supervisord_async.supervise.daemon.CONTROL_RETRY_SECONDS": 0.1}
    programs = f"daemon: {{socket: {socket}}}\nprograms: {{a: {{command: [sleep, '600'], replicas: 9, start_seconds: 0}}}}"
    live = LiveDaemon(tmp_path, programs, constants=hasty)
    with live.start(wait=False) as daemon:
        daemon.wait_until(lambda: daemon.text().count("→ RUNNING") == 9, "all are up")
        socket.rmdir()
        daemon.wait_until(socket.is_socket, "it answers at last")
        scrape = http.client.HTTPConnection("localhost")
        scrape.sock = connected(str(socket), timeout_seconds=60)
        scrape.request("GET", "/metrics")
        counted = re.findall(r'^asup_events_total{type="(\w+)"} ([0-9.]+)$', scrape.getresponse().read().decode(), re.MULTILINE)
        scrape.close()
        events = Counter(each["type"] for each in daemon.events())
        assert {type_: float(count) for type_, count in counted} == events and events["state"] == 18


def test_no_secret_of_a_program_is_told_by_anything(tmp_path: Path) -> None:
    programs = """
version: 1
programs:
  web:
    command: ["/no/such/hunter2-and-more"]
    environment: {DB_PASSWORD: hunter2-and-more}
    restart: never
  hooked:
    command: [sleep, "600"]
    environment: {API_TOKEN: hunter2-and-more}
    restart: never
    hooks: {before_start: [sh, -c, "echo using $API_TOKEN; exit 1"]}
"""
    with LiveDaemon(tmp_path, programs) as daemon:
        daemon.wait_for("web", "FATAL")
        daemon.wait_for("hooked", "FATAL")
        told = "".join(daemon.ctl(*words).stdout for words in (["status", "--json"], ["events", "--json"], ["why", "web"], ["why", "hooked"],
                                                               ["history", "web", "--json"], ["history", "hooked"], ["config"]))  # fmt: skip
        assert "/no/such/********" in told
        assert "using ********" in told
        assert "hunter2" not in told
        assert "hunter2" not in daemon.text()


def test_a_program_that_was_taken_over_says_so_in_why_and_events(tmp_path: Path) -> None:
    with LiveDaemon(tmp_path, LAYERS) as daemon:
        daemon.do("wait", "all", "--for", "ready", "--timeout", "30s")
        for _ in range(2):
            daemon.kill()
            daemon.start()
            daemon.wait_for("db", "RUNNING", cause="adopted", run=1)
        assert "run 1 was started because it starts with the daemon; the present daemon took it over" in daemon.do("why", "db")
        events = json.loads(daemon.do("events", "--json", "-n", "1000"))
        assert sum(one["type"] == "adopted" and one["name"] == "db" for one in events) == 2
