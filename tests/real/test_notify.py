"""Programs that speak sd_notify, under a real daemon, by other people's clients."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemons import LiveDaemon, alive
from tests.leaks import descriptors_of

Make = Callable[..., LiveDaemon]
pytestmark = pytest.mark.real


def python(code: str) -> str:
    """A command that runs ``code`` with sdnotify's ``say`` at hand."""
    head = "import os,sys,time,sdnotify\nn = sdnotify.SystemdNotifier(debug=True)\nsay = n.notify\n"
    return f"[{sys.executable}, -c, {json.dumps(head + code)}]"


def test_python_sdnotify_reports_ready_and_status(daemon: Make, tmp_path: Path) -> None:
    code = "while not os.path.exists('go'): time.sleep(0.01)\nsay('STATUS=serving \\x1b[31m3 clients'); say('READY=1'); time.sleep(1000)"
    live = daemon(f"programs: {{a: {{command: {python(code)}, notify: true}}, b: {{command: [sleep, '1000'], depends_on: {{a: ready}}}}}}")
    live.wait_for("a", "STARTING")
    assert live.wait_for("b", "WAITING")["pid"] is None
    (tmp_path / "go").touch()
    status = live.wait_for("a", "RUNNING")
    assert status["description"] == "serving  [31m3 clients"
    live.wait_for("b", "RUNNING")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_server_that_gives_up_root_before_it_is_ready_is_heard(daemon: Make) -> None:
    code = "os.setgid(65501); os.setuid(65501); say('READY=1'); time.sleep(1000)"
    live = daemon(f"programs: {{a: {{command: {python(code)}, notify: true}}}}")
    assert live.wait_for("a", "RUNNING")["run"] == 1


def test_a_run_that_is_not_ready_yet_is_not_taken_for_ready_after_a_reexec(daemon: Make, tmp_path: Path) -> None:
    code = "while not os.path.exists('go'): time.sleep(0.01)\nsay('READY=1'); time.sleep(1000)"
    live = daemon(f"programs: {{a: {{command: {python(code)}, notify: true}}, b: {{command: [sleep, '1000'], start_seconds: 0}}}}")
    live.wait_until(lambda: live.process_of("a")["pid"] is not None, "it has a process, which is not there at once")
    pid = live.wait_for("a", "STARTING")["pid"]
    live.do("reexec")
    live.wait_until(lambda: "re-executed" in live.text(), "the new code is there")
    live.do("restart", "b")  # whatever a had to be told by then, it was
    assert (live.process_of("a")["state"], live.process_of("a")["pid"]) == ("STARTING", pid)
    (tmp_path / "go").touch()
    assert live.wait_for("a", "RUNNING")["pid"] == pid


def test_a_run_that_never_says_ready_is_replaced_unless_it_asks_for_time(daemon: Make) -> None:
    slow = "say('EXTEND_TIMEOUT_USEC=60000000'); time.sleep(2.5)\nsay('READY=1'); time.sleep(1000)"
    live = daemon(f"""
programs:
  slow: {{command: {python(slow)}, notify: {{start_timeout: 2s}}}}
  mute: {{command: [sleep, '1000'], notify: {{start_timeout: 500ms}}, restart: {{max_restarts: 0}}}}
""")
    assert live.wait_for("slow", "RUNNING")["run"] == 1
    assert "not ready within 0.5 s" in live.do("why", "mute")
    assert live.wait_for("mute", "FATAL")["run"] == 1


def test_a_watchdog_that_falls_silent_is_aborted_and_replaced(daemon: Make, tmp_path: Path) -> None:
    code = """
assert os.environ['WATCHDOG_PID'] == str(os.getpid()) and 'ASUP_HEARTBEAT_FILE' not in os.environ
say('READY=1')
while not os.path.exists('hang') or os.environ['ASUP_RUN'] != '1':
    say('WATCHDOG=1'); time.sleep(int(os.environ['WATCHDOG_USEC']) / 4e6)
time.sleep(1000)
"""
    live = daemon(f"programs: {{a: {{command: {python(code)}, notify: true, heartbeat: 2s, restart: {{backoff: {{initial: 10ms}}}}}}}}")
    live.wait_for("a", "RUNNING", health="healthy")
    (tmp_path / "hang").touch()
    status = live.wait_for("a", "RUNNING", run=2, health="healthy")
    assert (status["cause"], status["exit_status"]["signal"]) == ("heartbeat_missed", "SIGABRT")
    live.do("stop", "a")
    assert live.process_of("a")["exit_status"]["signal"] == "SIGTERM", "a stop is no watchdog's"


