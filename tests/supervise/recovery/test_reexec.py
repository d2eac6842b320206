"""What becomes of a re-exec that cannot be: the code that runs goes on as if nobody had asked."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import msgspec
import pytest

from supervisord_async.config.load import load
from supervisord_async.core.record import Record
from supervisord_async.errors import BusyError, FailedError
from supervisord_async.supervise.records.bus import Bus
from supervisord_async.supervise.recovery import persist, prepared, reexec
from supervisord_async.supervise.recovery.persist import SavedState
from supervisord_async.supervise.runs.run_spec import instance_of
from supervisord_async.system import descriptors, threads
from supervisord_async.system.disks import Disks
from tests.hanging_disk import HangingDisk, can_hang
from tests.virtual_clock import run_virtually
from tests.waiting import wait_until

pytestmark = pytest.mark.real

STATE = SavedState(boot_id="b", instance="i", last_record_id=7)
HEARD = (signal.SIGHUP, signal.SIGTERM)


def test_an_exec_that_fails_leaves_everything_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    tried: list[SavedState] = []

    def refuse(path: str, _arguments: list[str], environment: dict[str, str]) -> None:
        assert path == sys.executable
        assert os.get_inheritable(reading) and os.get_inheritable(writing)
        assert set(HEARD) <= signal.pthread_sigmask(signal.SIG_BLOCK, ())
        memory = int(environment[reexec.ENV_STATE])
        assert os.get_inheritable(memory)
        tried.append(persist.decode(os.pread(memory, 65536, 0)))
        raise OSError(2, "No such file or directory")

    monkeypatch.setattr(os, "execve", refuse)
    state = persist.with_descriptors(STATE, {"lock": [reading], "listening": [writing]})
    try:
        with pytest.raises(OSError, match="No such file"):
            reexec.become_new_code(state, HEARD)
        assert tried == [state]
        assert not os.get_inheritable(reading) and not os.get_inheritable(writing)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
    finally:
        os.close(reading)
        os.close(writing)


def test_output_that_nobody_reads_is_in_the_way_of_no_reexec(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(2, "No such file or directory")

    def broken() -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(os, "execve", refuse)
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(flush=broken))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with pytest.raises(OSError, match="No such file"):  # so far it comes
        reexec.become_new_code(STATE, HEARD)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask


async def sound(_state: SavedState) -> int:
    return os.memfd_create("left")


def replacing(supervisor: Any, bus: Bus, *, dismiss: Any = None, history: Any = None, listeners: Any = None) -> reexec.Replacement:
    guardian, lock = SimpleNamespace(dismiss=dismiss), SimpleNamespace(fd=3)
    return reexec.Replacement(
        supervisor,
        bus,
        guardian,  # type: ignore[arg-type]
        lock,  # type: ignore[arg-type]
        state=lambda: STATE,
        listeners=lambda: listeners,
        history=lambda: history,
        heard=HEARD,
    )


@pytest.mark.parametrize("history_takes", [0.5, 1e6])
def test_a_daemon_whose_exec_fails_says_so_and_can_be_asked_again(monkeypatch: pytest.MonkeyPatch, history_takes: float) -> None:
    """What was told is in the history before; one that hangs holds nobody up."""
    bus, told, dismissed = Bus(), list[Record](), []
    bus.listen(told.append)

    flushed = []

    async def flush() -> None:
        await anyio.sleep(history_takes)
        flushed.append(True)

    def refuse(_state: SavedState, _heard: object) -> None:
        assert len(flushed) == (len(told) + 1 if history_takes < 1 else 0)
        raise OSError(12, "Cannot allocate memory")

    to_manager = list[str]()
    monkeypatch.setattr(reexec, "become_new_code", refuse)
    monkeypatch.setattr(descriptors, "sd_notify", to_manager.append)
    monkeypatch.setattr(reexec, "try_new_code", sound)
    supervisor = SimpleNamespace(shutting_down=False, processes={}, configuration=None)
    replacement = replacing(supervisor, bus, dismiss=lambda: dismissed.append(True), history=SimpleNamespace(flush=flush, unwritten=tuple))

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(replacement.run)
            for _ in range(2):
                await replacement.prepare()
                await anyio.sleep(10.0)
            tasks.cancel_scope.cancel()

    run_virtually(main)
    assert [record.message for record in told] == ["cannot re-exec: Cannot allocate memory; this code stays in service"] * 2
    assert to_manager == ["RELOADING=1", "READY=1"] * 2
    assert len(dismissed) == 2  # the guardian of the code that stays is made anew by itself
    os.close(*replacement._prepared)


def test_the_last_events_are_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    bus, handed = Bus(), list[SavedState]()
    kept = (bus.publish("daemon", message="started"), bus.publish("reload"))

    def refuse(state: SavedState, _heard: object) -> None:
        handed.append(state)
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(reexec, "become_new_code", refuse)
    monkeypatch.setattr(reexec, "try_new_code", sound)
    replacement = replacing(SimpleNamespace(shutting_down=False, processes={}, configuration=None), bus, dismiss=lambda: None)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(replacement.run)
            await replacement.prepare()
            await wait_until(lambda: bool(handed))
            tasks.cancel_scope.cancel()

    run_virtually(main)
    os.close(*replacement._prepared)
    assert handed[0].recent == kept
    successor = Bus()
    successor.resume(bus.last_id, handed[0].recent)
    assert successor.since(kept[0].id) == ([kept[1]], True) and successor.publish("daemon").id == bus.last_id + 1


def test_a_bug_at_a_reexec_leaves_the_daemon_in_service_and_answering(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bus, told, resumed = Bus(), list[Record](), []
    bus.listen(told.append)

    async def pause() -> None:
        raise RuntimeError("a bug")

    async def resume() -> None:
        resumed.append(True)
        if len(resumed) == 1:
            raise OSError(24, "Too many open files")

    monkeypatch.setattr(reexec, "try_new_code", sound)
    supervisor = SimpleNamespace(shutting_down=False, processes={}, configuration=None)
    replacement = replacing(supervisor, bus, listeners=SimpleNamespace(pause=pause, resume=resume))

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(replacement.run)
            await replacement.prepare()
            await anyio.sleep(10.0)
            assert len(resumed) == 2, "tried again until it listens"
            await replacement.prepare()
            await anyio.sleep(10.0)
            tasks.cancel_scope.cancel()

    run_virtually(main)
    assert [record.message for record in told] == ["cannot re-exec: internal error: RuntimeError('a bug'); this code stays in service"] * 2
    assert "a re-exec failed because of a bug" in caplog.text
    os.close(*replacement._prepared)


def test_who_is_told_to_go_meanwhile_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The new code would not know that it is to end."""
    bus, told, resumed = Bus(), list[Record](), []
    bus.listen(told.append)
    supervisor = SimpleNamespace(shutting_down=False, processes={}, configuration=None)

    async def pause() -> None:
        supervisor.shutting_down = True

    async def resume() -> None:
        resumed.append(True)

    monkeypatch.setattr(reexec, "try_new_code", sound)
    replacement = replacing(supervisor, bus, listeners=SimpleNamespace(pause=pause, resume=resume))

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(replacement.run)
            await replacement.prepare()
            await anyio.sleep(10.0)
            with pytest.raises(BusyError, match="shutting down"):
                await replacement.prepare()
            await anyio.sleep(10.0)
            tasks.cancel_scope.cancel()

    run_virtually(main)
    assert [record.message for record in told] == ["cannot re-exec: the daemon is shutting down; this code stays in service"]
    assert resumed == [True]
    os.close(*replacement._prepared)


