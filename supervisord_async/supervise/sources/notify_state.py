"""What one run has said of itself by sd_notify, as :mod:`.notify` received it."""

from __future__ import annotations

import os

import msgspec

from supervisord_async.system.wait_condition import WaitCondition


class NotifyState(msgspec.Struct):
    """What one run has said of itself."""

    status: str = ""  #: the last STATUS, safe to print on a terminal
    reloading: bool = False
    stopping: bool = False
    errno: int | None = None
    exit_status: int | None = None
    ready: bool = False
    beats: int = 0  #: how many WATCHDOG=1
    triggered: bool = False  #: it has sent WATCHDOG=trigger
    heard: WaitCondition = msgspec.field(default_factory=WaitCondition)  #: notified of a trigger, and of a new ``watchdog_seconds``
    watchdog_seconds: float | None = None  #: WATCHDOG_USEC: the timeout that the program wants instead of the configured one
    extended_until: float = 0.0
    published: int = 0  #: records about it
    ignored: bool = False  #: whether a message was ignored, which is published once

    @property
    def text(self) -> str:
        """The run's own account of its state; "" if it has sent none."""
        state = "stopping" if self.stopping else "reloading" if self.reloading else ""
        return f"{state}: {self.status}" if state and self.status else state or self.status

    @property
    def failure_text(self) -> str:
        """Why it failed, by its own account; "" if it has sent none."""
        said = []
        if self.errno:
            said.append(f"it said: {os.strerror(self.errno)} (errno {self.errno})")
        if self.exit_status is not None:
            said.append(f"it said: exit status {self.exit_status}")
        return "; ".join(said)
