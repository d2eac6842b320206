"""Searches a run's output for patterns, in time linear in the output.

RE2 takes linear time for every pattern, and lines are cut at :data:`LINE_BYTES`. The beginning of an incomplete line is kept, up
to that bound.
"""

from __future__ import annotations

import re

import anyio

from supervisord_async.config.patterns import compile_pattern

LINE_BYTES = 4096
#: What nobody sees of a line on a terminal: colours and other control sequences (ECMA-48), and the CR before a pseudo-terminal's LF.
UNSEEN = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]|\r(?=\n)")


class LogSearch:
    """Whether a line of one run's output matched; fed by the captures on the loop, read and awaited by a probe."""

    def __init__(self, pattern: str, *, found: bool = False) -> None:
        self.found = anyio.Event()  #: set by the first line that matches
        self._compiled = compile_pattern(pattern)
        self._begun: dict[str, bytes] = {}
        if found:
            self.found.set()

    def feed(self, stream: str, data: bytes) -> None:
        """``data`` was printed on ``stream``: search the lines that it completes."""
        if self.found.is_set():
            return
        *lines, rest = UNSEEN.sub(b"", self._begun.pop(stream, b"") + data).split(b"\n")
        if len(rest) > LINE_BYTES:
            lines.append(rest)
            rest = b""
        for line in lines:
            if self._compiled.search(line[:LINE_BYTES]):
                self.found.set()
                return
        if rest:
            self._begun[stream] = rest
