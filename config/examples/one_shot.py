"""A job that is done once: prepares something, says so, and ends with code 0."""

from __future__ import annotations

import os
import time


def main() -> None:
    """Take $ASUP_EXAMPLE_INTERVAL seconds (1) for the work."""
    print("preparing …", flush=True)
    time.sleep(float(os.environ.get("ASUP_EXAMPLE_INTERVAL", "1")))
    print("prepared", flush=True)


if __name__ == "__main__":
    main()
