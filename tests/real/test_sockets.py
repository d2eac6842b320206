"""Sockets that the daemon holds: real servers, real clients, nobody refused."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.daemons import LiveDaemon, alive, python

Make = Callable[..., LiveDaemon]
pytestmark = pytest.mark.real

#: Serves HTTP on descriptor 3, one request after the other, and says which run it is.
SERVER = """
import os, socket
assert os.environ['LISTEN_PID'] == str(os.getpid()), os.environ
s = socket.socket(fileno=3)
while True:
    c, _ = s.accept()
    c.recv(4096)
    body = os.environ['ASUP_RUN'].encode()
    c.sendall(b'HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n%s' % (len(body), body))
    c.close()
"""
APP = "def app(environ, start):\n    start('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', '5')])\n    return [b'hello']\n"


def web(code: str, port: int, settings: str) -> str:
    """A file with the program ``web``, which serves on ``port``."""
    return f"programs:\n  web: {{command: {python(code)}, sockets: {{http: 'tcp://127.0.0.1:{port}'}}, {settings}}}"


def knocked(port: int) -> bool:
    """Whether somebody listens there, who has been connected to by now."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Hammer:
    """A client that asks without pause; what went wrong is in ``refused``."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answers: list[bytes] = []
        self.refused: list[str] = []

    def ask(self) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), 20) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = b""
            while part := connection.recv(4096):
                answer += part
        return answer.rpartition(b"\r\n\r\n")[2]

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self.answers.append(self.ask())
            except ConnectionRefusedError as error:
                self.refused.append(repr(error))
            except ConnectionResetError:
                continue  # the server was killed in the middle of this very request
            stop.wait(0.005)


@contextmanager
def hammering(port: int) -> Iterator[Hammer]:
    hammer, stop = Hammer(port), threading.Event()
    thread = threading.Thread(target=hammer.run, args=(stop,))
    thread.start()
    try:
        yield hammer
    finally:
        stop.set()
        thread.join(60)


def test_no_connection_is_refused_over_restarts_reloads_reexec_and_death(daemon: Make, free_port: int) -> None:
    text = web(SERVER, free_port, "start_seconds: 0, restart: {backoff: {initial: 10ms}}")
    live = daemon(text)
    live.wait_for("web", "RUNNING")
    with hammering(free_port) as hammer:

        def served_by(run: int) -> None:
            live.wait_until(lambda: hammer.answers[-1:] == [b"%d" % run], f"run {run} serves")

        served_by(1)
        live.do("restart", "web")
        served_by(2)
        os.kill(live.process_of("web")["pid"], signal.SIGKILL)
        served_by(3)
        live.write(text.replace("start_seconds: 0", "start_seconds: 0, description: other, environment: {A: b}"))
        live.do("reload")
        served_by(4)
        live.do("reexec")
        live.wait_until(live.answers, "it answers again")
        live.do("restart", "web")
        served_by(5)
        live.kill()
        live.start()
        live.do("restart", "web")
        served_by(6)
        assert hammer.refused == []
        hammer_count = len(hammer.answers)
    assert hammer_count > 20


@pytest.mark.parametrize("server", ["gunicorn", "uvicorn"])
def test_real_servers_take_the_socket_and_refuse_nobody_over_restarts(daemon: Make, tmp_path: Path, free_port: int, server: str) -> None:
    (tmp_path / "app.py").write_text(APP)
    command = {
        "gunicorn": f"[{sys.executable}, -m, gunicorn, 'app:app', --workers, '1', --log-level, warning, --no-control-socket]",
        "uvicorn": f"[{sys.executable}, -m, uvicorn, --interface, wsgi, --fd, '3', --log-level, warning, 'app:app']",
    }[server]
    live = daemon(f"programs: {{web: {{command: {command}, start_seconds: 0, sockets: {{http: 'tcp://127.0.0.1:{free_port}'}}}}}}")
    live.wait_for("web", "RUNNING")
    with hammering(free_port) as hammer:
        live.wait_until(lambda: b"hello" in hammer.answers, "it serves")
        for _ in range(2):
            live.do("restart", "web")
            count = len(hammer.answers)
            live.wait_until(lambda count=count: hammer.answers[count + 3 :].count(b"hello"), "it serves again")
        assert hammer.refused == []


def test_all_kinds_of_sockets_come_with_their_names(daemon: Make, tmp_path: Path, free_port: int) -> None:
    show = """
