"""Raised where a hook of ``on_event`` did not take its event."""

from __future__ import annotations


class RefusedError(Exception):
    """The hook has not taken the event; ``final``: another attempt would be in vain."""

    def __init__(self, words: str, *, final: bool = False) -> None:
        super().__init__(words)
        self.final = final