def test_a_triggered_watchdog_is_a_missed_one(daemon: Make) -> None:
    code = "say('READY=1')\nif os.environ['ASUP_RUN'] == '1': say('WATCHDOG=trigger')\ntime.sleep(1000)"
    live = daemon(f"programs: {{a: {{command: {python(code)}, notify: true, restart: {{backoff: {{initial: 10ms}}}}}}}}")
    assert live.wait_for("a", "RUNNING", run=2)["cause"] == "heartbeat_missed"
    assert any("triggered" in event["message"] for event in live.events())


def test_systemd_notify_speaks_for_a_script_where_access_is_all(daemon: Make) -> None:
    if shutil.which("systemd-notify") is None:
        pytest.skip("no systemd-notify on this machine: Debian's package systemd has it")
    script = "systemd-notify --ready --status='from a script' && exec sleep 1000"
    live = daemon(f"programs: {{a: {{command: {json.dumps(script)}, shell: true, notify: {{access: all}}}}}}")
    assert live.wait_for("a", "RUNNING")["description"] == "from a script"


def test_a_barrier_returns_when_all_before_it_was_heeded(daemon: Make) -> None:
    code = """
import array, select, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.connect(os.environ['NOTIFY_SOCKET'].replace('@', '\\0', 1))
r, w = os.pipe()
s.send(b'READY=1\\nSTATUS=before')
s.sendmsg([b'BARRIER=1'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [w]))])
os.close(w)
assert select.select([r], [], [], 20)[0] and os.read(r, 1) == b''
s.send(b'STATUS=after the barrier')
time.sleep(1000)
"""
    live = daemon(f"programs: {{a: {{command: {python(code)}, notify: true}}}}")
    live.wait_for("a", "RUNNING", description="after the barrier")


def test_a_program_that_daemonizes_names_its_main_process(daemon: Make, tmp_path: Path) -> None:
    code = """
pid = os.fork()
if pid == 0:
    while not os.path.exists('end'): time.sleep(0.01)
    os._exit(7)
say(f'MAINPID={pid}\\nREADY=1')
open('pid', 'w').write(str(pid))
"""
    live = daemon(f"programs: {{a: {{command: {python(code)}, notify: true, restart: never}}}}")
    status = live.wait_for("a", "RUNNING")
    live.wait_until(lambda: live.process_of("a")["pid"] == int((tmp_path / "pid").read_text()), "the child is the main process")
    status = live.process_of("a")
    assert (status["run"], status["state"], status["cause"]) == (1, "RUNNING", "autostart")
    (tmp_path / "end").touch()
    status = live.wait_for("a", "EXITED")
    assert status["exit_status"] in ({"code": 7}, {"unknown": True})


def test_a_stranger_is_no_main_process_and_may_not_speak(open_path: Path) -> None:
    code = f"say('MAINPID={os.getpid()}'); say('READY=1'); time.sleep(1000)"
    file = f"programs: {{a: {{command: {python(code)}, notify: true}}, b: {{command: [sleep, '1000'], notify: {{access: all}}}}}}"
    with LiveDaemon(open_path, file) as live, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as forged:
        pid = live.wait_for("a", "RUNNING")["pid"]
        assert pid != os.getpid() and alive(os.getpid())
        live.wait_until(lambda: any("refused" in event["message"] for event in live.events()), "the refusal is told")
        address = open_path / ".asupd" / "notify" / "b.sock"
        live.wait_until(address.exists, "its socket is there")
        for _ in range(5):
            forged.sendto(b"READY=1\nSTATUS=forged", str(address))
        live.wait_until(lambda: any("ignored a message" in event["message"] for event in live.events()), "the forgery is told")
        assert live.process_of("b")["state"] == "STARTING"
        assert "forged" not in live.process_of("b")["description"]


def test_a_flood_stops_nobody(daemon: Make) -> None:
    messages = "n.socket.send(b'WATCHDOG=1\\nSTATUS=flood'); n.socket.send(b''); n.socket.send(b'\\xff=\\0')"
    flood = f"say('READY=1')\nwhile True: {messages}"
    live = daemon(f"programs: {{a: {{command: {python(flood)}, notify: true}}, b: {{command: [sleep, '1000'], start_seconds: 0}}}}")
    live.wait_for("a", "RUNNING", description="flood")
    for _ in range(3):
        live.do("restart", "b")
    live.do("stop", "a")
    assert live.process_of("a")["state"] == "STOPPED"


