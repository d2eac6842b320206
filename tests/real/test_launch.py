"""How programs and the daemon itself begin: as whom, from where, and with what words when they cannot."""

from __future__ import annotations

import grp
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemons import LiveDaemon, alive

Make = Callable[..., LiveDaemon]
pytestmark = pytest.mark.real


def someone_with_groups() -> str:
    """A user other than root, of the most groups that one has here."""
    return max((user.pw_name for user in pwd.getpwall() if user.pw_uid != 0), key=lambda name: len(os.getgrouplist(name, 0)))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may start programs as somebody else")
def test_a_program_is_somebody_else_wholly(open_path: Path) -> None:
    """User, groups and names are that user's; of root's nothing is left, and neither can it come back."""
    who = pwd.getpwnam(someone_with_groups())
    (open_path / "out").mkdir()
    os.chown(open_path / "out", who.pw_uid, who.pw_gid)
    look = (
        'id -u; id -g; id -G; echo "$HOME $USER $LOGNAME"; grep CapEff /proc/self/status; '
        "echo 1 > $ASUP_HEARTBEAT_FILE && sleep 0.5 && echo 2 > $ASUP_HEARTBEAT_FILE"
    )
    open_path.chmod(0o755)
    programs = f"""
programs:
  w: {{command: {json.dumps(look)}, shell: true, user: {who.pw_name}, directory: /, heartbeat: 20s, logs: {{stdout: w.log}}}}
  g: {{command: id -g, user: {who.pw_name}, group_name: nogroup, directory: /, logs: {{stdout: g.log}}}}
  own:
    command: echo $HOME
    shell: true
    user: {who.pw_name}
    environment: {{HOME: /elsewhere}}
    directory: /
    logs: {{stdout: own.log}}
"""
    with LiveDaemon(open_path, programs, environment={"HOME": "/root", "USER": "root", "LOGNAME": "root"}) as live:
        for name in ("w", "g", "own"):
            live.wait_for(name, "EXITED", exit_status={"code": 0})
        assert live.end() == 0
    uid, gid, groups, names, capabilities = (open_path / "w.log").read_text().splitlines()
    assert (int(uid), int(gid)) == (who.pw_uid, who.pw_gid)
    assert sorted(map(int, groups.split())) == sorted(set(os.getgrouplist(who.pw_name, who.pw_gid)))
    assert names == f"{who.pw_dir} {who.pw_name} {who.pw_name}"
    assert int(capabilities.split()[1], 16) == 0
    assert int((open_path / "g.log").read_text()) == grp.getgrnam("nogroup").gr_gid
    assert (open_path / "own.log").read_text() == "/elsewhere\n"


def test_a_program_is_told_who_it_is(daemon: Make, tmp_path: Path) -> None:
    live = daemon(
        "programs: {w: {command: 'env > env.$ASUP_NAME; exec sleep 1000', shell: true, group: shop, replicas: 2, heartbeat: 60s, start_seconds: 0}}"
    )
    live.wait_for("w:0", "RUNNING")
    live.do("restart", "w:1")
    run_dir = tmp_path / ".asupd"
    for replica, run in ((0, 1), (1, 2)):
        file = tmp_path / f"env.w:{replica}"
        live.wait_until(lambda file=file, run=run: f"ASUP_RUN={run}\n" in file.read_text(), "it has said so")
        told = dict(line.split("=", 1) for line in file.read_text().splitlines() if line.startswith("ASUP_"))
        tag, settings = told.pop("ASUP_TAG"), told.pop("ASUP_SETTINGS")
        assert tag.endswith(f"/w:{replica}/{run}") and len(settings) == 20
        assert told == {
            "ASUP_NAME": f"w:{replica}",
            "ASUP_PROGRAM": "w",
            "ASUP_GROUP": "shop",
            "ASUP_REPLICA": str(replica),
            "ASUP_RUN": str(run),
            "ASUP_SOCKET": str(run_dir / "asupd.sock"),
            "ASUP_HEARTBEAT_FILE": str(run_dir / "heartbeats" / f"w:{replica}"),
        }


