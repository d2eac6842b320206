"""A worker whose loop survives every error of its tasks; if it hangs, the supervisor replaces it.

Task 3 of each round fails, which is logged and counted; after $ASUP_EXAMPLE_HANG_AFTER rounds (5) of its first run a
task never returns. No ``try`` catches that: the heartbeat stops, and the supervisor starts another run, which does
not hang. Run it with `asup-run --timeout 3 python3 protected_worker.py`, or with `heartbeat:` in programs.yaml.
"""

from __future__ import annotations

import itertools
import logging
import os
import time

from supervisord_async.app import WorkerLoop

INTERVAL_SECONDS = float(os.environ.get("ASUP_EXAMPLE_INTERVAL", "1"))
HANG_AFTER_ROUNDS = int(os.environ.get("ASUP_EXAMPLE_HANG_AFTER", "5"))
FIRST_RUN = os.environ.get("ASUP_RUN", "1") == "1"

log = logging.getLogger("protected_worker")
rounds = itertools.count(1)


def get_tasks() -> list[tuple[int, int]]:
    """Four tasks each round: the round's number and theirs."""
    number = next(rounds)
    return [(number, task) for task in (1, 2, 3, 4)]


def process_task(numbered: tuple[int, int]) -> None:
    """Work a little; fail, or hang, as the module says."""
    number, task = numbered
    if task == 3:
        raise ValueError("task 3 always fails")
    if task == 4 and FIRST_RUN and number > HANG_AFTER_ROUNDS:
        log.warning("hanging in round %d", number)
        while True:
            time.sleep(60)
    log.info("round %d: task %d done", number, task)


def main() -> None:
    """Work until TERM or Ctrl+C."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # The heartbeat is the one that the supervisor asks for; without a supervisor there is none.
    loop = WorkerLoop(get_tasks, process_task, check_interval=INTERVAL_SECONDS)
    loop.resource("connection", lambda: log.info("connection closed"))
    log.info("run %s begins", os.environ.get("ASUP_RUN", "1"))
    loop.run()
    log.info("ended: %s", loop.statistics)


if __name__ == "__main__":
    main()
