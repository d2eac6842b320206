"""A program that behaves, or misbehaves, in a way that you choose: `scenario_client.py SCENARIO [SECONDS]`.

normal          beats at random pauses for SECONDS (30), then ends with code 0
crash_periodic  the same, but each beat may be followed by an exit with code 1 (one in five)
hang            beats twice, then runs on without a beat
hang_sometimes  beats for SECONDS (30) in its first run, one to three times as long in later ones, then hangs
sigterm_test    beats until TERM, which it answers with a clean end (code 0)
long_request    beats, works for SECONDS (30) without a beat, beats again and ends with code 0

The heartbeat file is $ASUP_HEARTBEAT_FILE, else heartbeat.txt here; one that an earlier run left is removed.
$ASUP_EXAMPLE_INTERVAL (5) is the usual pause between two beats in seconds, $ASUP_EXAMPLE_SEED makes chance repeatable.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

HEARTBEAT_FILE = os.environ.get("ASUP_HEARTBEAT_FILE", "heartbeat.txt")
INTERVAL_SECONDS = float(os.environ.get("ASUP_EXAMPLE_INTERVAL", "5"))
CRASH_PROBABILITY = 0.2

log = logging.getLogger("scenario_client")
chance = random.Random(os.environ.get("ASUP_EXAMPLE_SEED"))


def beat() -> None:
    """The heartbeat file has changed."""
    with open(HEARTBEAT_FILE, "w", encoding="ascii") as file:
        file.write(f"{time.time()}\n")
    log.info("heartbeat sent")


def pause() -> None:
    """Between 60 % and 140 % of the interval have passed."""
    time.sleep(INTERVAL_SECONDS * chance.uniform(0.6, 1.4))


def normal(seconds: float) -> int:
    """Beat for a while, then end well."""
    log.info("normal: beating for %g s", seconds)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        beat()
        pause()
    log.info("normal: done")
    return 0


def crash_periodic(seconds: float) -> int:
    """Beat for a while, and crash now and then."""
    log.info("crash_periodic: beating for %g s, if nothing happens", seconds)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        beat()
        pause()
        if chance.random() < CRASH_PROBABILITY:
            log.error("crash_periodic: crashing")
            return 1
    log.info("crash_periodic: done without a crash")
    return 0


def hang(_seconds: float) -> int:
    """Beat twice, then hang."""
    for _ in range(2):
        beat()
        time.sleep(INTERVAL_SECONDS)
    never_beat_again()


def hang_sometimes(seconds: float) -> int:
    """Beat for a while, then hang; a supervisor's first run is the shortest."""
    until = time.monotonic() + seconds * (1 if os.environ.get("ASUP_RUN") == "1" else chance.uniform(1, 3))
    while time.monotonic() < until:
        beat()
        time.sleep(INTERVAL_SECONDS)
    never_beat_again()


def never_beat_again() -> NoReturn:
    """Run on without a beat."""
    log.warning("hang: no more heartbeats from here; the supervisor should notice")
    while True:
        time.sleep(1)


def sigterm_test(_seconds: float) -> int:
    """Beat until TERM."""
    log.info("sigterm_test: waiting for TERM")
    while True:
        beat()
        time.sleep(INTERVAL_SECONDS)


def long_request(seconds: float) -> int:
    """Work for long without a beat."""
    beat()
    log.info("long_request: working for %g s without a heartbeat", seconds)
    time.sleep(seconds)
    beat()
    log.info("long_request: done")
    return 0


SCENARIOS: dict[str, Callable[[float], int]] = {
    scenario.__name__: scenario for scenario in (normal, crash_periodic, hang, hang_sometimes, sigterm_test, long_request)
}


def end(signum: int, _frame: object) -> None:
    """Answer TERM with a clean end."""
    log.info("received %s, ending", signal.Signals(signum).name)
    sys.exit(0)


def main(arguments: list[str]) -> int:
    """Play the scenario; returns the exit code, 2 for a wrong command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    signal.signal(signal.SIGTERM, end)
    name = arguments[0] if arguments else "normal"
    try:
        scenario, seconds = SCENARIOS[name], float(arguments[1]) if len(arguments) > 1 else 30.0
    except (KeyError, ValueError):
        print(f"usage: scenario_client.py [{'|'.join(SCENARIOS)}] [SECONDS]", file=sys.stderr)
        return 2
    with contextlib.suppress(FileNotFoundError):
        os.remove(HEARTBEAT_FILE)
    return scenario(seconds)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
