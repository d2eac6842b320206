"""The simplest program with a heartbeat: changes a file every five seconds and says so.

The file is $ASUP_HEARTBEAT_FILE, which the supervisor sets, else heartbeat.txt here. $ASUP_EXAMPLE_INTERVAL
(seconds) replaces the five.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time

HEARTBEAT_FILE = os.environ.get("ASUP_HEARTBEAT_FILE", "heartbeat.txt")
INTERVAL_SECONDS = float(os.environ.get("ASUP_EXAMPLE_INTERVAL", "5"))
log = logging.getLogger("heartbeat_client")


def main() -> None:
    """Beat until somebody ends the process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    while True:
        with open(HEARTBEAT_FILE, "w", encoding="ascii") as file:
            file.write(f"{time.time()}\n")
        log.info("heartbeat sent")
        time.sleep(INTERVAL_SECONDS)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
