"""The error of a hook of ``on_event`` that did not accept its event."""

from __future__ import annotations


class RefusedError(Exception):
    """The hook did not accept the event; ``final``: another attempt would be pointless."""

    def __init__(self, words: str, *, final: bool = False) -> None:
        super().__init__(words)
        self.final = final
