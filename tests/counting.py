"""Programs that show whether a daemon in need goes on: one that counts, and one that is killed; and what it may say of its need."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.daemons import LiveDaemon, unbroken

COUNTER = "import itertools,time\nfor n in itertools.count():\n  print(n, flush=True)\n  time.sleep(0.002)"
COUNTER_COMMAND = f"[{sys.executable}, -c, {json.dumps(COUNTER)}]"
QUICK = "start_seconds: 0, restart: {backoff: {initial: 100ms, max: 1s}, reset_after: 1m}"  # or a slow look finds the counter back at 0
PROGRAMS = f"""
programs:
  counter: {{command: {COUNTER_COMMAND}, start_seconds: 0}}
  victim: {{command: [sleep, "1000"], {QUICK}}}
"""


def up(live: LiveDaemon, *names: str) -> dict[str, int]:
    """These programs run, and the counter's log is open; their PIDs."""
    pids = {name: live.wait_for(name, "RUNNING")["pid"] for name in names}
    if "counter" in names:
        live.wait_until(lambda: counter_log(live).stat().st_size > 0, "the counter's output arrives")
    return pids


def counter_log(live: LiveDaemon) -> Path:
    return live.folder / ".asupd" / "logs" / "counter.log"


def counted(live: LiveDaemon) -> list[int]:
    """The numbers in the counter's log."""
    return [int(line) for line in counter_log(live).read_bytes().split(b"\n")[:-1]]


def goes_on(live: LiveDaemon, lines: int = 100) -> None:
    """The counter's output still arrives."""
    size = counter_log(live).stat().st_size
    live.wait_until(lambda: counter_log(live).stat().st_size > size + 5 * lines, "the counter's output arrives")


def said(live: LiveDaemon, words: str, *, at_least: int = 1, at_most: int) -> None:
    """The daemon told of it, but not a thousand times; and nothing of ours broke."""
    count = live.text().count(words)
    assert at_least <= count <= at_most, f"{words!r} was said {count} times:\n{live.text()[-6000:]}"
    unbroken(live)