def test_stored_descriptors_come_back_with_the_next_run_and_over_a_reexec(daemon: Make, tmp_path: Path) -> None:
    code = """
import array, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.connect(os.environ['NOTIFY_SOCKET'].replace('@', '\\0', 1))
if os.environ['ASUP_RUN'] == '1':
    f = open('kept', 'w+'); f.write('kept over runs'); f.flush()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [f.fileno()]))]
    s.sendmsg([b'FDSTORE=1\\nFDNAME=gone'], rights); s.send(b'FDSTOREREMOVE=1\\nFDNAME=gone')
    s.sendmsg([b'FDSTORE=1\\nFDNAME=kept'], rights)
else:
    assert os.environ['LISTEN_PID'] == str(os.getpid()) and os.environ['LISTEN_FDS'] == '1'
    os.lseek(3, 0, 0)
    s.send(b'STATUS=' + os.environ['LISTEN_FDNAMES'].encode() + b': ' + os.read(3, 100))
s.send(b'READY=1'); time.sleep(1000)
"""
    live = daemon(f"programs: {{a: {{command: {python(code)}, notify: true}}}}")
    live.wait_for("a", "RUNNING")
    (tmp_path / "kept").unlink()
    live.do("restart", "a")
    live.wait_for("a", "RUNNING", run=2, description="kept: kept over runs")
    live.do("reexec")
    live.wait_until(live.answers, "it answers again")
    assert live.process_of("a")["description"] == "kept: kept over runs"
    live.do("restart", "a")
    live.wait_for("a", "RUNNING", run=3, description="kept: kept over runs")
    held = f"{tmp_path}/kept (deleted)"
    assert held in descriptors_of(live.pid).values()
    live.do("stop", "a")  # nothing follows by itself that they could be for
    live.wait_until(lambda: held not in descriptors_of(live.pid).values(), "what was stored is closed")


def test_words_are_heard_after_the_daemon_was_killed(daemon: Make, tmp_path: Path) -> None:
    word = "'STATUS=' + ('late' if os.path.exists('late') else 'early')"
    code = f"say('READY=1')\nwhile True:\n  sdnotify.SystemdNotifier().notify({word})\n  time.sleep(0.05)"
    live = daemon(f"programs: {{a: {{command: {python(code)}, notify: true}}}}")
    pid = live.wait_for("a", "RUNNING", description="early")["pid"]
    live.kill()
    (tmp_path / "late").touch()
    live.start()
    assert live.wait_for("a", "RUNNING", description="late")["pid"] == pid


def test_what_was_said_while_no_daemon_listened_is_not_waited_for(daemon: Make, tmp_path: Path) -> None:
    code = (
        "open('begun', 'w')\nwhile not os.path.exists('go'): time.sleep(0.01)\n"
        "sdnotify.SystemdNotifier().notify('READY=1')\nopen('said', 'w'); time.sleep(1000)"
    )
    live = daemon(f"programs: {{a: {{command: {python(code)}, notify: true}}}}")
    live.wait_until((tmp_path / "begun").exists, "it has connected to its socket")
    pid = live.process_of("a")["pid"]
    state = tmp_path / ".asupd" / "state.json"
    live.wait_until(lambda: f'"pid":{pid}' in state.read_text(), "a successor will know of it")
    live.kill()
    (tmp_path / "go").touch()
    live.wait_until((tmp_path / "said").exists, "it has said it to nobody")
    live.start()
    assert live.wait_for("a", "RUNNING", run=1)["pid"] == pid


def test_an_errno_is_told_with_the_end(daemon: Make) -> None:
    code = "say('READY=1'); say('ERRNO=28\\nSTATUS=disk'); say('STOPPING=1'); sys.exit(3)"
    live = daemon(f"programs: {{a: {{command: {python(code)}, notify: true, restart: never}}}}")
    live.wait_for("a", "EXITED")
    assert "No space left on device" in live.do("why", "a") + json.dumps(live.events())


def test_a_run_that_ends_before_anybody_listened_leaves_no_listener(daemon: Make) -> None:
    """The next run is heard; it was taken for a second reader of the same socket."""
    live = daemon("programs: {a: {command: [sh, -c, 'exit 0'], notify: true, heartbeat: 10s}}")
    live.wait_for("a", "EXITED", run=1)
    for run in (2, 3, 4):
        assert live.do("start", "a").startswith(f"a: run {run} exited with 0")
    assert "a bug broke its supervision" not in live.text()


def test_a_socket_whose_file_was_removed_is_made_anew_for_the_next_run(open_path: Path) -> None:
    code = "say('READY=1'); time.sleep(1000)"
    with LiveDaemon(open_path, f"programs: {{a: {{command: {python(code)}, notify: true}}}}") as live:
        live.wait_for("a", "RUNNING", run=1)
        shutil.rmtree(open_path / ".asupd" / "notify")
        live.do("restart", "a")
        live.wait_for("a", "RUNNING", run=2)
