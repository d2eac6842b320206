"""A command's results, printed and as an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from supervisord_async.cli.output import colours, complain, say, styled
from supervisord_async.client import Result

FAILED, TIMED_OUT = 1, 6


def exit_code(results: Sequence[Result]) -> int:
    """0 if all are ok; 6 if some timed out and none failed otherwise; else 1."""
    bad = [result for result in results if not result.ok]
    if not bad:
        return 0
    return TIMED_OUT if all(result.timed_out for result in bad) else FAILED


def print_results(action: str, results: Sequence[Result]) -> None:
    """Print a line for each name, on standard error unless it is ok; a terminal also gets the sum, and what explains a failure."""
    for result in results:
        words = result.message or result.state or ""
        if result.ok:
            say(f"{result.name}: {words}")
        else:
            complain(f"cannot {action} {result.name}: {words}")
    bad = [result.name for result in results if not result.ok]
    if len(results) > 1 and sys.stdout.isatty():
        done = f"{len(results) - len(bad)} of {len(results)} done"
        sys.stdout.write(styled(done, "red" if bad else "green", on=colours(sys.stdout)) + "\n")
    if bad and sys.stderr.isatty():
        complain(f"`asupctl why {bad[0]}` shows more", begin="")
