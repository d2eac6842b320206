"""Prints the programs' output for ``asupd --echo``: each line with its process's name before it.

On a terminal names are coloured (except with ``NO_COLOR`` or on a dumb one); then the output keeps its own colours, which are
removed otherwise. Its other control characters are shown, not passed to the terminal. Elsewhere lines are printed unchanged. What
the terminal does not accept in time is dropped and counted.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable

from supervisord_async.logs.formats import whole_lines
from supervisord_async.logs.writer_thread import WriterThread

#: Names are padded to the length of the longest, up to this.
NAME_COLUMNS = 24

_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
_COLOUR = r"(\x1b\[[0-9;:]*m)"
_RESET = "\x1b[0m"
_SHOWN = {code: f"^{chr(code ^ 64)}" for code in (*range(32), 127) if code != 9} | {code: f"\\x{code:02x}" for code in range(128, 160)}


class Echo:
    """Is called with a process's name, a stream and the output there."""

    def __init__(self, fd: int = 1, *, names: Iterable[str] = (), terminal: bool | None = None, colour: bool | None = None) -> None:
        """Write to ``fd``, which the caller still owns; ``names`` gives the initial width. ``terminal`` and ``colour`` None: find out."""
        self._terminal = os.isatty(fd) if terminal is None else terminal
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self._colour = self._terminal and not plain if colour is None else colour
        self._begun: dict[tuple[str, str], bytes] = {}
        self._columns = min(max(map(len, names), default=0), NAME_COLUMNS)
        self._writer = WriterThread(fd=fd, lost=lambda count: f"asupd: {count} pieces of output were not shown\n".encode())

    def __call__(self, name: str, stream: str, data: bytes) -> None:
        """Print the lines that are complete with ``data``, long ones in parts, as logs have them; never waits, never fails."""
        key = (name, stream)
        data = self._begun.pop(key, b"") + data
        end = whole_lines(data)
        if rest := data[end:]:
            self._begun[key] = rest
        if end:
            self._writer.put(self._render(name, data[:end].removesuffix(b"\n")))

    def forget(self, name: str) -> None:
        """Print the incomplete lines of ``name``, which prints nothing more."""
        for stream in ("stdout", "stderr"):
            if rest := self._begun.pop((name, stream), b""):
                self._writer.put(self._render(name, rest))

    def close(self, timeout_seconds: float = 1.0) -> None:
        """Print what is left, also incomplete lines, if that takes no longer than ``timeout_seconds``."""
        for name, _ in list(self._begun):
            self.forget(name)
        self._writer.close(timeout_seconds)

    def _render(self, name: str, lines: bytes) -> bytes:
        self._columns = min(max(self._columns, len(name)), NAME_COLUMNS)
        prefix = f"{self._printable(name):<{self._columns}} | "
        if self._colour:
            prefix = f"\x1b[{_COLOURS[zlib.crc32(name.encode()) % len(_COLOURS)]}m{prefix}{_RESET}"
        before = prefix.encode(errors="backslashreplace")
        if self._terminal:
            lines = b"\n".join(self._shown(line) for line in lines.split(b"\n"))
        return before + lines.replace(b"\n", b"\n" + before) + b"\n"

    def _shown(self, line: bytes) -> bytes:
        text = line.removesuffix(b"\r").decode("utf-8", "replace")
        if "\x1b" not in text:
            return self._printable(text).encode()
        parts = re.split(_COLOUR, text)  # every second one is a colour
        words = [(part if self._colour else "") if index % 2 else self._printable(part) for index, part in enumerate(parts)]
        return ("".join(words) + (_RESET if self._colour and len(parts) > 1 else "")).encode()

    @staticmethod
    def _printable(text: str) -> str:
        return text.translate(_SHOWN)
