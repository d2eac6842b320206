"""A program to be edited while it runs: change GREETING, save, and watch it being restarted with the new text."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

GREETING = "hello"


def main() -> None:
    """Say the greeting every $ASUP_EXAMPLE_INTERVAL seconds (5) until TERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"run {os.environ.get('ASUP_RUN', '?')} begins, PID {os.getpid()}", flush=True)
    while True:
        print(GREETING, flush=True)
        time.sleep(float(os.environ.get("ASUP_EXAMPLE_INTERVAL", "5")))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