import json, os, socket
found = []
for fd in range(3, 3 + int(os.environ['LISTEN_FDS'])):
    s = socket.socket(fileno=os.dup(fd)); found.append([s.family.name, s.type.name, str(s.getsockname())])
json.dump([os.environ['LISTEN_FDNAMES'], found, os.environ['LISTEN_PID'] == str(os.getpid())], open('shown.new', 'w'))
os.rename('shown.new', 'shown')
import time; time.sleep(1000)
"""
    if os.geteuid() != 0:
        pytest.skip("root alone may give a socket to another user")
    live = daemon(f"""
programs:
  a:
    command: {python(show)}
    start_seconds: 0
    limits: {{nice: 3}}
    sockets:
      file: {{url: 'unix:s.sock', mode: '0640', user: nobody, backlog: 5}}
      v6: 'tcp://[::1]:{free_port}'
      dgram: 'udp://127.0.0.1:{free_port}'
""")
    live.wait_until((tmp_path / "shown").exists, "the sockets are shown")
    names, found, is_me = json.loads((tmp_path / "shown").read_text())
    assert (names, is_me) == ("file:v6:dgram", True)
    assert [each[:2] for each in found] == [["AF_UNIX", "SOCK_STREAM"], ["AF_INET6", "SOCK_STREAM"], ["AF_INET", "SOCK_DGRAM"]]
    shown = (tmp_path / "s.sock").stat()
    assert shown.st_mode & 0o777 == 0o640
    assert shown.st_uid == 65534
    assert live.end() == 0
    assert not (tmp_path / "s.sock").exists()


def test_a_replica_is_restarted_beside_others_that_a_daemon_without_a_state_took_over(daemon: Make, free_port: int) -> None:
    """They hold the address: the daemon has to have the same socket again."""
    live = daemon(web(SERVER, free_port, "replicas: 2, start_seconds: 0"))
    pids = [live.wait_for(f"web:{number}", "RUNNING")["pid"] for number in range(2)]
    live.kill()
    for state in (live.folder / ".asupd").glob("state.json*"):
        state.unlink()
    live.start()
    assert [live.wait_for(f"web:{number}", "RUNNING")["pid"] for number in range(2)] == pids
    with hammering(free_port) as hammer:
        live.do("restart", "web:0")
        live.do("restart", "web:1")
    assert hammer.refused == []
    assert [live.process_of(f"web:{number}")["run"] for number in range(2)] == [2, 2]


def test_an_address_that_is_taken_is_a_failure_to_spawn_until_it_is_free(daemon: Make, free_port: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port))
        taken.listen()
        live = daemon(web(SERVER, free_port, "start_seconds: 0, restart: {backoff: {initial: 100ms, max: 200ms}}"))
        status = live.wait_for("web", "BACKOFF")
        assert status["cause"] == "spawn_failed"
        assert any(
            f"socket: cannot bind tcp://127.0.0.1:{free_port}: Address already in use" in event["message"] for event in live.events()
        )
    live.wait_for("web", "RUNNING")


def test_a_program_starts_at_its_first_connection_and_again_after_it_ended(daemon: Make, free_port: int) -> None:
    once = SERVER.replace("while True:", "for _ in range(1):")
    other = "\n  other: {command: [sleep, '1000'], start_seconds: 0}"
    at_once = "start_on_connect: true, start_seconds: 0, restart: {backoff: {initial: 1ms, max: 1ms}}"
    live = daemon(web(once, free_port, at_once) + other)
    live.wait_for("other", "RUNNING")
    assert live.process_of("web")["run"] == 0
    assert live.ctl("status").returncode == 0
    hammer = Hammer(free_port)
    for run in (1, 2):
        assert hammer.ask() == b"%d" % run
        live.wait_for("web", "EXITED", run=run)
    live.do("stop", "web")
    live.wait_for("web", "STOPPED")
    with socket.create_connection(("127.0.0.1", free_port), 20):
        live.do("restart", "other")
        assert live.process_of("web")["run"] == 2  # an operator's stop wins


def test_a_program_that_a_connection_started_gets_a_socket_that_waits(daemon: Make, free_port: int) -> None:
    """An event loop makes what it waits for non-blocking; the program's ``accept`` must not notice that somebody waited."""
    told = SERVER.replace("while True:", "print('blocking', os.get_blocking(3), flush=True)\nwhile True:")
    live = daemon(web(told, free_port, "start_on_connect: true, start_seconds: 0, restart: never"))
    hammer = Hammer(free_port)
    live.wait_until(lambda: knocked(free_port), "it listens")
    assert [hammer.ask() for _ in range(3)] == [b"1"] * 3
    assert "blocking True" in live.do("logs", "web")


