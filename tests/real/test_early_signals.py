"""Signals that come before the daemon listens for them."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from supervisord_async.system.stop_signals import ECHO_SECONDS
from tests.daemons import LiveDaemon, alive, unbroken

Make = Callable[..., LiveDaemon]
pytestmark = pytest.mark.real

HASTY = """
import os, signal
from supervisord_async.cli import asupd
configuration = asupd._configuration
def hit(*arguments):
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(os.getpid(), number)
    return configuration(*arguments)
asupd._configuration = hit
asupd.main()
"""


def test_signals_that_come_while_the_daemon_is_loaded_wait_for_it(daemon: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LiveDaemon, "_main", lambda _: ["-c", HASTY])
    live = daemon("programs: {a: {command: [sh, -c, 'grep SigBlk /proc/self/status; exec sleep 1000'], start_seconds: 0}}")
    live.wait_until(lambda: "re-executed" in live.text(), "the re-exec")
    live.wait_until(live.answers, "it answers")
    log = live.folder / ".asupd" / "logs" / "a.log"
    live.wait_until(lambda: log.exists() and log.read_text().endswith("\n"), "the program tells")
    assert log.read_text().split() == ["SigBlk:", "0" * 16]
    unbroken(live)


#: The signal of its first argument tells it to stop when it calls a function, which is named by module and name.
TOLD_TO_STOP = """
import importlib, os, sys
number, module, name = int(sys.argv.pop(1)), importlib.import_module(sys.argv.pop(1)), sys.argv.pop(1)
function = getattr(module, name)
def told(*arguments, **named):
    os.kill(os.getpid(), number)
    return function(*arguments, **named)
setattr(module, name, told)
from supervisord_async.cli import asupd
asupd.main()
"""
READING = ("supervisord_async.config.load", "load")
TAKING_OVER = ("supervisord_async.supervise.recovery.persist", "load")


@pytest.mark.parametrize("place", [READING, TAKING_OVER])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_told_to_stop_before_it_listens_it_stops_what_lives_and_starts_nothing(
    daemon: Make, monkeypatch: pytest.MonkeyPatch, signum: signal.Signals, place: tuple[str, str]
) -> None:
    live = daemon("programs: {a: {command: [sleep, '1000'], start_seconds: 0}}")
    pid = live.wait_for("a", "RUNNING")["pid"]
    live.kill()
    trace = live.folder / "started"
    live.write(f"programs: {{a: {{command: [sleep, '1000'], start_seconds: 0}}, b: {{command: [touch, {trace}]}}}}")
    monkeypatch.setattr(LiveDaemon, "_main", lambda _: ["-c", TOLD_TO_STOP, str(int(signum)), *place])
    live.start(wait=False)
    assert live.process is not None
    assert live.process.wait(60) == 0
    assert not alive(pid) and not trace.exists()
    assert f"stopping everything ({signum.name})" in live.text()


def test_told_to_stop_in_the_last_moment_before_it_listens_it_stops_as_well(daemon: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stopped it as soon as it was re-executed, or started, waited in vain."""
    place = ("supervisord_async.supervise.supervisor", "MemoryWatch")  # made when programs are about to be started
    monkeypatch.setattr(LiveDaemon, "_main", lambda _: ["-c", TOLD_TO_STOP, str(int(signal.SIGTERM)), *place])
    live = daemon("programs: {a: {command: [sleep, '1000'], start_seconds: 0}}", start=False).start(wait=False)
    assert live.process is not None
    assert live.process.wait(60) == 0
    assert live.text().count("stopping everything (SIGTERM)") == 1
    assert live.tagged() == []


AGAIN = f"""
import os, signal, time
from supervisord_async.config import load
from supervisord_async.cli import asupd
def hangs(*_, **__):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep({2 * ECHO_SECONDS})
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1000)
load.load = hangs
asupd.main()
"""


def test_interrupted_again_it_waits_no_longer_for_a_file_that_does_not_come(daemon: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LiveDaemon, "_main", lambda _: ["-c", AGAIN])
    live = daemon("programs: {}", start=False).start(wait=False)
    assert live.process is not None
    assert live.process.wait(60) == -signal.SIGINT
    assert live.text() == ""