@pytest.mark.anyio
async def test_new_code_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(reexec, "TRIAL_SECONDS", 0.5)
    monkeypatch.setattr(reexec, "new_code", lambda *_: ["sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 1000"])
    with pytest.raises(FailedError, match=r"did not answer in 0\.5 s; this one stays in service"):
        await reexec.try_new_code(STATE)
    pid = int((tmp_path / "pid").read_text())
    await wait_until(lambda: not Path(f"/proc/{pid}").exists())


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["sh", "-c", "echo no such module >&2; exit 3"], "cannot take over; this one stays in service: no such module"),
        (["sh", "-c", "exit 3"], "cannot take over; this one stays in service: it ended: exited with 3"),
        (["true"], "the new code exited without an answer .*; this one stays in service"),  # the module is empty, being installed
        (["/no/such/python"], "the new code cannot be tried: No such file or directory; this one stays in service"),
    ],
)
async def test_new_code_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, command: list[str], words: str) -> None:
    monkeypatch.setattr(reexec, "new_code", lambda *_: command)
    with pytest.raises(FailedError, match=words):
        await reexec.try_new_code(STATE)


@pytest.mark.anyio
async def test_nobody_is_replaced_while_a_disk_holds_a_thread_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel would wait for that thread, with nobody to supervise anything."""
    held_up = [{1, 2}, {2, 3}, {3}]

    async def succeeding(_state: SavedState, loaded: int) -> None:
        os.write(loaded, b"loaded")

    monkeypatch.setattr(reexec, "_try_new_code", succeeding)
    monkeypatch.setattr(threads, "held_up", lambda: held_up.pop(0))
    os.close(await reexec.try_new_code(STATE))  # each waits for a moment, as threads do that write
    assert held_up == []
    monkeypatch.setattr(reexec, "HANG_SECONDS", 0.1)
    monkeypatch.setattr(threads, "held_up", lambda: {7})
    with pytest.raises(FailedError, match="this code stays in service"):
        await reexec.try_new_code(STATE)
    memories = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink() and "memfd:asupd" in os.readlink(link)]
    assert memories == []


@pytest.mark.anyio
@pytest.mark.skipif(not can_hang(), reason="only root can mount a FUSE")
async def test_nobody_is_tried_while_a_disk_hangs_that_we_have_a_file_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(reexec, "Disks", partial(Disks, 0.05))
    monkeypatch.setattr(reexec, "_try_new_code", None)
    with HangingDisk(tmp_path / "away", "file", b"") as disk, disk.path.open("rb"):
        disk.hang()
        with pytest.raises(FailedError, match=r"cannot re-exec: .* has not answered for 0\.05 s .*; this code stays in service"):
            await reexec.try_new_code(STATE)
        disk.answer()  # else closing the file would wait too


@pytest.mark.anyio
async def test_a_reexec_without_descriptors_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(_: str) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "memfd_create", none_left)
    with pytest.raises(FailedError, match="cannot be tried: Too many open files"):
        await reexec.try_new_code(STATE)


@pytest.mark.anyio
async def test_the_new_self_is_given_what_the_trial_has_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All of it, equal settings kept once; whoever has nothing that can be read loads the file."""
    file = tmp_path / "programs.yaml"
    file.write_text("daemon: {stop_timeout: 20s}\nprograms: {a: {command: x, stop: {grace_period: 1m}}, b: {command: y}}")
    command = [sys.executable, "-m", reexec.MODULE, "-c", str(file), "--trial"]
    monkeypatch.setattr(reexec, "new_code", lambda *_: command)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    left = await reexec.try_new_code(msgspec.structs.replace(STATE, instance=instance_of(str(tmp_path / ".asupd"))))
    size = os.fstat(left).st_size
    damaged = os.memfd_create("damaged")
    os.write(damaged, os.pread(left, size - 9, 0))
    found = prepared.handed_over(persist.with_descriptors(STATE, {prepared.KEY: [left], "lock": []}))
    assert found is not None
    loaded = load(file)
    assert (found.warnings, found.configuration) == (loaded.warnings, loaded.configuration)
    assert [warning.line for warning in found.warnings] == [2]
    one, other = found.configuration.programs.values()
    assert one.environment is other.environment
    assert prepared.handed_over(persist.with_descriptors(STATE, {prepared.KEY: [damaged]})) is None
    assert prepared.handed_over(STATE) is None
    for descriptor in (left, damaged):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.close(descriptor)


