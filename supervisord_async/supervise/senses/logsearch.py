"""Patterns in what a run prints, found in time that grows with the output alone.

RE2 has no pattern that takes exponential time; lines are cut at :data:`LINE_BYTES`. What is not a line yet is held up
to that bound.
"""

from __future__ import annotations

import anyio

from supervisord_async.config.patterns import compile_pattern

LINE_BYTES = 4096


class LogSearch:
    """Whether a line of one run's output matched; fed by its captures on the loop, asked and awaited by a probe."""

    def __init__(self, pattern: str) -> None:
        self.found = anyio.Event()  #: set by the first line that matches
        self._compiled = compile_pattern(pattern)
        self._begun: dict[str, bytes] = {}

    def feed(self, stream: str, data: bytes) -> None:
        """``data`` was printed on ``stream``."""
        if self.found.is_set():
            return
        *lines, rest = (self._begun.pop(stream, b"") + data).split(b"\n")
        if len(rest) > LINE_BYTES:
            lines.append(rest)
            rest = b""
        for line in lines:
            if self._compiled.search(line[:LINE_BYTES]):
                self.found.set()
                return
        if rest:
            self._begun[stream] = rest
