"""From a file, an option or the environment to the daemon's socket; and the records that daemons leave."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from supervisord_async.cli.asupctl import run
from supervisord_async.cli.locate import locate, named_in
from supervisord_async.daemon_registry import default_place, recall, remember
from supervisord_async.errors import NoDaemonError, UsageError
from tests.cli.fake_daemon import FakeDaemon


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "etc" / "programs.yaml"
    path.parent.mkdir()
    path.write_text("version: 1\n")
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("version: 1\n", ".asupd/asupd.sock"),
        ("daemon: {}\n", ".asupd/asupd.sock"),
        ("daemon:\n  run_dir: run\n", "run/asupd.sock"),
        ("daemon:\n  run_dir: /abs/run\n", "/abs/run/asupd.sock"),
        ("daemon:\n  socket: s.sock\n  run_dir: run\n", "s.sock"),
        ("daemon:\n  run_dir: ~/run\n", "/home/u/run/asupd.sock"),
        ("daemon:\n  run_dir: ../run\n", "../run/asupd.sock"),
        ("daemon:\n  run_dir: null\n", ".asupd/asupd.sock"),
        ("daemon:\n  run_dir: 'null'\n", "null/asupd.sock"),
        ("programs:\n  run_dir: {command: x, environment: [{a: 1}]}\ndaemon:\n  log: {file: socket}\n  run_dir: run\n", "run/asupd.sock"),
        ("daemon:\n  run_dir: ${WHERE}/x\n", "/where/x/asupd.sock"),
        ("daemon:\n  run_dir: ${UNSET:-y}\n", "y/asupd.sock"),
        ("daemon:\n  run_dir: run\nprograms: {web: [}\n", "run/asupd.sock"),
        ("x-place: &place run\ndaemon: {run_dir: *place}\n", "run/asupd.sock"),
        ("x-all: &all {run_dir: run}\ndaemon: {log: *all, name: &name x, run_dir: *none}\n", None),
        ("x-all: &all {run_dir: run}\ndaemon: *all\n", "run/asupd.sock"),
        ("programs: {run_dir: [}\n", None),
        ("daemon:\n  run_dir: ${UNSET}\n", None),
        ("daemon:\n  socket: [\n", None),
        ("- run_dir\n", None),
        ("run_dir", None),
    ],
)
def test_socket_named_in_a_file_read_leniently(file: Path, text: str, expected: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(text)
    monkeypatch.setenv("WHERE", "/where")
    monkeypatch.setenv("HOME", "/home/u")
    found = named_in(str(file))
    assert (found and found.socket) == (None if expected is None else os.path.normpath(file.parent / expected))


def test_file_that_does_not_mention_them_needs_no_yaml(file: Path) -> None:
    code = "import sys; from supervisord_async.cli import locate; locate.named_in(sys.argv[1]); print('yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True).stdout == "False\n"


def test_options_beat_the_environment_and_the_environment_the_directory(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASUP_SOCKET", "/env.sock")
    monkeypatch.chdir(file.parent)
    assert locate(None, "/opt.sock").socket == "/opt.sock"
    assert locate(str(file), None).socket == str(file.parent / ".asupd/asupd.sock")
    assert locate(None, None).socket == "/env.sock"
    monkeypatch.delenv("ASUP_SOCKET")
    assert locate(None, None).socket == str(file.parent / ".asupd/asupd.sock")
    with pytest.raises(UsageError):
        locate(str(file), "/opt.sock")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NoDaemonError, match="use -c FILE or -s SOCKET"):
        locate(None, None)


def test_advice_names_the_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["-c", str(file), "status"]) == 4
    assert capsys.readouterr().err.endswith(f": start one with `asupd -c {file}`\n")
    assert run(["-c", str(file) + "x", "status"]) == 4
    assert f"there is no {file}x" in capsys.readouterr().err


def test_advice_is_to_start_the_daemon_where_it_was(file: Path, tmp_path: Path) -> None:
    remember(file, tmp_path / "lib", tmp_path / "lib" / "asupd.sock")
    assert f"asupd -c {file} --run-dir {tmp_path / 'lib'}" in locate(str(file), None).advice
    file.write_text("daemon: {run_dir: elsewhere}\n")
    assert locate(str(file), None).advice == f"start one with `asupd -c {file}`", "the file says where"


def test_record_is_private_whole_and_recalled_by_any_path(file: Path, tmp_path: Path) -> None:
    record = remember(file, tmp_path / "run", tmp_path / "run/asupd.sock")
    assert record is not None
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    for path in (file, link, Path(os.path.relpath(file))):
        found = recall(path)
        assert found is not None
        assert found.socket == str(tmp_path / "run/asupd.sock")
    assert [path.name for path in record.parent.iterdir()] == [record.name]


def test_default_place_leaves_no_record_and_drops_the_old_one(file: Path, tmp_path: Path) -> None:
    record = remember(file, tmp_path / "run", tmp_path / "run/asupd.sock")
    assert remember(file, file.parent / ".asupd", default_place(file).socket) is None
    assert record is not None
    assert not record.exists()
    assert recall(file) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"file": "/other", "run_dir": "r", "socket": "s"}', "\x00\xff"])
def test_damaged_or_foreign_record_is_none(file: Path, tmp_path: Path, content: str) -> None:
    record = remember(file, tmp_path / "run", tmp_path / "run/asupd.sock")
    assert record is not None
    record.write_text(content)
    assert recall(file) is None


def test_record_that_cannot_be_written_raises(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "occupied").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "occupied"))
    with pytest.raises(OSError, match="occupied"):
        remember(file, tmp_path / "run", tmp_path / "run/s")
    assert recall(file) is None


def test_a_user_without_a_home_has_no_record_and_is_told_why(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 62264)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(OSError) as caught:
        remember(file, "/run/x", "/run/x/s")
    assert caught.value.strerror == "no home directory to keep records in"
    assert recall(file) is None


def _serve(path: Path, file: Path) -> FakeDaemon:
    path.parent.mkdir(parents=True, exist_ok=True)
    fake = FakeDaemon(path)
    fake.health["file"] = str(file)
    return fake.start()


def test_broken_file_leads_to_its_daemon_by_the_record(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake = _serve(tmp_path / "moved" / "d.sock", file)
    try:
        remember(file, tmp_path / "moved", fake.socket_path)
        file.write_text("daemon: {run_dir: [}\n")
        assert run(["-c", str(file), "status"]) == 0
        file.write_text("daemon: {run_dir: elsewhere}\n")  # edited, not yet in force
        assert run(["-c", str(file), "status"]) == 0
        file.unlink()
        assert run(["-c", str(file), "status"]) == 0
    finally:
        fake.stop()


def test_broken_file_leads_to_the_default_place(file: Path) -> None:
    fake = _serve(Path(default_place(file).socket), file)
    try:
        file.write_text("daemon: {run_dir: [}\n")
        assert run(["-c", str(file), "status"]) == 0
    finally:
        fake.stop()


def test_file_that_is_a_fifo_leads_to_the_default_place_and_hangs_nobody(file: Path) -> None:
    fake = _serve(Path(default_place(file).socket), file)
    try:
        file.unlink()
        os.mkfifo(file)
        assert run(["-c", str(file), "status"]) == 0
    finally:
        fake.stop()


def test_daemon_of_another_file_at_the_default_place_is_left_alone(file: Path) -> None:
    other = file.with_name("other.yaml")
    fake = _serve(Path(default_place(file).socket), other)
    try:
        file.write_text("daemon: {run_dir: elsewhere}\n")
        assert run(["-c", str(file), "stop", "all"]) == 4
        assert not fake.asked("POST", "/v1/processes/all/stop")
    finally:
        fake.stop()


@pytest.mark.parametrize("there", [True, False], ids=["another file", "no file"])
def test_daemon_of_another_file_of_the_same_folder_is_left_alone(
    file: Path, there: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = file.with_name("dev.yaml")
    if there:
        other.write_text("version: 1\n")
    fake = _serve(Path(default_place(file).socket), file)
    try:
        for verb in (["status"], ["stop", "all"], ["shutdown"]):
            assert run(["-c", str(other), *verb]) == 4
            found = f"the one at {fake.socket_path} runs {file} (for that one: asupctl -c {file})"
            assert capsys.readouterr().err == f"asupctl: no daemon of {other}: {found}\n"
        assert not fake.asked("POST", "/v1/processes/all/stop") and not fake.asked("POST", "/v1/shutdown")
        fake.health["file"] = "/app/programs.yaml"  # as its container sees the folder
        assert run(["-c", str(file), "status"]) == 0
        monkeypatch.chdir(file.parent)
        assert run(["status"]) == 0
    finally:
        fake.stop()


def test_symbolic_link_to_the_file_leads_to_its_daemon(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    fake = _serve(Path(default_place(file).socket), file)
    try:
        assert run(["-c", str(link), "status"]) == 0
    finally:
        fake.stop()


def test_file_named_daemon_is_preferred_to_the_recorded_one(file: Path, tmp_path: Path) -> None:
    file.write_text("daemon: {socket: s.sock}\n")
    fake = _serve(file.parent / "s.sock", file)
    try:
        remember(file, tmp_path, tmp_path / "old.sock")
        assert locate(str(file), None).socket == str(fake.socket_path)
    finally:
        fake.stop()


@pytest.mark.parametrize(
    "words",
    [
        ("asupctl", "status"),
        ("asupctl", "stop", "web"),
        ("asupctl", "-c", "programs.yaml", "status", "--json"),
        ("asupctl", "doctor"),
        ("asup_run", "true"),
    ],
)
def test_a_directory_that_was_removed_is_named_as_the_reason(words: tuple[str, ...], tmp_path: Path) -> None:
    """A release that a newer one replaced, with a shell still in it."""
    (tmp_path / "release").mkdir()
    script = 'rmdir ../release && exec "$@"'
    command = ["sh", "-c", script, "sh", sys.executable, "-m", f"supervisord_async.cli.{words[0]}", *words[1:]]
    done = subprocess.run(command, cwd=tmp_path / "release", capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(": the directory that you are in was removed: cd to one that exists")
    assert "Traceback" not in done.stderr
