from __future__ import annotations

import os
import signal
import subprocess
import sys

import anyio
import pytest

from supervisord_async.config.units import parse_signal
from supervisord_async.system import signals


def test_every_signal_has_a_name_as_people_write_it() -> None:
    for number in signal.valid_signals():
        assert parse_signal(signals.name(number)) == number
    assert signals.name(9) == "SIGKILL"


@pytest.mark.anyio
@pytest.mark.real
async def test_signals_are_received_in_their_order() -> None:
    async with signals.receive({signal.SIGHUP, signal.SIGUSR1}) as received:
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGHUP):
            os.kill(os.getpid(), number)
            with anyio.fail_after(60):
                assert await anext(received) == number
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


@pytest.mark.real
def test_what_was_blocked_or_ignored_at_the_start_is_not_inherited_by_children() -> None:
    script = """
import subprocess
from supervisord_async.config.units import parse_signal
from supervisord_async.system import signals
signals.reset_inherited()
print(subprocess.run(["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"], capture_output=True, text=True).stdout)
"""

    def spoil() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGHUP])
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)

    run = subprocess.run([sys.executable, "-c", script], preexec_fn=spoil, capture_output=True, text=True, check=True, cwd=os.getcwd())
    assert {int(line.split()[1], 16) for line in run.stdout.splitlines() if line} == {0}
