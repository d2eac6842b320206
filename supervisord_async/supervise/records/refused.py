"""What a hook of ``on_event`` raises that did not take its event."""

from __future__ import annotations


class RefusedError(Exception):
    """A webhook has not taken an event; ``final``: nor will it."""

    def __init__(self, words: str, *, final: bool = False) -> None:
        super().__init__(words)
        self.final = final
