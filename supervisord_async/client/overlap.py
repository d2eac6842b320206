"""Where a log goes on after a lost connection: lines that come again are recognised and left out."""

from __future__ import annotations

from collections.abc import Sequence


def behind(tail: Sequence[bytes], known: Sequence[bytes]) -> list[bytes]:
    """The lines of ``tail``, the log's last ones now, that came behind ``known``, which were its last ones before.

    All of them where the two do not meet. Of several places the last is taken: lines that look alike are not repeated.
    """
    if not known:
        return list(tail)
    for end in range(len(tail), 0, -1):
        shared = min(end, len(known))
        if tail[end - 1] == known[-1] and tail[end - shared : end] == known[len(known) - shared :]:
            return list(tail[end:])
    return list(tail)


class Overlap:
    """Filters a stream that begins inside ``seen``: what was the log's tail a moment ago is its beginning, or more.

    If n lines have left the tail meanwhile, the stream begins with ``seen[n:]``. Every n that still fits what came so far
    is kept; the smallest that fits wholly decides. Lines are held back only while more than one answer is possible,
    so never more than ``len(seen)`` of them.
    """

    def __init__(self, seen: Sequence[bytes]) -> None:
        self._seen = tuple(seen)
        self._fitting = list(range(len(seen)))
        self._repeated = 0  # how many of the held lines are known to be old ones
        self._held: list[bytes] = []

    def fresh(self, line: bytes) -> list[bytes]:
        """The lines that are new, now that ``line`` has come."""
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
