"""asup-run on a terminal of its own: what is typed there, and what becomes of it."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisord_async.system import procfs
from tests.cli.asup_running import ASUP_RUN, ROOT, SECONDS, default_signals
from tests.daemons import alive
from tests.waiting import wait_until_sync

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("leaves_no_process")]

COUNT_INTS = """
import os, signal, time
got = []
signal.signal(signal.SIGINT, lambda *_: got.append("x"))
open("pid", "w").write(str(os.getppid()))
print("READY", flush=True)
while not got:
    time.sleep(0.02)
time.sleep(0.3)
open("ints", "w").write("".join(got))
raise SystemExit(7)
"""


class Terminal:
    """An interactive bash on a terminal of its own."""

    def __init__(self, folder: Path) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:  # pragma: no cover  another program from here on
            default_signals()
            os.chdir(folder)
            os.environ.update(PS1="$ ", HISTFILE="", TERM="dumb", PYTHONPATH=str(ROOT), ASUP=" ".join(ASUP_RUN))
            os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
        self.heard = b""

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def expect(self, text: str) -> None:
        """What was not yet expected contains ``text``; it is expected now."""
        until = time.monotonic() + SECONDS
        while text.encode() not in self.heard:
            assert time.monotonic() < until, f"no {text!r} on the terminal, but:\n{self.heard.decode(errors='replace')}"
            if select.select([self.fd], [], [], 0.2)[0]:
                self.heard += os.read(self.fd, 4096)
        self.heard = self.heard.partition(text.encode())[2]

    def expect_all_stopped(self) -> None:
        """All but the shell has stopped. The shell only knows of ``asup-run``; what still reads the terminal takes what is typed next."""

        def all_stopped() -> bool:
            return all(one.state == "T" for one in procfs.snapshot().values() if one.session == self.pid and one.pid != self.pid)

        wait_until_sync(all_stopped, SECONDS, what="all that runs on the terminal has stopped")

    def hang_up(self) -> None:
        os.close(self.fd)
        self.fd = -1

    def close(self) -> None:
        if self.fd >= 0:
            self.type("\x03\x03\nkill -9 %1 2>/dev/null; exit\n")
        os.kill(self.pid, signal.SIGHUP)
        until = time.monotonic() + 20
        while os.waitpid(self.pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > until:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.05)
        if self.fd >= 0:
            os.close(self.fd)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    opened = Terminal(tmp_path)
    yield opened
    opened.close()


def test_ctrl_c_reaches_the_command_once_and_ends_with_130(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "count.py").write_text(COUNT_INTS)
    terminal.type(f"$ASUP {sys.executable} count.py; echo CODE=$?\n")
    terminal.expect("READY")
    terminal.type("\x03")
    terminal.expect("CODE=130")
    assert (tmp_path / "ints").read_text() == "x"


def test_ctrl_z_and_fg_stop_and_continue_the_command(terminal: Terminal) -> None:
    terminal.type("$ASUP cat; echo CODE=$?\n")
    terminal.expect("→ RUNNING")
    terminal.type("hello\n")
    terminal.expect("hello\r\nhello")
    terminal.type("\x1a")
    terminal.expect("Stopped")
    terminal.expect("CODE=148\r\n$ ")  # with its prompt the shell reads what is typed; what comes earlier may be lost on it
    terminal.expect_all_stopped()
    terminal.type("fg; echo CODE=$?\n")
    terminal.expect("fg; echo CODE=$?\r\n")
    terminal.expect("ASUP cat")  # bash names what it continues
    terminal.type("again\n")
    terminal.expect("again\r\nagain")
    terminal.type("\x04")
    terminal.expect("CODE=0")


OWN_TERMINAL = """
import os, pty, signal, sys, termios, tty
child, master = pty.fork()
if not child:
    os.execvp("sh", ["sh", "-c", "echo up; exec sleep 1000"])
