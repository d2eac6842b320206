"""Patterns in what a run prints, found in time that grows with the output alone.

RE2 has no pattern that takes exponential time; lines are cut at :data:`LINE_BYTES`. What is not a line yet is held up
to that bound.
"""

from __future__ import annotations

from typing import Any

LINE_BYTES = 4096


def compile_pattern(pattern: str) -> Any:
    """``pattern`` as RE2 knows it; raises ValueError, in words, where it is none."""
    import re2  # type: ignore[import-untyped]

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern.encode(), options)
    except re2.error as error:
        words = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
        raise ValueError(words) from error


class LogSearch:
    """Whether a line of one run's output matched; fed by its captures, asked by a probe."""

    def __init__(self, pattern: str) -> None:
        self.matched = False
        self._compiled = compile_pattern(pattern)
        self._begun: dict[str, bytes] = {}

    def feed(self, stream: str, data: bytes) -> None:
        """``data`` was printed on ``stream``."""
        if self.matched:
            return
        *lines, rest = (self._begun.pop(stream, b"") + data).split(b"\n")
        if len(rest) > LINE_BYTES:
            lines.append(rest)
            rest = b""
        for line in lines:
            if self._compiled.search(line[:LINE_BYTES]):
                self.matched = True
                return
        if rest:
            self._begun[stream] = rest
