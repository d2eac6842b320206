"""A program with a fault: works for a short random time (2 s at most, or $ASUP_EXAMPLE_INTERVAL), then ends with code 1."""

from __future__ import annotations

import os
import random
import sys
import time


def main() -> int:
    """Fail; returns the exit code."""
    longest = float(os.environ.get("ASUP_EXAMPLE_INTERVAL", "2"))
    seconds = random.uniform(0.1, 1.0) * longest
    print(f"run {os.environ.get('ASUP_RUN', '?')}: working for {seconds:.2f} s", flush=True)
    time.sleep(seconds)
    print("cannot go on: the fault is back", file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