def test_a_trial_reads_the_very_state(tmp_path: Path) -> None:
    """Without one, or with one that this code cannot read, it fails."""
    (tmp_path / "programs.yaml").write_text("programs: {a: {command: x}}")

    def trial(content: bytes | None) -> subprocess.CompletedProcess[str]:
        environment: dict[str, Any] = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
        passed = []
        if content is not None:
            reading, writing = os.pipe()
            os.write(writing, content)
            os.close(writing)
            passed = [reading]
            environment[reexec.ENV_STATE] = str(reading)
        command = [sys.executable, "-m", reexec.MODULE, "-c", "programs.yaml", "--trial"]
        try:
            return subprocess.run(
                command, pass_fds=passed, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
            )
        finally:
            for fd in passed:
                os.close(fd)

    state = msgspec.structs.replace(STATE, instance=instance_of(str(tmp_path / ".asupd")))
    assert trial(persist.encode(state)).returncode == 0
    moved = trial(persist.encode(STATE))
    assert moved.returncode != 0 and "a running daemon cannot move to another run_dir" in moved.stderr
    assert trial(None).returncode != 0
    refused = trial(persist.encode(STATE).replace(b"asupd-state 1 ", b"asupd-state 99 ", 1))
    why = "it was written by a newer asupd (version 99, this one knows 1)"
    assert refused.stderr == f"asupd: critical: cannot take over the state of the running daemon: {why}\n"
    assert refused.returncode == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["programs.yaml"]


