"""An application with threads, a queue and state, that continues where it was when its source changes.

A producer thread puts events into a queue, a consumer takes them and counts. Edit STEP and save: the process is
replaced by a clean one, which goes on counting from where the old one was, by the new step; events that waited still wait.

- Alone: `python3 dev_application.py --dev` (restarts itself by ProcessRestarter).
- Under asupd: `watch: {paths: [dev_application.py]}` and no --dev; the daemon restarts it, it saves its state on TERM.

The state is in $ASUP_EXAMPLE_STATE, else data/restart_state.json. $ASUP_EXAMPLE_INTERVAL (1) is the pause between two
events in seconds.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
from dataclasses import asdict, dataclass
from typing import Any

from supervisord_async.app import GracefulShutdownManager, ProcessRestarter, StateSerializer

STEP = 1
INTERVAL_SECONDS = float(os.environ.get("ASUP_EXAMPLE_INTERVAL", "1"))
#: Below it the consumer leaves events in the queue, so that there is something to carry over.
KEPT_EVENTS = 3

log = logging.getLogger("dev_application")
serializer = StateSerializer(os.environ.get("ASUP_EXAMPLE_STATE", "data/restart_state.json"))


@dataclass
class Counters:
    """What the application knows."""

    starts: int = 0
    produced: int = 0
    consumed: int = 0
    total: int = 0


class Application:
    """Two threads with a queue between them."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.events: queue.Queue[int] = queue.Queue()
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.produce), threading.Thread(target=self.consume)]

    def produce(self) -> None:
        """Put the next number into the queue, again and again."""
        while not self.stopping.wait(INTERVAL_SECONDS):
            self.counters.produced += 1
            self.events.put(self.counters.produced)

    def consume(self) -> None:
        """Take numbers out of the queue, all but the last few, each exactly once and in order."""
        while not self.stopping.wait(INTERVAL_SECONDS / 2):
            while self.events.qsize() > KEPT_EVENTS:
                event = self.events.get()
                self.counters.consumed += 1
                self.counters.total += STEP
                print(f"event {event}: consumed {self.counters.consumed}, total {self.counters.total}, step {STEP}", flush=True)

    def start(self) -> None:
        """Both threads run."""
        self.counters.starts += 1
        print(f"start {self.counters.starts}, PID {os.getpid()}, {self.events.qsize()} events waiting", flush=True)
        for thread in self.threads:
            thread.start()

    def join(self) -> None:
        """Both threads have ended."""
        for thread in self.threads:
            thread.join()

    def save(self) -> bool:
        """The state is on the disk; call when the threads have ended."""
        return serializer.save_restart_state(asdict(self.counters), self.events, {"step": STEP})

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a saved state; call before the threads start."""
        self.counters = Counters(**state["self_state"])
        for event in state["event_queue"]:
            self.events.put(event)


def main() -> None:
    """Run until TERM or Ctrl+C; the state is saved then, too."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    application = Application()
    state = serializer.load_restart_state()
    if state is not None:
        application.load(state)
        serializer.cleanup_restart_state()
    shutdown = GracefulShutdownManager(shutdown_timeout=5.0)
    if "--dev" in sys.argv:
        restarter = ProcessRestarter([__file__], restart_delay=0.1, state_serializer=serializer, shutdown_manager=shutdown)
        restarter.set_callbacks(save_state_callback=application.save)
        restarter.start()
    else:
        # Stopped last, since registered first: the state is saved when the threads have ended.
        shutdown.register_component("state", application.save)
    shutdown.register_component("threads", application.stopping.set, application.join, timeout=3.0)
    shutdown.install_signal_handlers()
    application.start()
    application.join()


if __name__ == "__main__":
    main()
