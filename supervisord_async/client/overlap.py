"""Finds the place where a followed log continues after a lost connection: lines that are sent again are recognised and left out."""

from __future__ import annotations

from collections.abc import Sequence


def behind(tail: Sequence[bytes], known: Sequence[bytes]) -> list[bytes]:
    """The lines of ``tail``, the log's last lines now, that follow ``known``, its last lines earlier.

    All of ``tail`` if the two do not overlap. If they fit in several places, the last one is taken, so that equal lines are not repeated.
    """
    if not known:
        return list(tail)
    for end in range(len(tail), 0, -1):
        shared = min(end, len(known))
        if tail[end - 1] == known[-1] and tail[end - shared : end] == known[len(known) - shared :]:
            return list(tail[end:])
    return list(tail)


class Overlap:
    """Filters a stream that begins with lines of ``seen``, the log's tail from a moment ago.

    If n lines have left the tail since then, the stream begins with ``seen[n:]``. Every n that fits the lines received so far
    is kept; the smallest one that fits completely decides. Lines are held back only while several n are possible, so never
    more than ``len(seen)`` of them.
    """

    def __init__(self, seen: Sequence[bytes]) -> None:
        self._seen = tuple(seen)
        self._fitting = list(range(len(seen)))
        self._repeated = 0  # how many of the held lines are known to be repeated
        self._held: list[bytes] = []

    def fresh(self, line: bytes) -> list[bytes]:
        """The lines that are known to be new, now that ``line`` was received."""
        if not self._fitting:
            return [line]
        at = len(self._held)
        self._held.append(line)
        fitting = [start for start in self._fitting if self._seen[start + at] == line]
        whole = [start for start in fitting if start + at + 1 == len(self._seen)]
        if whole:
            self._repeated = at + 1
        self._fitting = [start for start in fitting if start not in whole]
        if self._fitting:
            return []
        fresh, self._held = self._held[self._repeated :], []
        return fresh
