"""Restarts of real processes: state carried over, broken sources waited out, failures survived or said."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

import pytest

from supervisord_async.app import (
    FileChangeWatcher,
    ProcessRestarter,
    StateSerializer,
    get_process_restarter,
    is_restart,
    load_restart_state_if_available,
    restarter,
)
from tests.app.conftest import Launch
from tests.waiting import wait_until_sync

Output = Callable[[], str]

PROGRAM = """
import logging, os, signal, sys, threading, time
from supervisord_async.app import ProcessRestarter, StateSerializer, is_restart
import module

logging.basicConfig(level=logging.INFO, stream=sys.stdout)
serializer = StateSerializer("data/restart_state.json")
state = {"starts": 0}
stopping = threading.Event()

def save():
    %(save)s

def load(data):
    state.update(data["self_state"])
    return True

restarter = ProcessRestarter(["module.py", "program.py"], shutdown_timeout=5.0, restart_delay=0.05,
                             state_serializer=serializer, require_state=%(require)s)
restarter.set_callbacks(save_state_callback=save, load_state_callback=load,
                        restart_command=[sys.executable] + sys.argv + ["--restart"])
restarter.register_component("worker", lambda: print("worker stopped", flush=True))
restarter.start()
state["starts"] += 1
signal.signal(signal.SIGUSR1, lambda *_: restarter.request_restart("asked"))
print("start", state["starts"], "module", module.VALUE, "pid", os.getpid(), "restart", is_restart(), "argv", sys.argv[1:], flush=True)
while True:
    time.sleep(1)  # a signal that comes just before it does not interrupt it
