"""A name server that does not answer holds up who asks it and nobody else."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemons import LiveDaemon

Make = Callable[..., LiveDaemon]
pytestmark = pytest.mark.real

#: Runs a command where the only name server is at an address from which nothing comes back, not even that there is none.
SILENCE = """
ip link set lo up && ip route add 192.0.2.0/24 dev lo && cd "$1" && shift || exit
echo nameserver 192.0.2.1 >resolv.conf && mount --bind resolv.conf /etc/resolv.conf || exit
echo hosts: files dns >nsswitch.conf && mount --bind nsswitch.conf /etc/nsswitch.conf || exit
exec "$@"
"""


@pytest.fixture
def silence(tmp_path: Path) -> tuple[str, ...]:
    """A prefix for commands."""
    prefix = ("unshare", "--mount", "--net", "sh", "-c", SILENCE, "sh", str(tmp_path))
    done = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"NOT TESTED: a silent name server: {done.stderr.strip()}")
    return prefix


def test_a_program_whose_socket_has_a_name_holds_nobody_up(daemon: Make, silence: tuple[str, ...]) -> None:
    programs = """
programs:
  named: {command: sleep 1000, sockets: {http: "tcp://web.example.org:8080"}}
  here: {command: sleep 1000}
"""
    with daemon(programs, prefix=silence) as live:
        live.wait_for("here", "RUNNING")
        assert live.process_of("named")["state"] == "STARTING"
        assert live.do("restart", "here").startswith("here: running")
        assert live.do("stop", "named", "--timeout", "5s").startswith("named: stopped")
        live.do("start", "--no-wait", "named")
        live.wait_for("named", "STARTING")
        assert live.do("shutdown", "--timeout", "5s").startswith("stopped")
        assert live.wait() == 0


def test_a_socket_whose_name_is_not_looked_up_is_a_failed_start(daemon: Make, silence: tuple[str, ...]) -> None:
    programs = 'programs: {named: {command: sleep 1000, sockets: {http: "tcp://web.example.org:8080"}, restart: {max_restarts: 0}}}'
    constants = {"supervisord_async.supervise.fleet.sockets.NAME_SECONDS": 0.2}
    with daemon(programs, prefix=silence, constants=constants) as live:
        found = live.wait_for("named", "FATAL")
        assert "cannot bind tcp://web.example.org:8080: no name server has answered for 0.2 s" in found["description"]


def test_a_webhook_whose_name_is_not_looked_up_does_not_hold_up_the_end(daemon: Make, silence: tuple[str, ...]) -> None:
    programs = """
daemon: {on_event: [{events: [failed], url: "http://hook.example.org/"}]}
programs: {job: {command: "false", restart: never}}
"""
    with daemon(programs, prefix=silence) as live:
        live.wait_for("job", "EXITED")
        assert live.do("shutdown", "--timeout", "5s").startswith("stopped")
        assert live.wait() == 0


def test_a_program_whose_probes_have_a_name_is_not_restarted_for_that(daemon: Make, silence: tuple[str, ...]) -> None:
    programs = """
defaults: {command: sleep 1000}
programs:
  http: {liveness: {http: "http://web.example.org/", interval: 100ms, timeout: 100ms, failures: 1}}
  tcp: {liveness: {tcp: "web.example.org:80", interval: 100ms, timeout: 100ms, failures: 1}}
"""
    with daemon(programs, prefix=silence) as live:
        for name, target in (("http", "http://web.example.org/"), ("tcp", "tcp web.example.org:80")):
            live.wait_for(name, "RUNNING", health="unhealthy")
            why = live.do("why", name)
            assert f"cannot tell: {target}: no name server has answered within 0.1 s" in why, why
            assert live.process_of(name)["run"] == 1