def test_a_reload_says_who_is_started_by_a_connection(daemon: Make, free_port: int) -> None:
    once = SERVER.replace("while True:", "for _ in range(1):")
    asleep = web(once, free_port, "autostart: false, start_seconds: 0")
    live = daemon(asleep)
    live.write(asleep.replace("autostart: false", "start_on_connect: true"))
    live.do("reload")

    def bound() -> bool:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return probe.connect_ex(("127.0.0.1", free_port)) == 0

    live.wait_until(bound, "somebody listens")
    live.wait_for("web", "EXITED", run=1)
    live.write(asleep)
    live.do("reload")
    with socket.create_connection(("127.0.0.1", free_port), 20):
        live.do("start", "web")  # by hand, and so by nobody else
    live.wait_for("web", "EXITED", run=2)
    starts = [event["cause"] for event in live.events() if event.get("to") == "STARTING"]
    assert starts == ["autostart", "operator"]


def test_a_program_that_never_takes_its_connection_is_started_ever_less_often(daemon: Make, free_port: int) -> None:
    live = daemon(web("pass", free_port, "start_on_connect: true, start_seconds: 0, restart: {backoff: {initial: 200ms}}"))

    def connect() -> socket.socket | None:
        try:
            return socket.create_connection(("127.0.0.1", free_port), 20)
        except ConnectionRefusedError:
            return None  # not bound yet

    found: list[socket.socket | None] = []

    def connected() -> bool:
        found[:] = [connect()]
        return found[0] is not None

    live.wait_until(connected, "it listens")
    assert found[0] is not None
    with found[0]:
        live.wait_until(lambda: live.process_of("web")["run"] >= 3, "three runs")
        starts = [event["at"] for event in live.events() if event.get("to") == "STARTING"]
    assert len(starts) < 12
    assert alive(live.pid)


def test_sockets_that_a_reload_takes_away_are_closed_and_changed_ones_bound_anew(daemon: Make, free_port: int, tmp_path: Path) -> None:
    text = f"programs: {{web: {{command: {python(SERVER)}, sockets: {{http: 'URL'}}, start_seconds: 0}}}}"
    live = daemon(text.replace("URL", f"tcp://127.0.0.1:{free_port}"))
    live.wait_for("web", "RUNNING")
    live.write(text.replace("URL", "unix:web.sock"))
    live.do("reload")
    live.wait_for("web", "RUNNING", run=2)
    live.wait_until((tmp_path / "web.sock").exists, "the new one is bound")
    live.wait_until(lambda: is_refused(free_port), "the old one is closed")
    live.write("programs: {}")
    live.do("reload")
    live.wait_until(lambda: not (tmp_path / "web.sock").exists(), "the file is gone")


def is_refused(port: int) -> bool:
    """Whether nobody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return True
    return False