"""

SAVE = "return serializer.save_restart_state(state, [], {})"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "module.py").write_text("VALUE = 1\n")
    (tmp_path / "program.py").write_text(PROGRAM % {"save": SAVE, "require": False})
    return tmp_path / "program.py"


def edit(path: Path, text: str) -> None:
    """As editors do: a new file takes the place of the old one."""
    new = path.with_name(path.name + ".tmp")
    new.write_text(text)
    new.replace(path)


@pytest.mark.real
def test_a_change_restarts_the_process_with_its_state(tmp_path: Path, program: Path, launch: Launch, output: Output) -> None:
    process = launch(program.name, "--option")
    wait_until_sync(lambda: "start 1 module 1" in output())
    for number in range(2, 5):
        edit(tmp_path / "module.py", f"VALUE = {number}\n")
        line = f"start {number} module {number} pid {process.pid} restart True argv ['--option', '--restart']"
        wait_until_sync(lambda line=line: line in output(), what=output())  # type: ignore[misc]
    assert output().count("\nworker stopped") == 3
    assert "starting fresh" not in output()
    assert not (tmp_path / "data" / "restart_state.json").exists()


@pytest.mark.real
def test_a_syntax_error_does_not_take_the_process_down(tmp_path: Path, program: Path, launch: Launch, output: Output) -> None:
    process = launch(program.name)
    wait_until_sync(lambda: "start 1" in output())
    edit(tmp_path / "module.py", "VALUE = (\n")
    wait_until_sync(lambda: "'(' was never closed" in output())
    # Another file is sound, but the broken one still is broken.
    edit(program, program.read_text() + "\n")
    wait_until_sync(lambda: output().count("'(' was never closed") >= 2)
    process.send_signal(signal.SIGUSR1)
    wait_until_sync(lambda: "not restarting (asked)" in output())
    assert process.poll() is None
    assert "worker stopped" not in output()
    edit(tmp_path / "module.py", "VALUE = 7\n")
    wait_until_sync(lambda: "start 2 module 7" in output())


@pytest.mark.real
def test_a_failing_save_gives_a_fresh_start_and_says_so(tmp_path: Path, program: Path, launch: Launch, output: Output) -> None:
    program.write_text(PROGRAM % {"save": "return False", "require": False})
    # An older state must not be mistaken for this one's.
    StateSerializer(tmp_path / "data" / "restart_state.json").save_restart_state({"starts": 41}, [], {})
    launch(program.name)
    wait_until_sync(lambda: "start 1 module 1" in output())
    edit(tmp_path / "module.py", "VALUE = 2\n")
    wait_until_sync(lambda: "start 1 module 2" in output())
    assert "restarting without saved state: the new process starts fresh" in output()
    assert f"no saved state was taken up from {tmp_path}/data/restart_state.json: starting fresh" in output()


@pytest.mark.real
def test_a_required_state_that_cannot_be_saved_stops_the_restart_not_the_process(
    tmp_path: Path, program: Path, launch: Launch, output: Output
) -> None:
    save = 'if not os.path.exists("allowed"): raise ValueError("not now")\n    ' + SAVE
    program.write_text(PROGRAM % {"save": save, "require": True})
    process = launch(program.name)
    wait_until_sync(lambda: "start 1" in output())
    edit(tmp_path / "module.py", "VALUE = 2\n")
    wait_until_sync(lambda: "require_state is set" in output())
    assert process.poll() is None
    assert "worker stopped" not in output()
    (tmp_path / "allowed").touch()
    process.send_signal(signal.SIGUSR1)
    wait_until_sync(lambda: "start 2 module 2" in output())


@pytest.mark.real
def test_a_source_saved_during_the_restart_is_not_missed(tmp_path: Path, program: Path, launch: Launch, output: Output) -> None:
    # The new process imports the module, and watches only later: what is saved in between must count.
    program.write_text(
        program.read_text().replace(
            "import module\n",
            'import module\nif is_restart() and not os.path.exists("go"): open("imported", "w"); '
            "exec(\"while not os.path.exists('go'): time.sleep(0.01)\")\n",
        )
    )
    launch(program.name)
    wait_until_sync(lambda: "start 1 module 1" in output())
    edit(tmp_path / "module.py", "VALUE = 2\n")
    wait_until_sync((tmp_path / "imported").exists)
    edit(tmp_path / "module.py", "VALUE = 3\n")
    (tmp_path / "go").touch()
    wait_until_sync(lambda: "start 3 module 3" in output())


@pytest.mark.real
def test_a_command_that_is_not_there_leaves_the_process_as_it_is(tmp_path: Path, program: Path, launch: Launch, output: Output) -> None:
    program.write_text(program.read_text().replace("[sys.executable] + sys.argv", '["no-such-python"]'))
    process = launch(program.name)
    wait_until_sync(lambda: "start 1" in output())
    edit(tmp_path / "module.py", "VALUE = 2\n")
    wait_until_sync(lambda: "cannot find no-such-python" in output())
    assert process.poll() is None
    assert "worker stopped" not in output()


BLOCKING = """
import os, signal, sys, threading
from supervisord_async.app import ProcessRestarter
print("mask", sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])), "threads", threading.active_count(), os.getcwd(), flush=True)
restarter = ProcessRestarter(["x"], restart_delay=0)
os.chdir("/")
def component():
    stopped.set()
stopped = threading.Event()
restarter.register_component("main", component)
if "--restart" not in sys.argv:
    def ask():
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        for _ in range(20):
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        restarter.request_restart("asked")
    threading.Thread(target=ask).start()
    stopped.wait()
    print("main ends", flush=True)
