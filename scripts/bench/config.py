"""How long a file of 1,000 programs takes to load, sound and unsound, and to compare: prints seconds, asserts nothing."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from supervisord_async.config.diff import diff
from supervisord_async.config.load import load
from supervisord_async.errors import ConfigError

PROGRAM = """  p{number}:
    command: [sleep, "{number}"]
    directory: /tmp
    environment: {{PORT: "{number}", HOME_OF: "${{HOME}}"}}
    heartbeat: {{timeout: 20s}}
    restart: {{backoff: {{initial: 1s, max: 30s}}}}
    logs: {{max_size: {size}}}
"""


def text(count: int, size: str = "10MiB") -> str:
    """A file of ``count`` programs."""
    return "version: 1\ndefaults:\n  restart: {policy: always, max_restarts: 5, within: 10m}\nprograms:\n" + "".join(
        PROGRAM.format(number=number, size=size) for number in range(count)
    )


def median(work: Callable[[], object], rounds: int = 5) -> float:
    """The median of the seconds that ``work`` takes."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def refused(path: Path) -> int:
    """How many problems ``path`` has."""
    try:
        load(path)
    except ConfigError as error:
        return len(error.problems)
    return 0


def main() -> None:
    """Print the figures."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as folder:
        sound, unsound = Path(folder, "sound.yaml"), Path(folder, "unsound.yaml")
        sound.write_text(text(count))
        unsound.write_text(text(count, size="much"))
        print(f"load {count} programs: {median(lambda: load(sound)):.3f} s")
        print(f"refuse {count} programs, {refused(unsound)} problems: {median(lambda: refused(unsound), 3):.3f} s")
        one, two = load(sound).configuration, load(sound).configuration
        print(f"compare {count} programs: {median(lambda: diff(one, two)):.4f} s")


if __name__ == "__main__":
    main()