os.read(master, 100)
modes = termios.tcgetattr(0)
tty.setraw(0)
print("READY", end="\\r\\n", flush=True)
os.write(master, os.read(0, 1))
_, status = os.waitpid(child, 0)
termios.tcsetattr(0, termios.TCSANOW, modes)
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.kill(os.getpid(), os.WTERMSIG(status))
"""


def test_ctrl_c_ends_a_command_that_gives_its_own_command_a_terminal_as_sudo_does(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "sudo.py").write_text(OWN_TERMINAL)
    terminal.type(f"$ASUP {sys.executable} sudo.py; echo CODE=$?\n")
    terminal.expect("READY")
    terminal.type("\x03")
    terminal.expect("it died of SIGINT, as by a key of the terminal: it is not restarted")
    terminal.expect("CODE=130")


def test_in_the_background_a_command_that_died_of_an_interrupt_is_restarted(terminal: Terminal) -> None:
    """Else whoever tries a restart by ``kill -INT`` would end it."""
    terminal.type("$ASUP --max-restarts 1 --backoff-factor 0.01 sh -c 'trap - INT; kill -INT $$' & wait $!; echo CODE=$?\n")
    terminal.expect("giving up: restart limit of 1")
    terminal.expect("CODE=130")


STOP_ITSELF = """
import os, signal
print("READY", flush=True)
os.kill(os.getpid(), signal.SIGTSTP)
print("ON" + "WARD", flush=True)
print(input() * 2, flush=True)
"""


def stops_until_fg(terminal: Terminal) -> None:
    """What runs :data:`STOP_ITSELF` gives the terminal to the shell, and goes on at fg."""
    terminal.expect("READY")
    terminal.expect("Stopped")
    terminal.expect("CODE=148\r\n$ ")
    terminal.type("fg; echo CODE=$?\n")
    terminal.expect("ONWARD")
    terminal.type("ho\n")
    terminal.expect("hoho")
    terminal.expect("CODE=0")


def test_a_command_that_stops_itself_gives_the_terminal_to_the_shell_until_fg(terminal: Terminal, tmp_path: Path) -> None:
    """As ssh does by ~^Z."""
    (tmp_path / "stop.py").write_text(STOP_ITSELF)
    terminal.type(f"$ASUP {sys.executable} stop.py; echo CODE=$?\n")
    stops_until_fg(terminal)


def test_a_shell_that_is_suspended_gives_the_terminal_back_and_has_it_again_by_fg(terminal: Terminal) -> None:
    terminal.type("$ASUP --log-level error bash --norc --noprofile -i; echo CODE=$?\n")
    terminal.expect("echo CODE=$?\r\n")
    terminal.expect("$ ")
    terminal.type("echo IN''NER; suspend\n")
    terminal.expect("INNER")
    terminal.expect("Stopped")
    terminal.expect("CODE=147\r\n$ ")
    terminal.type("fg; echo CODE=$?\n")
    terminal.expect("ASUP --log-level error bash")
    terminal.type("echo IN''NER AGAIN\n")
    terminal.expect("INNER AGAIN")
    terminal.type("exit\n")
    terminal.expect("CODE=0")


SLOW_TO_KNOW = """
import asyncio
from supervisord_async.cli.asup_run import main
from supervisord_async.system import spawn

watch = spawn.watch_child

async def late(process, *arguments):
    while open(f"/proc/{process.pid}/stat").read().rpartition(")")[2].split()[0] != "T":
        await asyncio.sleep(0.01)
    return await watch(process, *arguments)

spawn.watch_child = late
main()
"""


def test_a_command_that_stops_itself_before_its_pid_is_known_gives_the_terminal_back_too(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "stop.py").write_text(STOP_ITSELF)
    (tmp_path / "slow.py").write_text(SLOW_TO_KNOW)
    terminal.type(f"{sys.executable} slow.py {sys.executable} stop.py; echo CODE=$?\n")
    stops_until_fg(terminal)


def test_a_command_that_somebody_froze_is_supervised_on(terminal: Terminal, tmp_path: Path) -> None:
    terminal.type("$ASUP --timeout 1 --max-restarts 0 sh -c 'echo $$ > pid; exec sleep 300'; echo CODE=$?\n")
    terminal.expect("→ RUNNING")
    wait_until_sync(lambda: (tmp_path / "pid").read_text().endswith("\n"), SECONDS)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGSTOP)
    terminal.expect("no heartbeat for")
    terminal.expect("CODE=1")


def test_signals_of_others_reach_a_command_on_a_terminal(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "count.py").write_text(COUNT_INTS)
    terminal.type(f"$ASUP {sys.executable} count.py; echo CODE=$?\n")
    terminal.expect("READY")
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGINT)
    terminal.expect("CODE=130")
    assert (tmp_path / "ints").read_text() == "x"


def test_a_terminal_that_a_killed_command_left_without_echo_is_repaired(terminal: Terminal) -> None:
    terminal.type("$ASUP --restart-on never sh -c 'stty -echo -icanon; kill -9 $$'; stty -a | grep -o ' -*icanon'; echo DO''NE\n")
    terminal.expect("killed by SIGKILL")
    terminal.expect(" icanon")
    terminal.expect("DONE")


def test_a_terminal_that_hangs_up_ends_both(terminal: Terminal, tmp_path: Path) -> None:
    terminal.type("$ASUP --restart-on always sh -c 'echo $$ $PPID > pids; exec sleep 300'\n")
    terminal.expect("→ RUNNING")
    wait_until_sync(lambda: (tmp_path / "pids").read_text().endswith("\n"), SECONDS)
    pids = [int(word) for word in (tmp_path / "pids").read_text().split()]
    terminal.hang_up()
    wait_until_sync(lambda: not any(map(alive, pids)), SECONDS, what="both are gone")