"""


@pytest.mark.real
def test_the_new_process_is_clean_and_outlives_the_end_of_the_old_main(tmp_path: Path, launch: Launch, output: Output) -> None:
    (tmp_path / "program.py").write_text(BLOCKING)
    assert launch("program.py").wait(60) == 0
    said = output().replace("main ends\n", "").replace("restarting: asked\n", "")
    assert said == f"mask [] threads 1 {tmp_path}\n" * 2


def test_bytecode_of_changed_sources_is_forgotten(tmp_path: Path) -> None:
    # An import trusts bytecode by whole seconds and size: two saves within a second would look alike to it.
    cached = Path(cache_from_source(str(tmp_path / "m.py")))
    cached.parent.mkdir()
    cached.touch()
    restarter._forget_bytecode([str(tmp_path / "m.py"), str(tmp_path / "never-imported.py"), str(tmp_path / "notes.txt")])
    assert not cached.exists()


@pytest.fixture
def serializer(tmp_path: Path) -> StateSerializer:
    return StateSerializer(tmp_path / "state.json")


def test_the_command_is_the_present_one_with_the_flag_once(tmp_path: Path, serializer: StateSerializer) -> None:
    mine = ProcessRestarter([tmp_path], state_serializer=serializer)
    assert mine.restart_command == [sys.executable, *sys.orig_argv[1:], "--restart"]
    mine.set_callbacks(restart_command=["python", "app.py", "--restart", "--x", "--restart"])
    assert mine.restart_command == ["python", "app.py", "--x", "--restart"]
    with pytest.raises(ValueError, match="empty"):
        mine.set_callbacks(restart_command=[])
    with pytest.raises(ValueError, match="restart_delay"):
        ProcessRestarter([tmp_path], restart_delay=-1, state_serializer=serializer)


def test_loading_serves_callbacks_with_and_without_argument(tmp_path: Path, serializer: StateSerializer) -> None:
    mine = ProcessRestarter([tmp_path], state_serializer=serializer)
    taken: list[Any] = []
    assert mine.load_state() is False
    serializer.save_restart_state({"a": 1}, [], {})
    mine.set_callbacks(load_state_callback=lambda: taken.append("by itself"))
    assert mine.load_state() is True
    assert serializer.path.exists()
    mine.set_callbacks(load_state_callback=lambda data: taken.append(data["self_state"]))
    assert mine.load_state() is True
    assert taken == ["by itself", {"a": 1}]
    assert not serializer.path.exists()
    assert mine.load_state() is False


def test_a_raising_load_is_a_fresh_start(tmp_path: Path, serializer: StateSerializer, caplog: pytest.LogCaptureFixture) -> None:
    serializer.save_restart_state({"a": 1}, [], {})
    mine = ProcessRestarter([tmp_path], state_serializer=serializer)
    mine.set_callbacks(load_state_callback=lambda data: data["missing"])
    assert mine.load_state() is False
    assert serializer.path.exists()  # it may still be looked at
    assert "starting fresh" in caplog.text


@pytest.mark.real
def test_starting_a_restarted_process_loads_unless_that_was_done(
    tmp_path: Path, serializer: StateSerializer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["app.py", "--restart"])
    serializer.save_restart_state({"a": 1}, [], {})
    taken: list[Any] = []
    for _ in range(2):
        with ProcessRestarter([tmp_path / "x"], state_serializer=serializer) as mine:
            mine.set_callbacks(load_state_callback=taken.append)
            mine.start()
    assert len(taken) == 1


def test_a_restart_is_told_by_the_flag_or_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_restart(["app.py"])
    assert is_restart(["app.py", "--restart"])
    monkeypatch.setattr(sys, "argv", ["app.py"])
    for run, expected in (("1", False), ("2", True), ("many", False)):
        monkeypatch.setenv("ASUP_RUN", run)
        assert is_restart() is expected


def test_saved_state_is_loaded_once_and_only_by_a_restart(serializer: StateSerializer, monkeypatch: pytest.MonkeyPatch) -> None:
    serializer.save_restart_state({"a": 1}, ["e"], {})
    monkeypatch.setattr(sys, "argv", ["app.py"])
    assert load_restart_state_if_available(serializer) is None
    monkeypatch.setattr(sys, "argv", ["app.py", "--restart"])
    assert load_restart_state_if_available(serializer) == {"self_state": {"a": 1}, "event_queue": ["e"], "config": {}}
    assert load_restart_state_if_available(serializer) is None


def test_own_files_are_no_reason_to_restart(tmp_path: Path, serializer: StateSerializer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASUP_HEARTBEAT_FILE", str(tmp_path / "beat"))
    watching: FileChangeWatcher = ProcessRestarter([tmp_path], ignore_patterns=["*.log"], state_serializer=serializer).watcher
    assert not any(watching.covers(tmp_path / name) for name in ("state.json", "state.json.previous", ".state.json.lock", "beat", "x.log"))
    assert watching.covers(tmp_path / "app.py")
    assert not watching.covers("/elsewhere.py")


def test_the_state_is_saved_once_the_components_have_stopped(
    tmp_path: Path, serializer: StateSerializer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they did last is in it."""
    told: list[str] = []
    saved = threading.Event()

    def stop() -> None:
        saved.wait(0.2)  # time for a save that would not wait for us
        told.append("stopped")

    def save() -> None:
        told.append("saved")
        saved.set()

    monkeypatch.setattr(ProcessRestarter, "_execute", lambda *_: told.append("replaced"))
    mine = ProcessRestarter([tmp_path], state_serializer=serializer)
    mine.set_callbacks(save_state_callback=save, restart_command=[sys.executable])
    mine.register_component("worker", stop)
    assert mine.request_restart("asked")
    wait_until_sync(lambda: "replaced" in told)
    assert told == ["stopped", "saved", "replaced"]