LAUNCHES = {
    "no stdin, stdout or stderr": "exec <&- >&- 2>&-",
    "a umask that forbids everything": "umask 777",
    "few descriptors": "ulimit -n 64",
    "a working directory that is gone": "mkdir gone; cd gone; rmdir ../gone",
    "signals ignored": "trap '' TERM HUP INT CHLD PIPE USR1 USR2 ALRM WINCH",
    "no environment": "unset HOME XDG_STATE_HOME LANG TERM USER",
}


@pytest.mark.parametrize("hostility", LAUNCHES.values(), ids=LAUNCHES.keys())
def test_a_hostile_launch_harms_neither_daemon_nor_program(daemon: Make, tmp_path: Path, hostility: str) -> None:
    live = daemon(
        "programs: {a: {command: 'echo said; exec sleep 1000', shell: true, start_seconds: 0}}",
        start=False,
        prefix=("bash", "-c", f'{hostility}; exec "$@"', "launch"),
        options=("--log-file", str(tmp_path / "own.log")),
        environment={"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    live.start()
    pid = live.wait_for("a", "RUNNING")["pid"]
    live.wait_until(
        lambda: (tmp_path / ".asupd/logs/a.log").exists() and (tmp_path / ".asupd/logs/a.log").read_text() == "said\n", "its output"
    )
    assert {number: os.readlink(f"/proc/{pid}/fd/{number}").partition(":")[0] for number in os.listdir(f"/proc/{pid}/fd")} == {
        "0": "/dev/null",
        "1": "pipe",
        "2": "pipe",
    }
    status = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    assert (int(status["SigIgn"], 16), int(status["SigBlk"], 16), status["Umask"]) == (0, 0, "0022")
    for kept in (".asupd/logs/a.log", ".asupd/asupd.lock", "own.log"):
        assert (tmp_path / kept).stat().st_mode & 0o600 == 0o600, kept
    live.do("reload")
    assert live.end() == 0
    assert not alive(pid)
    assert "Traceback" not in (tmp_path / "own.log").read_text() + live.text()


def detached(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "supervisord_async.cli.asupd", "-d", *options]
    environment = {**os.environ, "XDG_STATE_HOME": str(folder / "xdg"), "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=folder, env=environment, check=False)


def test_a_detached_daemon_answers_when_the_command_returns(daemon: Make, tmp_path: Path) -> None:
    live = daemon("programs: {a: {command: [sleep, '1000'], start_seconds: 0}}", start=False)
    assert detached(tmp_path, "-c", "programs.yaml").returncode == 0
    try:
        status = live.wait_for("a", "RUNNING")
        second = detached(tmp_path, "-c", "programs.yaml")
        holder = (tmp_path / ".asupd" / "asupd.lock").read_text().split()[0]
        assert second.returncode == 4 and f"PID {holder}" in second.stderr
        assert f"`asupctl -c {live.file} shutdown` ends it" in second.stderr
        assert live.process_of("a")["pid"] == status["pid"]
    finally:
        live.do("shutdown")
    assert "everything is down" in (tmp_path / ".asupd" / "asupd.log").read_text()
    assert live.tagged() == []


def test_a_detached_daemon_warns_of_logs_that_lead_nowhere(daemon: Make, tmp_path: Path) -> None:
    logs = "{stdout: /dev/stdout, stderr: inherit}"
    live = daemon(f"programs: {{a: {{command: [sleep, '1000'], logs: {logs}}}, b: {{command: [sleep, '1000']}}}}", start=False)
    begun = detached(tmp_path, "-c", "programs.yaml")
    try:
        assert begun.returncode == 0
        words = "in the background nobody keeps what goes to the daemon's own output: programs.a.logs.stdout, programs.a.logs.stderr"
        assert begun.stderr == f"asupd: warning: {words}\n"
    finally:
        live.do("shutdown")


def test_a_detached_daemon_that_cannot_serve_http_warns_of_it(daemon: Make, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        live = daemon(f"daemon: {{http: '127.0.0.1:{port}'}}\nprograms: {{a: {{command: [sleep, '1000']}}}}", start=False)
        done = detached(tmp_path, "-c", "programs.yaml")
        live.do("shutdown")
    assert (done.returncode, done.stderr) == (
        0,
        f"asupd: warning: daemon.http is not served: cannot bind 127.0.0.1:{port}: Address already in use\n",
    )


def test_a_second_file_of_the_folder_is_told_what_it_needs(daemon: Make, tmp_path: Path) -> None:
    live = daemon("programs: {a: {command: [sleep, '1000'], start_seconds: 0}}")
    (tmp_path / "dev.yaml").write_text("programs: {b: {command: [sleep, '1000']}}")
    second = detached(tmp_path, "-c", "dev.yaml")
    assert second.returncode == 4
    assert second.stderr.strip().endswith(f"; it runs {tmp_path}/programs.yaml: give this file a daemon.run_dir of its own")
    assert live.end() == 0


@pytest.mark.parametrize(
    ("programs", "options", "code", "words"),
    [
        ("programs: {a: {comand: x}}", (), 2, "programs.yaml:1:16: programs.a.comand: unknown key; did you mean 'command'?"),
        ("programs: {}", ("--run-dir", "programs.yaml/x"), 1, "cannot make the run_dir"),
        ("programs: {}", ("--run-dir", "x" * 120), 2, "a unix socket's path holds 107 bytes"),
        ("programs: {}", ("-c", "missing.yaml"), 2, "cannot read this file: no such file or directory"),
        ("programs: {}", ("-c", "missing.yaml"), 2, "1 error; nothing was started (-c FILE names another file)"),
        ("programs: {}", ("-c", "programs.yml"), 2, "1 error; nothing was started (but there is programs.yaml: -c programs.yaml)"),
        ("programs: 5", ("--check",), 2, "programs.yaml: unsound: 1 error\n"),
    ],
    ids=["unsound file", "run_dir", "long path", "no file", "another file", "other suffix", "check"],
)
def test_a_detached_daemon_that_cannot_begin_says_why(
    tmp_path: Path, programs: str, options: tuple[str, ...], code: int, words: str
) -> None:
    (tmp_path / "programs.yaml").write_text(programs)
    done = detached(tmp_path, *options)
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr


def test_a_detached_daemon_that_cannot_be_asked_says_why_and_how_to_end_it(daemon: Make, tmp_path: Path) -> None:
    live = daemon("daemon: {socket: /proc/no/such.sock}\nprograms: {a: {command: [sleep, '1000']}}", start=False)
    done = detached(tmp_path, "-c", "programs.yaml")
    assert done.returncode == 1
    assert "cannot be asked: cannot bind /proc/no/such.sock: No such file or directory (kill " in done.stderr
    pid = int(done.stderr.partition("(kill ")[2].split()[0])
    live.wait_until(lambda: len(live.tagged()) == 1, "it supervises")
    os.kill(pid, signal.SIGTERM)
    live.wait_until(lambda: not alive(pid), "it ends")
    assert live.tagged() == []


def test_a_detached_daemon_whose_socket_is_a_silent_strangers_says_so(daemon: Make, tmp_path: Path) -> None:
    path = tmp_path / "taken.sock"
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(path))
        stranger.listen(100)
        live = daemon(f"daemon: {{socket: {path}}}\nprograms: {{a: {{command: [sleep, '1000']}}}}", start=False)
        done = detached(tmp_path, "-c", "programs.yaml")
        os.kill(int((tmp_path / ".asupd" / "asupd.lock").read_text().split()[0]), signal.SIGTERM)
        live.wait_until(lambda: live.tagged() == [], "all ends")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert f"cannot be asked: cannot bind {path}: another process answers there (kill " in done.stderr
