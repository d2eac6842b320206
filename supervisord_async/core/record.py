"""One numbered record per change: what the log, the event stream, the history, metrics and pages are functions of."""

from __future__ import annotations

from typing import Any

import msgspec


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Something changed.

    ``type`` is ``state``, ``health``, ``flapping``, ``signal``, ``reload``, ``config_refused``, ``config_warning``,
    ``log_loss``, ``log_recovered``, ``watch``, ``schedule``, ``scale``, ``rolling``, ``rolling_failed``, ``notify``,
    ``supervision``, ``adopted`` or ``daemon``; ``data`` holds what only that type knows.
    """

    id: int  #: rising, also over restarts of the daemon
    at: float  #: wall clock, seconds since 1970; for people, never for decisions
    type: str
    name: str | None = None
    from_: str | None = None
    to: str | None = None
    cause: str | None = None
    run: int | None = None
    message: str = ""  #: the change in one line of words
    data: dict[str, Any] = {}