@pytest.mark.parametrize("threads", [0, 1])
def test_a_restart_needs_one_thread_and_without_it_is_refused_not_raised(
    tmp_path: Path, serializer: StateSerializer, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """A program that can start no more of them may well want to begin anew."""
    told: list[str] = []
    start, started = threading.Thread.start, list[threading.Thread]()

    def within_limit(thread: threading.Thread) -> None:
        if len(started) == threads:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(ProcessRestarter, "_execute", lambda *_: told.append("replaced"))
    mine = ProcessRestarter([tmp_path], state_serializer=serializer)
    mine.set_callbacks(save_state_callback=lambda: told.append("saved"), restart_command=[sys.executable])
    mine.register_component("worker", lambda: told.append("stopped"))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", within_limit)
        assert mine.request_restart("asked") is bool(threads)
        for thread in started:
            thread.join(60)
    assert told == ["stopped", "saved", "replaced"] * threads


def test_a_restart_by_a_command_that_is_not_there_is_refused(tmp_path: Path, serializer: StateSerializer) -> None:
    mine = ProcessRestarter([tmp_path], state_serializer=serializer)
    mine.set_callbacks(restart_command=["/no/such/program"])
    assert mine.request_restart() is False


def test_stopping_cancels_a_restart_that_waits(tmp_path: Path, serializer: StateSerializer) -> None:
    (tmp_path / "src").mkdir()
    mine = ProcessRestarter([tmp_path / "src"], restart_delay=60, state_serializer=serializer)
    mine.set_callbacks(restart_command=["false"])
    mine.start()
    (tmp_path / "src" / "a.py").touch()
    pending = wait_until_sync(lambda: mine._pending)
    assert mine.request_restart() is False  # one is under way
    mine.stop()
    pending.join(60)
    assert not pending.is_alive()


@pytest.mark.parametrize("source", [b"x = 1\n", b"\xef\xbb\xbfx = 1\n", b""])
def test_sound_sources_raise_no_complaint(tmp_path: Path, source: bytes) -> None:
    (tmp_path / "m.py").write_bytes(source)
    assert restarter._complaint(str(tmp_path / "m.py")) is None
    assert restarter._complaint(str(tmp_path / "gone.py")) is None


@pytest.mark.parametrize("source", [b"x = (\n", b"x = 1\0\n", b"\xff\n", b"def f():\nreturn\n", b"(" * 5000])
def test_broken_sources_are_named(tmp_path: Path, source: bytes) -> None:
    (tmp_path / "m.py").write_bytes(source)
    assert str(tmp_path / "m.py") in (restarter._complaint(str(tmp_path / "m.py")) or "")
    (tmp_path / "m.txt").write_bytes(source)
    assert restarter._complaint(str(tmp_path / "m.txt")) is None


def test_the_program_has_one_restarter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restarter._Shared, "restarter", None)
    monkeypatch.chdir(tmp_path)
    first = get_process_restarter([tmp_path], restart_delay=0.5)
    assert get_process_restarter() is first
    with pytest.raises(ValueError, match="exists already"):
        get_process_restarter(["other"])
    monkeypatch.setattr(restarter._Shared, "restarter", None)
    assert get_process_restarter().watcher.include_patterns == ("*.py",)


def test_time_of_replacement_is_believed_only_by_the_process_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(restarter._ENV_REPLACED, f"{os.getpid()}:{time.time_ns()}:1")
    assert restarter._take_replaced() is not None
    assert restarter._take_replaced() is None
    monkeypatch.setenv(restarter._ENV_REPLACED, "1:5:0")
    assert restarter._take_replaced() is None
