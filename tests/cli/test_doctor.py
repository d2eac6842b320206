"""``asupctl doctor``: each fault is found, with what to do; a sound set-up is said to be sound."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisord_async.cli import diagnosis
from supervisord_async.cli.asupctl import run
from supervisord_async.daemon_registry import LOCK_NAME, remember
from supervisord_async.system.lock import InstanceLock
from tests.daemons import LiveDaemon

Findings = list[dict[str, Any]]
Doctor = Callable[..., tuple[int, Findings]]

SOUND = "programs:\n  sleeper: {command: [sleep, '1000'], stop: {grace_period: 1s}}\n"


@pytest.fixture
def doctor(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """``doctor(text)`` writes programs.yaml and examines it."""
    monkeypatch.chdir(tmp_path)

    def call(text: str | None = None, *words: str) -> tuple[int, Findings]:
        if text is not None:
            (tmp_path / "programs.yaml").write_text(text)
        capsys.readouterr()
        code = run(["doctor", "--json", *words])
        document = json.loads(capsys.readouterr().out)
        assert document["sound"] is (code == 0)
        return code, document["findings"]

    return call


def only(findings: Findings, check: str) -> dict[str, Any]:
    """The one finding of that check that is not well, with advice."""
    (found,) = [each for each in findings if each["check"] == check and each["level"] != "ok"]
    assert found["advice"]
    return found


def test_a_sound_set_up_is_said_to_be_sound(doctor: Doctor) -> None:
    code, findings = doctor(SOUND)
    assert code == 0, findings
    assert {each["check"] for each in findings} >= {"python", "dependencies", "kernel", "descriptors", "inotify", "run_dir", "lock", "log"}


def test_faults_of_the_file_are_errors_with_their_place(doctor: Doctor) -> None:
    code, findings = doctor("programs:\n  a: {comand: [true]}\n")
    errors = [each for each in findings if each["level"] == "error"]
    assert code == 1
    assert all(each["message"].startswith("programs.yaml:2:") for each in errors)
    assert any("command" in each["message"] for each in errors)


def test_a_missing_executable_and_an_unknown_user_are_errors(doctor: Doctor) -> None:
    code, findings = doctor("programs:\n  a: {command: [no-such-thing]}\n  b: {command: [sleep, '1'], user: nobody-of-that-name}\n")
    assert code == 1
    assert "no-such-thing" in only(findings, "executable")["message"]
    assert "nobody-of-that-name" in only(findings, "user")["message"]


def test_another_user_without_root_is_an_error_that_no_new_user_would_mend(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    _, findings = doctor("programs:\n  a: {command: [sleep, '1'], user: root}\n")
    found = only(findings, "user")
    assert "only root can run a program as another user; this is user 4711" in found["message"]
    assert "run the daemon as root, or leave user out" in found["advice"]


def test_only_what_a_start_needs_is_an_error(doctor: Doctor) -> None:
    sound = "command: [sleep, '1000']"
    _, findings = doctor(f"programs:\n  a: {{{sound}, hooks: {{before_start: gone}}}}\n  b: {{{sound}, stop: {{command: gone}}}}\n")
    assert "a.hooks.before_start" in only(findings, "executable")["message"]
    assert "b.stop.command" in only(findings, "configuration")["message"]


def test_a_port_that_somebody_has_is_an_error(doctor: Doctor) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, findings = doctor(f"daemon: {{http: '127.0.0.1:{port}'}}\n{SOUND}")
    assert code == 1
    assert str(port) in only(findings, "port")["message"]


def test_a_port_that_is_free_is_well(doctor: Doctor, free_port: int) -> None:
    code, findings = doctor(f"daemon: {{http: '127.0.0.1:{free_port}'}}\n{SOUND}")
    assert code == 0
    assert [each["level"] for each in findings if each["check"] == "port"] == ["ok"]


def test_a_run_dir_that_is_a_file_is_an_error(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    code, findings = doctor(f"daemon: {{run_dir: plain/below}}\n{SOUND}")
    assert code == 1
    assert "is not a directory" in only(findings, "run_dir")["message"]


def test_a_run_dir_that_anybody_may_write_is_an_error(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / ".asupd").mkdir()
    (tmp_path / ".asupd").chmod(0o777)
    code, findings = doctor(SOUND)
    assert code == 1
    assert "writable for everybody" in only(findings, "run_dir")["message"]


def test_a_foreign_file_at_the_sockets_path_is_an_error_and_a_stale_socket_is_not(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / ".asupd").mkdir()
    path = tmp_path / ".asupd" / "asupd.sock"
    path.write_text("")
    assert "is not a socket" in only(doctor(SOUND)[1], "socket")["message"]
    path.unlink()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    code, findings = doctor(SOUND)
    assert code == 0, findings
    assert any("left over" in each["message"] for each in findings if each["check"] == "socket")


def test_a_socket_that_a_stranger_listens_at_is_an_error(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / ".asupd").mkdir()
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(tmp_path / ".asupd" / "asupd.sock"))
        stranger.listen()
        assert "somebody else listens" in only(doctor(SOUND)[1], "socket")["message"]


def test_a_holder_of_the_lock_that_does_not_answer_is_named(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / ".asupd").mkdir()
    with InstanceLock(tmp_path / ".asupd" / "asupd.lock"):
        code, findings = doctor(SOUND)
    assert code == 1
    assert f"PID {os.getpid()} holds the run_dir but does not answer" in only(findings, "daemon")["message"]


def test_a_daemon_that_was_told_its_run_dir_is_the_one_that_is_looked_at(
    doctor: Doctor, tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "records"))
    (tmp_path / "programs.yaml").write_text(text := SOUND.replace("}}", f"}}, sockets: {{http: 'tcp://127.0.0.1:{free_port}'}}}}"))
    remember(tmp_path / "programs.yaml", tmp_path / "lib", tmp_path / "lib" / "asupd.sock")
    for each in (".asupd", "lib"):
        (tmp_path / each).mkdir()
    (tmp_path / ".asupd" / "asupd.lock").write_text("")  # of a daemon that was once started by hand
    with InstanceLock(tmp_path / "lib" / "asupd.lock"):
        _, findings = doctor(text)
    assert "holds the run_dir but does not answer" in only(findings, "daemon")["message"]
    assert str(tmp_path / "lib" / "asupd.sock") in only(findings, "daemon")["message"]
    assert not [each for each in findings if each["check"] == "port"], "it has its ports itself"


def test_a_log_that_cannot_be_written_is_an_error(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    code, findings = doctor("programs:\n  a: {command: [sleep, '1'], logs: {stdout: plain/a.log}}\n")
    assert code == 1
    assert "cannot write" in only(findings, "log")["message"]


def test_limits_that_are_too_low_are_told(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis.resource, "getrlimit", lambda _which: (64, 64))
    monkeypatch.setattr(diagnosis, "_inotify_instances", lambda: 10**9)
    code, findings = doctor("programs:\n  a: {command: [sleep, '1'], watch: {paths: [.]}}\n")
    assert code == 1
    assert "at most 64 open files" in only(findings, "descriptors")["message"]
    assert only(findings, "inotify")["level"] == "warning"


def test_the_limit_of_files_is_the_daemons_if_it_lives(doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis.resource, "getrlimit", lambda _which: (64, 64))
    (tmp_path / ".asupd").mkdir()
    with InstanceLock(tmp_path / ".asupd" / "asupd.lock"):
        assert [each["level"] for each in doctor(SOUND)[1] if each["check"] == "descriptors"] == ["ok"]


def test_a_missing_dependency_is_an_error_and_missing_uvloop_a_warning(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = diagnosis.importlib.util.find_spec
    monkeypatch.setattr(diagnosis.importlib.util, "find_spec", lambda name: None if name in ("yaml", "uvloop") else find_spec(name))
    findings = doctor(SOUND)[1]
    levels = {each["message"].split()[0].lower(): each["level"] for each in findings if each["check"] == "dependencies"}
    assert levels == {"pyyaml": "error", "uvloop": "warning"}


def test_text_says_what_to_do_below_each_fault(doctor: Doctor, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "programs.yaml").write_text("programs:\n  a: {command: [no-such-thing]}\n")
    assert run(["doctor", "--quiet"]) == 1
    error, advice, total = capsys.readouterr().out.splitlines()
    assert error.startswith("error   executable")
    assert advice.strip().startswith("→ install it")
    assert total == "1 error, 0 warnings"


def test_text_of_a_sound_set_up_ends_with_the_counts_and_quietly_says_nothing(
    doctor: Doctor, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    doctor(SOUND)
    capsys.readouterr()
    assert run(["doctor"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "0 errors, 0 warnings"
    assert run(["doctor", "--quiet"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.real
def test_who_may_not_look_at_the_lock_is_not_told_that_the_daemon_is_dead(
    doctor: Doctor, tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def refused(path: Any, *arguments: Any, **named: Any) -> int:
        if str(path).endswith(LOCK_NAME):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, *arguments, **named)

    with LiveDaemon(tmp_path, f"{SOUND}  web: {{command: sleep 1000, sockets: {{http: 'tcp://127.0.0.1:{free_port}'}}}}\n") as daemon:
        daemon.wait_for("sleeper", "RUNNING")
        daemon.wait_for("web", "RUNNING")
        monkeypatch.setattr(os, "open", refused)
        code, findings = doctor()
        monkeypatch.undo()
    assert code == 0
    assert "cannot be told" in only(findings, "lock")["message"]
    assert not [each for each in findings if each["check"] in ("leftovers", "socket", "daemon", "port")]


def test_who_may_only_read_the_lock_is_told_who_holds_it(doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def not_for_writing(path: Any, flags: int, *arguments: Any, **named: Any) -> int:
        if str(path).endswith(LOCK_NAME) and flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, flags, *arguments, **named)

    (tmp_path / ".asupd").mkdir()
    with InstanceLock(tmp_path / ".asupd" / LOCK_NAME):
        monkeypatch.setattr(os, "open", not_for_writing)
        _, findings = doctor(SOUND)
        monkeypatch.undo()
    assert f"PID {os.getpid()} holds the run_dir" in only(findings, "daemon")["message"]
    assert not [each for each in findings if each["check"] == "lock"]


@pytest.mark.real
def test_a_daemon_that_could_not_bind_its_address_is_told_although_it_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with LiveDaemon(tmp_path, f"daemon: {{http: '{address}'}}\n{SOUND}") as daemon:
            daemon.wait_for("sleeper", "RUNNING")
            told = daemon.ctl("doctor")
            assert told.returncode == 1
            assert f"daemon.http is not served: cannot bind {address}: Address already in use" in told.stdout
            assert f"there is no page: cannot bind {address}" in daemon.ctl("web").stderr


@pytest.mark.real
def test_a_living_daemon_answers_and_what_a_dead_one_left_is_told(tmp_path: Path) -> None:
    with LiveDaemon(tmp_path, SOUND) as daemon:
        daemon.wait_for("sleeper", "RUNNING")
        assert f"PID {daemon.pid} answers" in daemon.do("doctor")
        daemon.send(signal.SIGKILL)
        daemon.wait()
        text = daemon.do("doctor")
        assert "a process of a dead daemon still runs" in text
        assert "cleanup --apply" in text


@pytest.mark.real
def test_the_daemon_that_the_environment_names_is_examined(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    with LiveDaemon(tmp_path, SOUND) as daemon:
        daemon.wait_for("sleeper", "RUNNING")
        command = [sys.executable, "-m", "supervisord_async.cli.asupctl", "doctor"]
        environment = {**daemon.environment, "ASUP_SOCKET": str(tmp_path / ".asupd" / "asupd.sock")}
        for file in ("", "programs: {another: {comand: unsound}}"):
            if file:
                (here / "programs.yaml").write_text(file)
            told = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False, timeout=60)
            assert f"PID {daemon.pid} answers" in told.stdout
            assert told.returncode == 0


@pytest.mark.real
def test_programs_in_trouble_are_told_with_what_explains_them(tmp_path: Path) -> None:
    broken = "  broken: {command: 'false', restart: {max_restarts: 0}}\n  failed: {command: 'false', restart: never}\n"
    with LiveDaemon(tmp_path, SOUND + broken) as daemon:
        daemon.wait_for("broken", "FATAL")
        daemon.wait_for("failed", "EXITED")
        told = daemon.ctl("doctor", "--quiet")
        assert told.returncode == 0  # the set-up is sound all the same
        assert "2 in trouble: broken, failed" in told.stdout
        assert "asupctl why broken" in told.stdout


def test_a_check_whose_disk_hangs_is_an_error_and_the_others_are_told(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    def logs(_installation: diagnosis.Installation) -> Iterator[diagnosis.Finding]:
        go.wait(30)
        yield diagnosis.Finding("ok", "log", "late")

    monkeypatch.setattr(diagnosis, "TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(diagnosis, "CHECKS", (logs, diagnosis.python))
    try:
        code, findings = doctor(SOUND)
    finally:
        go.set()
    assert code == 1
    assert "a disk, or a name server, has not answered" in only(findings, "logs")["message"]
    assert findings[-1]["check"] == "python"


@pytest.mark.real
def test_the_port_of_what_a_dead_daemon_left_is_nothing_to_end(tmp_path: Path, doctor: Doctor, free_port: int) -> None:
    web = f"  web: {{command: sleep 1000, replicas: 6, sockets: {{http: 'tcp://127.0.0.1:{free_port}'}}}}\n"
    with LiveDaemon(tmp_path, f"programs:\n{web}") as live:
        live.wait_until(lambda: {each["state"] for each in live.status().values()} == {"RUNNING"}, "all run")
        live.kill()
        code, findings = doctor()
        found = only(findings, "port")
        assert code == 0 and found["level"] == "warning"
        assert f"127.0.0.1:{free_port} is taken" in found["message"]
        assert re.search(r"still run \((web:\d, ){4}web:\d and \d+ more\)$", found["message"])
        assert "start the daemon" in found["advice"]