def test_a_reexec_waits_for_what_is_on_its_way_but_not_for_ever() -> None:
    """A start that waits for its turn would be told as a run that ended in an unknown way."""

    async def seconds(rests_at: float) -> float:
        begin = anyio.current_time()

        class Web:
            @property
            def in_motion(self) -> bool:
                return anyio.current_time() - begin < rests_at

        processes: Any = {"web": Web()}
        bus, told = Bus(), list[str]()
        bus.publish_soon(lambda what, _at: told.append(what), "late")
        await reexec.come_to_rest(processes, bus, None)
        assert told == ["late"]
        return anyio.current_time() - begin

    assert run_virtually(seconds, 0.0) == 0.0
    assert 0.5 <= run_virtually(seconds, 0.5) < 0.6
    assert reexec.REST_SECONDS <= run_virtually(seconds, 1000.0) < 2.0


def test_a_start_that_begins_while_the_history_is_written_is_waited_for_as_well() -> None:
    async def rest() -> tuple[float, bool]:
        begin = anyio.current_time()

        class Web:
            @property
            def in_motion(self) -> bool:
                return 0.2 < anyio.current_time() - begin < 0.7

        class SlowHistory:
            async def flush(self) -> None:
                await anyio.sleep(0.4)

        web = Web()
        processes: Any = {"web": web}
        history: Any = SlowHistory()
        await reexec.come_to_rest(processes, Bus(), history)
        return anyio.current_time() - begin, web.in_motion

    seconds, in_motion = run_virtually(rest)
    assert 0.7 <= seconds < 0.8 and not in_motion


def test_what_the_history_does_not_have_goes_over_with_the_state() -> None:
    record = Record(id=8, at=1.5, type="state", name="web", to="RUNNING", run=1, data={"pid": 7})
    assert persist.decode(persist.encode(persist.with_descriptors(STATE, {}, unwritten=[record]))).unwritten == (record,)
